"""Microscope images in colour, and figures with several of them."""

from textwrap import wrap

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Patch

from utils.data.images import resize
from utils.plots import cell_outlines, style
from utils.plots.dataset_figures import STAINS
from utils.plots.style import BLUE

RGB = ("red", "green", "blue")
LIGHT = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0.15, 0.25, 1), "yellow": (1, 1, 0)}  # of a single channel
STAIN_COLOURS = "Nucleus blue, microtubules red, protein green"


def overlay(image):
    """Convert four channels to RGB: (H, W, 4) uint8 or float in [0, 1] -> (H, W, 3) in [0, 1]. Nucleus blue,
    microtubules red, protein green; yellow (reticulum) is left out, since it would hide the protein. Channels are
    stretched as by `stretch`."""
    return stretch(image[..., :3])


def in_colour(image, names, top=None):
    """Convert any channels to RGB like `overlay`: (H, W, C) -> (H, W, 3). names: C channels. top: of `stretch`."""
    planes, names = stretch(image, top), list(names)
    empty = np.zeros(image.shape[:2], np.float32)
    return np.stack([planes[..., names.index(name)] if name in names else empty for name in RGB], axis=-1)


def stretch(image, top=None):
    """Divide channels (H, W) or (H, W, C) by `top` (default: 99.7th percentile) and clip: -> float32 in [0, 1]."""
    planes = image.astype(np.float32)
    top = np.percentile(planes, 99.7, axis=(0, 1)) if top is None else top
    return np.clip(planes / np.maximum(top, 1e-6), 0, 1)


def _sheet(images, titles, columns, width, height, fontsize, pad):
    """Draw RGB images in a grid, with a title above each: -> (figure, axes)."""
    figure, axes = style.panels(len(images), columns, width, height)
    for axis, image, title in zip(axes, images, titles, strict=True):
        axis.imshow(image)
        axis.axis("off")
        axis.set_title(title, fontsize=fontsize, loc="left", pad=pad)
    return figure, axes


def contact_sheet(images, truth, decisions, classes, path, columns=4):
    """Draw images with their true positives, false negatives and false positives.
    images: list of (H, W, 4). truth, decisions: (N, C) 0/1."""
    figure, axes = _sheet([overlay(image) for image in images], [""] * len(images), columns, 3, 4.25, 9, 0)
    for axis, true, predicted in zip(axes, truth.astype(bool), decisions.astype(bool), strict=True):
        kinds = [("✓ ", true & predicted, "#00734f"), ("missed: ", true & ~predicted, BLUE)]
        kinds.append(("wrong: ", predicted & ~true, "#B34700"))
        lines = [(mark + classes[number], colour) for mark, which, colour in kinds for number in np.flatnonzero(which)]
        if len(lines) > 6:
            lines = [*lines[:5], (f"and {len(lines) - 5} more", "black")]
        axis.set_anchor("N")
        for number, (text, colour) in enumerate(lines):
            axis.text(0, -0.03 - 0.062 * number, text, transform=axis.transAxes, va="top", fontsize=9, color=colour)
    title = f"{STAIN_COLOURS}; classes: ✓ predicted correctly, missed, predicted wrongly"
    style.title(figure, title, 11)
    top = 1 - 0.35 / figure.get_figheight()
    figure.subplots_adjust(hspace=0.03, wspace=0.05, left=0, right=1, top=top, bottom=0)
    style.save(figure, path)


def gallery(images, titles, path, columns=6, colours=()):
    """Draw images in colour in a grid. images: list of (H, W, 4), or (H, W, 3) as they are to be shown. titles: one per
    image, possibly of several lines. colours: {name: colour} for a legend below."""
    font = max(9, 1.5 * columns)  # readable in a wide figure too
    height = 1.95 + (1.8 + 1.5 * max(title.count("\n") for title in titles)) * font / 72
    shown = [image if image.shape[2] == 3 else overlay(image) for image in images]
    figure, _ = _sheet(shown, titles, columns, 1.95, height, font, 2)
    if colours:
        patches = [Patch(facecolor=colour, edgecolor="black", label=name) for name, colour in dict(colours).items()]
        figure.legend(handles=patches, loc="upper left", bbox_to_anchor=(0, 0), ncols=3, frameon=False, fontsize=font)
    style.arrange_and_save(figure, path, dpi=90, pad=0.3)


