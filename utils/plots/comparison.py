"""Figures that compare methods, or a network and a person."""

import matplotlib.pyplot as plt
import numpy as np

from utils.plots.style import COLOURS, GREY, arrange, save, tidy


def methods_by_class(table, positives, path):
    """F1 of each class by every method, common classes first; the best of a class is filled.

    table: `Comparison.by_class_f1`. positives: (C,) images of each class.
    """
    names = [column for column in table.columns if column not in ("class", "winner")]
    order = np.argsort(-np.asarray(positives, int), kind="stable")
    places = np.arange(len(order))
    figure, axis = plt.subplots(figsize=(9, 0.27 * len(order) + 1.5))
    values = table[names].to_numpy()[order]
    axis.hlines(places, values.min(axis=1), values.max(axis=1), color=GREY, linewidth=1)
    winners = table["winner"].to_numpy()[order]
    for number, name in enumerate(names):
        colour = COLOURS[number % len(COLOURS)]
        marker = "os^D"[number // len(COLOURS) % 4]
        won = winners == name
        axis.scatter(
            values[~won, number], places[~won], s=26, facecolors="white", edgecolors=colour, marker=marker, zorder=3
        )
        axis.scatter(values[won, number], places[won], s=40, color=colour, marker=marker, zorder=4)
        axis.scatter([], [], s=40, color=colour, marker=marker, label=f"{name}: {values[:, number].mean():.3f}")
    axis.set_yticks(places, [f"{table['class'][i]} ({int(positives[i]):,})" for i in order])
    axis.set_ylim(len(order) - 0.5, -0.5)
    axis.set_xlim(-0.02, max(0.5, 1.05 * values.max()))
    axis.set_xlabel("F1; filled: the best method of the class")
    axis.set_title("F1 of each class", loc="left")
    axis.legend(title="mean", loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
    tidy(axis)
    save(figure, path)


def learning_curves(logs, path):
    """Macro F1 of every run against the time that its training and validation took.

    logs: {method: [DataFrame with the columns seconds and macro_f1, a row an epoch]}, one a run, the best method first.
    """
    figure, axis = plt.subplots(figsize=(9, 4.5))
    for number, (name, tables) in enumerate(logs.items()):
        for place, log in enumerate(tables):
            axis.plot(log["seconds"].cumsum() / 60, log["macro_f1"], color=COLOURS[number % len(COLOURS)],
                      linestyle=("-", "--", ":", "-.")[number // len(COLOURS) % 4], marker=".", linewidth=1.2,
                      label=name if place == 0 else None)  # fmt: skip
    axis.set_xlabel("minutes of training and validation")
    axis.set_ylabel("macro F1 at the best single cut-off")
    axis.set_title("Every run, epoch by epoch", loc="left")
    axis.legend(frameon=False)
    tidy(axis)
    save(figure, path)


def confusion(matrices, classes, path):
    """Confusion matrices beside each other, where they are large below each other, each row divided by its sum (Rumetshofer et
    al., Fig. 5).

    matrices: {title: (C, C) counts, rows true, columns said}, all of the same images.
    """
    side = 0.3 * len(classes)
    beside = len(matrices) * side + 2.2 < 10.5
    rows, columns = (1, len(matrices)) if beside else (len(matrices), 1)
    shape = max(5.0, columns * (side + 0.2) + 2.2), rows * (side + 2.4)
    figure, axes = plt.subplots(rows, columns, figsize=shape, sharey=True, squeeze=False)
    for axis, (title, counts) in zip(axes.ravel(), matrices.items(), strict=True):
        sums = counts.sum(axis=1, keepdims=True)
        shares = counts / np.maximum(sums, 1)
        texts = {(y, x): f"{shares[y, x]:.2f}".lstrip("0") for y, x in np.argwhere(counts > 0)}
        _matrix(
            axis, shares, texts, [f"{name} ({int(n):,})" for name, n in zip(classes, sums[:, 0], strict=True)], classes
        )
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_xlabel("said")
    for axis in axes[:, 0]:
        axis.set_ylabel("true (images)")
    arrange(figure)
    save(figure, path)


def mistakes(counts, missed, wrong, classes, path):
    """Which classes are called wrongly where a class is missed: rows, the class missed; columns, what was called instead. Colours: the
    part of the row's misses; numbers: images. Classes that were never missed have no row, those never called wrongly no column.

    counts: (C, C) of `utils.tools.confusion.taken_for`. missed, wrong: (C,) images in which each class was missed, called wrongly.
    """
    rows, columns = np.flatnonzero(missed), np.flatnonzero(wrong)
    if not len(rows) or not len(columns):
        rows = columns = np.arange(len(classes))
    shares = counts[np.ix_(rows, columns)] / np.maximum(np.asarray(missed)[rows], 1)[:, None]
    texts = {(y, x): f"{counts[rows[y], columns[x]]:,}" for y, x in np.argwhere(shares > 0)}
    side = 0.29
    figure, axis = plt.subplots(figsize=(max(5.0, side * len(columns) + 2.6), side * len(rows) + 2.9))
    names = ([f"{classes[i]} ({int(count[i]):,})" for i in part] for part, count in ((rows, missed), (columns, wrong)))
    _matrix(axis, shares, texts, *names)
    axis.set_title("Numbers: images; colour: part of the row's misses", loc="left", fontsize=10)
    axis.set_xlabel("called instead (images that it was wrongly called in)")
    axis.set_ylabel("missed (images)")
    arrange(figure)
    save(figure, path)


def _matrix(axis, shares, texts, rows, columns):
    """Shares in shades of blue with the texts {(row, column): text} in them."""
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (y, x), text in texts.items():
        axis.text(x, y, text, ha="center", va="center", fontsize=8, color="white" if shares[y, x] > 0.5 else "black")
    axis.set_xticks(range(len(columns)), columns, rotation=90, fontsize=8.5)
    axis.set_yticks(range(len(rows)), rows, fontsize=8.5)
