"""Figures that compare methods, or a network with a person."""

import matplotlib.pyplot as plt
import numpy as np

from utils.plots import style
from utils.plots.style import ABOVE, BLUE, COLOURS, GREY, ORANGE


def methods_by_class(table, positives, path):
    """Plot F1 of each class and method, common classes first; the marker of a class's best method is filled.

    table: `Comparison.by_class_f1`. positives: (C,) images per class."""
    names = [column for column in table.columns if column not in ("class", "winner")]
    order = style.common_first(positives)
    places = np.arange(len(order))
    figure, axis = style.rows(style.with_counts(table["class"].to_numpy()[order], np.asarray(positives)[order]), 9)
    values = table[names].to_numpy()[order]
    axis.hlines(places, values.min(axis=1), values.max(axis=1), color=GREY, linewidth=1)
    winners = table["winner"].to_numpy()[order]
    for number, name in enumerate(names):
        won, own = winners == name, values[:, number]
        look = dict(edgecolors=COLOURS[number % len(COLOURS)], marker="os^D"[number // len(COLOURS) % 4])
        axis.scatter(own[~won], places[~won], s=26, facecolors="white", zorder=3, **look)
        label = f"{name}: {own.mean():.3f}"
        axis.scatter(own[won], places[won], s=40, facecolors=look["edgecolors"], zorder=4, label=label, **look)
    axis.legend(title="mean", loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
    label = "F1; filled: the best method of the class"
    style.tidy(axis, title="F1 of each class", xlabel=label, xlim=(-0.02, max(0.5, 1.05 * values.max())))
    style.save(figure, path)


def learning_curves(logs, path):
    """Plot macro F1 of every run against the time of its training and validation.

    logs: {method: [DataFrame with columns seconds and macro_f1, one row per epoch]}, one per run, the best method first."""
    figure, axis = plt.subplots(figsize=(9, 4.5))
    for number, (name, tables) in enumerate(logs.items()):
        line = ("-", "--", ":", "-.")[number // len(COLOURS) % 4]
        look = dict(color=COLOURS[number % len(COLOURS)], linestyle=line, marker=".", linewidth=1.2)
        for place, log in enumerate(tables):
            axis.plot(log["seconds"].cumsum() / 60, log["macro_f1"], label=None if place else name, **look)
    axis.set(xlabel="minutes of training and validation", ylabel="macro F1 of the validation images")
    axis.legend(frameon=False)
    style.tidy(axis, title="Every run, epoch by epoch")
    style.save(figure, path)


def generations(best, path):
    """Chen's last figure: plot the best training F1 of each run in the order of their starts, and the best validation F1.

    best: DataFrame name, train, valid of `utils.tools.compare.generations`."""
    places = np.arange(len(best))
    figure, axis = plt.subplots(figsize=(max(5.0, 0.45 * len(best) + 2.5), 4.5))
    look = dict(marker="o", markersize=5, linewidth=1.2)
    axis.plot(places, best["train"], color=BLUE, label="training, pooled over classes at 0.5", **look)
    axis.plot(places, best["valid"], color=ORANGE, label="validation, macro F1", **look)
    axis.set_xticks(places, best["name"], rotation=90, fontsize=8.5)
    axis.legend(**ABOVE)
    title = "Runs in the order of their starts"
    style.tidy(axis, ylabel="F1 of the epoch kept", ylim=(0, 1.02), xlabel=title)
    style.save(figure, path)


def confusion_matrices(matrices, classes, path):
    """Draw confusion matrices, each row divided by its sum (Rumetshofer et al., Fig. 5), side by side if small.

    matrices: {title: (C, C) counts, rows true, columns predicted}, all of the same images."""
    side = 0.3 * len(classes)
    columns = len(matrices) if len(matrices) * side + 2.2 < 10.5 else 1
    width = max(5.0 / columns, side + 0.2 + 2.2 / columns)
    figure, axes = style.panels(len(matrices), columns, width, side + 2.4, sharey=True)
    for number, (axis, (title, counts)) in enumerate(zip(axes, matrices.items(), strict=True)):
        sums = counts.sum(axis=1)
        fractions = counts / np.maximum(sums, 1)[:, None]
        texts = {(y, x): f"{fractions[y, x]:.2f}".lstrip("0") for y, x in np.argwhere(counts > 0)}
        style.draw_matrix(axis, fractions, texts, style.with_counts(classes, sums), classes)
        axis.set_title(title, loc="left", fontsize=10)
        axis.set(xlabel="predicted", ylabel="true (images)" if number % columns == 0 else "")
    style.arrange_and_save(figure, path)


def mistakes(counts, missed, wrong, classes, path):
    """Show which classes are wrongly predicted when another is missed. Rows: false negatives; columns: false positives;
    classes without any are left out. Colour: fraction of the row's misses; numbers: images.

    counts: (C, C) of `utils.tools.confusion.taken_for`. missed, wrong: (C,) false negatives and positives."""
    left, top = np.flatnonzero(missed), np.flatnonzero(wrong)
    if not len(left) or not len(top):
        left = top = np.arange(len(classes))
    missed, wrong, counts = np.asarray(missed)[left], np.asarray(wrong)[top], counts[np.ix_(left, top)]
    fractions = counts / np.maximum(missed, 1)[:, None]
    figure, axis = plt.subplots(figsize=(max(5.0, 0.29 * len(top) + 2.6), 0.29 * len(left) + 2.9))
    texts = {(y, x): f"{counts[y, x]:,}" for y, x in np.argwhere(counts > 0)}
    names = (style.with_counts([classes[i] for i in part], count) for part, count in ((left, missed), (top, wrong)))
    style.draw_matrix(axis, fractions, texts, *names)
    axis.set_title("Numbers: images; colour: fraction of the row's misses", loc="left", fontsize=10)
    axis.set(xlabel="wrongly predicted instead (false positives)", ylabel="missed (false negatives)")
    style.arrange_and_save(figure, path)


def person_and_machine(classes, positives, machine, person, path, images, least=3):
    """Chen, Fig. 9: "accuracy" of each class, of the machine and of a person. The paper does not define accuracy; this
    draws IoU (accuracy in its abstract), F1, and the fraction of images decided correctly.

    machine, person: dicts {accuracy, f1, iou: (C,)}; person may be None. positives: (C,) images of each class that the
    person labelled; as in the paper, a class with fewer than `least` has no point. images: {"machine": text, "person":
    text} that describes the images of each."""
    order = np.argsort(-machine["iou"], kind="stable")
    places = np.arange(len(order))
    figure, *axes = style.rows([classes[number] for number in order], 10.5, columns=3)
    titles = {"iou": "IoU", "f1": "F1", "accuracy": "fraction of images decided correctly"}
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        axis.barh(places, machine[name][order], color=BLUE, alpha=0.85, label="machine")
        if person is not None:
            enough = np.asarray(positives)[order] >= least
            axis.scatter(person[name][order][enough], places[enough], color=ORANGE, s=30, zorder=3, label="person")
        style.tidy(axis, "x", xlim=(0, 1.02), xlabel=title)
    judges = ["machine"] if person is None else ["machine", "person"]
    axes[0].set_title("\n".join(f"{judge}: {images[judge]}" for judge in judges), loc="left", fontsize=10)
    if person is not None:
        axes[-1].legend(**ABOVE)
    style.save(figure, path)


def paired_gains(tables, path):
    """Plot the gain of each arm over its experiment's baseline, a panel per experiment; thick: one standard error, thin: two.

    tables: {title: DataFrame of `utils.tools.ablate.outcome.tabulate`}."""
    tables = {title: table[table["gain_f1"].notna()] for title, table in tables.items()}
    most = max(map(len, tables.values()))
    figure, axes = style.panels(len(tables), 2, 5.5, 0.42 * most + 1.3, extra=0.5)
    for number, (axis, (title, table)) in enumerate(zip(axes, tables.items(), strict=True)):
        axis.axvline(0, color=GREY, linewidth=1)
        looks = {"average_precision": ("average precision", BLUE, -0.12), "f1": ("F1, cross-fitted", ORANGE, 0.12)}
        for column, (label, colour, shift) in looks.items():
            places, gains = np.arange(len(table)) + shift, table[f"gain_{column}"]
            for errors, width in ((2, 1), (1, 3)):
                axis.errorbar(
                    gains, places, xerr=errors * table[f"error_{column}"], fmt="none", color=colour, linewidth=width
                )
            axis.scatter(gains, places, color=colour, s=24, zorder=3, label=None if number else label)
        style.name_rows(axis, table["arm"].tolist())
        axis.locator_params("x", nbins=5)
        style.tidy(axis, "x", title=title, size=10, xlabel="gain over the baseline, ± 1 and 2 standard errors")
    figure.legend(loc="upper right", ncols=2, frameon=False, fontsize=9)
    style.arrange_and_save(figure, path, rect=(0, 0, 1, 1 - 0.3 / figure.get_figheight()))
