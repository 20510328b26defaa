"""Ways to fit cut-offs: functions (truth (N, C) 0/1, probabilities (N, C), epochs (K, N, C) or None) -> thresholds (C,).

`epochs` are the probabilities of the last epochs, the best one last, for the ways that smooth over them. Those of
`KNOW_SHARES` also take `shares` (C,): how large a part of the images to be decided has each class, where that is known to
differ from the rows they are fitted on; positives and negatives then weigh as much as there will be of them.
"""

from utils.scoring.thresholds.bagging import FLOOR, WIDTHS, bagged, draws
from utils.scoring.thresholds.chen import (
    GRID,
    chen_global,
    chen_raw,
    chen_smoothed,
    epochs_curve,
    grid_f1,
    smoothed_curve,
    table_one,
    times_07,
)
from utils.scoring.thresholds.exact import fixed, global_, per_class, share, subsampled
from utils.scoring.thresholds.expected import calibrated
from utils.scoring.thresholds.softened import soft_f1

METHODS = {
    "bagged": bagged, "fixed": fixed, "global": global_, "per_class": per_class, "subsampled": subsampled,
    "calibrated": calibrated, "share": share, "soft_f1": soft_f1, "chen_raw": chen_raw, "times_0.7": times_07,
    "smoothed_curve": smoothed_curve, "chen_smoothed": chen_smoothed, "epochs_curve": epochs_curve,
    "chen_global": chen_global,
}  # fmt: skip
NEED_EPOCHS = {"chen_smoothed", "epochs_curve"}
KNOW_SHARES = {"bagged", "calibrated", "share"}

__all__ = [
    "FLOOR", "GRID", "KNOW_SHARES", "METHODS", "NEED_EPOCHS", "WIDTHS", "bagged", "calibrated", "chen_global", "chen_raw",
    "chen_smoothed", "draws", "epochs_curve", "fixed", "global_", "grid_f1", "per_class", "share", "smoothed_curve", "soft_f1", "subsampled", "table_one", "times_07",
]  # fmt: skip
