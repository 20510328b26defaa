"""Figures of the data before training: classes, channels, brightness, files, near-duplicates."""

from textwrap import wrap

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

from utils.plots.image_sheets import in_colour, overlay, stretch
from utils.plots.style import BLUE, ORANGE, arrange, save, tidy

# Of a channel's name: what is stained in it, its colour in a picture, and on white paper.
STAINS = {"red": "microtubules", "green": "the protein", "blue": "nucleus", "yellow": "endoplasmic reticulum"}
LIGHT = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0.15, 0.25, 1), "yellow": (1, 1, 0)}
PAPER = {"red": "#D62728", "green": "#2CA02C", "blue": "#1F4FD6", "yellow": "#E6C200"}


def class_distribution(counts, classes, images, ratio, path):
    """Images of each class, common to rare. counts: (C,) int. images: how many there are in all. ratio: of commonest to rarest class
    that has any."""
    order = np.argsort(-np.asarray(counts), kind="stable")
    figure, axis = plt.subplots(figsize=(9.5, 0.25 * len(order) + 1.3))
    axis.barh(range(len(order)), counts[order], color=BLUE)
    for place, number in enumerate(order):
        axis.text(max(counts[number], 1) * 1.08, place, f"{int(counts[number]):,}", va="center", fontsize=9)
    axis.set_xscale("log")
    axis.set_xlim(0.8, max(2, counts.max()) * 2.5)
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.set_yticks(range(len(order)), [classes[number] for number in order])
    axis.set_ylim(len(order) - 0.4, -0.6)
    axis.set_xlabel("images (log scale)")
    axis.set_title(f"{images:,} images, {len(order)} classes, imbalance {ratio:,.0f} to 1", loc="left")
    tidy(axis, "x")
    save(figure, path)


def classes_per_image(sizes, path):
    """How many classes the images have. sizes: (N,) int, classes of each image."""
    counts = np.bincount(sizes)
    figure, axis = plt.subplots(figsize=(8, 3))
    axis.bar(range(len(counts)), counts, color=BLUE, width=0.7)
    for place, count in enumerate(counts):
        if count:
            axis.text(place, count, f"{count:,}\n{_percent(count / len(sizes))}", ha="center", va="bottom", fontsize=9)
    axis.set_xticks(range(len(counts)))
    axis.set_xlim(-0.6 if counts[0] else 0.4, len(counts) - 0.4)
    axis.set_ylim(0, 1.22 * counts.max())
    axis.yaxis.set_major_formatter("{x:,.0f}")
    axis.set_xlabel("classes of an image")
    axis.set_ylabel("images")
    axis.set_title(f"{np.mean(sizes):.2f} classes an image on average", loc="left")
    tidy(axis, "y")
    save(figure, path)


def _percent(share):
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.2g} %"


def co_occurrence(percent, counts, classes, path, least=10):
    """Of the images with the class of a row, how many percent have the class of a column too: (C, C) percent, NaN where a class has no
    image. counts: (C,) images of each class. Both axes run from common to rare; cells of `least` percent or more show it."""
    order = np.argsort(-np.asarray(counts), kind="stable")
    table = percent[np.ix_(order, order)].astype(float)
    np.fill_diagonal(table, np.nan)
    figure, axis = plt.subplots(figsize=(11, 9.6))
    shades = plt.get_cmap("Blues").with_extremes(bad="#E8E8E8")
    top = max(least, np.nanmax(table)) if not np.isnan(table).all() else 100
    drawn = axis.imshow(table, cmap=shades, vmin=0, vmax=top, aspect="auto")
    for row, column in np.argwhere(np.nan_to_num(table) >= least):
        value = table[row, column]
        axis.text(
            column,
            row,
            f"{value:.0f}",
            ha="center",
            va="center",
            fontsize=8.5,
            color="white" if value > 0.6 * top else "black",
        )
    axis.set_xticks(
        range(len(order)), [classes[number] for number in order], rotation=60, ha="left", rotation_mode="anchor"
    )
    axis.set_yticks(range(len(order)), [f"{classes[number]} ({int(counts[number]):,})" for number in order])
    axis.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0, labelsize=9)
    axis.set_xticks(np.arange(-0.5, len(order)), minor=True)
    axis.set_yticks(np.arange(-0.5, len(order)), minor=True)
    axis.grid(which="minor", color="white", linewidth=0.8)
    axis.tick_params(which="minor", length=0)
    axis.spines[:].set_visible(False)
    figure.colorbar(drawn, ax=axis, fraction=0.03, pad=0.015, label="percent of the row's images")
    arrange(figure)
    save(figure, path)


