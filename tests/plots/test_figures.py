"""The figures: every text can be read, nothing lies on a title, and what they show are the numbers that they were given."""

import io

import numpy as np
import pandas as pd
import pytest
from conftest import random_table
from example_labels import COLOURS, LABELS, real_labels
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from PIL import Image

from utils.data import augment
from utils.data.labels import HPA_CLASSES
from utils.notebook import display, duplicate_gallery, overview
from utils.notebook.available_data import open_data
from utils.notebook.inspection import Rare, Sample
from utils.plots import benchmark_figure, comparison, dataset_figures, decisions, image_sheets, samples, training_curves
from utils.tools.augment_sheet import examples
from utils.tools.confusion import count, taken_for

CLASSES = list(HPA_CLASSES)


def check_readable(figure):
    """10 pixels or more for an image 1000 pixels wide, as on a code host: the least of a browser's text. No legend lies on a
    title."""
    figure.canvas.draw()
    inches = figure.get_tightbbox().width + 0.2
    off = [part for axes in figure.axes if not axes.axison for part in (axes.xaxis, axes.yaxis)]
    hidden = {text for part in off for text in part.findobj(Text)}
    found = [text for text in set(figure.findobj(Text)) - hidden if text.get_visible() and text.get_text().strip()]
    small = {text.get_text(): text.get_fontsize() for text in found if text.get_fontsize() / 72 * 1000 / inches < 10}
    assert found and not small, (inches, small)
    titles = [axes.title if axes.get_title() else axes._left_title for axes in figure.axes]
    for legend in figure.findobj(Legend):
        place = legend.get_window_extent()
        assert not [one for one in titles if one.get_text() and one.get_window_extent().overlaps(place)]


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Call a figure's function: -> its Figure, checked and not written."""
    saved = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **options: saved.append(figure))

    def draw(function, *arguments, **options):
        function(*arguments, path=tmp_path / "figure.png", **options)
        check_readable(saved[-1])
        return saved.pop()

    return draw


def texts(part):
    return [text.get_text() for text in part.findobj(Text) if text.get_text().strip()]


def cells(axis):
    return [text.get_text() for text in axis.texts]


def rows(axis):
    return [label.get_text() for label in axis.get_yticklabels()]


IMAGE = np.random.default_rng(0).random((32, 32, 3))
SAMPLE = Sample(0.3, [CLASSES[18], CLASSES[3], CLASSES[1]], IMAGE, IMAGE[..., 0], IMAGE[:8, :8, 0])
GROUPS = {
    "found, highest probability first (17)": [SAMPLE] * 5,
    "missed, lowest first (0)": [],
    "wrongly predicted (1)": [SAMPLE],
}
SWITCHES = [(5, "soft_f1 + 2 x weighted_bce")]


@pytest.fixture(scope="module")
def table():
    truth, probabilities = random_table(0, 3000, 28, absent=False)
    truth[:, 27] = 0
    return truth, probabilities


def draw_history(drawn, table):
    rng, positives = np.random.default_rng(0), table[0].sum(axis=0)
    log = pd.DataFrame(rng.random((9, 30)), columns=["macro_f1", "valid_focal", *(f"f1 {name}" for name in CLASSES)])
    log["epoch"] = range(1, 10)
    steps = pd.DataFrame(rng.random((50, 9)), columns=list(training_curves.STEP_CURVES)).assign(step=range(1, 51))
    drawn(training_curves.train_validation_split, positives * 20, positives, CLASSES, 0)
    drawn(training_curves.nine_curves, steps, [(20, SWITCHES[0][1])])
    drawn(training_curves.validation_scores, log, SWITCHES)
    drawn(training_curves.class_curves, log, CLASSES, positives, SWITCHES)


def draw_decisions(drawn, table):
    truth, probabilities = table
    chosen, rng = np.full(28, 0.4), np.random.default_rng(0)
    drawn(decisions.f1_curves, CLASSES, truth, probabilities, chosen, [[0.2, 0.5]] * 27 + [None])
    drawn(decisions.precision_recall_by_class, CLASSES, truth, probabilities, chosen)
    drawn(decisions.precision_recall, truth, probabilities, 0.4)
    drawn(decisions.reliability, truth, probabilities, probabilities)
    drawn(decisions.class_thresholds, CLASSES, truth.sum(axis=0), chosen, rng.random(28), rng.random(28))


