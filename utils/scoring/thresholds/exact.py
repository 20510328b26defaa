"""Cut-offs counted exactly on the rows at hand."""

import numpy as np

from utils.scoring.metrics import best_global_threshold, best_thresholds, f1_from_counts, levels

SUBSAMPLES = 20


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


def subsampled(truth, probabilities, epochs=None):
    """The mean of the exact optima of 20 random halves of the rows; 0.5 for a class without positives."""
    rng = np.random.default_rng(0)
    halves = rng.random((SUBSAMPLES, len(truth))) < 0.5
    return np.array([_mean_of_halves(positive, column, halves)
                     for positive, column in zip(np.asarray(truth, bool).T, np.asarray(probabilities).T, strict=True)])  # fmt: skip


def _mean_of_halves(positive, values, halves):
    """All halves at once on one sorting: the row of highest F1 in each, then halfway to the next row."""
    order, last, upper, lower = levels(values)
    inside = halves[:, order]
    called = np.cumsum(inside, axis=1, dtype=np.int32)[:, last]
    hits = np.cumsum(inside & positive[order], axis=1, dtype=np.int32)[:, last]
    with_any = hits[:, -1] > 0
    if not with_any.any():
        return 0.5
    best = f1_from_counts(hits, hits[:, -1:], called)[with_any].argmax(axis=1)
    return np.mean((upper[best] + lower[best]) / 2)


def share(truth, probabilities, epochs=None, shares=None):
    """Call as large a part of the images as has the class.

    With `shares` known to differ from those of these rows, the cut-off is where called positives and called negatives,
    weighed as many as there will be of each, come to that part.
    """
    thresholds = np.full(truth.shape[1], 0.5)
    for column, (weight, wanted) in enumerate(zip(class_weights(truth, shares), _wanted(truth, shares), strict=True)):
        if not truth[:, column].any():
            continue
        order, last, upper, lower = levels(probabilities[:, column])
        called = np.cumsum(np.where(truth[order, column], weight[0], weight[1]))
        best = np.abs(called[last] - wanted * len(order)).argmin()
        thresholds[column] = (upper[best] + lower[best]) / 2
    return thresholds


def _wanted(truth, shares):
    return np.asarray(truth, float).mean(axis=0) if shares is None else np.asarray(shares, float)


def class_weights(truth, shares):
    """(C, 2): what a positive and a negative row stand for where the classes' shares become `shares`; 1 where they stay.

    A class without positives or without negatives, here or there, cannot be weighed: 1.
    """
    own = np.asarray(truth, float).mean(axis=0)
    if shares is None:
        return np.ones((len(own), 2))
    shares = np.asarray(shares, float)
    weights = np.stack([shares / np.where(own > 0, own, 1), (1 - shares) / np.where(own < 1, 1 - own, 1)], axis=1)
    weights[(own == 0) | (own == 1) | (shares <= 0) | (shares >= 1)] = 1
    return weights
