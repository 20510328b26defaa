"""A network on top of networks: one logistic regression a class, held back by what the classes have in common.

For each class the logistic regression looks at what every network says of this class, as clipped logit and as square root
of the probability, and at the square roots of what they say of all classes, since compartments come together or exclude
each other. The weights of the first are drawn towards their mean over the common classes, those of the second towards 0
(both as normal priors), so that a class with a handful of images hardly leaves what all classes do.
"""

from copy import copy

import numpy as np

from utils.scoring.calibration import logit, sigmoid

OWN, OTHERS = 10.0, 50.0  # precision of the priors, in units of 1 / variance of standardised inputs
CLIP = 6.0  # largest logit: beyond it networks differ in scale, not in what they know
COMMON = 30  # positives a class needs to have a say in the common weights


class Stack:
    """A combination (see utils/scoring/ensembling.py) that is fitted. `weights` (C, 2M + CM), `intercepts` (C,) after `fit`."""

    def fit(self, truth, members, start=None):
        truth = np.asarray(truth, float)
        own, others = _views(members)
        self.moments = [
            (part.mean(axis=0), np.where(part.std(axis=0) > 1e-9, part.std(axis=0), 1.0)) for part in (own, others)
        ]
        own, others = self._standardised(own, others)
        counts = truth.sum(axis=0)
        common = np.flatnonzero((counts >= min(COMMON, counts.max())) & (counts > 0))
        ones = np.ones((len(truth), 1))
        prior = np.mean([
            _newton(np.concatenate([own[:, c], ones], axis=1), truth[:, c], np.zeros(own.shape[2]), np.ones(own.shape[2]))[:-1]
            for c in common
        ], axis=0) if len(common) else np.zeros(own.shape[2])  # fmt: skip
        width = others.shape[1]
        towards = np.concatenate([prior, np.zeros(width)])
        precision = np.concatenate([np.full(len(prior), OWN), np.full(width, OTHERS)])
        inputs = np.concatenate([own[:, 0], others, ones], axis=1)
        self.weights = np.tile(towards, (truth.shape[1], 1))
        self.intercepts = np.full(truth.shape[1], -np.log(len(truth)))
        for c in np.flatnonzero(counts > 0):
            inputs[:, : len(prior)] = own[:, c]
            begin = None if start is None else np.append(start.weights[c], start.intercepts[c])
            found = _newton(inputs, truth[:, c], towards, precision, begin)
            self.weights[c], self.intercepts[c] = found[:-1], found[-1]
        return self

    def apply(self, members):
        """(M, N, C) -> (N, C) probabilities."""
        own, others = self._standardised(*_views(members))
        width = own.shape[2]
        scores = np.einsum("ncd,cd->nc", own, self.weights[:, :width]) + others @ self.weights[:, width:].T
        return sigmoid(scores + self.intercepts)

    def scaled_like(self, other):
        """This one with the other's intercepts, so that scores of fits on different rows can be compared: how many positives
        a fit has seen moves the intercept of a rare class far more than its weights."""
        same = copy(self)
        same.intercepts = other.intercepts
        return same

    def _standardised(self, *parts):
        return [(part - mean) / spread for part, (mean, spread) in zip(parts, self.moments, strict=True)]


def _views(members):
    """(M, N, C) -> what a class's networks say of it (N, C, 2M), what they say of all (N, C x M)."""
    roots = np.sqrt(members)
    own = np.concatenate([np.clip(logit(members, 1e-9), -CLIP, CLIP), roots]).transpose(1, 2, 0)
    return own, roots.transpose(1, 0, 2).reshape(members.shape[1], -1)


def _newton(inputs, target, towards, precision, start=None, steps=60):
    """Weights and intercept (last) of highest posterior: inputs (N, D + 1), the last column 1; normal prior of mean `towards`
    and `precision` (D,), none to speak of on the intercept.

    The posterior has one peak. A Newton step that would pass over it is halved until it climbs, so the way there ends at the
    same place from everywhere.
    """
    positives, rows = target.sum(), len(target)
    usual = np.log((positives + 0.5) / (rows - positives + 0.5))
    centre, precision = np.append(towards, usual), np.append(precision, 1e-3)

    def loss(weights):
        scores = inputs @ weights
        return (np.logaddexp(0, scores) - target * scores).sum() + (precision * (weights - centre) ** 2).sum() / 2

    found = centre.copy() if start is None else start.copy()
    now = loss(found)
    for _ in range(steps):
        p = sigmoid(inputs @ found)
        slope = inputs.T @ (target - p) - precision * (found - centre)
        curvature = (inputs * (p * (1 - p))[:, None]).T @ inputs
        curvature[np.diag_indices_from(curvature)] += precision
        step = np.linalg.solve(curvature, slope)
        while (then := loss(found + step)) > now and np.abs(step).max() > 1e-6:
            step /= 2
        found, now = found + step, min(then, now)
        if np.abs(step).max() < 1e-5:
            break
    return found
