"""Execution of a notebook beside a copy of the kit: by Jupyter, or in this process, which has imported everything already."""

import importlib.util
import io
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbclient
import nbformat
import pytest
from conftest import ROOT, kit
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

from utils.notebook import display

NO_HISTORY = Config({"HistoryManager": {"enabled": False}})
IMAGES = {"image/jpeg", "image/png", "image/svg+xml"}


def set_up(place):
    """-> the folder for notebooks of a place that looks like the kit."""
    (place / "notebooks").mkdir(parents=True, exist_ok=True)
    for link in ("train.py", "make_folds.py", "predict.py", "threshold.py", "ensemble.py", "utils"):
        (place / link).symlink_to(ROOT / link)
    return place / "notebooks"


def execute_by_jupyter(name, place):
    """Run a copy of a notebook: -> its text output, and its number of figures."""
    notebook = nbformat.read(ROOT / f"notebooks/{name}.ipynb", as_version=4)
    resources = {"metadata": {"path": str(set_up(place))}}
    cells = nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute().cells
    text = "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))
    return text, sum(map(count_figures, cells))


def count_figures(cell):
    return sum(bool(IMAGES & set(output.get("data", {}))) for output in cell.get("outputs", []))


def execute(name, place, **settings):
    """The same in this process: its commands are calls of the scripts' main. settings: of a notebook, ``FOLDER = …``."""
    cells = nbformat.read(ROOT / f"notebooks/{name}.ipynb", as_version=4).cells
    sources = [cell.source for cell in cells if cell.cell_type == "code"]
    for name, value in settings.items():
        sources = [re.sub(rf"^{name} = .*", f"{name} = {value!r}", source, flags=re.MULTILINE) for source in sources]
    text, figures, error = run_cells(sources, set_up(place))
    if error:
        raise error
    return text, figures


def run_cells(sources, folder):
    """Run cells one after another, to the first that fails: -> their text output, number of figures, and the error or None."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("IPYTHONDIR", str(folder / ".ipython"))
        patch.setattr(sys, "path", [*sys.path])
        patch.setitem(sys.modules, "__main__", sys.modules["__main__"])  # the shell puts its own there
        names = {name: getattr(subprocess, name) for name in ("PIPE", "STDOUT", "CalledProcessError")}
        patch.setattr(display, "subprocess", SimpleNamespace(Popen=Called, **names))
        shell, text, figures = InteractiveShell.instance(config=NO_HISTORY), "", 0
        try:
            for source in sources:
                with capture_output() as shown:
                    result = shell.run_cell(source)
                text += shown.stdout + shown.stderr
                figures += sum(bool(IMAGES & set(output.data)) for output in shown.outputs)
                if error := result.error_before_exec or result.error_in_exec:
                    return text, figures, error
        finally:
            InteractiveShell.clear_instance()
    return text, figures, None


class Called:
    """A script or module of the kit called in this process, in place of `subprocess.Popen`."""

    def __init__(self, words, **_):
        _, *words = words  # Python
        script, *words = words[1:] if words[0] == "-m" else (Path(words[0]).stem, *words[1:])
        package = importlib.util.find_spec(script).submodule_search_locations
        result = kit(f"{script}.__main__" if package else script, *words)
        self.stdout, self.returncode = io.StringIO(result.out + result.err), result.code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass
