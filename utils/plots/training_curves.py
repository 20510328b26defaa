"""What a run went through and what it can do: Figs. 2 and 5 to 9 of Chen, drawn from any run's numbers."""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_curve

from utils.plots.style import ABOVE, BLUE, GREY, ORANGE, arrange, save, tidy

NINE = {
    "loss": "total loss", "bce": "BCE", "weighted_bce": "weighted BCE", "positive_bce": "positive BCE (positives × 21)",
    "focal": "focal loss (γ 5, α 0.25)", "soft_f1": "1 − soft F1", "precision": "precision at 0.5", "recall": "recall at 0.5",
    "lr": "learning rate",
}  # fmt: skip


def split(train, valid, classes, fold, path):
    """Fig. 2: images of each class to train on and to validate on. train, valid: (C,) counts."""
    figure, axis = plt.subplots(figsize=(8, 0.3 * len(classes) + 1.3))
    places = np.arange(len(classes))
    for counts, shift, colour, name in ((train, -0.2, BLUE, "training"), (valid, 0.2, ORANGE, "validation")):
        axis.barh(places + shift, counts, 0.4, color=colour, label=name)
        for place, count in zip(places, counts, strict=True):
            axis.text(max(count, 1) * 1.08, place + shift, f"{int(count):,}", va="center", fontsize=8)
    axis.set_xscale("log")
    axis.set_xlim(0.8, max(2, np.max([train, valid])) * 3)
    axis.set_yticks(places, classes)
    axis.set_ylim(len(classes) - 0.4, -0.6)
    axis.set_xlabel("images (log scale)")
    axis.set_title(f"Training and validation split, fold {fold}", loc="left")
    axis.legend(**ABOVE)
    tidy(axis, "x")
    save(figure, path)


def _mark(axis, switches, names=False):
    """A line at each change of loss. switches: [(x, text)]."""
    for x, text in switches:
        axis.axvline(x, color=GREY, linewidth=1, linestyle="--", zorder=0)
        if names:
            axis.text(x, 1.02, text, transform=axis.get_xaxis_transform(), fontsize=8.5, color="#555555", ha="left")


def nine_curves(steps, switches, path):
    """Fig. 5: the nine values tracked at every step, each step faint and their running mean strong.

    steps: steps.csv as a DataFrame. switches: [(first step, loss)] of the later stages of the loss.
    """
    figure, axes = plt.subplots(3, 3, figsize=(11, 7.6), sharex=True)
    span = max(1, len(steps) // 40)
    for axis, (name, title) in zip(axes.ravel(), NINE.items(), strict=True):
        values = steps[name]
        axis.plot(steps["step"], values, color=BLUE, alpha=0.2, linewidth=0.7)
        axis.plot(steps["step"], values.rolling(span, min_periods=1).mean(), color=BLUE, linewidth=1.6)
        axis.set_title(title, loc="left", fontsize=10)
        if name in ("precision", "recall", "soft_f1"):
            axis.set_ylim(-0.02, 1.02)
        elif name == "lr":
            axis.set_ylim(bottom=0)
        else:  # the first steps of a run, and some gone wrong, would flatten the rest
            axis.set_ylim(0, 1.15 * np.percentile(values, 99.5))
        _mark(axis, switches)
        tidy(axis)
    for axis in axes[-1]:
        axis.set_xlabel("step")
    changes = "; ".join(f"from step {step:,}: {loss}" for step, loss in switches)
    figure.suptitle(f"Training, every step (running mean over {span}). Dashed: the loss changes, {changes}" if switches
                    else f"Training, every step (running mean over {span})", x=0.01, ha="left", fontsize=11)  # fmt: skip
    arrange(figure)
    save(figure, path)


def validation(log, switches, path):
    """Fig. 6: macro F1 and focal score (1 − focal loss) of each epoch's validation.

    log: log.csv as a DataFrame. switches: [(first epoch, loss)].
    """
    figure, axis = plt.subplots(figsize=(9, 4))
    axis.plot(
        log["epoch"], log["macro_f1"], color=BLUE, marker="o", markersize=3.5, label="macro F1 at the best one cut-off"
    )
    axis.plot(
        log["epoch"],
        1 - log["valid_focal"],
        color=ORANGE,
        marker="o",
        markersize=3.5,
        label="focal score (1 − focal loss)",
    )
    axis.set_ylim(0, 1.02)
    axis.set_xlabel("epoch")
    axis.set_title("Validation", loc="left", pad=16)
    axis.legend(**ABOVE | {"bbox_to_anchor": (1.02, 1.05)})
    _mark(axis, [(epoch - 0.5, loss) for epoch, loss in switches], names=True)
    tidy(axis)
    save(figure, path)


def class_curves(log, classes, positives, switches, path, columns=4):
    """Fig. 7: F1 of each class by epoch, a panel a class from common to rare; grey: the macro F1. positives: (C,) in validation."""
    rows = -(-len(classes) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.45 * columns, 1.5 * rows + 0.6), sharex=True, sharey=True, squeeze=False
    )
    for axis in axes.ravel()[len(classes) :]:
        axis.axis("off")
    top = min(1.02, 1.1 * max(0.2, log[[f"f1 {name}" for name in classes]].to_numpy().max()))
    for axis, number in zip(axes.ravel(), np.argsort(-np.asarray(positives, int), kind="stable"), strict=False):
        axis.plot(log["epoch"], log["macro_f1"], color=GREY, linewidth=1)
        axis.plot(log["epoch"], log[f"f1 {classes[number]}"], color=BLUE, linewidth=1.6)
        axis.set_title(f"{classes[number]} ({int(positives[number]):,})", loc="left", fontsize=8.5)
        axis.set_ylim(-0.02, top)
        _mark(axis, [(epoch - 0.5, "") for epoch, _ in switches])
        tidy(axis)
    figure.supxlabel("epoch", fontsize=10)
    figure.suptitle("Validation F1 of each class (validation images), at each epoch's best one cut-off; grey: macro F1",
                    x=0.01, ha="left", fontsize=10)  # fmt: skip
    arrange(figure)
    save(figure, path)


