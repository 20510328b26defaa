"""Thresholds on a grid of 1000 points in [0, 1], as in Chen (section III.D, Table I) and in public kits.

Chen's raw thresholds are multiples of 1/999. His smoothed ones are not, so they are not a maximum of a smoothed curve
(as in `epochs_curve`) but made "using the best thresholds from the last few epochs". The paper gives no number or
weights; this kit takes a plain mean of five. The table used others (class 10: raw .1982, smoothed .01602: the last
epoch weighs at most 1/12).
"""

import numpy as np
from scipy.ndimage import uniform_filter1d

from utils.scoring.metrics import f1_from_counts

GRID = np.linspace(0, 1, 1000)
WINDOW = 101  # points that `smoothed_curve` averages, a tenth of the grid


def chen_raw(truth, probabilities, epochs=None):
    """Each class's best grid point, the lowest among ties; 0 for a class without positives."""
    return GRID[grid_f1(truth, probabilities).argmax(axis=0)]


def chen_smoothed(truth, probabilities, epochs):
    """The mean of each class's raw thresholds over the last epochs."""
    return np.mean([chen_raw(truth, epoch) for epoch in epochs], axis=0)


def chen_global(truth, probabilities, epochs=None):
    """The best single grid point for all classes (0.268 in the paper, chosen by hand)."""
    return np.full(truth.shape[1], GRID[grid_f1(truth, probabilities).mean(axis=1).argmax()])


def epochs_curve(truth, probabilities, epochs):
    """Each class's best grid point of its F1 curve averaged over the last epochs."""
    return GRID[np.mean([grid_f1(truth, epoch) for epoch in epochs], axis=0).argmax(axis=0)]


def smoothed_curve(truth, probabilities, epochs=None):
    """Each class's best grid point of its F1 curve averaged over a window of `WINDOW` points."""
    curves = uniform_filter1d(grid_f1(truth, probabilities), WINDOW, axis=0, mode="nearest")
    return GRID[curves.argmax(axis=0)]


def times_07(truth, probabilities, epochs=None):
    """`chen_raw` times 0.7: public kits lower their thresholds for the darker test set."""
    return 0.7 * chen_raw(truth, probabilities)


def grid_f1(truth, probabilities):
    """F1 of each class at each point of `GRID`: (1000, C)."""
    curves = []
    for positive, column in zip(np.asarray(truth, bool).T, np.asarray(probabilities).T, strict=True):
        predicted, tp = (len(part) - np.searchsorted(np.sort(part), GRID) for part in (column, column[positive]))
        curves.append(f1_from_counts(tp, positive.sum(), predicted))
    return np.stack(curves, axis=1)


def table_one(truth, probabilities, epochs):
    """Compute Chen's Table I: -> raw and smoothed thresholds, each (1 + C,), the single one for all classes first."""
    tables = [np.append(chen_global(truth, part)[0], chen_raw(truth, part)) for part in (probabilities, *epochs)]
    return tables[0], np.mean(tables[1:], axis=0)