def channels(image, names, title, path):
    """One sample: each channel in its own colour, the overlay of red, green and blue, and that of all. image: (H, W, C)."""
    planes, rgb = stretch(image), in_colour(image, names)
    shown = [
        (f"{name}: {STAINS[name]}", planes[..., place, None] * np.array(LIGHT[name]))
        for place, name in enumerate(names)
    ]
    shown.append(("overlay of red, green and blue", rgb))
    if "yellow" in names:
        reticulum = planes[..., names.index("yellow"), None] * np.array(LIGHT["yellow"])
        shown.append(("overlay of all four, yellow at half", np.clip(rgb + 0.5 * reticulum, 0, 1)))
    figure, axes = plt.subplots(2, 3, figsize=(10, 7.5))
    for axis in axes.ravel():
        axis.axis("off")
    for axis, (name, picture) in zip(axes.ravel(), shown, strict=False):
        axis.imshow(picture)
        axis.set_title(name, loc="left", fontsize=11, pad=4)
    figure.suptitle(title, x=0.005, y=0.99, ha="left", fontsize=12)
    arrange(figure, pad=0.4, rect=(0, 0, 1, 0.99))
    save(figure, path, dpi=100)


def intensity_shift(means, names, path, published=None):
    """Mean grey value of the images of train and test, a panel a channel. means: {"train": (N, C), "test": (M, C)} in [0, 1], one may be
    empty. published: {part: {channel: mean}}, drawn as triangles."""
    parts = [(part, colour) for part, colour in (("train", BLUE), ("test", ORANGE)) if len(means[part])]
    every = np.concatenate([means[part] for part, _ in parts])
    figure, axes = plt.subplots(2, 2, figsize=(10, 6.4), squeeze=False)
    for number, (axis, name) in enumerate(zip(axes.ravel(), names, strict=False)):
        top = max(np.percentile(every[:, number], 99.5) * 1.05, 1 / 255)
        edges = np.linspace(0, top, 31)
        for part, colour in parts:
            values = means[part][:, number]
            weights = np.full(len(values), 100 / len(values))
            label = f"{part}, {len(values):,} images: mean {values.mean():.4f}"
            axis.hist(np.minimum(values, top), edges, weights=weights, color=colour, alpha=0.3)
            axis.hist(
                np.minimum(values, top),
                edges,
                weights=weights,
                color=colour,
                histtype="step",
                linewidth=1.8,
                label=label,
            )
            axis.axvline(values.mean(), color=colour, linewidth=1.8, linestyle="--")
        for part, colour in (("train", BLUE), ("test", ORANGE)) if published else ():
            label = None if len(means[part]) else f"{part}, published mean"
            style = dict(color=colour, markeredgecolor="black", markersize=11, linestyle="", clip_on=False, zorder=4)
            axis.plot(published[part][name], 0, "^", label=label, **style)
        stripe = Rectangle((0, 1.0), 1, 0.035, transform=axis.transAxes, color=PAPER[name], clip_on=False)
        axis.add_patch(stripe)
        axis.set_title(f"{name}: {STAINS[name]}", loc="left", fontsize=11, pad=9)
        axis.set_xlim(0, max([top, *(1.05 * published[part][name] for part in published or ())]))
        axis.set_ylim(top=1.3 * axis.get_ylim()[1])  # room for the legend
        axis.set_xlabel("mean grey value of an image (0 black, 1 white)")
        axis.set_ylabel("percent of the images")
        axis.legend(frameon=False, fontsize=9, loc="upper right")
        tidy(axis)
    arrange(figure)
    save(figure, path)


def image_sizes(kinds, path):
    """How many files are of each size and depth: of `utils.notebook.file_formats.file_kinds`."""
    names = [f"{row.width} x {row.height}, {row.depth}, {row.kind}" for row in kinds.itertuples()]
    figure, axis = plt.subplots(figsize=(8, 0.32 * len(names) + 1.1))
    axis.barh(range(len(names)), kinds["files"], color=BLUE)
    for place, count in enumerate(kinds["files"]):
        axis.text(count, place, f" {count:,}", va="center", fontsize=9)
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.set_xlim(0, 1.12 * kinds["files"].max())
    axis.set_xlabel("files")
    tidy(axis, "x")
    save(figure, path)


def twin_pairs(pairs, path, columns=2):
    """Near-duplicates side by side in the microscope's colours.

    pairs: [(two images (H, W, 4), two names to stand below them, (a heading, a text of up to two lines) to stand above)].
    """
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
    save(figure, path, dpi=100)
