"""Platt scaling: calibrate a network's probabilities, each class separately."""

import numpy as np


def logit(probabilities, clip=1e-7):
    """log(p / (1 − p)), with p clipped to [clip, 1 − clip]."""
    p = np.clip(np.asarray(probabilities, np.float64), clip, 1 - clip)
    return np.log(p) - np.log1p(-p)


def sigmoid(x):
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(x)))  # never overflows


def fit(truth, probabilities, steps=50):
    """Fit slope and intercept per class: (N, C) 0/1, (N, C) -> (C,), (C,); calibrated logit = slope x logit +
    intercept.

    Logistic regression by Newton's method on targets (n₊ + 1) / (n₊ + 2) and 1 / (n₋ + 2), which keep the fit finite
    for separable classes (Platt 1999, section 2.2). The slope is at least 0, so calibration never reverses an order.
    """
    truth, x = np.asarray(truth, bool), logit(probabilities)
    positives = truth.sum(axis=0)
    targets = np.where(truth, (positives + 1) / (positives + 2), 1 / (len(truth) - positives + 2))
    mean, spread = x.mean(axis=0), x.std(axis=0)
    scale = np.where(spread > 0, spread, 1)
    z = (x - mean) / scale
    prior = logit(targets.mean(axis=0))
    slope, intercept = np.zeros(x.shape[1]), prior
    loss_before, step = np.full(x.shape[1], np.inf), np.zeros((2, x.shape[1]))
    for _ in range(steps):
        scores = slope * z + intercept
        loss = (np.logaddexp(0, scores) - targets * scores).sum(axis=0)
        worse = loss > loss_before + 1e-12 * np.abs(loss_before)  # the last step was too long: undo half of it
        slope, intercept = slope - np.where(worse, step[0] / 2, 0), intercept - np.where(worse, step[1] / 2, 0)
        step = np.where(worse, step / 2, _newton_step(z, targets, scores))
        loss_before = np.where(worse, loss_before, loss)
        slope, intercept = slope + np.where(worse, 0, step[0]), intercept + np.where(worse, 0, step[1])
        if np.abs(step).max() < 1e-7:
            break
    flat = (slope <= 0) | (spread == 0)
    slope, intercept = np.where(flat, 0, slope) / scale, np.where(flat, prior, intercept)
    return slope, intercept - slope * mean


def _newton_step(z, targets, scores):
    """-> (2, C), the Newton step of slope and intercept."""
    p = sigmoid(scores)
    error, weight = targets - p, p * (1 - p)
    g0, g1 = error.sum(axis=0), (error * z).sum(axis=0)
    h00, h01, h11 = weight.sum(axis=0) + 1e-9, (weight * z).sum(axis=0), (weight * z * z).sum(axis=0) + 1e-9
    determinant = np.maximum(h00 * h11 - h01 * h01, 1e-12)
    return np.stack([(h00 * g1 - h01 * g0) / determinant, (h11 * g0 - h01 * g1) / determinant])


def apply(probabilities, slope, intercept, weights=None):
    """-> calibrated probabilities (N, C). weights (C, 2): weights of positive and negative rows (`class_weights`)."""
    scores = logit(probabilities) * slope + intercept
    if weights is not None:
        scores = scores + np.log(weights[:, 0]) - np.log(weights[:, 1])
    return sigmoid(scores)
