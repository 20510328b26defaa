"""Show the kit's figures in a notebook, and run its commands there."""

import io
import subprocess
import sys
import tempfile
from pathlib import Path

import PIL.Image
from IPython.display import Image, display

MAX_WIDTH = 1000  # pixels of a figure, for small notebooks


def show(draw, *arguments, **options):
    """Call `draw`, a function of `utils.plots`, with a temporary `path`, and show the figure."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "figure.png")
        draw(*arguments, path=path, **options)
        show_file(path)


def show_file(path):
    """Show an image file as a small JPEG."""
    with PIL.Image.open(path) as file:
        image = file.convert("RGB")
    image.thumbnail((MAX_WIDTH, 100 * MAX_WIDTH), PIL.Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, "jpeg", quality=65, optimize=True, progressive=True)
    display(Image(data.getvalue(), format="jpeg"))


def run(*words, check=True):
    """Run a script or a module of the kit and show its output: run("train.py", "--fold", 0), run("-m",
    "utils.tools.score", …). Raises CalledProcessError if it fails, unless `check` is False."""
    words = [str(word) for word in words]
    print("$ python", *(f'"{word}"' if " " in word else word for word in words), flush=True)
    options = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace", bufsize=1)
    with subprocess.Popen([sys.executable, *words], **options) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
    if check and process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)
