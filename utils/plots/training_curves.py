"""Figures of a training run: Chen's Figs. 2 and 5 to 7, from the tables of any run."""

import matplotlib.pyplot as plt
import numpy as np

from utils.plots import style
from utils.plots.style import ABOVE, BLUE, GREY, ORANGE

STEP_CURVES = {  # column of steps.csv: title of the panel
    "loss": "total loss",
    "bce": "BCE",
    "weighted_bce": "weighted BCE",
    "positive_bce": "positive BCE (positives × 21)",
    "focal": "focal loss (γ 5, α 0.25)",
    "soft_f1": "1 − soft F1",
    "precision": "precision at 0.5",
    "recall": "recall at 0.5",
    "lr": "learning rate",
}


def train_validation_split(train, valid, classes, fold, path):
    """Fig. 2: plot the training and validation images of each class. train, valid: (C,) counts."""
    figure, axis = style.rows(classes, 8, height=0.3)
    style.log_bars(axis, train, -0.2, 0.4, color=BLUE, label="training")
    style.log_bars(axis, valid, 0.2, 0.4, color=ORANGE, label="validation")
    axis.set_title(f"Training and validation split, fold {fold}", loc="left")
    axis.legend(**ABOVE)
    style.save(figure, path)


def _mark_changes(axis, switches, names=False):
    """Draw a dashed line at each change of the loss. switches: [(x, text)]."""
    for x, text in switches:
        axis.axvline(x, color=GREY, linewidth=1, linestyle="--", zorder=0)
        if names:
            axis.text(x, 1.02, text, transform=axis.get_xaxis_transform(), fontsize=8.5, color="#555555", ha="left")


def nine_curves(steps, switches, path):
    """Fig. 5: plot the nine values logged at every step (faint), and their running means (strong).
    steps: steps.csv as a DataFrame. switches: [(first step, loss)] of later loss stages."""
    figure, axes = style.panels(9, 3, 3.7, 2.5, sharex=True)
    span = max(1, len(steps) // 40)
    for axis, (name, title) in zip(axes, STEP_CURVES.items(), strict=True):
        values = steps[name]
        axis.plot(steps["step"], values, color=BLUE, alpha=0.2, linewidth=0.7)
        axis.plot(steps["step"], values.rolling(span, min_periods=1).mean(), color=BLUE, linewidth=1.6)
        if name in ("precision", "recall", "soft_f1"):
            limits = -0.02, 1.02
        else:  # outliers, such as the first steps, would flatten the curve
            limits = 0, 1.15 * (values.max() if name == "lr" else np.percentile(values, 99.5)) or 1
        _mark_changes(axis, switches)
        style.tidy(axis, title=title, size=10, ylim=limits)
    for axis in axes[-3:]:
        axis.set_xlabel("step")
    changes = "; ".join(f"from step {step:,}: {loss}" for step, loss in switches)
    dashed = f". Dashed: the loss changes, {changes}" if switches else ""
    style.title(figure, f"Training, every step (running mean over {span}){dashed}", 11)
    style.arrange_and_save(figure, path)


def validation_scores(log, switches, path):
    """Fig. 6: plot validation macro F1 and focal score (1 − focal loss) of each epoch.
    log: log.csv as a DataFrame. switches: [(epoch in which the loss changes, as a fraction, loss)]."""
    figure, axis = plt.subplots(figsize=(9, 4))
    look = dict(marker="o", markersize=3.5)
    axis.plot(log["epoch"], log["macro_f1"], color=BLUE, label="macro F1 at one threshold", **look)
    axis.plot(log["epoch"], 1 - log["valid_focal"], color=ORANGE, label="focal score (1 − focal loss)", **look)
    axis.set_title("Validation", loc="left", pad=16)
    axis.legend(**ABOVE | {"bbox_to_anchor": (1.02, 1.05)})
    _mark_changes(axis, [(epoch - 0.5, loss) for epoch, loss in switches], names=True)
    style.tidy(axis, xlabel="epoch", ylim=(0, 1.02))
    style.save(figure, path)


def class_curves(log, classes, positives, switches, path):
    """Fig. 7: plot F1 by epoch, one panel per class, common first; grey: macro F1. positives: (C,) images."""
    figure, axes = style.panels(len(classes), 4, 2.45, 1.5, extra=0.6, sharex=True, sharey=True)
    top = min(1.02, 1.1 * max(0.2, log[[f"f1 {name}" for name in classes]].to_numpy().max()))
    for axis, number in zip(axes, style.common_first(positives), strict=True):
        axis.plot(log["epoch"], log["macro_f1"], color=GREY, linewidth=1)
        axis.plot(log["epoch"], log[f"f1 {classes[number]}"], color=BLUE, linewidth=1.6)
        _mark_changes(axis, [(epoch - 0.5, "") for epoch, _ in switches])
        title = f"{classes[number]} ({int(positives[number]):,})"
        style.tidy(axis, title=title, size=8.5, ylim=(-0.02, top))
    figure.supxlabel("epoch", fontsize=10)
    title = "Validation F1 of each class (validation images) at each epoch's one threshold; grey: macro F1"
    style.title(figure, title)
    style.arrange_and_save(figure, path)
