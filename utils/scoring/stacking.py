"""Stacking of networks: one logistic regression per class, regularised towards the weights that classes share.

The inputs of a class are each network's clipped logit and square root of this class's probability, and the square roots
of all classes' probabilities, since compartments co-occur or exclude each other. Normal priors shrink the weights of
the former towards their mean over the common classes and those of the latter towards 0, so a rare class stays near the
mean.
"""

from copy import copy

import numpy as np

from utils.scoring.calibration import logit, sigmoid

OWN, OTHERS = 10.0, 50.0  # precision of the priors, for standardised inputs
CLIP = 6.0  # largest logit: beyond it, networks differ only in scale
CONSTANT = 1e-5  # spread of an input that says nothing: standardised, its rounding errors would decide other images
COMMON = 30  # fewest positives of a class that contributes to the shared weights


class Stack:
    """A combination of `utils.scoring.ensembling`. `weights` (C, 2M + CM), `intercepts` (C,) after `fit`."""

    title = "stacked"

    def fit(self, truth, members, start=None):
        truth, parts = np.asarray(truth, float), _inputs(members)
        spreads = [part.std(axis=0) for part in parts]
        scales = [np.where(spread > CONSTANT, spread, 1.0) for spread in spreads]
        self.moments = [(part.mean(axis=0), scale) for part, scale in zip(parts, scales, strict=True)]
        own, others = self._standardised(parts)
        counts, ones = truth.sum(axis=0), np.ones((len(truth), 1))
        width, total = own.shape[2], own.shape[2] + others.shape[1]
        common = np.flatnonzero((counts >= min(COMMON, counts.max())) & (counts > 0))
        ridges = [
            _newton(np.concatenate([own[:, c], ones], axis=1), truth[:, c], np.zeros(width), np.ones(width))
            for c in common
        ]
        mean = np.zeros(total)
        mean[:width] = np.mean([found[:-1] for found in ridges], axis=0) if ridges else 0
        precision = np.repeat([OWN, OTHERS], [width, total - width])
        inputs = np.concatenate([own[:, 0], others, ones], axis=1)
        self.weights = np.tile(mean, (truth.shape[1], 1))
        self.intercepts = np.full(truth.shape[1], -np.log(len(truth)))
        for c in np.flatnonzero(counts > 0):
            inputs[:, :width] = own[:, c]
            begin = None if start is None else np.append(start.weights[c], start.intercepts[c])
            found = _newton(inputs, truth[:, c], mean, precision, begin)
            self.weights[c], self.intercepts[c] = found[:-1], found[-1]
        return self

    def apply(self, members):
        """(M, N, C) -> (N, C) probabilities."""
        own, others = self._standardised(_inputs(members))
        width = own.shape[2]
        scores = np.einsum("ncd,cd->nc", own, self.weights[:, :width]) + others @ self.weights[:, width:].T
        return sigmoid(scores + self.intercepts)

    def scaled_like(self, other):
        """Return a copy with the other's intercepts, so that scores of fits on different rows are comparable: the
        number of positives changes a rare class's intercept far more than its weights."""
        same = copy(self)
        same.intercepts = other.intercepts
        return same

    def for_raw_inputs(self):
        """Return an equal stack whose weights are for inputs that are not standardised."""
        (mean, scale), (mean_of_others, scale_of_others) = self.moments
        classes = len(self.weights)
        means, scales = (
            np.concatenate([own, np.tile(others, (classes, 1))], axis=1)
            for own, others in ((mean, mean_of_others), (scale, scale_of_others))
        )
        weights = self.weights / scales
        return from_weights(weights, self.intercepts - (weights * means).sum(axis=1))

    def _standardised(self, parts):
        return [(part - mean) / scale for part, (mean, scale) in zip(parts, self.moments, strict=True)]


def from_weights(weights, intercepts):
    """Return the stack of `Stack.for_raw_inputs`: (C, 2M + CM), (C,) -> Stack."""
    stack = Stack()
    stack.weights, stack.intercepts, stack.moments = weights, intercepts, [(0.0, 1.0)] * 2
    return stack


def _inputs(members):
    """(M, N, C) -> inputs of each class (N, C, 2M), inputs from all classes (N, C x M)."""
    roots = np.sqrt(members)
    own = np.concatenate([np.clip(logit(members, 1e-9), -CLIP, CLIP), roots]).transpose(1, 2, 0)
    return own, roots.transpose(1, 0, 2).reshape(members.shape[1], -1)


def _newton(inputs, target, mean, precision, start=None, steps=60):
    """Fit weights and intercept (last) of highest posterior: inputs (N, D + 1), last column 1; normal prior with `mean`
    and `precision` (D,), and a weak one on the intercept. A step that lowers the posterior is halved; the optimum is
    unique.
    """
    positives, rows = target.sum(), len(target)
    centre = np.append(mean, np.log((positives + 0.5) / (rows - positives + 0.5)))
    precision = np.append(precision, 1e-3)

    def loss(weights):
        scores = inputs @ weights
        return (np.logaddexp(0, scores) - target * scores).sum() + (precision * (weights - centre) ** 2).sum() / 2

    found = centre if start is None else start
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
