"""Figures of a data set: classes, folds, brightness, file formats, real and simulated images."""

from collections import Counter

import matplotlib.pyplot as plt
import numpy as np

from utils.data.labels import part_name
from utils.plots import style
from utils.plots.style import ABOVE, BLUE, COLOURS, GREY, ORANGE

STAINS = {"red": "microtubules", "green": "the protein", "blue": "nucleus", "yellow": "endoplasmic reticulum"}
STRIPES = {"red": "#D62728", "green": "#2CA02C", "blue": "#1F4FD6", "yellow": "#E6C200"}


def class_distribution(counts, classes, images, ratio, path):
    """Plot class counts (C,) int, from common to rare. images: number of images. ratio: largest count / smallest."""
    order = style.common_first(counts)
    figure, axis = style.rows([classes[number] for number in order], 9.5)
    style.log_bars(axis, counts[order], color=BLUE)
    axis.set_title(f"{images:,} images, {len(order)} classes, imbalance {ratio:,.0f} to 1", loc="left")
    style.save(figure, path)


def classes_per_image(sizes, path):
    """Plot a histogram of the number of classes per image. sizes: (N,) int."""
    counts = np.bincount(sizes)
    figure, axis = plt.subplots(figsize=(8, 3))
    percent = [f"{part:.0f}" if part >= 1 else f"{part:.2g}" for part in 100 * counts / len(sizes)]
    texts = [f"{count:,}\n{part} %" if count else "" for count, part in zip(counts, percent, strict=True)]
    axis.bar_label(axis.bar(range(len(counts)), counts, color=BLUE, width=0.7), texts, fontsize=9)
    limits = dict(xlim=(-0.6 if counts[0] else 0.4, len(counts) - 0.4), ylim=(0, 1.22 * counts.max()))
    axis.set(xticks=range(len(counts)), xlabel="classes per image", ylabel="images", **limits)
    axis.yaxis.set_major_formatter("{x:,.0f}")
    style.tidy(axis, "y", f"{np.mean(sizes):.2f} classes per image on average")
    style.save(figure, path)


def co_occurrence(percent, counts, classes, path, least=10):
    """Draw the percent (C, C) of the images of a row's class that also have a column's class, NaN for a class without
    images. counts: (C,) images per class, which order both axes. Cells of `least` percent or more show their value."""
    order = style.common_first(counts)
    table = percent[np.ix_(order, order)].astype(float)
    np.fill_diagonal(table, np.nan)
    figure, axis = plt.subplots(figsize=(11, 9.6))
    top = max(least, np.nanmax(table)) if not np.isnan(table).all() else 100
    texts = {(y, x): f"{table[y, x]:.0f}" for y, x in np.argwhere(np.nan_to_num(table) >= least)}
    names = [classes[number] for number in order]
    shades = plt.get_cmap("Blues").with_extremes(bad="#E8E8E8")
    named = style.with_counts(names, np.asarray(counts)[order])
    font = dict(rotation=60, ha="left", rotation_mode="anchor")
    drawn = style.draw_matrix(axis, table, texts, named, names, shades, top, **font)
    axis.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0, labelsize=9)
    figure.colorbar(drawn, ax=axis, fraction=0.03, pad=0.015, label="percent of the row's images")
    style.arrange_and_save(figure, path)


def intensity_shift(means, names, path, published=None):
    """Plot histograms of the images' mean grey values, one panel per channel. means: {"train": (N, C), "test": (M, C)}
    in [0, 1]; one may be empty. published: {part: {channel: mean}}, drawn as triangles."""
    parts = [(part, colour) for part, colour in (("train", BLUE), ("test", ORANGE)) if len(means[part])]
    every = np.concatenate([means[part] for part, _ in parts])
    figure, axes = style.panels(len(names), 2, 5, 3.2)
    for number, (axis, name) in enumerate(zip(axes, names, strict=True)):
        top = max(np.percentile(every[:, number], 99.5) * 1.05, 1 / 255)
        for part, colour in parts:
            values = means[part][:, number]
            options = dict(bins=np.linspace(0, top, 31), weights=np.full(len(values), 100 / len(values)), color=colour)
            label = f"{part}, {len(values):,} images: mean {values.mean():.4f}"
            axis.hist(np.minimum(values, top), alpha=0.3, **options)
            axis.hist(np.minimum(values, top), histtype="step", linewidth=1.8, label=label, **options)
            axis.axvline(values.mean(), color=colour, linewidth=1.8, linestyle="--")
        for part, colour in (("train", BLUE), ("test", ORANGE)) if published else ():
            label = None if len(means[part]) else f"{part}, published mean"
            look = dict(color=colour, markeredgecolor="black", markersize=11, linestyle="", clip_on=False, zorder=4)
            axis.plot(published[part][name], 0, "^", label=label, **look)
            top = max(top, 1.05 * published[part][name])
        look = dict(transform=axis.transAxes, color=STRIPES[name], clip_on=False)
        axis.add_patch(plt.Rectangle((0, 1.0), 1, 0.035, **look))
        axis.set_title(f"{name}: {STAINS[name]}", loc="left", fontsize=11, pad=9)
        axis.set(xlim=(0, top), ylim=(0, 1.3 * axis.get_ylim()[1]))  # room for the legend
        axis.legend(frameon=False, fontsize=9, loc="upper right")
        style.tidy(axis, xlabel="mean grey value of an image (0 black, 1 white)", ylabel="percent of the images")
    style.arrange_and_save(figure, path)


