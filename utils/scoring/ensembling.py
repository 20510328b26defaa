"""Combinations of several networks' probabilities, compared on their out-of-fold predictions.

A combination is a class with `fit(truth, members, start=None)`, `apply(members)` -> (N, C) scores in [0, 1],
`scaled_like(other)` and a `title`. members: (M, N, C) probabilities of M networks on the same N images. start: the same
combination fitted on nearly the same rows, for a warm start. To add a combination, write a class and add it to
`COMBINATIONS`.
"""

from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np
from tqdm import tqdm

from utils.parallel import cores
from utils.scoring.calibration import logit, sigmoid
from utils.scoring.cross_fit import deal, paired_gain, summaries
from utils.scoring.metrics import best_thresholds, macro_f1
from utils.scoring.stacking import Stack
from utils.scoring.thresholds.bagging import bagged


class Mean:
    title = "mean of probabilities"

    def fit(self, truth, members, start=None):
        return self

    def apply(self, members):
        return members.mean(axis=0)

    def scaled_like(self, other):
        return self


class LogitMean(Mean):
    title = "mean of log odds"  # a very confident network contributes more

    def apply(self, members):
        return sigmoid(logit(members).mean(axis=0))


class RankMean(Mean):
    """Mean over networks of the fraction of fitted images with a lower probability; ties count half."""

    title = "mean of ranks"

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
    """Weighted mean; weights (M,) from greedy selection with replacement (Caruana et al. 2004).

    Each of `STEPS` steps adds the network with the highest macro F1 at each class's best threshold; the counts at the
    best step are the weights.
    """

    title = "greedy weights"
    STEPS = 15

    def fit(self, truth, members, start=None):
        counts, total, best = np.zeros(len(members)), np.zeros(members.shape[1:]), -1.0
        for _ in range(self.STEPS):
            scores = [best_thresholds(truth, (total + member) / (counts.sum() + 1))[1].mean() for member in members]
            chosen = int(np.argmax(scores))
            counts[chosen] += 1
            total = total + members[chosen]
            if scores[chosen] > best:
                best, self.weights = scores[chosen], counts / counts.sum()
        return self

    def apply(self, members):
        return np.tensordot(self.weights, members, 1)


COMBINATIONS = {"mean": Mean, "logit": LogitMean, "rank": RankMean, "weighted": Weighted, "stack": Stack}

# A combination fitted on all rows; its thresholds (C,), fitted on `scores` (N, C) that are out of fold; in-sample
# decisions (N, C), and a list of cross-fitted ones.
Fitted = namedtuple("Fitted", "combination thresholds scores in_sample held_out")
# networks, combinations: {name: dict of `summaries`}. chosen: name of a combination. fitted: its Fitted. gain: the best
# other combination or network, and `paired_gain` over it. weights: each network's weight in greedy selection. losses:
# loss in the choice's cross-fitted macro F1 without each network, or None.
Comparison = namedtuple("Comparison", "networks combinations chosen fitted gain weights losses")


def compare(names, truth, members, combine="auto", repeats=2, seed=0, leave_out=False):
    """Measure each network and combinations of them: -> Comparison.

    names: M different names. truth (N, C), members (M, N, C). combine: a name of `COMBINATIONS`, or "auto" for
    `simplest_of_the_best`. leave_out: also measure the chosen combination without each network.
    """
    candidates = list(COMBINATIONS) if len(members) > 1 else ["mean", "stack"]
    candidates = candidates if combine == "auto" else [combine]
    numbers = range(len(members))
    jobs = {number: (Mean, members[[number]]) for number in numbers}
    fitted = _fit_all(jobs | {name: (COMBINATIONS[name], members) for name in candidates}, truth, repeats, seed)
    figures = summaries(truth, {key: (one.in_sample, one.held_out) for key, one in fitted.items()}, seed)
    chosen = simplest_of_the_best(truth, {name: fitted[name].held_out for name in candidates}, seed)
    other = max((key for key in fitted if key != chosen), key=lambda key: figures[key]["cross_fitted"])
    gain = other, *paired_gain(truth, fitted[chosen].held_out, fitted[other].held_out, seed)
    losses = None
    if leave_out and len(members) > 1:
        jobs = {number: (COMBINATIONS[chosen], np.delete(members, number, axis=0)) for number in numbers}
        score = macro_f1(truth, fitted[chosen].held_out[0])
        losses = [score - macro_f1(truth, one.held_out[0]) for one in _fit_all(jobs, truth, 1, seed).values()]
    weighted = fitted["weighted"].combination if "weighted" in fitted else Weighted().fit(truth, members)
    networks = {name: figures[number] for number, name in enumerate(names)}
    combined = {name: figures[name] for name in candidates}
    return Comparison(networks, combined, chosen, fitted[chosen], gain, weighted.weights.tolist(), losses)


def _fit_all(jobs, truth, repeats, seed):
    """Fit jobs with a progress bar: {key: (class, members)} -> {key: Fitted}."""
    bar = tqdm(jobs.items(), desc="fitting", unit="combination", disable=None, leave=False)
    return {key: fit_and_decide(kind, truth, members, repeats, seed) for key, (kind, members) in bar}


def simplest_of_the_best(truth, decided, seed=0):
    """Return the first name at most one standard error worse than the best (Breiman et al. 1984, section 3.4.3).

    Complex combinations lose more if test images differ. decided: {name: list of cross-fitted decisions (N, C)}, simple
    combinations first.
    """
    best = max(decided, key=lambda name: np.mean([macro_f1(truth, one) for one in decided[name]]))
    behind = ((name, paired_gain(truth, decided[best], decided[name], seed)) for name in decided)
    return next(name for name, (gain, error) in behind if gain <= error)


def fit_and_decide(kind, truth, members, repeats=2, seed=0):
    """Fit a combination on all rows, and decide each row without its own label: -> Fitted. kind: a combination's class.

    Each held-out fifth is decided by a combination fitted on the other four fifths; its thresholds are fitted on scores
    of combinations that also exclude the fifth they score.
    """
    whole, held_out = kind().fit(truth, members), []
    for number, part in enumerate(deal(truth, repeats, seed)):
        parts = range(part.max() + 1)
        left_out = [(a,) for a in parts] + (list(combinations(parts, 2)) if len(parts) > 2 else [])
        fitted = _fit_without(kind, truth, members, part, left_out, whole)
        decisions = np.zeros(truth.shape, bool)
        for a in parts:
            inner, seen = _scores(fitted, fitted[(a,)], {a}, members, part), part != a
            decisions[~seen] = inner[~seen] >= bagged(truth[seen], inner[seen])
        held_out.append(decisions)
        if number == 0:
            scores = _scores(fitted, whole, set(), members, part)
            thresholds = bagged(truth, scores)
    return Fitted(whole, thresholds, scores, whole.apply(members) >= thresholds, held_out)


def _fit_without(kind, truth, members, part, left_out, start):
    """Fit combinations on all cores: -> {parts left out: combination fitted on the rest}."""

    def fit(parts):
        kept = ~np.isin(part, parts)
        return kind().fit(truth[kept], members[:, kept], start)

    with ThreadPoolExecutor(cores()) as pool:
        return dict(zip(left_out, pool.map(fit, left_out), strict=True))


def _scores(fitted, target, without, members, part):
    """-> (N, C): each part scored by the fit without it and without the parts `without`, scaled like `target`."""
    scores = np.empty(members.shape[1:])
    for number in range(part.max() + 1):
        rows = part == number
        inner = fitted.get(tuple(sorted({number} | without)), target)
        scores[rows] = inner.scaled_like(target).apply(members[:, rows])
    return scores
