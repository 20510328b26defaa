"""Ways to fit cut-offs: functions (truth (N, C) 0/1, probabilities (N, C), epochs (K, N, C) or None) -> thresholds (C,).

`epochs` are the probabilities of the last epochs, the best one last, for the ways that smooth over them. Those named chen_
are the paper's three (section III.D, Table I), taken from 1000 points from 0 to 1: its raw thresholds are whole multiples
of 1/999. Its smoothed ones are not, so they are no maximum of a smoothed curve (which `epochs_curve` is) but made "using the
best thresholds from the last few epochs". How many is open, and so is the weighting: a plain mean of five is ours. His table
was made with another (class 10: raw .1982, smoothed .01602, so the last epoch had at most a twelfth of the weight).
"""

import json
from pathlib import Path

import numpy as np

from utils.errors import InputError, listing
from utils.metrics import best_global_threshold, best_thresholds, f1_from_counts
from utils.predictions import EPOCHS, epoch_file, read_epochs
from utils.runs import best_epoch

GRID = np.linspace(0, 1, 1000)
LAST = 5  # epochs that are smoothed over; the paper says "a few"


def fixed(truth, probabilities, epochs=None):
    return np.full(truth.shape[1], 0.5)


def global_(truth, probabilities, epochs=None):
    """One cut-off for all classes: the exact optimum of macro F1."""
    return np.full(truth.shape[1], best_global_threshold(truth, probabilities)[0])


def per_class(truth, probabilities, epochs=None):
    """The exact optimum of each class; the global one for classes without positives."""
    thresholds, _ = best_thresholds(truth, probabilities)
    unfitted = np.isnan(thresholds)
    return np.where(unfitted, global_(truth, probabilities), thresholds) if unfitted.any() else thresholds


def chen_raw(truth, probabilities, epochs=None):
    """Each class's best of 1000 points, the lowest of equals; 0 for a class without positives."""
    return GRID[grid_f1(truth, probabilities).argmax(axis=0)]


def chen_smoothed(truth, probabilities, epochs):
    """The mean of each class's raw thresholds over the last epochs."""
    return np.mean([chen_raw(truth, epoch) for epoch in epochs], axis=0)


def chen_global(truth, probabilities, epochs=None):
    """One of 1000 points for all classes (the paper: 0.268, by hand)."""
    return np.full(truth.shape[1], GRID[grid_f1(truth, probabilities).mean(axis=1).argmax()])


def epochs_curve(truth, probabilities, epochs):
    """Each class's best of 1000 points on its F1 curve averaged over the last epochs."""
    return GRID[np.mean([grid_f1(truth, epoch) for epoch in epochs], axis=0).argmax(axis=0)]


METHODS = {"fixed": fixed, "global": global_, "per_class": per_class, "chen_raw": chen_raw, "chen_smoothed": chen_smoothed,
           "chen_global": chen_global, "epochs_curve": epochs_curve}  # fmt: skip
NEED_EPOCHS = {"chen_smoothed", "epochs_curve"}


def grid_f1(truth, probabilities):
    """F1 of each class at each point of `GRID`: (1000, C)."""
    curves = []
    for positive, column in zip(np.asarray(truth, bool).T, np.asarray(probabilities).T, strict=True):
        called, hits = (len(part) - np.searchsorted(np.sort(part), GRID) for part in (column, column[positive]))
        curves.append(f1_from_counts(hits, positive.sum(), called))
    return np.stack(curves, axis=1)


def table_one(truth, probabilities, epochs):
    """Chen's Table I: raw and smoothed thresholds, each (1 + C,), the one for all classes first."""
    raw = [chen_global(truth, probabilities)[0], *chen_raw(truth, probabilities)]
    smoothed = [
        np.mean([chen_global(truth, epoch)[0] for epoch in epochs]),
        *chen_smoothed(truth, probabilities, epochs),
    ]
    return np.array(raw), np.array(smoothed)


def read_last_epochs(fold, oof):
    """A fold's validation probabilities of the `LAST` epochs up to its best one: (K, N, C); None if it did not keep them.

    fold: Path of its folder. oof: (N, C), its oof.csv. The best epoch is the one whose weights are kept: thresholds of a
    later epoch, which the paper took, would belong to other weights. Raises InputError where the kept epochs do not end at
    oof.csv.
    """
    best = best_epoch(fold)
    last = range(max(1, (best or 0) - LAST + 1), (best or 0) + 1)
    if best is None or not all(epoch_file(fold, epoch).is_file() for epoch in last):
        return None
    epochs = read_epochs(fold, last, oof.shape)
    if not np.allclose(epochs[-1], oof, rtol=1e-3, atol=1e-6):
        raise InputError(
            f"{fold / EPOCHS}: epoch {best} is not that of oof.csv; let the training end first, or name oof.csv elsewhere"
        )
    return epochs


def read_thresholds(spec, classes):
    """(C,) thresholds from a thresholds.json that fits `classes`, or one number for all."""
    if not Path(spec).is_file() and (number := _number(spec)) is not None:
        values = [number] * len(classes)
    else:
        values = _read_json(spec, classes)
    if not all(isinstance(value, (int, float)) and 0 <= value <= 1 for value in values):
        raise InputError(f"{spec}: every threshold must be a number from 0 to 1; fit them with threshold.py")
    return np.array(values, np.float64)


def _number(text):
    try:
        return float(text)
    except ValueError:
        return None


def _read_json(path, classes):
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        names, values = list(content["classes"]), list(content["thresholds"])
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; fit it with threshold.py, or give a number such as 0.5") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not a thresholds.json with classes and thresholds ({str(error)[:100]}); fit it with threshold.py"
        ) from None
    if names != classes or len(values) != len(names):
        differing = sorted(set(map(str, names)) ^ set(classes)) or ["their order or number"]
        raise InputError(
            f"{path} was fitted for other classes than the predictions have: {listing(differing)}; fit it on the same run"
        )
    return values
