"""Cut-offs of highest expected F1 under calibrated probabilities."""

import numpy as np

from utils.scoring import calibration
from utils.scoring.thresholds.exact import class_weights


def calibrated(truth, probabilities, epochs=None, shares=None):
    """Where the calibrated probability is F*/2, half of the highest expected F1 (Lipton et al. 2014, theorem 1).

    Expected F1 of calling the k likeliest images is taken as 2 x the sum of their probabilities / (k + the sum of all). 0.5
    for a class without positives.
    """
    slope, intercept = calibration.fit(truth, probabilities)
    weights = class_weights(truth, shares)
    sure = calibration.apply(probabilities, slope, intercept, weights)
    thresholds = np.full(truth.shape[1], 0.5)
    for c in np.flatnonzero(truth.any(axis=0)):
        thresholds[c] = _best(sure[:, c], probabilities[:, c], slope[c] > 0, np.where(truth[:, c], *weights[c]))
    return thresholds


def _best(sure, column, useful, weight):
    """The network's probability where the calibrated one is F*/2. weight: (N,), how many images each row stands for."""
    if not useful:  # a flat calibration: all images are alike, and calling all of them is best
        return 0.0
    order = np.lexsort((-column, -sure))  # calibration may make images alike that the network told apart
    expected, called = np.cumsum((sure * weight)[order]), np.cumsum(weight[order])
    half = (expected / (called + expected[-1])).max()
    # Between two images the calibrated probability is a smooth function of the network's own: nothing is gained from
    # its exact inverse over halfway between the last image above F*/2 and the first below.
    above = int((sure >= half).sum())
    ranked = column[order]
    if above == len(ranked):
        return ranked[-1] / 2
    return (ranked[above - 1] + ranked[above]) / 2
