"""Figures of thresholds and calibration: F1, precision and recall by threshold, chosen thresholds, reliability."""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, precision_recall_curve

from utils.plots import style
from utils.plots.style import ABOVE, BLUE, GREY, ORANGE
from utils.scoring.calibration import logit, sigmoid
from utils.scoring.metrics import f1_steps, mean_average_precision

CLIP = 1e-9  # finite positions of 0 and 1 on a log-odds axis


def f1_curves(classes, truth, probabilities, thresholds, intervals, path):
    """Plot F1 against the threshold, one panel per class, common classes first, with the chosen thresholds (C,).

    intervals: C pairs or None, shaded. The x axis is linear in log odds and shows 98 % of a class's positives."""

    def draw(axis, number, positive, values):
        interval, chosen = intervals[number] or [], thresholds[number]
        steps, f1 = f1_steps(positive, values)
        if interval:
            axis.axvspan(*logit(np.array(interval), CLIP), color=ORANGE, alpha=0.25, linewidth=0)
        axis.step(logit(steps, CLIP), f1, where="post", color=BLUE, linewidth=1.2)
        axis.axvline(logit(chosen, CLIP), color="black", linewidth=1)
        own = values[positive]
        shown = logit([*np.percentile(own, [2, 100]), chosen, *interval] if len(own) else steps, CLIP)
        low, high = shown.min() - 0.2, shown.max() + 0.2
        axis.set(xlim=(low, high), ylim=(0, 1))
        ticks = low + (high - low) * np.array([0.1, 0.5, 0.9])
        names = [f"{p:.3f}".lstrip("0") if p >= 0.001 else f"{p:.0e}" for p in sigmoid(ticks)]
        axis.set_xticks(ticks, names, fontsize=8.5)
        return "no images" if not len(own) else "all equal" if len(steps) == 1 else ""

    title = "F1 of each threshold (images). Black: chosen threshold; orange: 95 % bootstrap interval of the best one"
    _by_class(draw, classes, truth, probabilities, "threshold", "F1", title, path)


def precision_recall_by_class(classes, truth, probabilities, thresholds, path):
    """Plot precision against recall, one panel per class, common classes first; dots: the chosen thresholds (C,)."""

    def draw(axis, number, positive, values):
        if positive.any():
            precision, recall, _ = precision_recall_curve(positive, values)
            axis.step(recall, precision, where="post", color=BLUE, linewidth=1.2)
            look = dict(color="black", markersize=4.5, clip_on=False)
            _mark_threshold(axis, positive, values, thresholds[number], "o", **look)
        axis.axhline(positive.mean(), color=GREY, linewidth=0.8, linestyle="--")
        axis.set(xlim=(0, 1.02), ylim=(0, 1.02))
        axis.set_xticks([0, 0.5, 1], ["0", ".5", "1"], fontsize=8.5)
        return "" if positive.any() else "no images"

    title = "Precision and recall of every threshold (images). Dot: chosen threshold; dashed: random guessing"
    _by_class(draw, classes, truth, probabilities, "recall", "precision", title, path)


def _by_class(draw, classes, truth, probabilities, x, y, title, path, columns=4):
    """Draw one panel per class. draw(axis, class number, truth (N,) bool, probabilities (N,)) -> a remark or ""."""
    count = len(classes)
    figure, axes = style.panels(count, columns, 2.55, 1.6, extra=0.8)
    for place, (axis, number) in enumerate(zip(axes, style.common_first(truth.sum(axis=0)), strict=True)):
        positive = truth[:, number].astype(bool)
        remark = draw(axis, number, positive, probabilities[:, number])
        axis.text(0.5, 0.5, remark, transform=axis.transAxes, ha="center", color=GREY, fontsize=9)
        name = classes[number] if len(classes[number]) <= 30 else classes[number][:29] + "…"
        axis.set_title(f"{name} ({positive.sum():,})", loc="left", fontsize=8.5)
        axis.set_yticks([0, 0.5, 1], ["0", ".5", "1"], fontsize=8.5)
        style.tidy(axis)
        if place + columns >= count:
            axis.set_xlabel(x, fontsize=9)
        if place % columns == 0:
            axis.set_ylabel(y, fontsize=9)
    style.title(figure, title)
    style.arrange_and_save(figure, path)


def _mark_threshold(axis, positive, values, threshold, marker, **look):
    """Mark the recall and precision of one threshold, if any value reaches it."""
    predicted = values >= threshold
    if predicted.any():
        hits = (predicted & positive).sum()
        axis.plot(hits / positive.sum(), hits / predicted.sum(), marker, **look)


