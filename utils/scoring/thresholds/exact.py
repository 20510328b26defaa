"""Thresholds that are exactly optimal on the given rows."""

import numpy as np

from utils.scoring.metrics import best_global_threshold, best_thresholds, f1_from_counts, levels

SUBSAMPLES = 20


def fixed(truth, probabilities, epochs=None):
    return np.full(truth.shape[1], 0.5)


def global_(truth, probabilities, epochs=None):
    """A single threshold for all classes: the exact optimum of macro F1."""
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
    """Average the halves' best thresholds of one class, with one sort for all halves."""
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
    """Thresholds that predict each class at its prior's rate; 0.5 for a class without positives.

    With `class_priors` rows are weighted to these priors first.
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
    """-> (C, 2): weights of a positive and a negative row that turn the classes' priors into `class_priors` (C,). They
    are 1 if it is None, and for a class without positives or without negatives, before or after."""
    own = np.asarray(truth, float).mean(axis=0)
    if class_priors is None:
        return np.ones((len(own), 2))
    new = np.asarray(class_priors, float)
    weights = np.stack([new / np.where(own > 0, own, 1), (1 - new) / np.where(own < 1, 1 - own, 1)], axis=1)
    weights[(own == 0) | (own == 1) | (new <= 0) | (new >= 1)] = 1
    return weights
