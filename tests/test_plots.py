"""python -m utils.plots: the paper's figures from any run."""

import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import refuse, succeed
from sklearn.metrics import f1_score, jaccard_score, precision_recall_curve

from utils.metrics import best_global_threshold
from utils.plots import tables, training
from utils.runs import read_fold

NAMES = ["figure2.png", "figure5.png", "figure6.png", "figure7.png", "figure8.png", "figure9.png", "table1.csv"]


def draw(*arguments):
    return succeed("utils.plots.__main__", *arguments).out


@pytest.fixture
def fold(run, tmp_path):
    return shutil.copytree(run / "fold0", tmp_path / "own" / "fold0")


def test_every_figure_of_every_fold(run, tmp_path):
    own = shutil.copytree(run, tmp_path / "own")
    draw(own)
    for number in (0, 1):
        folder = own / f"fold{number}" / "figures"
        assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES)
        for name in NAMES[:-1]:
            picture = cv2.imread(str(folder / name))
            assert min(picture.shape[:2]) > 300 and picture.std() > 10
    table = pd.read_csv(own / "fold0/figures/table1.csv")
    assert table["class"].tolist()[:2] == ["All", "Nucleoplasm"] and len(table) == 29
    assert table[["raw", "smoothed"]].to_numpy().min() >= 0 and table[["raw", "smoothed"]].to_numpy().max() <= 1


@pytest.fixture
def drawn(run, tmp_path, monkeypatch):
    """The axes of every figure of fold 0, by file name, and table1.csv."""
    figures = {}
    for module in (training, tables):
        monkeypatch.setattr(module, "save", lambda figure, path, dpi=0: figures.update({path.name: figure.axes}))
    draw(run / "fold0", "-o", tmp_path / "figures")
    return figures, pd.read_csv(tmp_path / "figures/table1.csv")


def line(axis, number):
    return axis.lines[number].get_xdata(), axis.lines[number].get_ydata()


def test_curves_are_those_of_the_csv_files(run, drawn):
    figures, table = drawn
    steps, log = (pd.read_csv(run / "fold0" / name) for name in ("steps.csv", "log.csv"))
    names = ["loss", "bce", "weighted_bce", "positive_bce", "focal", "soft_f1", "precision", "recall", "lr"]
    for axis, name in zip(figures["figure5.png"], names, strict=True):
        x, y = line(axis, 0)
        assert x.tolist() == steps["step"].tolist() and y == pytest.approx(steps[name].to_numpy()), name
    f1, focal = (line(figures["figure6.png"][0], number)[1] for number in (0, 1))
    assert f1 == pytest.approx(log["macro_f1"].to_numpy()) and focal == pytest.approx(1 - log["valid_focal"].to_numpy())
    for axis in figures["figure7.png"]:
        name = axis.get_title(loc="left").rsplit(" (", 1)[0]
        assert line(axis, 1)[1] == pytest.approx(log[f"f1 {name}"].to_numpy()), name


def test_split_curve_and_table_one_are_the_runs(run, drawn):
    figures, table = drawn
    fold = read_fold(run / "fold0")
    widths = [bar.get_width() for bar in figures["figure2.png"][0].patches]
    assert widths == [*fold.train.sum(axis=0), *fold.truth.sum(axis=0)]
    recall, precision = next(c.get_data() for c in figures["figure8.png"][0].lines if "pooled" in str(c.get_label()))
    expected = precision_recall_curve(fold.truth.ravel(), fold.oof.ravel())
    assert precision == pytest.approx(expected[0]) and recall == pytest.approx(expected[1])
    iou = [bar.get_width() for bar in figures["figure9.png"][0].patches]
    best, _ = best_global_threshold(fold.truth, fold.oof)
    assert sorted(iou) == pytest.approx(
        sorted(jaccard_score(fold.truth, fold.oof >= best, average=None, zero_division=0))
    )
    grid = np.linspace(0, 1, 1000)
    f1 = [f1_score(fold.truth[:, 25], fold.oof[:, 25] >= point, zero_division=0) for point in grid]
    assert table["class"][26] == "Cytosol" and table["raw"][26] == pytest.approx(grid[np.argmax(f1)])


def test_a_person_is_drawn_beside_the_machine(fold, tmp_path):
    oof = pd.read_csv(fold / "oof.csv", dtype=str)
    pd.DataFrame({"Id": oof["Id"][:8], "Target": "0 25"}).to_csv(tmp_path / "human.csv", index=False)
    draw(fold, "-o", tmp_path / "alone")
    draw(fold, "-o", tmp_path / "both", "--human", tmp_path / "human.csv")
    alone, both = (cv2.imread(str(tmp_path / name / "figure9.png")) for name in ("alone", "both"))
    assert alone.shape != both.shape or not np.array_equal(alone, both)
    for name in NAMES[:5]:
        assert (tmp_path / "alone" / name).read_bytes() == (tmp_path / "both" / name).read_bytes()


def test_what_is_missing_or_damaged_is_named_before_anything_is_drawn(fold, tmp_path):
    refuse("utils.plots.__main__", tmp_path, says="no log.csv")
    other = shutil.copytree(fold, tmp_path / "own" / "fold1")
    refuse("utils.plots.__main__", fold, other, "-o", tmp_path / "x", says="cannot share one --out")
    (other / "steps.csv").write_text("step,epoch\n1,1\n")
    refuse("utils.plots.__main__", tmp_path / "own", says=["steps.csv", "loss"])
    shutil.copy(fold / "steps.csv", other / "steps.csv")
    np.save(other / "validation/epoch001.npy", np.zeros((3, 3)))
    np.save(other / "validation/epoch002.npy", np.zeros((3, 3)))
    refuse("utils.plots.__main__", other, says="validation/epoch00")
    shutil.rmtree(other / "validation")
    refuse("utils.plots.__main__", other, says="validation/")
    rows = pd.read_csv(other / "rows.csv", dtype=str, keep_default_na=False)
    rows.drop(columns="part").to_csv(other / "rows.csv", index=False)
    refuse("utils.plots.__main__", other, says=["rows.csv", "part"])
    rows.assign(Target="").to_csv(other / "rows.csv", index=False)
    refuse("utils.plots.__main__", other, says="no validation image has a class")
    (other / "rows.csv").unlink()
    refuse("utils.plots.__main__", other, says=["rows.csv", "--overwrite"])
    assert not list(tmp_path.rglob("figure*.png"))
