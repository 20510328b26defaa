"""The notebooks run from top to bottom, without the competition's files and with them, and are committed with pictures."""

import shutil
import subprocess
from itertools import pairwise

import nbformat
import pandas as pd
import pytest
from conftest import ROOT
from notebook_runner import run

from utils.notebook import display

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_a_made_up_person_meets_a_made_up_machine_when_there_is_neither(tmp_path):
    text, pictures = run(ROOT / "notebooks/human_vs_machine.ipynb", tmp_path / "kit")
    assert pictures == 2 and "MADE-UP person" in text and "McNemar's test on the 120 images" in text
    assert not (tmp_path / "kit/human.csv").exists()


def test_your_labels_and_your_network_are_compared(tmp_path, atlas, predictions, thresholds):
    kit = tmp_path / "kit"
    (kit / "runs/demo").mkdir(parents=True)
    (kit / "input").mkdir()
    shutil.copytree(atlas, kit / "input/demo")
    shutil.copy(predictions, kit / "runs/demo/test.csv")
    shutil.copy(thresholds, kit / "runs/demo/thresholds.json")
    table = pd.read_csv(atlas / "solution.csv", dtype=str).head(5)
    table.to_csv(kit / "human.csv", index=False)
    text, pictures = run(ROOT / "notebooks/human_vs_machine.ipynb", kit)
    assert pictures == 2 and "MADE-UP" not in text and "made-up" not in text
    assert "person, 5" in text and "machine, 16" in text


def test_compare_trains_two_tiny_networks_when_there_are_none(tmp_path):
    text, pictures = run(ROOT / "notebooks/compare.ipynb", tmp_path / "kit")
    assert pictures == 3 and "2 runs, 2 methods, 30 validation images" in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_are_committed_as_they_ran_and_small(path):
    cells = nbformat.read(path, as_version=4).cells
    ran = [cell for cell in cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in ran] == list(range(1, len(ran) + 1))
    assert not [output for cell in ran for output in cell.outputs if output.output_type == "error"]
    assert any(figures(cell) for cell in ran)
    for cell in ran:  # what was printed stands together, not a box a line
        kinds = [(output.output_type, output.get("name")) for output in cell.outputs if output.output_type == "stream"]
        assert len(kinds) == len(set(kinds)), cell.source
    assert path.stat().st_size < 1.5e6
    text = path.read_text()
    assert not [
        place for place in (str(ROOT), "/tmp/", "/root/", "/home/") if place in text
    ]  # of the machine it ran on


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_sentence_stands_before_each_figure(path):
    cells = nbformat.read(path, as_version=4).cells
    for before, cell in pairwise(cells):
        if figures(cell):
            assert figures(cell) == 1, cell.source
            assert before.cell_type == "markdown" and before.source.rstrip().endswith((".", "?")), cell.source


def test_all_notebooks_start_alike():
    first = [
        next(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
        for path in NOTEBOOKS
    ]
    assert [path.stem for path in NOTEBOOKS] == [
        "compare",
        "explore",
        "human_vs_machine",
        "inspect_run",
        "kaggle_kernel",
    ]
    starts = {
        source.partition("sys.path.insert")[0] for path, source in zip(NOTEBOOKS, first) if path.stem != "kaggle_kernel"
    }
    assert len(starts) == 1


def figures(cell):
    kinds = ("image/jpeg", "image/png", "image/svg+xml")
    return sum(any(kind in output.get("data", {}) for kind in kinds) for output in cell.get("outputs", []))


def test_a_command_that_fails_ends_a_notebook(tmp_path, capsys):
    (tmp_path / "well.py").write_text("print('one'); print('two')")
    (tmp_path / "badly.py").write_text("import sys; print('said', flush=True); sys.exit('why')")
    display.run(tmp_path / "well.py", "a word")
    assert capsys.readouterr().out.splitlines() == [f'$ python {tmp_path / "well.py"} "a word"', "one", "two"]
    with pytest.raises(subprocess.CalledProcessError):
        display.run(tmp_path / "badly.py")
    assert capsys.readouterr().out.splitlines()[1:] == ["said", "why"]
