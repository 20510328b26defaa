"""python -m utils.tools.plot: the paper's figures from any run."""

import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import random_table, refuse, succeed
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from sklearn.metrics import f1_score, jaccard_score, precision_recall_curve

from utils import plots
from utils.data.labels import HPA_CLASSES
from utils.notebook.inspection import Rare, Sample
from utils.opencv import cv2
from utils.plots import table_figures, training_curves
from utils.runs.run_folder import read_fold
from utils.scoring.metrics import best_global_threshold
from utils.tools.confusion import count, taken_for

NAMES = ["figure2.png", "figure5.png", "figure6.png", "figure7.png", "figure8.png", "figure9.png", "table1.csv"]


def draw(*arguments):
    return succeed("utils.tools.plot", *arguments).out


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
    for module in (training_curves, table_figures):
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


@pytest.fixture
def smallest(monkeypatch):
    """In pixels, of the texts of each figure that is saved, where the picture is shown 1000 pixels wide: list of (size, text). No
    legend may lie on a title."""
    found = []
    real = Figure.savefig

    def savefig(figure, *arguments, **options):
        figure.canvas.draw()
        width = figure.get_tightbbox().width + 0.2 if options.get("bbox_inches") == "tight" else figure.get_figwidth()
        texts = [part for part in figure.findobj(Text) if seen(part) and part.get_text().strip()]
        titles = [axes.title if axes.get_title() else axes._left_title for axes in figure.axes]
        for legend in figure.findobj(Legend):
            place = legend.get_window_extent()
            under = [
                title.get_text() for title in titles if title.get_text() and title.get_window_extent().overlaps(place)
            ]
            assert not under, f"a legend lies on {under}"
        found.append(min((part.get_fontsize() / 72 * 1000 / width, part.get_text()) for part in texts))
        return real(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return found


def seen(text):
    """Is a text drawn? One that belongs to what is not visible is not."""
    part, axes = text, text.axes
    if not text.get_visible() or (axes is not None and not axes.get_visible()):
        return False
    if axes is not None and not axes.axison and any(part in axis.findobj(Text) for axis in (axes.xaxis, axes.yaxis)):
        return False
    return text.get_window_extent().width > 0


def drawings(tmp_path):
    """{name: a call with the competition's 28 classes}, of each function of utils.plots that writes a figure."""
    truth, probabilities = random_table(0, 3000, 28, absent=False)
    truth[:, 27] = 0
    classes, positives, cuts = list(HPA_CLASSES), truth.sum(axis=0), np.full(28, 0.4)
    rng = np.random.default_rng(0)
    log = pd.DataFrame(rng.random((9, 30)), columns=["macro_f1", "valid_focal", *(f"f1 {name}" for name in classes)])
    log["epoch"] = range(1, 10)
    steps = pd.DataFrame(rng.random((50, 9)), columns=list(plots.NINE)).assign(step=range(1, 51))
    switches = [(5, "soft_f1 + 2 x weighted_bce")]
    f1 = pd.DataFrame(rng.random((28, 3)), columns=["gapnet_pl", "densenet121", "m_cnn"])
    f1.insert(0, "class", classes)
    f1["winner"] = "m_cnn"
    scores = {name: rng.random(28) for name in ("iou", "f1", "accuracy")}
    images = [rng.integers(0, 255, (32, 32, 4), dtype=np.uint8) for _ in range(12)]
    sample = Sample(
        0.3, [classes[18], classes[3], classes[1]], rng.random((32, 32, 3)), rng.random((32, 32)), rng.random((8, 8))
    )
    groups = {
        "found, surest first (17)": [sample] * 5,
        "missed, lowest first (0)": [],
        "called by mistake (1)": [sample],
    }
    short = {kind: samples[:2] for kind, samples in groups.items()}
    rare = [Rare(classes[27], 0.4, 7, 0.1, 0.2, [1, 20, 3000, 4, 5, 6, 7], [sample] * 5, (17, sample))] * 6
    decided = probabilities >= 0.4
    single = rng.integers(28, size=(2, 400))

    def two(number):
        return dict.fromkeys(
            ("network: 91.0 % of 400 images right", "person: 61.0 % of 400 images right"),
            count(*single % number, number),
        )

    return {
        "split": lambda path: plots.split(positives * 20, positives, classes, 0, path),
        "nine_curves": lambda path: plots.nine_curves(steps, [(20, "soft_f1 + 2 x weighted_bce")], path),
        "validation": lambda path: plots.validation(log, switches, path),
        "class_curves": lambda path: plots.class_curves(log, classes, positives, switches, path),
        "precision_recall": lambda path: plots.precision_recall(truth, probabilities, 0.4, path),
        "person_and_machine": lambda path: plots.person_and_machine(
            classes, positives, scores, scores, path,
            {"machine": "3,000 validation images, at the cut-off best for them, 0.268", "person": "203 of these"}),
        "f1_curves": lambda path: plots.f1_curves(classes, truth, probabilities, cuts, [[0.2, 0.5]] * 28, path),
        "precision_recall_by_class": lambda path: plots.precision_recall_by_class(classes, truth, probabilities, cuts, path),
        "reliability": lambda path: plots.reliability(truth, probabilities, probabilities, path),
        "thresholds": lambda path: plots.thresholds(classes, positives, cuts, scores["f1"], scores["iou"], path),
        "methods_by_class": lambda path: plots.methods_by_class(f1, positives, path),
        "confusion": lambda path: plots.confusion({"network": count(*single, 28)}, classes, path),
        "two confusions": lambda path: plots.confusion(two(28), classes, path),
        "small confusions": lambda path: plots.confusion(two(13), classes[:13], path),
        "mistakes": lambda path: plots.mistakes(*taken_for(truth, decided), classes, path),
        "class_samples": lambda path: plots.class_samples(classes[18], 0.5, groups, path),
        "class_maps": lambda path: plots.class_maps(classes[18], 0.5, short, path),
        "rare_classes": lambda path: plots.rare_classes(rare, 3000, path),
        "contact_sheet": lambda path: plots.contact_sheet(images, truth[:12], decided[:12], classes, path),
        "gallery": lambda path: plots.gallery(images, classes[:12], path),
    }  # fmt: skip


@pytest.mark.parametrize("name", [
    "split", "nine_curves", "validation", "class_curves", "precision_recall", "person_and_machine", "f1_curves",
    "precision_recall_by_class", "reliability", "thresholds", "methods_by_class", "confusion", "two confusions",
    "small confusions", "mistakes", "class_samples", "class_maps", "rare_classes", "contact_sheet", "gallery",
])  # fmt: skip
def test_no_text_is_too_small_to_read(name, smallest, tmp_path):
    """10 pixels or more where the picture is 1000 pixels wide, as on a code host: what a browser's text has at least."""
    path = tmp_path / "figure.png"
    drawings(tmp_path)[name](path)
    ((size, text),) = smallest
    assert size >= 10, f"{text!r} has {size:.1f} pixels"
