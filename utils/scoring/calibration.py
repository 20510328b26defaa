"""From a network's probabilities to ones that mean what they say: Platt's scaling, a class at a time."""

import numpy as np

CLIP = 1e-7


def logit(probabilities, clip=CLIP):
    """log(p / (1 − p)), with p held `clip` away from 0 and 1."""
    p = np.clip(np.asarray(probabilities, np.float64), clip, 1 - clip)
    return np.log(p) - np.log1p(-p)


def sigmoid(x):
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(x)))  # overflows nowhere


def fit(truth, probabilities, steps=50):
    """Slope and intercept of each class: (N, C) 0/1, (N, C) -> (C,), (C,), the calibrated logit = slope x logit + intercept.

    Logistic regression on targets (n₊ + 1) / (n₊ + 2) and 1 / (n₋ + 2) instead of 1 and 0, which keeps it finite where the
    classes can be separated (Platt 1999, section 2.2), by Newton's method for all classes at once. The slope is kept at 0
    or above: calibration never turns the order of two images round.
    """
    truth, x = np.asarray(truth, bool), logit(probabilities)
    positives = truth.sum(axis=0)
    targets = np.where(truth, (positives + 1) / (positives + 2), 1 / (len(truth) - positives + 2))
    middle, spread = x.mean(axis=0), x.std(axis=0)
    z = (x - middle) / np.where(spread > 0, spread, 1)
    slope, intercept = np.zeros(x.shape[1]), logit(targets.mean(axis=0))
    before = np.full(x.shape[1], np.inf)
    step = np.zeros((2, x.shape[1]))
    for _ in range(steps):
        scores = slope * z + intercept
        loss = (np.logaddexp(0, scores) - targets * scores).sum(axis=0)
        worse = loss > before + 1e-12 * np.abs(before)  # of these classes the last step was too long: half of it back
        slope, intercept = slope - np.where(worse, step[0] / 2, 0), intercept - np.where(worse, step[1] / 2, 0)
        step = np.where(worse, step / 2, _newton(z, targets, scores))
        before = np.where(worse, before, loss)
        slope, intercept = slope + np.where(worse, 0, step[0]), intercept + np.where(worse, 0, step[1])
        if np.abs(step).max() < 1e-7:
            break
    flat = (slope <= 0) | (spread == 0)
    slope, intercept = np.where(flat, 0, slope), np.where(flat, logit(targets.mean(axis=0)), intercept)
    slope = slope / np.where(spread > 0, spread, 1)
    return slope, intercept - slope * middle


def _newton(z, targets, scores):
    """(2, C): the Newton step of slope and intercept."""
    p = sigmoid(scores)
    error, weight = targets - p, p * (1 - p)
    g0, g1 = error.sum(axis=0), (error * z).sum(axis=0)
    h00, h01, h11 = weight.sum(axis=0) + 1e-9, (weight * z).sum(axis=0), (weight * z * z).sum(axis=0) + 1e-9
    determinant = np.maximum(h00 * h11 - h01 * h01, 1e-12)
    return np.stack([(h00 * g1 - h01 * g0) / determinant, (h11 * g0 - h01 * g1) / determinant])


def apply(probabilities, slope, intercept, weights=None):
    """Calibrated probabilities (N, C); weights (C, 2): what a positive and a negative stand for, as in `class_weights`."""
    scores = logit(probabilities) * slope + intercept
    if weights is not None:
        scores = scores + np.log(weights[:, 0]) - np.log(weights[:, 1])
    return sigmoid(scores)