def image_sizes(formats, path):
    """Plot the number of files of each format. formats: result of `utils.notebook.overview.file_formats`."""
    names = [f"{row.width} x {row.height}, {row.depth}, {row.ending}" for row in formats.itertuples()]
    figure, axis = style.rows(names, 8)
    axis.bar_label(axis.barh(range(len(names)), formats["files"], color=BLUE), fmt="{:,.0f}", padding=3, fontsize=9)
    style.tidy(axis, "x", xlabel="files", xlim=(0, 1.12 * formats["files"].max()))
    style.save(figure, path)


def fold_split(labels, fold, dealt, parts, classes, path):
    """Plot the class distribution, and how evenly the folds divide each class (Chen, Fig. 2).

    labels: (N, C) 0/1. fold: (N,) int. dealt: (N,) bool, rows that were split; other rows are always or never trained
    on. parts: {fold: fraction} of the split rows."""
    counts = [labels[(fold == part) & (dealt | (part >= 0))].sum(axis=0) for part in parts]
    table = np.stack(counts, axis=1)  # (C, parts)
    total, always = table.sum(axis=1), labels[~dealt & (fold == -1)].sum(axis=0)
    figure, left, right = style.rows(classes, 12, columns=2)
    style.log_bars(left, total + always, room=5, color=GREY, label="always trained on")
    left.barh(range(len(classes)), total, color=BLUE, label="split over folds")
    if always.any():
        left.legend(**ABOVE)
    left.set_title("Class distribution", loc="left")
    percent = 100 * table / np.maximum(total, 1)[:, None]
    places, named = np.arange(len(classes)), -1 in parts  # training, validation, test
    if named:
        for number, (part, asked) in enumerate(parts.items()):
            right.axvline(100 * asked, color=GREY, linewidth=1)
            name = f"{part_name(part, parts)}, {100 * asked:.3g} %"
            right.scatter(percent[:, number], places, s=14, color=COLOURS[number], label=name)
    else:
        even = 100 / len(parts)
        right.axvline(even, color=GREY, linewidth=1, label=f"equal: {even:.0f} %")
        jitter = np.linspace(-0.25, 0.25, len(parts))
        right.scatter(percent, places[:, None] + jitter, s=9, color=ORANGE, label="one fold")
    right.legend(**ABOVE | {"ncols": 3})
    title = "Split" if named else f"Split over {len(parts)} folds"
    label = f"percent of a class's images in each {'part' if named else 'fold'}"
    style.tidy(right, "x", title, xlabel=label, xlim=(0, max(20, percent.max() * 1.1)))
    style.save(figure, path)


def class_frequencies(classes, predicted, labelled, path):
    """Compare class frequencies in test predictions and in the training labels: two arrays (C,) in [0, 1]."""
    order = np.argsort(-np.asarray(labelled), kind="stable")
    predicted, labelled = (100 * np.asarray(values)[order] for values in (predicted, labelled))
    figure, axis = style.rows([classes[number] for number in order], 9, height=0.22)
    axis.barh(range(len(order)), predicted, color=BLUE, label="test images predicted to have the class")
    axis.plot(labelled, range(len(order)), "o", color=ORANGE, markersize=5, label="training images labelled with it")
    axis.legend(frameon=False, fontsize=9, loc="lower right")
    style.tidy(axis, "x", xlabel="percent of the images")
    style.arrange_and_save(figure, path)


