"""The kit's pictures. Functions with a `path` draw one figure and write it there, as PNG or JPEG."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from utils.files import whole_file

BLUE, ORANGE, GREY = "#0072B2", "#E69F00", "#999999"  # from Okabe and Ito's colours, told apart by colour-blind eyes
ABOVE = dict(loc="lower right", bbox_to_anchor=(1.02, 0.995), ncols=2, frameon=False, fontsize=9)  # legend off the data


def save(figure, path, dpi=110):
    """Write a figure as PNG, or as JPEG where the file's name says so."""
    kind = "jpg" if Path(path).suffix in (".jpg", ".jpeg") else "png"
    with whole_file(path, "wb") as file:
        figure.savefig(file, format=kind, dpi=dpi, bbox_inches="tight")
    plt.close(figure)


def fold_split(labels, fold, classes, path):
    """Class distribution, and how evenly the folds share each class (Chen, Fig. 2).

    labels: (N, C) 0/1. fold: (N,) int, −1 = always train.
    """
    folds = fold.max() + 1
    table = np.stack([labels[fold == k].sum(axis=0) for k in range(folds)], axis=1)  # (C, folds)
    total = table.sum(axis=1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 0.26 * len(classes) + 1.4), sharey=True)
    places = np.arange(len(classes))
    always = labels[fold < 0].sum(axis=0)
    left.barh(places, total, color=BLUE, label="split over folds")
    if always.any():
        left.barh(places, always, left=total, color=GREY, label="always trained on")
        left.legend(**ABOVE)
    for place, count in zip(places, total + always):
        left.text(max(count, 1) * 1.15, place, f"{int(count):,}", va="center", fontsize=8)
    left.set_xscale("log")
    left.set_xlim(0.8, max(2, (total + always).max()) * 5)
    left.set_yticks(places, classes)
    left.set_ylim(len(classes) - 0.5, -0.5)
    left.set_xlabel("images (log scale)")
    left.set_title("Class distribution", loc="left")
    share = 100 * table / np.maximum(total, 1)[:, None]
    right.axvline(100 / folds, color=GREY, linewidth=1, label=f"even: {100 / folds:.0f} %")
    jitter = np.linspace(-0.25, 0.25, folds)
    right.scatter(share, places[:, None] + jitter, s=9, color=ORANGE, label="one fold")
    right.set_xlim(0, max(20, share.max() * 1.1))
    right.set_xlabel("share of a class's images in each fold, %")
    right.set_title(f"Split over {folds} folds", loc="left")
    right.legend(**ABOVE)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x", alpha=0.3)
        axis.set_axisbelow(True)
    save(figure, path)


def thresholds(classes, positives, cuts, in_sample, cross_fitted, path):
    """Each class's threshold, and what it gives in sample and cross-fitted: the gap is what fitting on few images costs.

    All arguments but `classes` (names) and `path` are (C,) numbers; classes are drawn from common to rare.
    """
    order = np.argsort(-np.asarray(positives), kind="stable")
    places = np.arange(len(order))
    cuts, in_sample, cross_fitted = (np.asarray(values)[order] for values in (cuts, in_sample, cross_fitted))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 0.26 * len(order) + 1.4), sharey=True)
    left.scatter(cuts, places, s=24, color=BLUE)
    left.set_xlim(-0.02, 1.02)
    left.set_xlabel("threshold")
    left.set_title("Fitted thresholds", loc="left")
    right.hlines(places, cross_fitted, in_sample, color=GREY, linewidth=1.5)
    right.scatter(in_sample, places, s=24, facecolors="white", edgecolors=ORANGE, label="in sample", zorder=3)
    right.scatter(cross_fitted, places, s=24, color=ORANGE, label="cross-fitted", zorder=3)
    right.set_xlim(-0.02, 1.02)
    right.set_xlabel("F1")
    right.set_title("F1 of each class", loc="left")
    right.legend(**ABOVE)
    left.set_yticks(places, [f"{classes[i]} ({int(positives[i]):,})" for i in order])
    left.set_ylim(len(order) - 0.5, -0.5)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.3)
        axis.set_axisbelow(True)
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
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(alpha=0.3)
            axis.set_axisbelow(True)
    axes[0, 1].set_title("white noise would be 1 throughout", loc="left", fontsize=10)
    handles = [plt.Line2D([], [], color=colour, linewidth=3, label=side) for side, colour in colours.items()]
    figure.legend(handles=handles, loc="upper right", ncols=2, frameon=False, fontsize=12)
    note = f"All planes at {size}². Lines: median over images; bands and whiskers: 10 to 90 % of images"
    figure.text(0.01, 0.995, note, va="top", fontsize=12)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.35 / figure.get_figheight()))
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


def overlay(image):
    """Four channels to a picture in the microscope's colours: (H, W, 4) uint8 or float in [0, 1] -> (H, W, 3) in [0, 1].

    Nucleus blue, microtubules red, protein green; the reticulum's yellow is left out, it would hide the protein. Each
    channel is stretched to its 99.7th percentile.
    """
    return stretch(image[..., :3])


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
            axis.text(0, -0.03 - 0.062 * number, text, transform=axis.transAxes, va="top", fontsize=8.5, color=colour)
    figure.suptitle(
        "Nucleus blue, microtubules red, protein green; names: ✓ found, missed, wrong", fontsize=11, y=0.985
    )
    figure.subplots_adjust(hspace=0.03, wspace=0.05, left=0, right=1, top=0.96, bottom=0)
    save(figure, path)


def gallery(images, titles, columns=8):
    """Fields side by side in the microscope's colours, for notebooks: a matplotlib Figure.

    images: list of (H, W, 4). titles: one a picture.
    """
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(1.95 * columns, 2.12 * rows), squeeze=False)
    for axis in axes.ravel():
        axis.axis("off")
    for axis, image, title in zip(axes.ravel(), images, titles, strict=False):
        axis.imshow(overlay(image))
        axis.set_title(title, fontsize=9, loc="left", pad=2)
    figure.tight_layout(pad=0.3)
    return figure
