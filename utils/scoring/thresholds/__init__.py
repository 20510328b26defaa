"""Methods to fit thresholds: functions (truth (N, C) 0/1, probabilities (N, C), epochs) -> thresholds (C,) in [0, 1].

epochs: (K, N, C), probabilities of the last epochs up to the one kept, or None. Methods with `takes_priors` also take
class_priors (C,) of the test images, and weight positives and negatives to match them. To add a method, write a
function and add it to `METHODS`.
"""

from typing import NamedTuple

from utils.scoring.thresholds import bagging, chen, exact, expected, softened


class Method(NamedTuple):
    fit: callable
    needs_epochs: bool = False
    takes_priors: bool = False


METHODS = {
    "bagged": Method(bagging.bagged, takes_priors=True),
    "fixed": Method(exact.fixed),
    "global": Method(exact.global_),
    "per_class": Method(exact.per_class),
    "subsampled": Method(exact.subsampled),
    "calibrated": Method(expected.calibrated, takes_priors=True),
    "share": Method(exact.share, takes_priors=True),
    "soft_f1": Method(softened.soft_f1),
    "chen_raw": Method(chen.chen_raw),
    "times_0.7": Method(chen.times_07),
    "smoothed_curve": Method(chen.smoothed_curve),
    "chen_smoothed": Method(chen.chen_smoothed, needs_epochs=True),
    "epochs_curve": Method(chen.epochs_curve, needs_epochs=True),
    "chen_global": Method(chen.chen_global),
}
