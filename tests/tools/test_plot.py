"""python -m utils.tools.plot: the paper's figures from any run."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import refuse, succeed
from matplotlib.figure import Figure
from sklearn.metrics import f1_score, jaccard_score, precision_recall_curve

from utils.opencv import cv2
from utils.runs.run_folder import read_fold
from utils.scoring.metrics import best_global_threshold
from utils.tools.plot import read_history

NAMES = ["figure2.png", "figure5.png", "figure6.png", "figure7.png", "figure8.png", "figure9.png", "table1.csv"]


def draw(*arguments):
    return succeed("utils.tools.plot", *arguments).out


@pytest.fixture
def fold(run, tmp_path):
    return shutil.copytree(run / "fold0", tmp_path / "own" / "fold0")


@pytest.fixture(scope="module")
def drawn(run, tmp_path_factory):
    """A copy of the run with all figures, and the axes of fold 0's, by file name."""
    own, figures, savefig = shutil.copytree(run, tmp_path_factory.mktemp("plot") / "own"), [], Figure.savefig

    def keep(figure, file, **options):
        figures.append(figure.axes)
        savefig(figure, file, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", keep)
        draw(own)
    return own, dict(zip(NAMES[:-1], figures))


def test_every_figure_of_every_fold(drawn):
    own, _ = drawn
    for number in (0, 1):
        folder = own / f"fold{number}" / "figures"
        assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES)
        for name in NAMES[:-1]:
            image = cv2.imread(str(folder / name))
            assert min(image.shape[:2]) > 300 and image.std() > 10
    table = pd.read_csv(own / "fold0/figures/table1.csv")
    assert table["class"].tolist()[:2] == ["All", "Nucleoplasm"] and len(table) == 29
    assert table[["raw", "smoothed"]].to_numpy().min() >= 0 and table[["raw", "smoothed"]].to_numpy().max() <= 1


def line(axis, number):
    return axis.lines[number].get_xdata(), axis.lines[number].get_ydata()


def test_curves_are_those_of_the_csv_files(drawn):
    own, figures = drawn
    steps, log = (pd.read_csv(own / "fold0" / name) for name in ("steps.csv", "log.csv"))
    names = ["loss", "bce", "weighted_bce", "positive_bce", "focal", "soft_f1", "precision", "recall", "lr"]
    for axis, name in zip(figures["figure5.png"], names, strict=True):
        x, y = line(axis, 0)
        assert x.tolist() == steps["step"].tolist() and y == pytest.approx(steps[name].to_numpy()), name
    f1, focal = (line(figures["figure6.png"][0], number)[1] for number in (0, 1))
    assert f1 == pytest.approx(log["macro_f1"].to_numpy()) and focal == pytest.approx(1 - log["valid_focal"].to_numpy())
    for axis in figures["figure7.png"]:
        name = axis.get_title(loc="left").rsplit(" (", 1)[0]
        assert line(axis, 1)[1] == pytest.approx(log[f"f1 {name}"].to_numpy()), name


def test_split_curve_and_table_one_are_the_runs(drawn):
    own, figures = drawn
    fold, table = read_fold(own / "fold0"), pd.read_csv(own / "fold0/figures/table1.csv")
    widths = [bar.get_width() for bar in figures["figure2.png"][0].patches]
    assert widths == [*fold.train.sum(axis=0), *fold.truth.sum(axis=0)]
    recall, precision = next(c.get_data() for c in figures["figure8.png"][0].lines if "pooled" in str(c.get_label()))
    expected = precision_recall_curve(fold.truth.ravel(), fold.oof.ravel())
    assert precision == pytest.approx(expected[0]) and recall == pytest.approx(expected[1])
    iou = [bar.get_width() for bar in figures["figure9.png"][0].patches]
    best, _ = best_global_threshold(fold.truth, fold.oof)
    expected = jaccard_score(fold.truth, fold.oof >= best, average=None, zero_division=0)
    assert sorted(iou) == pytest.approx(sorted(expected))
    grid = np.linspace(0, 1, 1000)
    f1 = [f1_score(fold.truth[:, 25], fold.oof[:, 25] >= point, zero_division=0) for point in grid]
    assert table["class"][26] == "Cytosol" and table["raw"][26] == pytest.approx(grid[np.argmax(f1)])


def test_a_person_is_drawn_beside_the_machine(drawn, tmp_path):
    own, _ = drawn
    oof = pd.read_csv(own / "fold0/oof.csv", dtype=str)
    pd.DataFrame({"Id": oof["Id"][:8], "Target": "0 25"}).to_csv(tmp_path / "human.csv", index=False)
    draw(own / "fold0", "-o", tmp_path / "both", "--human", tmp_path / "human.csv")
    for name in NAMES[:-1]:
        same = (own / "fold0/figures" / name).read_bytes() == (tmp_path / "both" / name).read_bytes()
        assert same == (name != "figure9.png"), name


def test_the_loss_changes_at_the_first_step_of_an_epoch(fold):
    config = json.loads((fold / "config.json").read_text())
    (fold / "config.json").write_text(json.dumps(config | {"loss": "1:bce 2:soft_f1+bce 9:soft_f1"}))
    steps = pd.read_csv(fold / "steps.csv")
    ((step, loss),) = read_history(fold).first_steps
    assert step == steps["step"][steps["epoch"] == 2].iloc[0] > 1 and "soft_f1" in loss


def test_missing_or_damaged_files_are_named_before_anything_is_drawn(fold, tmp_path):
    refuse("utils.tools.plot", tmp_path, says="no log.csv")
    other = shutil.copytree(fold, tmp_path / "own" / "fold1")
    refuse("utils.tools.plot", fold, other, "-o", tmp_path / "x", says="cannot share one --out")
    (other / "steps.csv").write_text("step,epoch\n1,1\n")
    refuse("utils.tools.plot", tmp_path / "own", says=["steps.csv", "loss"])
    shutil.copy(fold / "steps.csv", other / "steps.csv")
    np.save(other / "validation/epoch001.npy", np.zeros((3, 3)))
    np.save(other / "validation/epoch002.npy", np.zeros((3, 3)))
    refuse("utils.tools.plot", other, says="validation/epoch00")
    shutil.rmtree(other / "validation")
    refuse("utils.tools.plot", other, says="validation/")
    rows = pd.read_csv(other / "rows.csv", dtype=str, keep_default_na=False)
    rows.drop(columns="part").to_csv(other / "rows.csv", index=False)
    refuse("utils.tools.plot", other, says=["rows.csv", "part"])
    rows.assign(Target="").to_csv(other / "rows.csv", index=False)
    refuse("utils.tools.plot", other, says="no validation image has a class")
    (other / "rows.csv").unlink()
    refuse("utils.tools.plot", other, says=["rows.csv", "--overwrite"])
    assert not list(tmp_path.rglob("figure*.png"))
