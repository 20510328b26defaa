"""Thresholds counted exactly on the rows given."""

import numpy as np

from utils.scoring.metrics import best_global_threshold, best_thresholds, f1_from_counts, levels

SUBSAMPLES = 20


def fixed(truth, probabilities, epochs=None):
    return np.full(truth.shape[1], 0.5)


def global_(truth, probabilities, epochs=None):
    """One threshold for all classes: the exact optimum of macro F1."""
    return np.full(truth.shape[1], best_global_threshold(truth, probabilities)[0])


def per_class(truth, probabilities, epochs=None):
    """The exact optimum of each class; the global one for classes without positives."""
    thresholds, _ = best_thresholds(truth, probabilities)
    unfitted = np.isnan(thresholds)
    return np.where(unfitted, global_(truth, probabilities), thresholds) if unfitted.any() else thresholds


def subsampled(truth, probabilities, epochs=None):
    """The mean of the exact optima of 20 random halves of the rows; 0.5 for a class without positives."""
    halves = np.random.default_rng(0).random((SUBSAMPLES, len(truth))) < 0.5
    columns = zip(np.asarray(truth, bool).T, np.asarray(probabilities).T, strict=True)
    return np.array([_mean_of_halves(positive, column, halves) for positive, column in columns])


def _mean_of_halves(positive, values, halves):
    """One sort serves all halves: the row of highest F1 in each, then halfway to the next row."""
    order, last, upper, lower = levels(values)
    inside = halves[:, order]
    predicted = np.cumsum(inside, axis=1, dtype=np.int32)[:, last]
    tp = np.cumsum(inside & positive[order], axis=1, dtype=np.int32)[:, last]
    with_any = tp[:, -1] > 0
    if not with_any.any():
        return 0.5
    best = f1_from_counts(tp, tp[:, -1:], predicted)[with_any].argmax(axis=1)
    return np.mean((upper[best] + lower[best]) / 2)


def share(truth, probabilities, epochs=None, class_priors=None):
    """As many predicted positives as the class has images: the class prior; 0.5 for a class without positives.

    With `class_priors` the predicted positives are weighted to that prior first.
    """
    thresholds = np.full(truth.shape[1], 0.5)
    priors = np.asarray(truth, float).mean(axis=0) if class_priors is None else np.asarray(class_priors, float)
    weights = class_weights(truth, class_priors)
    for column in np.flatnonzero(truth.any(axis=0)):
        order, last, upper, lower = levels(probabilities[:, column])
        predicted = np.cumsum(np.where(truth[order, column], *weights[column]))
        best = np.abs(predicted[last] - priors[column] * len(order)).argmin()
        thresholds[column] = (upper[best] + lower[best]) / 2
    return thresholds


def class_weights(truth, class_priors):
    """(C, 2): what a positive and a negative row count if the classes' priors become `class_priors` (C,); 1 if None.

    A class without positives or without negatives, before or after, cannot be weighted: 1.
    """
    own = np.asarray(truth, float).mean(axis=0)
    if class_priors is None:
        return np.ones((len(own), 2))
    new = np.asarray(class_priors, float)
    weights = np.stack([new / np.where(own > 0, own, 1), (1 - new) / np.where(own < 1, 1 - own, 1)], axis=1)
    weights[(own == 0) | (own == 1) | (new <= 0) | (new >= 1)] = 1
    return weights
