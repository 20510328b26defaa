"""The notebooks run from top to bottom, without the competition's files and with them, and are committed with figures."""

import shutil
import subprocess
from dataclasses import replace
from functools import partial
from itertools import pairwise

import nbformat
import pandas as pd
import pytest
from conftest import ROOT, succeed
from example_labels import lay_out
from notebook_runner import count_figures, execute, execute_by_jupyter

from utils.notebook import available_data, display

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_a_made_up_person_meets_a_made_up_machine_without_real_ones(tmp_path):
    text, shown = execute_by_jupyter("human_vs_machine", tmp_path / "kit")
    assert shown == 2 and "MADE-UP person" in text and "McNemar's test on the 120 images" in text
    assert not (tmp_path / "kit/human.csv").exists()


def test_your_labels_and_your_network_are_compared(tmp_path, atlas, predictions, thresholds):
    kit = tmp_path / "kit"
    (kit / "runs/demo").mkdir(parents=True)
    (kit / "input").mkdir()
    shutil.copytree(atlas, kit / "input/demo")
    shutil.copy(predictions, kit / "runs/demo/test.csv")
    shutil.copy(thresholds, kit / "runs/demo/thresholds.json")
    pd.read_csv(atlas / "solution.csv", dtype=str).head(5).to_csv(kit / "human.csv", index=False)
    text, shown = execute("human_vs_machine", kit)
    assert shown == 2 and "MADE-UP" not in text and "made-up" not in text
    assert "person, 5" in text and "machine, 16" in text


def test_compare_trains_two_tiny_networks_without_runs(tmp_path):
    text, shown = execute("compare", tmp_path / "kit")
    assert shown == 3 and "2 runs, 2 methods, 30 validation images" in text


def test_inspect_run_trains_a_tiny_network_without_one(tmp_path):
    text, shown = execute("inspect_run", tmp_path / "kit")
    assert "$ python train.py" in text and "$ python threshold.py runs/inspect" in text
    assert shown == 13 and "10% blanked, logit falls by" in text


def test_inspect_run_shows_a_run_of_yours(run, thresholds, tmp_path):
    shutil.copytree(run, tmp_path / "kit/runs/demo")
    shutil.copy(thresholds, tmp_path / "kit/runs/demo/thresholds.json")
    text, shown = execute("inspect_run", tmp_path / "kit")
    assert "$ python" not in text and shown == 13
    assert "32 validation images" in text and "2 folds" in text


def test_my_images_names_a_simulated_plate_by_a_tiny_network(tmp_path):
    text, shown = execute("my_images", tmp_path / "kit")
    assert shown == 4 and "--stains DAPI=blue FITC=green TRITC=red Cy5=yellow" in text.partition("24 Ids with")[0]
    table = pd.read_csv(tmp_path / "kit/input/my_images/all.csv").groupby("Id")["unlike_training"].first()
    assert set(table.nlargest(2).index) == {"empty", "out_of_focus"} and table.nlargest(2).min() > 1


def test_my_images_names_your_images_that_lack_yellow_by_your_run(tmp_path, atlas, run, thresholds):
    shutil.copytree(run, tmp_path / "kit/runs/demo")
    shutil.copy(thresholds, tmp_path / "kit/runs/demo/thresholds.json")
    shutil.copytree(atlas / "test", tmp_path / "mine", ignore=shutil.ignore_patterns("*_yellow.png"))
    text, shown = execute("my_images", tmp_path / "kit", FOLDER=str(tmp_path / "mine"), STAINS=[])
    assert shown == 4 and "16 Ids with red, green, blue ->" in text and "train.py" not in text
    assert text.count("--without yellow --names") == 1 and "other locations" not in text
    names = pd.read_csv(tmp_path / "kit/input/my_images/cells.csv")
    assert names["Id"].nunique() == 17 and set(names["without"]) == {"yellow"}


def test_cells_asks_a_question_of_simulated_cells_by_a_tiny_network(tmp_path):
    text, shown = execute("cells", tmp_path / "kit", FIELDS=1, SIZE=96)
    assert shown == 4 and "6 images: protein1_field1" in text and "found of cells in mitosis" in text
    assert text.count("--format 2021") == 2 and text.count("\nmean of ") == 2
    table = pd.read_csv(tmp_path / "kit/input/cells/cells_true.csv")
    truth = pd.read_csv(tmp_path / "kit/input/cells/fields/cells_truth.csv")
    columns = ["Id", "cell", "area", "edge"]
    assert (
        table[columns]
        .sort_values(columns, ignore_index=True)
        .equals(truth[columns].sort_values(columns, ignore_index=True))
    )


