"""The figures of explore.ipynb: what they name, and whether that can be read."""

import io

import numpy as np
import pandas as pd
import pytest
from example_labels import COLOURS, LABELS, real_labels
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from utils import plots
from utils.data import augment
from utils.data.labels import HPA_CLASSES
from utils.notebook import brightness, display, duplicate_gallery, overview
from utils.notebook.available_data import open_data
from utils.tools.augment_sheet import examples


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Call a figure's function: -> its Figure as it was saved. No text may be smaller than 10 pixels where it is 1000 wide."""
    saved = []
    savefig = Figure.savefig

    def keep(figure, file, **options):
        savefig(figure, file, **options)
        saved.append((figure, options["dpi"]))

    monkeypatch.setattr(Figure, "savefig", keep)

    def draw(function, *arguments, **options):
        path = tmp_path / "figure.png"
        function(*arguments, path=path, **options)
        figure, dpi = saved.pop()
        inches = Image.open(path).width / dpi
        hidden = {
            text
            for axis in figure.axes
            if not axis.axison
            for part in (axis.xaxis, axis.yaxis)
            for text in part.findobj(Text)
        }
        texts = [
            text
            for text in figure.findobj(Text)
            if text not in hidden and text.get_visible() and text.get_text().strip()
        ]
        assert texts
        small = {
            text.get_text(): text.get_fontsize() for text in texts if text.get_fontsize() / 72 * 1000 / inches < 10
        }
        assert not small, (inches, small)
        return figure

    return draw


def texts(axis):
    return [text.get_text() for text in axis.texts]


def test_figures_of_labels_show_their_numbers(drawn):
    labels = real_labels()
    counts = labels.sum(axis=0, dtype=int)
    axis = drawn(plots.class_distribution, counts, HPA_CLASSES, len(labels), overview.imbalance(counts)).axes[0]
    assert "1,171 to 1" in axis.get_title(loc="left") and axis.get_xscale() == "log"
    named = dict(zip([label.get_text() for label in axis.get_yticklabels()], texts(axis), strict=True))
    assert named == {name: f"{count:,}" for name, count in zip(HPA_CLASSES, counts, strict=True)}
    assert [bar.get_width() for bar in axis.patches] == sorted(counts, reverse=True)
    axis = drawn(plots.classes_per_image, labels.sum(axis=1, dtype=int)).axes[0]
    sizes = pd.Series(labels.sum(axis=1)).value_counts()
    assert {
        bar.get_x() + bar.get_width() / 2: bar.get_height() for bar in axis.patches if bar.get_height()
    } == pytest.approx(dict(sizes))
    assert f"{sizes[1]:,}\n{100 * sizes[1] / 31072:.0f} %" in texts(axis)


def test_figure_of_co_occurrence_names_what_is_large(drawn):
    counts = LABELS.sum(axis=0, dtype=int)
    figure = drawn(plots.co_occurrence, overview.co_occurrence(LABELS), counts, HPA_CLASSES)
    axis = figure.axes[0]
    rows, columns = (
        [label.get_text() for label in labels] for labels in (axis.get_yticklabels(), axis.get_xticklabels())
    )
    cells = {
        (rows[int(text.get_position()[1])], columns[int(text.get_position()[0])]): text.get_text()
        for text in axis.texts
    }
    assert cells == {
        ("Nucleoplasm (4)", "Cytosol"): "50", ("Nucleoplasm (4)", "Nucleoli"): "50", ("Cytosol (3)", "Nucleoplasm"): "67",
        ("Cytosol (3)", "Nucleoli"): "33", ("Nucleoli (2)", "Nucleoplasm"): "100", ("Nucleoli (2)", "Cytosol"): "50",
    }  # fmt: skip
    assert columns[:3] == ["Nucleoplasm", "Cytosol", "Nucleoli"] and len(rows) == 28
    drawn(plots.co_occurrence, np.full((28, 28), np.nan), np.zeros(28, int), HPA_CLASSES)


