"""What the notebooks share: a figure of the kit shown in its place, a command run in view."""

import subprocess
import sys
import tempfile
from pathlib import Path

from IPython.display import Image, display


def show(draw, *arguments, **options):
    """Show what one of the functions of `utils.plots` draws: it is called with `path`, and its file shown as a JPEG."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "figure.jpg")
        draw(*arguments, path=path, **options)
        display(Image(path.read_bytes(), format="jpeg"))


def show_file(path):
    """Show a picture that a script has drawn."""
    path = Path(path)
    display(Image(path.read_bytes(), format="jpeg" if path.suffix in (".jpg", ".jpeg") else "png"))


def run(*words):
    """Run a script or a module of the kit and show what it prints: run("train.py", "--fold", 0), run("-m", "utils.score", …).

    Raises CalledProcessError where it fails, so that a notebook does not go on with what is not there.
    """
    words = [str(word) for word in words]
    print("$ python", *(f'"{word}"' if " " in word else word for word in words), flush=True)
    process = subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
    )
    with process:
        for line in process.stdout:
            print(line, end="", flush=True)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)
