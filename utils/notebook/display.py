"""What the notebooks share: a figure of the kit shown in its place, a command run in view."""

import io
import subprocess
import sys
import tempfile
from pathlib import Path

import PIL.Image
from IPython.display import Image, display

WIDEST = 1000  # pixels of a figure: what a code host shows, and a notebook stays small


def show(draw, *arguments, **options):
    """Show what one of the functions of `utils.plots` draws: it is called with `path`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "figure.png")
        draw(*arguments, path=path, **options)
        show_file(path)


def show_file(path):
    """Show a picture that a script has drawn, as a small JPEG."""
    with PIL.Image.open(path) as file:
        picture = file.convert("RGB")
    if picture.width > WIDEST:
        picture = picture.resize((WIDEST, round(picture.height * WIDEST / picture.width)), PIL.Image.Resampling.LANCZOS)
    data = io.BytesIO()
    picture.save(data, "jpeg", quality=65, optimize=True, progressive=True)
    display(Image(data.getvalue(), format="jpeg"))


def run(*words):
    """Run a script or a module of the kit and show what it prints: run("train.py", "--fold", 0), run("-m", "utils.tools.score", …).

    Raises CalledProcessError where it fails, so that a notebook does not go on with what is not there.
    """
    words = [str(word) for word in words]
    print("$ python", *(f'"{word}"' if " " in word else word for word in words), flush=True)
    process = subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace", bufsize=1
    )
    with process:
        for line in process.stdout:
            print(line, end="", flush=True)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)