def realism(curves, size, path):
    """Compare real with simulated images. Rows: channels; columns: grey values, power spectra, file sizes.

    curves: {channel: {"real" or "simulated": (histograms (3, 256), powers (3, size // 2), kilobytes (N,)) or None}};
    axis 0 of both: 10th, 50th and 90th percentile over images."""
    colours = {"real": BLUE, "simulated": ORANGE}
    figure, axes = plt.subplots(len(curves), 3, figsize=(13, 2.9 * len(curves) + 0.7), squeeze=False)
    for row, (channel, sides) in zip(axes, curves.items(), strict=True):
        counts = ", ".join(f"{len(part[2]) if part else 0:,} {side}" for side, part in sides.items())
        row[0].set_title(f"{channel}: {counts}", loc="left", fontweight="bold")
        for place, (side, part) in enumerate(sides.items()):
            if part:
                _draw_side(row, place, *part, colours[side])
        for axis in row[:2]:
            axis.set_yscale("log")
        style.tidy(row[0], ylim=(0.5 / size**2, 1), xlim=(-2, 257), xlabel="grey value", ylabel="fraction of pixels")
        style.tidy(row[1], xscale="log", xlim=(1, size / 2), xlabel="cycles per image", ylabel="power")
        row[1].xaxis.set_major_formatter("{x:.0f}")
        style.tidy(row[2], xticks=range(len(sides)), xticklabels=sides, xlim=(-0.6, 1.6), ylabel="KB as PNG")
        row[2].set_ylim(bottom=0)
    axes[0, 1].set_title("white noise has power 1 throughout", loc="left", fontsize=10)
    handles = [plt.Line2D([], [], color=colour, linewidth=3, label=side) for side, colour in colours.items()]
    figure.legend(handles=handles, loc="upper right", ncols=2, frameon=False, fontsize=12)
    note = f"All planes at {size}². Lines: median over images; bands and whiskers: 10 to 90 % of images"
    figure.text(0.01, 0.995, note, va="top", fontsize=12)
    style.arrange_and_save(figure, path, rect=(0, 0, 1, 1 - 0.35 / figure.get_figheight()))


def _draw_side(row, place, histograms, powers, kilobytes, colour):
    """Draw bands, lines and box of real or simulated images in the three panels of a channel."""
    for axis, x, values in ((row[0], range(256), histograms), (row[1], range(1, powers.shape[1] + 1), powers)):
        if np.isnan(values).any():  # constant planes have no spectrum
            continue
        low, middle, high = np.maximum(values, 1e-12)  # a logarithmic axis has no 0
        axis.fill_between(x, low, high, color=colour, alpha=0.25, linewidth=0)
        axis.plot(x, middle, color=colour, linewidth=1.8)
    lines = {name: dict(color=colour, linewidth=1.8) for name in ("boxprops", "whiskerprops", "capprops")}
    options = dict(widths=0.5, whis=(10, 90), showfliers=False, medianprops=dict(color="black"))
    row[2].boxplot(kilobytes, positions=[place], **options, **lines)
    jitter = np.random.default_rng(0).uniform(-0.2, 0.2, len(kilobytes))
    row[2].scatter(place + jitter, kilobytes, s=14, color=colour, alpha=0.5, linewidth=0, zorder=3)


def embedding_map(points, fractions, panels, path):
    """Plot embeddings of images reduced to two dimensions, a panel per way to name the images; the seven commonest names
    have colours. points: (N, 2). fractions: of the variance, on each axis. panels: {title: N names}."""
    counts = Counter(name for names in panels.values() for name in names)
    looks = {name: (COLOURS[i], "os^DvPX"[i]) for i, (name, _) in enumerate(counts.most_common(7))}
    figure, axes = style.panels(len(panels), 2, 5, 4.6, sharex=True, sharey=True)
    for axis, (title, names) in zip(axes, panels.items(), strict=True):
        named = np.array([name if name in looks else "others" for name in names])
        for name in [name for name in (*looks, "others") if name in named]:
            colour, marker = looks.get(name, (GREY, "o"))
            shown = points[named == name]
            axis.scatter(*shown.T, label=name, color=colour, marker=marker, s=42, edgecolors="white", linewidths=0.5)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False, fontsize=9)
        along, up = (f"component {number}, {part:.0%} of the variance" for number, part in enumerate(fractions, 1))
        style.tidy(axis, title=title, size=11, xlabel=along, ylabel=up)
    style.save(figure, path)
