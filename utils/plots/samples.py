"""Single images of a class: found, missed and called by mistake, where the network looked, and the rare classes."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np

from utils.opencv import cv2
from utils.plots.style import save

COLOURS_TOLD = "Nucleus blue, microtubules red, protein green"
MAP = "inferno"  # of maps over a grey picture: dark where there is nothing, told apart by colour-blind eyes


def class_samples(name, threshold, groups, path, columns=6):
    """Images of one class in the microscope's colours, a row for each kind, each with its probability against the threshold and the
    names of what it truly shows.

    groups: {kind: up to `columns` of `utils.notebook.inspection.Sample`}.
    """
    figure, axes = _grid(len(groups), columns)
    for row, (kind, samples) in zip(axes, groups.items(), strict=True):
        _head(row, kind, not samples)
        for axis, sample in zip(row, samples, strict=False):
            _picture(axis, sample.picture, _against(sample.probability, threshold))
            _below(axis, sample.truly, name)
    _title(figure, f"{name}, threshold {as_text(threshold)}. {COLOURS_TOLD}; below: what is true")
    save(figure, path, dpi=75)


def class_maps(name, threshold, groups, path, columns=2):
    """Where the network looked for one class: each image in the microscope's colours, its protein in grey, and the map over it.

    groups: {kind: up to `columns` of `utils.notebook.inspection.Sample`, with protein and map}. Each map has its own scale.
    """
    figure, axes = _grid(len(groups), 3 * columns, bottom=0.65)
    for row, (kind, samples) in zip(axes, groups.items(), strict=True):
        _head(row, kind, not samples)
        for place, sample in enumerate(samples):
            first, second, third = row[3 * place : 3 * place + 3]
            _picture(first, sample.picture, _against(sample.probability, threshold))
            _below(first, sample.truly, name)
            _picture(second, sample.protein, "protein")
            top = sample.map.max()
            _picture(third, over_protein(sample.protein, sample.map), "map" if top > 0 else "marks nothing")
    _title(figure, f"{name}, threshold {as_text(threshold)}. {COLOURS_TOLD}; grey: protein alone")
    height = figure.get_figheight()
    bar = figure.colorbar(
        plt.cm.ScalarMappable(cmap=MAP),
        cax=figure.add_axes((0.34, 0.35 / height, 0.32, 0.12 / height)),
        orientation="horizontal",
    )
    bar.set_ticks([0, 1], labels=["nothing speaks for the class", "most, of this picture's map"], fontsize=9)
    save(figure, path, dpi=75)


def over_protein(protein, map_, strength=0.85):
    """A map over the protein in grey: (H, W) in [0, 1], (h, w) of 0 or more -> (H, W, 3) in [0, 1]. Colours cover the grey the more,
    the higher the map is."""
    height, width = protein.shape
    scaled = cv2.resize(map_ / max(float(map_.max()), 1e-12), (width, height), interpolation=cv2.INTER_LINEAR)
    colours = plt.get_cmap(MAP)(scaled)[..., :3]
    cover = strength * np.sqrt(np.clip(scaled, 0, 1))[..., None]
    return np.clip((1 - cover) * protein[..., None] + cover * colours, 0, 1)


def rare_classes(rare, images, path, columns=6):
    """The rarest classes one by one, a row each: their images, likeliest first, with rank and probability, and framed at the right
    the likeliest image without the class.

    rare: of `utils.notebook.inspection.rarest`, with fewer than `columns` samples each. images: how many are ranked.
    """
    figure, axes = _grid(len(rare), columns)
    for row, one in zip(axes, rare, strict=True):
        count = f"{one.positives:,} image{'s' if one.positives > 1 else ''}"
        _head(
            row,
            f"{one.name}: {count}, threshold {as_text(one.threshold)}, average precision {one.average_precision:.3f}",
        )
        for axis, rank, sample in zip(row[: columns - 1], one.ranks, one.samples, strict=False):
            _picture(axis, sample.picture, f"rank {rank:,}: {as_text(sample.probability)}")
            _below(axis, sample.truly, one.name)
        if one.alarm:
            rank, sample = one.alarm
            _picture(
                row[-1],
                sample.picture,
                f"rank {rank:,}: {as_text(sample.probability)}",
                frame="#D55E00",
            )
            _below(row[-1], sample.truly, one.name)
    _title(figure, f"{COLOURS_TOLD}; ranks among {images:,} images; framed: the likeliest image without the class")
    save(figure, path, dpi=75)


def as_text(probability):
    """0.123, and where that would be 0.000: 1e-05."""
    return f"{probability:.3f}" if probability >= 0.0005 or probability == 0 else f"{probability:.0e}"


def _against(probability, threshold):
    return f"{as_text(probability)} {'≥' if probability >= threshold else '<'} {as_text(threshold)}"


def _grid(rows, columns, width=10.0, bottom=0.0):
    """Square pictures in rows, with inches for a title, for a line above each row and names below; bottom: inches left free.
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


def _head(row, text, empty=False):
    """A line above a row of pictures."""
    row[0].annotate(
        text, (0, 1), (0, 19), xycoords="axes fraction", textcoords="offset points", fontsize=10, fontweight="bold",
        annotation_clip=False,
    )  # fmt: skip
    if empty:
        row[0].text(0, 0.95, "no images", transform=row[0].transAxes, fontsize=9, va="top")


def _picture(axis, picture, title, frame=None):
    axis.imshow(picture, cmap="gray", vmin=0, vmax=1)
    axis.set_title(title, fontsize=9, loc="left", pad=3)
    if frame:
        axis.axis("on")
        axis.set(xticks=[], yticks=[])
        for spine in axis.spines.values():
            spine.set(color=frame, linewidth=3)


def _below(axis, truly, name, most=4):
    """The names of what an image truly shows, the class in question bold."""
    lines = [(f"{'✓ ' if one == name else ''}{part}", one == name) for one in truly for part in textwrap.wrap(one, 24)]
    if len(lines) > most:
        lines = [*lines[: most - 1], (f"and {len(lines) - most + 1} more lines", False)]
    for number, (text, own) in enumerate(lines or [("nothing", False)]):
        axis.annotate(
            text, (0, 0), (0, -3 - 11 * number), xycoords="axes fraction", textcoords="offset points", va="top",
            fontsize=8.5, fontweight="bold" if own else "normal", annotation_clip=False,
        )  # fmt: skip


def _title(figure, text):
    figure.suptitle(text, x=0.01, y=1 - 0.05 / figure.get_figheight(), ha="left", va="top", fontsize=10)
