"""Figures of tables: folds, thresholds, real against simulated."""

import matplotlib.pyplot as plt
import numpy as np

from utils.data.labels import part_name
from utils.plots.style import ABOVE, BLUE, COLOURS, GREY, ORANGE, arrange, save, tidy
from utils.scoring.calibration import logit


def fold_split(labels, fold, dealt, parts, classes, path):
    """Class distribution, and how evenly the folds share each class (Chen, Fig. 2).

    labels: (N, C) 0/1. fold: (N,) int. dealt: (N,) bool, the others are always trained on or never. parts: {fold: share} of
    what was dealt out.
    """
    always = ~dealt & (fold == -1)
    table = np.stack(
        [labels[(fold == part) & (dealt | (part >= 0))].sum(axis=0) for part in parts], axis=1
    )  # (C, parts)
    total, beside = table.sum(axis=1), labels[always].sum(axis=0)
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 0.26 * len(classes) + 1.4), sharey=True)
    places = np.arange(len(classes))
    left.barh(places, total, color=BLUE, label="split over folds")
    if beside.any():
        left.barh(places, beside, left=total, color=GREY, label="always trained on")
        left.legend(**ABOVE)
    for place, count in zip(places, total + beside):
        left.text(max(count, 1) * 1.15, place, f"{int(count):,}", va="center", fontsize=9)
    left.set_xscale("log")
    left.xaxis.set_major_formatter("{x:,.0f}")
    left.set_xlim(0.8, max(2, (total + beside).max()) * 5)
    left.set_yticks(places, classes)
    left.set_ylim(len(classes) - 0.5, -0.5)
    left.set_xlabel("images (log scale)")
    left.set_title("Class distribution", loc="left")
    share = 100 * table / np.maximum(total, 1)[:, None]
    if -1 in parts:  # training, validation, test
        for number, (part, asked) in enumerate(parts.items()):
            right.axvline(100 * asked, color=GREY, linewidth=1)
            name = f"{part_name(part, parts)}, {100 * asked:.3g} %"
            right.scatter(share[:, number], places, s=14, color=COLOURS[number], label=name)
    else:
        even = 1 / len(parts)
        right.axvline(100 * even, color=GREY, linewidth=1, label=f"even: {100 * even:.0f} %")
        jitter = np.linspace(-0.25, 0.25, len(parts))
        right.scatter(share, places[:, None] + jitter, s=9, color=ORANGE, label="one fold")
    right.set_xlim(0, max(20, share.max() * 1.1))
    right.set_xlabel(f"share of a class's images in each {'part' if -1 in parts else 'fold'}, %")
    right.set_title(f"Split over {len(parts)} folds" if -1 not in parts else "Split", loc="left")
    right.legend(**ABOVE | {"ncols": 3})
    for axis in (left, right):
        tidy(axis, "x")
    save(figure, path)


def thresholds(classes, positives, cuts, in_sample, cross_fitted, path):
    """Each class's threshold, and what it gives in sample and cross-fitted: the gap is what fitting on few images costs.

    All arguments but `classes` (names) and `path` are (C,) numbers; classes are drawn from common to rare.
    """
    order = np.argsort(-np.asarray(positives, int), kind="stable")
    places = np.arange(len(order))
    cuts, in_sample, cross_fitted = (np.asarray(values)[order] for values in (cuts, in_sample, cross_fitted))
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.2, 0.26 * len(order) + 1.4), sharey=True)
    lowest = np.clip(np.floor(np.log10(max(cuts.min(), 1e-12))), -9, -4)  # 0 has no log odds
    ticks = np.array([*10.0 ** np.arange(lowest, 0, 2 if lowest < -5 else 1), 0.5, 0.9, 0.99])
    left.scatter(logit(cuts, 10**lowest), places, s=24, color=BLUE)
    left.set_xticks(logit(ticks), [f"{tick:g}" for tick in ticks], fontsize=8.5)
    left.set_xlim(logit(0.7 * 10**lowest), logit(0.995))
    left.set_xlabel("threshold (axis of log odds)")
    left.set_title("Fitted thresholds", loc="left")
    right.hlines(places, cross_fitted, in_sample, color=GREY, linewidth=1.5)
    right.scatter(in_sample, places, s=24, facecolors="white", edgecolors=ORANGE, label="in sample", zorder=3)
    right.scatter(cross_fitted, places, s=24, color=ORANGE, label="cross-fitted", zorder=3)
    right.set_xlim(-0.02, 1.02)
    right.set_xlabel("F1 of each class")
    right.legend(**ABOVE)
    left.set_yticks(places, [f"{classes[i]} ({int(positives[i]):,})" for i in order])
    left.set_ylim(len(order) - 0.5, -0.5)
    for axis in (left, right):
        tidy(axis)
    save(figure, path)


