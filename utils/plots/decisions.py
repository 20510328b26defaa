"""Figures of decisions: F1 against the threshold, precision against recall, and whether probabilities mean what they say."""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import precision_recall_curve

from utils.plots.style import BLUE, GREY, ORANGE, arrange, save, tidy
from utils.scoring.calibration import logit, sigmoid
from utils.scoring.metrics import f1_steps

COLUMNS = 4


def f1_curves(classes, truth, probabilities, thresholds, intervals, path):
    """A small panel for each class, common ones first: F1 of every threshold, the chosen one, and where the best may lie.

    thresholds: (C,). intervals: C pairs or None, the shaded range. The axis of thresholds is linear in log odds and shows
    where 98 % of a class's positives lie.
    """
    figure, axes = _panels(len(classes))
    for axis, number in zip(axes, _common_first(truth), strict=True):
        steps, f1 = f1_steps(truth[:, number], probabilities[:, number])
        if intervals[number]:
            axis.axvspan(*_place(np.array(intervals[number])), color=ORANGE, alpha=0.25, linewidth=0)
        axis.step(_place(steps), f1, where="post", color=BLUE, linewidth=1.2)
        axis.axvline(_place(thresholds[number]), color="black", linewidth=1)
        _title(axis, classes[number], truth[:, number])
        own = probabilities[truth[:, number].astype(bool), number]
        shown = (
            _place([*np.percentile(own, [2, 100]), thresholds[number], *intervals[number]])
            if len(own)
            else _place(steps)
        )
        _zoom(axis, shown.min() - 0.2, shown.max() + 0.2)
        _remark(axis, "no images" if not len(own) else "all alike" if len(steps) == 1 else "")
        axis.set_ylim(0, 1)
    _finish(figure, axes, len(classes), "threshold", "F1",
            "F1 of each threshold (images). Black: the one chosen; orange: where the best lies in 95 % of bootstrap draws",
            path)  # fmt: skip


def precision_recall_by_class(classes, truth, probabilities, thresholds, path):
    """A small panel for each class, common ones first: precision against recall, and where the chosen threshold stands."""
    figure, axes = _panels(len(classes))
    for axis, number in zip(axes, _common_first(truth), strict=True):
        positive, values = truth[:, number].astype(bool), probabilities[:, number]
        if positive.any():
            precision, recall, _ = precision_recall_curve(positive, values)
            axis.step(recall, precision, where="post", color=BLUE, linewidth=1.2)
            called = values >= thresholds[number]
            if called.any():
                axis.plot(
                    (called & positive).sum() / positive.sum(),
                    positive[called].mean(),
                    "o",
                    color="black",
                    markersize=4.5,
                    clip_on=False,
                )
        _remark(axis, "" if positive.any() else "no images")
        axis.axhline(positive.mean(), color=GREY, linewidth=0.8, linestyle="--")
        _title(axis, classes[number], positive)
        axis.set_xlim(0, 1.02)
        axis.set_ylim(0, 1.02)
        axis.set_xticks([0, 0.5, 1], ["0", ".5", "1"], fontsize=8.5)
    _finish(figure, axes, len(classes), "recall", "precision",
            "Precision and recall of every threshold (images). Dot: the one chosen; dashed: calling at random", path)  # fmt: skip


def reliability(truth, raw, calibrated, path, bins=15):
    """How often a class is there when so much probability is given, all classes pooled: as predicted, and calibrated.

    Left on log scales, as many predictions in each dot; right in `bins` equal steps of probability. raw, calibrated: (N, C)
    probabilities; the calibrated ones should come from rows that were not fitted on.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6))
    hits = np.asarray(truth).ravel()
    for values, colour, name in ((raw, GREY, "as predicted"), (calibrated, BLUE, "calibrated, held out")):
        values = np.asarray(values).ravel()
        parts = np.array_split(np.argsort(values, kind="stable"), bins * 4)
        said, found = (np.array([column[part].mean() for part in parts if len(part)]) for column in (values, hits))
        kept = (said > 0) & (found > 0)
        left.plot(said[kept], found[kept], "o", color=colour, markersize=3.5, label=name, clip_on=False)
        edges = np.linspace(0, 1, bins + 1)
        which = np.clip(np.digitize(values, edges) - 1, 0, bins - 1)
        counts = np.bincount(which, minlength=bins)
        kept = counts > 0
        right.plot((np.bincount(which, values, bins)[kept] / counts[kept]), np.bincount(which, hits, bins)[kept] / counts[kept],
                   "o-", color=colour, markersize=3.5, label=name)  # fmt: skip
    left.set(xscale="log", yscale="log")
    left.set_title("As many predictions in each dot (log scales; dots at 0 left out)", loc="left", fontsize=10)
    right.set_title(f"{bins} equal steps of probability", loc="left", fontsize=10)
    for axis in (left, right):
        low = axis.get_xlim()[0]
        axis.plot([max(low, 1e-9), 1], [max(low, 1e-9), 1], color="black", linewidth=0.8, linestyle="--")
        axis.set_xlabel("probability given")
        axis.set_ylabel("share of images that have the class")
        axis.legend(frameon=False, fontsize=9, loc="upper left")
        tidy(axis)
    arrange(figure)
    save(figure, path)


def _place(probability):
    """Log odds, with 0 and 1 at the ends of the axis."""
    return logit(probability, 1e-9)


def _zoom(axis, low, high):
    """Ticks at three places, named by their probabilities."""
    axis.set_xlim(low, high)
    ticks = low + (high - low) * np.array([0.1, 0.5, 0.9])
    names = [f"{p:.3f}".lstrip("0") if p >= 0.001 else f"{p:.0e}" for p in sigmoid(ticks)]
    axis.set_xticks(ticks, names, fontsize=8.5)


def _remark(axis, text):
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", color=GREY, fontsize=9)


def _common_first(truth):
    return np.argsort(-np.asarray(truth).sum(axis=0, dtype=int), kind="stable")


def _panels(count):
    rows, columns = -(-count // COLUMNS), min(count, COLUMNS)
    figure, axes = plt.subplots(rows, columns, figsize=(2.45 * columns + 0.4, 1.6 * rows + 0.8), squeeze=False)
    for axis in axes.ravel()[count:]:
        axis.axis("off")
    return figure, axes.ravel()[:count]


def _title(axis, name, positive):
    short = name if len(name) <= 30 else name[:29] + "…"
    axis.set_title(f"{short} ({int(np.sum(positive)):,})", loc="left", fontsize=8.5)
    axis.set_yticks([0, 0.5, 1], ["0", ".5", "1"], fontsize=8.5)
    tidy(axis)


def _finish(figure, axes, count, x, y, title, path):
    columns = min(count, COLUMNS)
    for place, axis in enumerate(axes):
        if place + columns >= count:
            axis.set_xlabel(x, fontsize=9)
        if place % columns == 0:
            axis.set_ylabel(y, fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    arrange(figure)
    save(figure, path)