def draw_comparisons(drawn, table):
    truth, probabilities = table
    rng, single = np.random.default_rng(0), np.random.default_rng(0).integers(28, size=(2, 400))
    f1 = pd.DataFrame(rng.random((28, 3)), columns=["gapnet_pl", "densenet121", "m_cnn"])
    f1.insert(0, "class", CLASSES)
    f1["winner"] = "m_cnn"
    drawn(comparison.methods_by_class, f1, truth.sum(axis=0))
    log = pd.DataFrame({"seconds": [60, 60], "macro_f1": [0.2, 0.4]})
    drawn(comparison.learning_curves, {"gapnet_pl": [log, log], "convnet": [log]})
    drawn(comparison.generations, pd.DataFrame({"name": ["a", "b"], "train": [0.5, 0.7], "valid": [0.2, 0.3]}))
    titles = ("network: 91.0 % of 400 images right", "person: 61.0 % of 400 images right")
    drawn(comparison.confusion_matrices, {"network": count(*single, 28)}, CLASSES)
    drawn(comparison.confusion_matrices, dict.fromkeys(titles, count(*single, 28)), CLASSES)
    drawn(comparison.confusion_matrices, dict.fromkeys(titles, count(*single % 13, 13)), CLASSES[:13])
    drawn(comparison.mistakes, *taken_for(truth, probabilities >= 0.4), CLASSES)
    scores = {name: rng.random(28) for name in ("iou", "f1", "accuracy")}
    images = {"machine": "3,000 validation images, at the threshold best for them, 0.268", "person": "203 of these"}
    drawn(comparison.person_and_machine, CLASSES, truth.sum(axis=0), scores, scores, images=images)


def draw_images(drawn, table):
    truth, probabilities = table
    images = [np.random.default_rng(0).integers(0, 255, (32, 32, 4), dtype=np.uint8)] * 12
    drawn(image_sheets.contact_sheet, images, truth[:12], probabilities[:12] >= 0.4, CLASSES)
    for columns in (4, 6, 8):
        titles = [*CLASSES[:8], "Microtubule organizing center +1"]
        figure = drawn(
            image_sheets.gallery, images[:9], titles, columns=columns, colours=dict.fromkeys(titles, "#E69F00")
        )
        assert [text.get_text() for text in figure.legends[0].get_texts()] == titles
    drawn(image_sheets.operations, examples(images[0], augment.chen(COLOURS), COLOURS, 0), COLOURS)
    drawn(samples.class_samples, CLASSES[18], 0.5, GROUPS)
    drawn(samples.class_maps, CLASSES[18], 0.5, {kind: part[:2] for kind, part in GROUPS.items()})
    rare = Rare(CLASSES[27], 0.4, 7, 0.1, 0.2, [1, 20, 3000, 4, 5, 6, 7], [SAMPLE] * 5, (17, SAMPLE))
    drawn(samples.rare_classes, [rare] * 6, 3000)