def precision_recall(truth, probabilities, threshold, path):
    """Fig. 8: precision against recall, each class faint, all labels pooled strong, and where two cut-offs lie on it: `threshold`, the
    one best for these images, and 0.5."""
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
    precision, recall, _ = precision_recall_curve(truth.ravel(), probabilities.ravel())
    pooled = average_precision_score(truth.ravel(), probabilities.ravel())
    axis.plot(recall, precision, color=BLUE, linewidth=2.2, label=f"all labels pooled, average precision {pooled:.3f}")
    axis.plot([], [], color=BLUE, alpha=0.3, linewidth=0.8, label=f"each of {len(present)} classes, mean "
              f"{average_precision_score(truth[:, present], probabilities[:, present]):.3f}")  # fmt: skip
    for cut, marker in ((threshold, "o"), (0.5, "s")):
        called = probabilities >= cut
        hits = (called & (truth > 0)).sum()
        if called.any():
            name = f"cut-off {cut:.3f}" + (", best for these images" if cut == threshold else "")
            axis.plot(hits / truth.sum(), hits / called.sum(), marker, color=ORANGE, label=name, zorder=3)
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1.02)
    axis.set_xlabel("recall")
    axis.set_ylabel("precision")
    axis.set_title("Precision and recall", loc="left")
    axis.legend(loc="upper right", fontsize=8)
    tidy(axis)
    save(figure, path)


def person_and_machine(classes, positives, machine, person, path, images, least=3):
    """Fig. 9: each class's "accuracy", a person's beside the machine's. The paper does not say which accuracy; drawn are
    IoU, which its abstract calls accuracy, F1, and the share of images decided rightly.

    machine, person: dicts {accuracy, f1, iou: (C,)}; person may be None. positives: (C,) images of each class that the
    person saw; a class with fewer than `least` of them gets no point of the person's (as in the paper). images: what each
    judged, {"machine": text, "person": text}.
    """
    order = np.argsort(-machine["iou"], kind="stable")
    places = np.arange(len(order))
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 0.26 * len(order) + 1.5), sharey=True)
    titles = {"iou": "IoU", "f1": "F1", "accuracy": "images decided rightly"}
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        axis.barh(places, machine[name][order], color=BLUE, alpha=0.85, label="machine")
        if person is not None:
            enough = np.asarray(positives)[order] >= least
            axis.scatter(person[name][order][enough], places[enough], color=ORANGE, s=30, zorder=3, label="person")
        axis.set_xlim(0, 1.02)
        axis.set_xlabel(title)
        tidy(axis, "x")
    axes[0].set_yticks(places, [classes[i] for i in order])
    axes[0].set_ylim(len(order) - 0.5, -0.5)
    said = [f"machine: {images['machine']}"] + ([f"person: {images['person']}"] if person is not None else [])
    axes[0].set_title("\n".join(said), loc="left", fontsize=10)
    if person is not None:
        axes[-1].legend(**ABOVE)
    save(figure, path)