def realism(curves, size, path):
    """Real against simulated pictures. Rows: channels; columns: grey values, power spectra, file sizes.

    curves: {channel: {"real" or "simulated": (shares (3, 256), powers (3, size // 2), kilobytes (N,)), or None}}; the
    three are 10th, 50th and 90th percentile over images.
    """
    colours = {"real": BLUE, "simulated": ORANGE}
    figure, axes = plt.subplots(len(curves), 3, figsize=(13, 2.9 * len(curves) + 0.7), squeeze=False)
    for row, (channel, sides) in zip(axes, curves.items(), strict=True):
        counts = ", ".join(f"{len(part[2]) if part else 0:,} {side}" for side, part in sides.items())
        row[0].set_title(f"{channel}: {counts}", loc="left", fontweight="bold")
        for place, (side, part) in enumerate(sides.items()):
            if part:
                _one_side(row, place, *part, colours[side])
        row[0].set(yscale="log", ylim=(0.5 / size**2, 1), xlim=(-2, 257), xlabel="grey value", ylabel="share of pixels")
        row[1].set(xscale="log", yscale="log", xlim=(1, size / 2), xlabel="cycles per image", ylabel="power")
        row[1].xaxis.set_major_formatter("{x:.0f}")
        row[2].set(xticks=range(len(sides)), xticklabels=sides, xlim=(-0.6, 1.6), ylabel="KB as PNG")
        row[2].set_ylim(bottom=0)
        for axis in row:
            tidy(axis)
    axes[0, 1].set_title("white noise would be 1 throughout", loc="left", fontsize=10)
    handles = [plt.Line2D([], [], color=colour, linewidth=3, label=side) for side, colour in colours.items()]
    figure.legend(handles=handles, loc="upper right", ncols=2, frameon=False, fontsize=12)
    note = f"All planes at {size}². Lines: median over images; bands and whiskers: 10 to 90 % of images"
    figure.text(0.01, 0.995, note, va="top", fontsize=12)
    arrange(figure, rect=(0, 0, 1, 1 - 0.35 / figure.get_figheight()))
    save(figure, path)


def _one_side(row, place, shares, powers, kilobytes, colour):
    """One side's bands, lines and box in the three panels of a channel."""
    for axis, x, values in ((row[0], range(256), shares), (row[1], range(1, powers.shape[1] + 1), powers)):
        if np.isnan(values).any():  # only constant planes: no spectrum
            continue
        low, middle, high = np.maximum(values, 1e-12)  # a logarithmic axis has no 0
        axis.fill_between(x, low, high, color=colour, alpha=0.25, linewidth=0)
        axis.plot(x, middle, color=colour, linewidth=1.8)
    lines = {name: dict(color=colour, linewidth=1.8) for name in ("boxprops", "whiskerprops", "capprops")}
    row[2].boxplot(kilobytes, positions=[place], widths=0.5, whis=(10, 90), showfliers=False, medianprops=dict(color="black"),
                   **lines)  # fmt: skip
    jitter = np.random.default_rng(0).uniform(-0.2, 0.2, len(kilobytes))
    row[2].scatter(place + jitter, kilobytes, s=14, color=colour, alpha=0.5, linewidth=0, zorder=3)


def class_shares(classes, called, labelled, path):
    """In how many of a hundred test images each class was called, beside its share of the training labels: two arrays (C,) in [0, 1]."""
    order = np.argsort(labelled, kind="stable")
    names, at = [classes[i] for i in order], np.arange(len(classes))
    figure, axis = plt.subplots(figsize=(9, 0.22 * len(classes) + 1.2))
    axis.barh(at, 100 * np.asarray(called)[order], color=BLUE, label="test images that were given the class")
    axis.plot(
        100 * np.asarray(labelled)[order], at, "o", color=ORANGE, markersize=5, label="training images that have it"
    )
    axis.set_yticks(at, names, fontsize=9)
    axis.set_xlabel("of 100 images")
    axis.set_ylim(-0.7, len(classes) - 0.3)
    axis.legend(frameon=False, fontsize=9, loc="lower right")
    tidy(axis, grid="x")
    arrange(figure)
    save(figure, path)
