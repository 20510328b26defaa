"""Several networks' probabilities into one: means, weights, a network on top.

A combination is a class with `fit(truth, members, start=None)`, `apply(members)` -> (N, C) scores in [0, 1] and
`scaled_like(other)`. members: (M, N, C) probabilities of M networks on the same N images; start: the same combination,
fitted on nearly the same rows, from which one that searches step by step may begin.
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np

from utils.parallel import cores
from utils.scoring.calibration import logit, sigmoid
from utils.scoring.cross_fit import PARTS, deal
from utils.scoring.metrics import best_thresholds
from utils.scoring.stacking import Stack
from utils.scoring.thresholds import bagged


class Mean:
    """The mean of probabilities; nothing to fit."""

    def fit(self, truth, members, start=None):
        return self

    def apply(self, members):
        return members.mean(axis=0)

    def scaled_like(self, other):
        return self


class LogitMean(Mean):
    """The mean of log odds, which a network that is very sure sways more."""

    def apply(self, members):
        return sigmoid(logit(members).mean(axis=0))


class RankMean(Mean):
    """The mean of ranks: which share of the images it was fitted on each network finds less likely."""

    def fit(self, truth, members, start=None):
        self.known = np.sort(members, axis=1)
        return self

    def apply(self, members):
        ranks = np.empty(members.shape)
        for member, column in np.ndindex(members.shape[0], members.shape[2]):
            known, values = self.known[member, :, column], members[member, :, column]
            ranks[member, :, column] = np.searchsorted(known, values, "left") + np.searchsorted(known, values, "right")
        return ranks.mean(axis=0) / (2 * self.known.shape[1])


class Weighted(Mean):
    """The mean of probabilities with weights from greedy selection (Caruana et al. 2004): beginning with the best network,
    the one is added, again and again and as often as need be, whose addition gives the highest macro F1 at each class's
    best threshold; the weights say how often each was taken, up to the best of `STEPS` steps."""

    STEPS = 15

    def fit(self, truth, members, start=None):
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


def fit_and_decide(way, truth, members, repeats=2, seed=0, tick=lambda: None):
    """A combination fitted on all rows, its thresholds, and each row decided without its own label.

    way: a class of `WAYS`. -> (fitted, thresholds (C,), in-sample decisions (N, C), list of `repeats` cross-fitted (N, C)).
    No row sees itself: for each held-out fifth a combination is fitted on the other four; the scores that thresholds are
    fitted on come from combinations that also left out the fifth being scored. tick: called after each fit.
    """
    whole = way().fit(truth, members)
    tick()
    held_out = []
    for number, part in enumerate(deal(truth, repeats, seed)):
        parts = range(part.max() + 1)
        singles = _fit_without(way, truth, members, part, [(a,) for a in parts], whole, tick)
        pairs = (
            _fit_without(way, truth, members, part, list(combinations(parts, 2)), whole, tick)
            if len(parts) > 2
            else singles
        )
        decisions = np.zeros(truth.shape, bool)
        for a in parts:
            fitted, scores = singles[(a,)], np.empty(truth.shape)
            for b in parts:
                inner = pairs.get(tuple(sorted({a, b})), fitted)
                scores[part == b] = inner.scaled_like(fitted).apply(members[:, part == b])
            seen = part != a
            decisions[~seen] = scores[~seen] >= bagged(truth[seen], scores[seen])
        held_out.append(decisions)
        if number == 0:
            scores = np.empty(truth.shape)
            for a in parts:
                scores[part == a] = singles[(a,)].scaled_like(whole).apply(members[:, part == a])
            thresholds = bagged(truth, scores)
    return whole, thresholds, whole.apply(members) >= thresholds, held_out


def _fit_without(way, truth, members, part, left_out, start, tick):
    """{parts left out: combination fitted on the rest}, on all cores."""

    def one(parts):
        kept = ~np.isin(part, parts)
        fitted = way().fit(truth[kept], members[:, kept], start)
        tick()
        return fitted

    with ThreadPoolExecutor(cores()) as pool:
        return dict(zip(left_out, pool.map(one, left_out), strict=True))


def fits(repeats, rows):
    """How often `fit_and_decide` fits."""
    parts = min(PARTS, rows)
    return 1 + repeats * (parts + (parts * (parts - 1) // 2 if parts > 2 else 0))
