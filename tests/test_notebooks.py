"""The notebooks run from top to bottom, without the competition's files and with them, and are committed with pictures."""

import shutil

import nbclient
import nbformat
import pandas as pd
import pytest
from conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def run(notebook, place):
    """Execute a copy of the notebook in a place where the kit seems to lie: its text output."""
    (place / "notebooks").mkdir(parents=True, exist_ok=True)
    for name in ("train.py", "make_folds.py", "utils"):
        (place / name).symlink_to(ROOT / name)
    cells = nbformat.read(notebook, as_version=4)
    done = nbclient.NotebookClient(
        cells, timeout=300, resources={"metadata": {"path": str(place / "notebooks")}}
    ).execute()
    outputs = [output for cell in done.cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs), sum(
        "image/jpeg" in o.get("data", {}) for o in outputs
    )


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
def test_notebooks_are_committed_with_their_pictures_and_small(path):
    notebook = nbformat.read(path, as_version=4)
    ran = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in ran)
    assert any("image/jpeg" in output.get("data", {}) for cell in ran for output in cell.outputs)
    assert path.stat().st_size < 1.5e6
