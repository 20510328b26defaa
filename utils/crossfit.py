"""What thresholds are worth on rows they were not fitted on."""

import numpy as np

from utils.metrics import f1_from_counts, f1_per_class, macro_f1
from utils.stratify import stratified_parts


def cross_fit(method, truth, probabilities, epochs=None, repeats=4, seed=0):
    """Thresholds fitted on all rows, and macro F1 in sample and cross-fitted with its spread and 95 % interval.

    method: one of `cutoffs.METHODS`. Two rows or more. Cross-fitted: fitted on four fifths of the rows, applied to the rest,
    scored once over all rows; that the epoch was chosen by these rows stays in it. The mean and spread of `repeats`
    stratified ways to deal out the fifths.
    """
    thresholds = method(truth, probabilities, epochs)
    decided = [held_out_decisions(method, truth, probabilities, epochs, seed + repeat) for repeat in range(repeats)]
    scores = [macro_f1(truth, decisions) for decisions in decided]
    low, high = interval(truth, decided[0], seed)
    return {
        "thresholds": thresholds, "in_sample": macro_f1(truth, probabilities >= thresholds), "cross_fitted": float(np.mean(scores)),
        "cross_fitted_spread": float(np.std(scores)), "interval_95": [low, high],
        "per_class": f1_per_class(truth, probabilities >= thresholds).tolist(),
        "per_class_cross_fitted": np.mean([f1_per_class(truth, decisions) for decisions in decided], axis=0).tolist(),
    }  # fmt: skip


def held_out_decisions(method, truth, probabilities, epochs=None, seed=0):
    """Each row decided with thresholds fitted on the other four fifths: (N, C) bool."""
    parts = min(5, len(truth))
    decisions = np.zeros(truth.shape, bool)
    part = stratified_parts(truth, parts, seed)
    for held in (part == number for number in range(parts)):
        seen = None if epochs is None else epochs[:, ~held]
        decisions[held] = probabilities[held] >= method(truth[~held], probabilities[~held], seen)
    return decisions


def interval(truth, decisions, seed, draws=1000):
    """95 % bootstrap interval of macro F1 over rows: percentiles of `draws` resamples (Efron 1979)."""
    rng, rows = np.random.default_rng(seed), len(truth)
    scores, called, positive = [], decisions.astype(np.float32), truth.astype(np.float32)
    for _ in range(0, draws, 50):
        counts = rng.multinomial(rows, np.full(rows, 1 / rows), size=50).astype(np.float32)
        scores.append(f1_from_counts(counts @ (called * positive), counts @ positive, counts @ called).mean(axis=1))
    return [float(value) for value in np.percentile(np.concatenate(scores), [2.5, 97.5])]
