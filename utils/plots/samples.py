"""Images of a class: true positives, false negatives, false positives, Grad-CAM maps; images of rare classes."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np

from utils.opencv import cv2
from utils.plots import style
from utils.plots.image_sheets import STAIN_COLOURS

MAP_COLOURS = "inferno"  # dark where the map is 0; safe for colour-blind readers
FRAME = "#D55E00"


def class_samples(name, threshold, groups, path, columns=6):
    """Draw images of one class, one row per kind, each with its probability and its true classes.
    groups: {kind: up to `columns` of `utils.notebook.inspection.Sample`}."""
    figure, axes = _grid(len(groups), columns)
    for row, (kind, samples) in zip(axes, groups.items(), strict=True):
        _write_heading(row, kind, not samples)
        for axis, sample in zip(row, samples, strict=False):
            _show_sample(axis, sample, _compare(sample.probability, threshold), name)
    style.title(figure, f"{name}, threshold {as_text(threshold)}. {STAIN_COLOURS}; below: the true classes")
    style.save(figure, path, dpi=75)


def class_maps(name, threshold, groups, path, columns=2):
    """Draw Grad-CAM maps of one class: each image in colour, its protein in grey, and its map over the protein, scaled
    to its maximum. groups: {kind: up to `columns` of `utils.notebook.inspection.Sample`, with protein and map}."""
    figure, axes = _grid(len(groups), 3 * columns, bottom=0.65)
    for row, (kind, samples) in zip(axes, groups.items(), strict=True):
        _write_heading(row, kind, not samples)
        for place, sample in enumerate(samples):
            first, second, third = row[3 * place : 3 * place + 3]
            _show_sample(first, sample, _compare(sample.probability, threshold), name)
            _show(second, sample.protein, "protein")
            _show(third, map_over_protein(sample.protein, sample.map), "map" if sample.map.any() else "empty map")
    stains = f"{STAIN_COLOURS}; grey: protein alone; below: the true classes"
    style.title(figure, f"{name}, threshold {as_text(threshold)}. {stains}")
    height = figure.get_figheight()
    place = figure.add_axes((0.34, 0.35 / height, 0.32, 0.12 / height))
    bar = figure.colorbar(plt.cm.ScalarMappable(cmap=MAP_COLOURS), cax=place, orientation="horizontal")
    bar.set_ticks([0, 1], labels=["no evidence for the class", "the most in this image"], fontsize=9)
    style.save(figure, path, dpi=75)


def map_over_protein(protein, map_, strength=0.85):
    """Blend a map over the grey protein: (H, W) in [0, 1], (h, w) >= 0 -> (H, W, 3). Opacity rises with the map."""
    height, width = protein.shape
    scaled = cv2.resize(map_ / max(float(map_.max()), 1e-12), (width, height), interpolation=cv2.INTER_LINEAR)
    colours = plt.get_cmap(MAP_COLOURS)(scaled)[..., :3]
    cover = strength * np.sqrt(np.clip(scaled, 0, 1))[..., None]
    return np.clip((1 - cover) * protein[..., None] + cover * colours, 0, 1)


def rare_classes(rare, images, path, columns=6):
    """Draw one row per rare class: its images by descending probability, and the most probable image without the class,
    framed. rare: of `utils.notebook.inspection.rarest`, fewer than `columns` samples. images: number of ranked ones."""
    figure, axes = _grid(len(rare), columns)
    for row, one in zip(axes, rare, strict=True):
        count = f"{one.positives:,} image{'s' if one.positives > 1 else ''}"
        precision = f"average precision {one.average_precision:.3f}"
        _write_heading(row, f"{one.name}: {count}, threshold {as_text(one.threshold)}, {precision}")
        shown = list(zip(row[: columns - 1], one.ranks, one.samples, strict=False))
        if one.false_positive:
            shown.append((row[-1], *one.false_positive))
            row[-1].axis("on")
            row[-1].set(xticks=[], yticks=[])
            row[-1].spines[:].set(color=FRAME, linewidth=3)
        for axis, rank, sample in shown:
            _show_sample(axis, sample, f"rank {rank:,}: {as_text(sample.probability)}", one.name)
    note = f"ranks among {images:,} images; framed: the most probable image without the class"
    style.title(figure, f"{STAIN_COLOURS}; {note}")
    style.save(figure, path, dpi=75)


def as_text(probability):
    """Format a probability: 0.123, or 1e-05 instead of 0.000."""
    return f"{probability:.3f}" if probability >= 0.0005 or probability == 0 else f"{probability:.0e}"


def _compare(probability, threshold):
    return f"{as_text(probability)} {'≥' if probability >= threshold else '<'} {as_text(threshold)}"


def _grid(rows, columns, width=10.0, bottom=0.0):
    """Lay out square images with space for a title, a line above each row, names below, and `bottom` free inches.
    -> (figure, axes (rows, columns))."""
    gap, title, above, below = 0.1, 0.3, 0.5, 0.62
    side = (width - (columns + 1) * gap) / columns
    height = title + rows * (above + side + below) + bottom
    figure = plt.figure(figsize=(width, height))
    axes = np.empty((rows, columns), object)
    for row, column in np.ndindex(rows, columns):
        top = title + row * (above + side + below) + above
        place = (gap + column * (side + gap)) / width, 1 - (top + side) / height, side / width, side / height
        axes[row, column] = figure.add_axes(place)
        axes[row, column].axis("off")
    return figure, axes


def _annotate(axis, text, corner, points, **font):
    """Write a text at an offset in points from a corner of the axis."""
    options = dict(xycoords="axes fraction", textcoords="offset points", annotation_clip=False)
    axis.annotate(text, corner, points, **options, **font)


def _write_heading(row, text, empty=False):
    _annotate(row[0], text, (0, 1), (0, 19), fontsize=10, fontweight="bold")
    if empty:
        _annotate(row[0], "no images", (0, 1), (0, -5), fontsize=9, va="top")


def _show(axis, image, title):
    axis.imshow(image, cmap="gray", vmin=0, vmax=1)
    axis.set_title(title, fontsize=9, loc="left", pad=3)


def _show_sample(axis, sample, title, name, most=4):
    """Draw an image with a title, and below it its true classes; class `name` is bold."""
    _show(axis, sample.image, title)
    lines = [(part, true == name) for true in sample.true_classes for part in textwrap.wrap(true, 26)]
    if len(lines) > most:
        lines = [*lines[: most - 1], (f"and {len(lines) - most + 1} more lines", False)]
    for number, (text, own) in enumerate(lines or [("no class", False)]):
        weight = "bold" if own else "normal"
        _annotate(axis, text, (0, 0), (0, -3 - 11 * number), va="top", fontsize=8.5, fontweight=weight)
