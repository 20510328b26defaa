"""Thresholds of highest expected F1 under calibrated probabilities."""

import numpy as np

from utils.scoring import calibration
from utils.scoring.thresholds.exact import class_weights


def calibrated(truth, probabilities, epochs=None, class_priors=None):
    """Thresholds whose calibrated value is F*/2, half of the highest expected F1 (Lipton et al. 2014, theorem 1).

    Expected F1 of the k most probable images as positives: 2 x the sum of their probabilities / (k + the sum of all
    probabilities). 0.5 for a class without positives.
    """
    slope, intercept = calibration.fit(truth, probabilities)
    weights = class_weights(truth, class_priors)
    posterior = calibration.apply(probabilities, slope, intercept, weights)
    thresholds = np.full(truth.shape[1], 0.5)
    for c in np.flatnonzero(truth.any(axis=0)):
        if slope[c] > 0:
            thresholds[c] = _best(posterior[:, c], probabilities[:, c], np.where(truth[:, c], *weights[c]))
        else:  # flat calibration: predicting every image positive is best
            thresholds[c] = 0.0
    return thresholds


def _best(posterior, column, weight):
    """-> the network's probability at which the calibrated one is F*/2. weight: (N,), weights of the rows."""
    order = np.lexsort((-column, -posterior))  # calibration may create ties
    expected, predicted = np.cumsum((posterior * weight)[order]), np.cumsum(weight[order])
    half = (expected / (predicted + expected[-1])).max()
    # Halfway between the last image above F*/2 and the first below.
    above = int((posterior >= half).sum())
    ranked = np.append(column[order], 0.0)
    return (ranked[above - 1] + ranked[above]) / 2
