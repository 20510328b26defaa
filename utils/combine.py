"""Several networks' probabilities into one: means, weights, and where they are fitted.

A combination is a class with `fit(truth, members)` and `apply(members)` -> (N, C) scores in [0, 1]; members: (M, N, C)
probabilities of M networks on the same N images.
"""

import numpy as np

from utils.calibration import logit, sigmoid
from utils.metrics import best_thresholds
from utils.stack import Stack


class Single:
    """One network alone."""

    def __init__(self, number):
        self.number = number

    def fit(self, truth, members):
        return self

    def apply(self, members):
        return members[self.number]


class Mean:
    """The mean of probabilities."""

    def fit(self, truth, members):
        return self

    def apply(self, members):
        return members.mean(axis=0)


class LogitMean:
    """The mean of log odds, which a network that is very sure sways more: the geometric mean of odds."""

    def fit(self, truth, members):
        return self

    def apply(self, members):
        return sigmoid(logit(members).mean(axis=0))


class RankMean:
    """The mean of ranks: which share of the fitted images each network finds less likely."""

    def fit(self, truth, members):
        self.sorted = np.sort(members, axis=1)
        return self

    def apply(self, members):
        ranks = np.empty(members.shape)
        rows = self.sorted.shape[1]
        for member, network in enumerate(members):
            for column, values in enumerate(network.T):
                known = self.sorted[member, :, column]
                below, upto = (np.searchsorted(known, values, side) for side in ("left", "right"))
                ranks[member, :, column] = (below + upto) / (2 * rows)
        return ranks.mean(axis=0)


class Weighted:
    """The mean of probabilities with weights from greedy selection (Caruana et al. 2004): beginning with the best network,
    the one is added, again and again and as often as need be, whose addition gives the highest macro F1 at each class's
    best threshold; the weights are how often each was taken, at the best of the `STEPS` steps."""

    STEPS = 15

    def fit(self, truth, members):
        taken, total, best = np.zeros(len(members)), np.zeros(members.shape[1:]), -1.0
        for _ in range(self.STEPS):
            scores = [best_thresholds(truth, (total + member) / (taken.sum() + 1))[1].mean() for member in members]
            chosen = int(np.argmax(scores))
            taken[chosen] += 1
            total = total + members[chosen]
            if scores[chosen] > best:
                best, self.weights = scores[chosen], taken / taken.sum()
        return self

    def apply(self, members):
        return np.tensordot(self.weights, members, 1)


WAYS = {"mean": Mean, "logit": LogitMean, "rank": RankMean, "weighted": Weighted, "stack": Stack}