def test_cells_of_your_images_are_compared_by_size_alone(tmp_path, atlas, run, thresholds):
    shutil.copytree(run, tmp_path / "kit/runs/demo")
    shutil.copy(thresholds, tmp_path / "kit/runs/demo/thresholds.json")
    shutil.copytree(atlas / "test", tmp_path / "mine", ignore=shutil.ignore_patterns("*_yellow.png"))
    text, shown = execute("cells", tmp_path / "kit", IMAGES=str(tmp_path / "mine"), PIXEL=2.5)
    assert shown == 3 and "train.py" not in text and "score_" not in text
    assert text.count("--pixel-size 2.5") == 2 and "--without yellow" in text


def test_explore_shows_a_simulated_atlas_without_data(tmp_path, monkeypatch):
    small = replace(available_data.SMALL, train=60, test=20, size=96)
    monkeypatch.setattr(available_data, "find_data", partial(available_data.find_data, small=small))
    text, shown = execute("explore", tmp_path / "kit")
    assert shown == 10 and "so a small simulated atlas" in text and "60 labelled samples, 20 test samples" in text
    assert "all 320 files examined are 96 x 96 pixels, 8-bit grey" in text
    assert text.splitlines()[-1].count("simulated") == 16 and " real" not in text.splitlines()[-1]
    assert (tmp_path / "kit/input/explore/explore_folds.csv").exists()


def test_explore_shows_incomplete_files_of_the_competition(tmp_path, atlas):
    """Labels without images, a sample without a channel, no test images, the user's own folds."""
    ids = pd.read_csv(atlas / "train.csv", dtype=str)["Id"].tolist()
    root = lay_out(tmp_path / "kit/input", atlas, ids[:12], test=False, more=ids[12:])
    shutil.rmtree(root / "test")
    (root / f"train/{ids[0]}_red.png").unlink()
    succeed("make_folds", "--labels", root / "train.csv", "--hash-distance", -1, "--folds", 4, "-o", root / "folds.csv")
    before = (root / "folds.csv").read_bytes()
    text, shown = execute("explore", tmp_path / "kit")
    assert "the competition's files: 48 labelled samples, 0 test samples; 11 labelled samples with all four" in text
    assert f"({ids[0]} has no red)" in text and "train, published" in text and shown in (9, 10)
    answers = text.splitlines()[-1]
    assert answers.count("real") == answers.count("simulated") == 11
    assert (root / "folds.csv").read_bytes() == before and not (root / "explore_folds.csv").exists()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_are_committed_as_they_ran_and_small(path):
    cells = nbformat.read(path, as_version=4).cells
    ran = [cell for cell in cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in ran] == list(range(1, len(ran) + 1))
    assert not [output for cell in ran for output in cell.outputs if output.output_type == "error"]
    assert any(count_figures(cell) for cell in ran)
    for cell in ran:  # what was printed stands together, not a box a line
        kinds = [(output.output_type, output.get("name")) for output in cell.outputs if output.output_type == "stream"]
        assert len(kinds) == len(set(kinds)), cell.source
    assert path.stat().st_size < 1.5e6
    text = path.read_text()
    assert not [place for place in (str(ROOT), "/tmp/", "/root/", "/home/") if place in text], (
        "of the machine it ran on"
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_sentence_stands_before_each_figure(path):
    cells = nbformat.read(path, as_version=4).cells
    for before, cell in pairwise(cells):
        if count_figures(cell):
            assert count_figures(cell) == 1, cell.source
            assert before.cell_type == "markdown" and before.source.rstrip().endswith((".", "?")), cell.source


def test_all_notebooks_start_alike():
    own = [path for path in NOTEBOOKS if path.stem != "kaggle_kernel"]
    assert [path.stem for path in own] == [
        "cells",
        "compare",
        "explore",
        "human_vs_machine",
        "inspect_run",
        "my_images",
    ]
    cells = [nbformat.read(path, as_version=4).cells for path in own]
    first = [next(cell.source for cell in part if cell.cell_type == "code") for part in cells]
    assert len({source.partition("sys.path.insert")[0] for source in first}) == 1


def test_a_command_that_fails_ends_a_notebook(tmp_path, capsys):
    (tmp_path / "well.py").write_text("print('one'); print('two')")
    (tmp_path / "badly.py").write_text("import sys; print('begun', flush=True); sys.exit('why')")
    display.run(tmp_path / "well.py", "a word")
    assert capsys.readouterr().out.splitlines() == [f'$ python {tmp_path / "well.py"} "a word"', "one", "two"]
    with pytest.raises(subprocess.CalledProcessError):
        display.run(tmp_path / "badly.py")
    assert capsys.readouterr().out.splitlines()[1:] == ["begun", "why"]