def draw_dataset(drawn, table):
    truth, _ = table
    frequencies = truth.mean(axis=0)
    drawn(dataset_figures.class_frequencies, CLASSES, frequencies, frequencies[::-1])
    drawn(dataset_figures.co_occurrence, np.full((28, 28), np.nan), np.zeros(28, int), CLASSES)
    rng, size = np.random.default_rng(0), 64
    sides = {"real": (rng.random((3, 256)), np.full((3, size // 2), np.nan), rng.random(9)), "simulated": None}
    drawn(dataset_figures.realism, {"red": sides, "green": {"real": None, "simulated": sides["real"]}}, size)


@pytest.mark.parametrize("draw", [draw_history, draw_decisions, draw_comparisons, draw_images, draw_dataset])
def test_every_text_is_large_enough(draw, drawn, table):
    draw(drawn, table)


def test_legends_of_the_benchmark_cover_no_line(drawn):
    sizes = [(size, batch) for size in (128, 256, 512) for batch in (1, 4, 16, 64)]
    cost = [
        {
            "size": size,
            "batch": batch,
            "training_ms": size**2 / batch,
            "prediction_ms": size**2 / batch / 3,
            "peak_gb": batch / 9,
        }
        for size, batch in sizes
    ]
    found = {
        "machine": {"gpu": "NVIDIA H100", "arithmetic": "bfloat16", "torch": "2.6"},
        "prediction": {"size": 512, "ratio": 3, "arithmetic": "bfloat16", "kit": 900, "plain": 300},
        "cost": {
            "rows": cost,
            "model": "resnet50",
            "loading": {"size": 512, "rows": [{"workers": 2, "a_second": 300}]},
        },
    }
    figure = drawn(benchmark_figure.draw_benchmark, found)
    legends = [axis for axis in figure.axes if axis.get_legend()]
    assert len(figure.axes) == 4 and len(legends) == 2
    for axis in legends:
        box = axis.get_legend().get_window_extent()
        points = np.concatenate([axis.transData.transform(line.get_xydata()) for line in axis.lines])
        assert not ((points > [box.x0, box.y0]) & (points < [box.x1, box.y1])).all(axis=1).any()


def test_figures_of_labels_show_their_numbers(drawn):
    labels = real_labels()
    counts = labels.sum(axis=0, dtype=int)
    ratio = overview.imbalance(counts)
    axis = drawn(dataset_figures.class_distribution, counts, HPA_CLASSES, len(labels), ratio).axes[0]
    assert "1,171 to 1" in axis.get_title(loc="left") and axis.get_xscale() == "log"
    named = dict(zip(rows(axis), cells(axis), strict=True))
    assert named == {name: f"{count:,}" for name, count in zip(HPA_CLASSES, counts, strict=True)}
    assert [bar.get_width() for bar in axis.patches] == sorted(counts, reverse=True)
    axis = drawn(dataset_figures.classes_per_image, labels.sum(axis=1, dtype=int)).axes[0]
    sizes = pd.Series(labels.sum(axis=1)).value_counts()
    bars = {bar.get_x() + bar.get_width() / 2: bar.get_height() for bar in axis.patches if bar.get_height()}
    assert bars == pytest.approx(dict(sizes))
    assert f"{sizes[1]:,}\n{100 * sizes[1] / 31072:.0f} %" in cells(axis)


def test_figure_of_co_occurrence_names_what_is_large(drawn):
    counts = LABELS.sum(axis=0, dtype=int)
    axis = drawn(dataset_figures.co_occurrence, overview.co_occurrence(LABELS), counts, HPA_CLASSES).axes[0]
    columns = [label.get_text() for label in axis.get_xticklabels()]
    found = {
        (rows(axis)[text.get_position()[1]], columns[text.get_position()[0]]): text.get_text() for text in axis.texts
    }
    assert found == {
        ("Nucleoplasm (4)", "Cytosol"): "50",
        ("Nucleoplasm (4)", "Nucleoli"): "50",
        ("Cytosol (3)", "Nucleoplasm"): "67",
        ("Cytosol (3)", "Nucleoli"): "33",
        ("Nucleoli (2)", "Nucleoplasm"): "100",
        ("Nucleoli (2)", "Cytosol"): "50",
    }
    assert columns[:3] == ["Nucleoplasm", "Cytosol", "Nucleoli"] and len(rows(axis)) == 28


def test_figure_of_channels_gives_each_its_colour(drawn, atlas):
    data = open_data(atlas, "")
    image = data.image(min(data.train))
    figure = drawn(image_sheets.channels, image, COLOURS, "title $x")
    shown = {axis.get_title(loc="left"): axis.get_images()[0].get_array() for axis in figure.axes if axis.get_images()}
    lit = {name.split(":")[0]: picture.max(axis=(0, 1)).tolist() for name, picture in shown.items()}
    assert (lit["red"], lit["green"], lit["yellow"]) == ([1, 0, 0], [0, 1, 0], [1, 1, 0])
    assert lit["blue"][2] == 1 > 2 * max(lit["blue"][:2])
    assert np.allclose(shown["overlay of red, green and blue"], image_sheets.overlay(image))
    drawn(image_sheets.channels, image[..., :3], COLOURS[:3], "no yellow")


def test_figure_of_brightness_shows_percentages_and_means(drawn):
    rng = np.random.default_rng(0)
    means = {"train": rng.gamma(4, 0.02, (300, 4)), "test": rng.gamma(4, 0.015, (50, 4))}
    figure = drawn(dataset_figures.intensity_shift, means, COLOURS, published=overview.PUBLISHED)
    assert [axis.get_title(loc="left").split(":")[0] for axis in figure.axes] == COLOURS
    for number, axis in enumerate(figure.axes):
        bars = [bar for bar in axis.patches if type(bar).__name__ == "Rectangle" and bar.get_facecolor()[3] == 0.3]
        assert sum(bar.get_height() for bar in bars) == pytest.approx(200), "all images of both parts are in a bin"
        lines = [line.get_xdata()[0] for line in axis.lines if line.get_linestyle() == "--"]
        assert lines == pytest.approx([means["train"][:, number].mean(), means["test"][:, number].mean()])
        marks = [line.get_xdata()[0] for line in axis.lines if line.get_marker() == "^"]
        assert marks == [overview.PUBLISHED[part][COLOURS[number]] for part in ("train", "test")]
        assert f"{means['test'][:, number].mean():.4f}" in texts(axis.get_legend())[1]
    alone = means | {"test": np.empty(0)}
    figure = drawn(dataset_figures.intensity_shift, alone, COLOURS, published=overview.PUBLISHED)
    assert [text[:5] for text in texts(figure.axes[0].get_legend())] == ["train", "test,"]


def test_pairs_folds_and_sizes_are_named(drawn, copies, folds):
    data, _ = copies
    pairs = duplicate_gallery.side_by_side(data, duplicate_gallery.find_pairs(data), HPA_CLASSES, count=4, size=64)
    pairs[0] = (pairs[0][0], pairs[0][1], ("heading", "labels differ: " + ", ".join(HPA_CLASSES[:12])))
    figure = drawn(image_sheets.near_duplicate_pairs, pairs)
    assert [axis.get_xlabel() for axis in figure.axes] == [id_ for _, ids, _ in pairs for id_ in ids]
    drawn(image_sheets.near_duplicate_pairs, pairs[:1])
    drawn(dataset_figures.fold_split, *overview.read_split(folds, HPA_CLASSES), HPA_CLASSES)
    columns = ["width", "height", "depth", "ending", "files"]
    formats = pd.DataFrame([(20, 20, "8-bit grey", "png", 7), (30, 40, "8-bit grey", "tif", 2)], columns=columns)
    axis = drawn(dataset_figures.image_sizes, formats).axes[0]
    widths = [bar.get_width() for bar in axis.patches]
    assert dict(zip(rows(axis), widths, strict=True)) == {"20 x 20, 8-bit grey, png": 7, "30 x 40, 8-bit grey, tif": 2}


def test_a_map_of_embeddings_gives_a_name_the_same_colour_in_each_panel(drawn):
    points = np.arange(40.0).reshape(20, 2)
    names = [CLASSES[number % 9] for number in range(20)]
    axes = drawn(dataset_figures.embedding_map, points, [0.6, 0.2], {"one": names, "other": names[::-1]}).axes
    shown = [
        {part.get_label(): (part.get_offsets(), part.get_facecolor()) for part in axis.collections} for axis in axes
    ]
    for parts, own in zip(shown, (names, names[::-1]), strict=True):
        assert len(parts) == 8 and sum(len(places) for places, _ in parts.values()) == 20
        assert np.array_equal(parts[CLASSES[1]][0], points[[name == CLASSES[1] for name in own]])
    assert all(np.array_equal(shown[0][name][1], shown[1][name][1]) for name in shown[0])
    assert axes[0].get_xlabel() == "component 1, 60% of the variance"


def test_contact_sheet_separates_hits_misses_and_mistakes(drawn):
    image = np.zeros((8, 8, 4), np.uint8)
    sheet = drawn(image_sheets.contact_sheet, [image], np.array([[1, 1, 0, 0]]), np.array([[1, 0, 1, 0]]), list("abcd"))
    assert cells(sheet.axes[0]) == ["✓ a", "missed: b", "wrong: c"]


def test_sample_pages_show_probability_threshold_and_truth(drawn):
    hit = Sample(0.75, ["Nuclear bodies", "Cytosol"], IMAGE, IMAGE[..., 0], np.eye(2))
    miss = Sample(1e-5, ["Nuclear bodies"], IMAGE, IMAGE[..., 0], np.zeros((2, 2)))
    groups = {"found (1)": [hit], "missed (1)": [miss], "wrongly predicted (0)": []}
    pages = [drawn(function, "Nuclear bodies", 0.3, groups) for function in (samples.class_samples, samples.class_maps)]
    for page in pages:
        expected = {"0.750 ≥ 0.300", "1e-05 < 0.300", "Nuclear bodies", "Cytosol", "no images", "missed (1)"}
        assert expected <= set(texts(page))
        bold = {text.get_text() for text in page.findobj(Text) if text.get_fontweight() == "bold"}
        assert "Nuclear bodies" in bold and "Cytosol" not in bold
    assert texts(pages[1]).count("map") == texts(pages[1]).count("empty map") == 1
    rare = Rare("Nuclear bodies", 0.3, 2, 0.5, 0.2, [3, 117], [hit, miss], (1, hit._replace(true_classes=["Cytosol"])))
    page = drawn(samples.rare_classes, [rare], 200)
    assert {"rank 3: 0.750", "rank 117: 1e-05", "rank 1: 0.750"} <= set(texts(page))
    assert ["rank 1:" in axis.get_title(loc="left") for axis in page.axes if axis.axison] == [True]


def test_a_map_lies_over_the_protein_where_it_is_high():
    protein = np.full((40, 40), 0.5)
    assert np.allclose(samples.map_over_protein(protein, np.zeros((5, 5), np.float32)), 0.5)
    map_ = np.zeros((5, 5), np.float32)
    map_[1, 3] = 7
    over = samples.map_over_protein(protein, map_)
    changed = np.abs(over - 0.5).max(axis=2)
    y, x = np.unravel_index(changed.argmax(), changed.shape)
    assert (y // 8, x // 8) == (1, 3) and np.all(changed[20:] == 0) and np.all(changed[:, :12] == 0)
    assert over[12, 28, 0] > over[12, 28, 2] + 0.3, "the map's colour, not grey"


def test_only_classes_with_mistakes_are_in_the_matrix(drawn):
    truth, decided = np.zeros((5, 4), int), np.zeros((5, 4), int)
    truth[:3, 1] = decided[:2, 3] = 1  # b missed three times, twice with d instead; a once wrongly predicted by itself
    decided[4, 0] = 1
    axis = drawn(comparison.mistakes, *taken_for(truth, decided), list("abcd")).axes[0]
    assert rows(axis) == ["b (3)"] and cells(axis) == ["2"]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["a (1)", "d (2)"]
    assert axis.images[0].get_array().tolist() == [[0, pytest.approx(2 / 3)]]


def test_a_class_without_images_is_drawn_last(drawn):
    counts = np.array([[1, 0, 1], [1, 0, 0]], np.uint8).sum(axis=0)
    log = pd.DataFrame(np.full((2, 4), 0.5), columns=["macro_f1", "f1 a", "f1 b", "f1 c"]).assign(epoch=[1, 2])
    figure = drawn(training_curves.class_curves, log, list("abc"), counts, [])
    assert [axis.get_title(loc="left")[0] for axis in figure.axes[:3]] == ["a", "c", "b"]
    numbers = np.full(3, 0.5), np.zeros(3), np.zeros(3)
    axis = drawn(decisions.class_thresholds, list("abc"), counts, *numbers).axes[0]
    assert [name[0] for name in rows(axis)] == ["a", "c", "b"]


def test_show_makes_a_jpeg_of_at_most_a_thousand_pixels(monkeypatch):
    shown = []
    monkeypatch.setattr(display, "display", lambda picture: shown.append(Image.open(io.BytesIO(picture.data))))
    for columns in (2, 8):
        image = np.full((8, 8, 4), 99, np.uint8)
        display.show(image_sheets.gallery, [image] * columns, ["one"] * columns, columns=columns)
    assert [picture.format for picture in shown] == ["JPEG", "JPEG"]
    assert shown[0].width < 1000 == shown[1].width
