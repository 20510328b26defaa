"""Microscope images as pictures, alone and in sheets."""

import matplotlib.pyplot as plt
import numpy as np

from utils.plots.style import BLUE, arrange, save


def overlay(image):
    """Four channels to a picture in the microscope's colours: (H, W, 4) uint8 or float in [0, 1] -> (H, W, 3) in [0, 1].

    Nucleus blue, microtubules red, protein green; the reticulum's yellow is left out, it would hide the protein. Each
    channel is stretched to its 99.7th percentile.
    """
    return stretch(image[..., :3])


def in_colour(image, names, top=None):
    """Any channels to a picture in the microscope's colours: (H, W, C) -> (H, W, 3) in [0, 1].

    names: of the C channels; yellow is left out. top: the grey value of each that becomes full, its 99.7th percentile
    where None.
    """
    planes = image.astype(np.float32)
    top = np.percentile(planes, 99.7, axis=(0, 1)) if top is None else top
    picture = np.zeros((*image.shape[:2], 3), np.float32)
    for channel, name in enumerate(names):
        if name in ("red", "green", "blue"):
            picture[..., ("red", "green", "blue").index(name)] = planes[..., channel] / max(top[channel], 1e-6)
    return np.clip(picture, 0, 1)


def stretch(image):
    """Each channel of (H, W) or (H, W, C) stretched to its 99.7th percentile: float32 in [0, 1]."""
    planes = image.astype(np.float32)
    top = np.percentile(planes, 99.7, axis=(0, 1))
    return np.clip(planes / np.maximum(top, 1e-6), 0, 1)


def contact_sheet(images, truth, decisions, classes, path, columns=4):
    """Images with the names of their classes: found, missed, and called by mistake.

    images: list of (H, W, 4). truth, decisions: (N, C) 0/1.
    """
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3 * columns, 4.25 * rows), squeeze=False)
    for axis in axes.ravel():
        axis.axis("off")
        axis.set_anchor("N")
    for axis, image, true, called in zip(
        axes.ravel(), images, truth.astype(bool), decisions.astype(bool), strict=False
    ):
        axis.imshow(overlay(image))
        lines = [(f"✓ {name}", "#00734f") for name, hit in zip(classes, true & called, strict=True) if hit]
        lines += [(f"missed: {name}", BLUE) for name, miss in zip(classes, true & ~called, strict=True) if miss]
        lines += [(f"wrong: {name}", "#B34700") for name, extra in zip(classes, called & ~true, strict=True) if extra]
        if len(lines) > 6:
            lines = [*lines[:5], (f"and {len(lines) - 5} more", "black")]
        for number, (text, colour) in enumerate(lines):
            axis.text(0, -0.03 - 0.062 * number, text, transform=axis.transAxes, va="top", fontsize=9, color=colour)
    figure.suptitle(
        "Nucleus blue, microtubules red, protein green; names: ✓ found, missed, wrong", fontsize=11, y=0.985
    )
    figure.subplots_adjust(hspace=0.03, wspace=0.05, left=0, right=1, top=0.96, bottom=0)
    save(figure, path)


def gallery(images, titles, path, columns=6):
    """Fields side by side in the microscope's colours. images: list of (H, W, 4). titles: one a picture, of one line or more."""
    rows, font = -(-len(images) // columns), max(9, 1.5 * columns)  # readable however wide the sheet
    more = max(title.count("\n") for title in titles)  # lines beside the first
    height = 1.95 + (1.8 + 1.5 * more) * font / 72
    figure, axes = plt.subplots(rows, columns, figsize=(1.95 * columns, height * rows), squeeze=False)
    for axis in axes.ravel():
        axis.axis("off")
    for axis, image, title in zip(axes.ravel(), images, titles, strict=False):
        axis.imshow(overlay(image))
        axis.set_title(title, fontsize=font, loc="left", pad=2)
    arrange(figure, pad=0.3)
    save(figure, path, dpi=90)


def operations(pictures, names, path, columns=4):
    """What each operation of an augmentation does to one sample: [(title, (H, W, C))], names of the C channels -> a sheet.

    Unlike elsewhere every picture has the same scale of brightness, the first one's, so that changes of brightness show.
    """
    rows = -(-len(pictures) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.1 * columns, 3.35 * rows), squeeze=False)
    top = np.percentile(pictures[0][1], 99.7, axis=(0, 1))
    for axis in axes.ravel():
        axis.axis("off")
    for axis, (title, image) in zip(axes.ravel(), pictures, strict=False):
        axis.imshow(in_colour(image, names, top))
        axis.set_title(title, fontsize=max(9, 2.7 * columns), loc="left", pad=3)
    arrange(figure, pad=0.4)
    save(figure, path, dpi=90)