def test_figure_of_channels_gives_each_its_colour(drawn, atlas):
    data = open_data(atlas, "")
    image = data.image(min(data.train))
    figure = drawn(plots.channels, image, COLOURS, "title $x")
    pictures = {axis.get_title(loc="left"): axis.get_images()[0].get_array() for axis in figure.axes}
    lit = {name.split(":")[0]: picture.max(axis=(0, 1)) for name, picture in pictures.items()}
    assert (
        lit["red"].tolist() == [1, 0, 0] and lit["green"].tolist() == [0, 1, 0] and lit["yellow"].tolist() == [1, 1, 0]
    )
    assert lit["blue"][2] == 1 > 2 * lit["blue"][:2].max()
    assert np.allclose(pictures["overlay of red, green and blue"], plots.overlay(image))
    drawn(plots.channels, image[..., :3], COLOURS[:3], "no yellow")


def test_figure_of_brightness_shows_shares_and_means(drawn):
    rng = np.random.default_rng(0)
    means = {"train": rng.gamma(4, 0.02, (300, 4)), "test": rng.gamma(4, 0.015, (50, 4))}
    figure = drawn(plots.intensity_shift, means, COLOURS, published=brightness.PUBLISHED)
    assert [axis.get_title(loc="left").split(":")[0] for axis in figure.axes] == COLOURS
    for number, axis in enumerate(figure.axes):
        heights = sum(
            bar.get_height()
            for bar in axis.patches
            if type(bar).__name__ == "Rectangle" and bar.get_facecolor()[3] == 0.3
        )
        assert heights == pytest.approx(200), "all images of either part are in a bin"
        lines = [line.get_xdata()[0] for line in axis.lines if line.get_linestyle() == "--"]
        assert lines == pytest.approx([means["train"][:, number].mean(), means["test"][:, number].mean()])
        marks = [line.get_xdata()[0] for line in axis.lines if line.get_marker() == "^"]
        assert marks == [brightness.PUBLISHED[part][COLOURS[number]] for part in ("train", "test")]
        assert f"{means['test'][:, number].mean():.4f}" in axis.get_legend().get_texts()[1].get_text()
    alone = drawn(
        plots.intensity_shift, {"train": means["train"], "test": np.empty(0)}, COLOURS, published=brightness.PUBLISHED
    )
    assert [text.get_text()[:5] for text in alone.axes[0].get_legend().get_texts()] == ["train", "test,"]


def test_figures_of_pictures_are_readable(drawn, copies, atlas, folds):
    data, _ = copies
    pairs = duplicate_gallery.side_by_side(data, duplicate_gallery.find_twins(data), HPA_CLASSES, count=4, size=64)
    pairs[0] = (pairs[0][0], pairs[0][1], ("heading", "labels differ: " + ", ".join(HPA_CLASSES[:12])))
    figure = drawn(plots.twin_pairs, pairs)
    shown = {axis.get_xlabel() for axis in figure.axes}
    assert shown == {id_ for _, ids, _ in pairs for id_ in ids} and len(figure.axes) == 8
    drawn(plots.twin_pairs, pairs[:1])
    image = data.image(min(data.train), 64)
    for columns in (4, 6, 8):
        drawn(plots.gallery, [image] * 9, [*HPA_CLASSES[:8], "Microtubule organizing center +1"], columns=columns)
    drawn(plots.operations, examples(image, augment.chen(COLOURS), COLOURS, 0), COLOURS)
    drawn(plots.fold_split, *overview.split_of(folds, HPA_CLASSES), HPA_CLASSES)


def test_figure_of_sizes(drawn):
    table = pd.DataFrame(
        {"width": [20, 30], "height": [20, 40], "depth": "8-bit grey", "kind": ["png", "tif"], "files": [7, 2]}
    )
    axis = drawn(plots.image_sizes, table).axes[0]
    named = zip(axis.get_yticklabels(), axis.patches, strict=True)
    assert {label.get_text(): bar.get_width() for label, bar in named} == {
        "20 x 20, 8-bit grey, png": 7,
        "30 x 40, 8-bit grey, tif": 2,
    }


def test_show_makes_a_jpeg_of_at_most_a_thousand_pixels(monkeypatch):
    shown = []
    monkeypatch.setattr(display, "display", lambda picture: shown.append(Image.open(io.BytesIO(picture.data))))
    for columns in (2, 8):
        display.show(plots.gallery, [np.full((8, 8, 4), 99, np.uint8)], ["one"], columns=columns)
    assert [picture.format for picture in shown] == ["JPEG", "JPEG"]
    assert shown[0].width < 1000 == shown[1].width and shown[1].getpixel((999, 5)) == (255, 255, 255)