def operations(images, names, path, columns=4):
    """Draw the results of an augmentation's operations on one sample: [(title, (H, W, C))], names of C channels. All
    images have the brightness scale of the first, so that changes of brightness are visible."""
    top = np.percentile(images[0][1].astype(np.float32), 99.7, axis=(0, 1))
    shown = [in_colour(image, names, top) for _, image in images]
    figure, _ = _sheet(shown, [title for title, _ in images], columns, 3.1, 3.35, max(9, 2.7 * columns), 3)
    style.arrange_and_save(figure, path, dpi=90, pad=0.4)


def channels(image, names, title, path):
    """Draw one sample (H, W, C): each channel in its colour, the overlay of red, green and blue, and that of all."""
    planes = {name: stretch(image[..., place, None]) for place, name in enumerate(names)}
    shown = {f"{name}: {STAINS[name]}": plane * np.array(LIGHT[name]) for name, plane in planes.items()}
    shown["overlay of red, green and blue"] = rgb = in_colour(image, names)
    if "yellow" in names:
        yellow = shown[f"yellow: {STAINS['yellow']}"]
        shown["overlay of all four, yellow at half"] = np.clip(rgb + 0.5 * yellow, 0, 1)
    figure, _ = _sheet(list(shown.values()), list(shown), 3, 10 / 3, 3.75, 11, 4)
    style.title(figure, title, 12)
    style.arrange_and_save(figure, path, dpi=100, pad=0.4)


def segmented(images, masks, titles, path, columns=4):
    """Draw the outlines of cells in white: red as red, yellow as green, blue as blue. images: [{channel: (H, W)}]. masks: [(H, W)
    label image]. titles: one per image."""
    shown = []
    for planes, mask in zip(images, masks, strict=True):
        empty = np.zeros(mask.shape, np.float32)
        image = stretch(np.stack([planes.get(name, empty) for name in ("red", "yellow", "blue")], axis=-1))
        image = resize(image, *(max(1, round(side * 480 / max(mask.shape))) for side in mask.shape))
        shown.append(cell_outlines.draw(image, mask, dict.fromkeys(range(1, mask.max() + 1), "#FFFFFF")))
    figure, _ = _sheet(shown, titles, columns, 3.1, 3.35, 9, 3)
    style.arrange_and_save(figure, path, dpi=150, pad=0.4)


def near_duplicate_pairs(pairs, path, columns=2):
    """Draw near-duplicates side by side in colour.
    pairs: [(two images (H, W, 4), two names below them, (heading, text of up to two lines) above them)]."""
    rows = -(-len(pairs) // columns)
    figure = plt.figure(figsize=(5.3 * columns, 3.35 * rows))
    blocks = figure.subfigures(rows, columns, squeeze=False).ravel()
    for block, (images, names, (heading, text)) in zip(blocks, pairs, strict=False):
        axes = block.subplots(1, 2, gridspec_kw=dict(left=0.01, right=0.96, top=0.81, bottom=0.08, wspace=0.03))
        for axis, image, name in zip(axes, images, names, strict=True):
            axis.imshow(overlay(image))
            axis.set(xticks=[], yticks=[], anchor="N")
            axis.spines[:].set_visible(False)
            axis.set_xlabel(name if len(name) <= 38 else f"{name[:37]}…", fontsize=8, loc="left", labelpad=3)
        lines = wrap(text, 72, max_lines=2, placeholder=" …")
        block.text(0.01, 0.825, "\n".join(lines), fontsize=9, va="bottom", linespacing=1.1)
        block.text(0.01, 0.832 + 0.048 * len(lines), heading, fontsize=10, fontweight="bold", va="bottom")
    style.save(figure, path, dpi=100)