def precision_recall(truth, probabilities, threshold, path):
    """Chen, Fig. 8: plot precision against recall of each class (faint) and of all labels pooled (strong). Marked:
    `threshold`, the best for these images, and 0.5."""
    figure, axis = plt.subplots(figsize=(6.2, 5.6))
    recall_at = np.linspace(0.005, 1, 200)
    for f1 in (0.2, 0.4, 0.6, 0.8):
        with np.errstate(divide="ignore"):
            level = np.where(2 * recall_at > f1, f1 * recall_at / (2 * recall_at - f1), np.nan)
        axis.plot(recall_at, np.where(level <= 1, level, np.nan), color=GREY, linewidth=0.7, linestyle=":")
        axis.text(1.005, f1 / (2 - f1), f"F1 {f1}", fontsize=8, color="#777777", va="center")
    present = np.flatnonzero(truth.any(axis=0))
    for column in present:
        precision, recall, _ = precision_recall_curve(truth[:, column], probabilities[:, column])
        axis.plot(recall, precision, color=BLUE, alpha=0.15, linewidth=0.8)
    positive, values = truth.ravel() > 0, probabilities.ravel()
    precision, recall, _ = precision_recall_curve(positive, values)
    pooled = average_precision_score(positive, values)
    mean = mean_average_precision(truth, probabilities)
    axis.plot(recall, precision, color=BLUE, linewidth=2.2, label=f"all labels pooled, average precision {pooled:.3f}")
    axis.plot([], [], color=BLUE, alpha=0.3, linewidth=0.8, label=f"each of {len(present)} classes, mean {mean:.3f}")
    for chosen, marker in ((threshold, "o"), (0.5, "s")):
        name = f"threshold {chosen:.3f}" + (", best for these images" if chosen == threshold else "")
        _mark_threshold(axis, positive, values, chosen, marker, color=ORANGE, label=name, zorder=3)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.11), ncols=2, frameon=False, fontsize=8)
    style.tidy(axis, title="Precision and recall", xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    style.save(figure, path)


def reliability(truth, raw, calibrated, path, bins=15):
    """Plot calibration curves of all classes pooled. Left: quantile bins, log scales; right: `bins` bins of equal
    width. raw, calibrated: (N, C) probabilities; the calibrated ones should be cross-fitted."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6))
    hits = np.asarray(truth).ravel()
    for values, colour, name in ((raw, GREY, "as predicted"), (calibrated, BLUE, "calibrated, held out")):
        values, look = np.asarray(values).ravel(), dict(color=colour, markersize=3.5, label=name)
        found, predicted = calibration_curve(hits, values, n_bins=4 * bins, strategy="quantile")
        kept = (found > 0) & (predicted > 0)
        axes[0].plot(predicted[kept], found[kept], "o", clip_on=False, **look)
        found, predicted = calibration_curve(hits, values, n_bins=bins)
        axes[1].plot(predicted, found, "o-", **look)
    axes[0].set(xscale="log", yscale="log")
    titles = "Bins of equal size (log scales; bins without positives left out)", f"{bins} bins of equal width"
    for axis, title in zip(axes, titles, strict=True):
        low = max(axis.get_xlim()[0], 1e-9)
        axis.plot([low, 1], [low, 1], color="black", linewidth=0.8, linestyle="--")
        axis.legend(frameon=False, fontsize=9, loc="upper left")
        style.tidy(axis, title=title, size=10, xlabel="mean predicted probability", ylabel="fraction of positives")
    style.arrange_and_save(figure, path)


def class_thresholds(classes, positives, chosen, in_sample, cross_fitted, path):
    """Plot each class's threshold, and its F1 in sample and cross-fitted; the gap shows overfitting to few images.
    positives, chosen, in_sample, cross_fitted: (C,) numbers. Common classes come first."""
    order = style.common_first(positives)
    places = np.arange(len(order))
    chosen, in_sample, cross_fitted = (np.asarray(values)[order] for values in (chosen, in_sample, cross_fitted))
    names = style.with_counts([classes[number] for number in order], np.asarray(positives)[order])
    figure, left, right = style.rows(names, 10.2, columns=2)
    lowest = np.clip(np.floor(np.log10(max(chosen.min(), 1e-12))), -9, -4)  # 0 has no log odds
    ticks = np.array([*10.0 ** np.arange(lowest, 0, 2 if lowest < -5 else 1), 0.5, 0.9, 0.99])
    left.scatter(logit(chosen, 10**lowest), places, s=24, color=BLUE)
    left.set_xticks(logit(ticks), [f"{tick:g}" for tick in ticks], fontsize=8.5)
    limits = logit(0.7 * 10**lowest), logit(0.995)
    style.tidy(left, title="Fitted thresholds", xlim=limits, xlabel="threshold (log-odds axis)")
    right.hlines(places, cross_fitted, in_sample, color=GREY, linewidth=1.5)
    right.scatter(in_sample, places, s=24, facecolors="white", edgecolors=ORANGE, label="in sample", zorder=3)
    right.scatter(cross_fitted, places, s=24, color=ORANGE, label="cross-fitted", zorder=3)
    right.legend(**ABOVE)
    style.tidy(right, xlim=(-0.02, 1.02), xlabel="F1 of each class")
    style.save(figure, path)
