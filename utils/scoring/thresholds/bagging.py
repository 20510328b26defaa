"""The kit's own cut-offs: F1 smoothed over where a class's few positives happen to lie.

Which threshold is best in sample hangs on single positives, most where there are few. So each positive is smeared out by a
normal kernel in the logit of its probability, and each class's F1 is followed along the thresholds, with its positives
reached weighed by a Bayesian bootstrap (weights from an exponential distribution: Rubin 1981). The best thresholds of all
draws are averaged, in the logit. How wide the kernel should be is not known, so some draws have a narrow and some a wide
one. With many positives all are narrow and this comes close to the exact optimum of F1, averaged over bootstraps (bagging:
Breiman 1996).
"""

import numpy as np
from scipy.special import ndtr

from utils.scoring.calibration import logit, sigmoid
from utils.scoring.metrics import levels
from utils.scoring.thresholds.exact import class_weights

WIDTHS = (1, 2, 3)  # of the kernel: spread of the positives x width / √positives
DRAWS = 60  # of each width
BORROWED = 5  # so many positives' worth of the usual spread is added to a class's own
CANDIDATES = 500  # thresholds looked at in a class: each of the highest, then ever fewer
BINS = 250  # more positives than this are gathered in so many quantiles
FLOOR = 1e-12  # probabilities below are alike


def bagged(truth, probabilities, epochs=None, shares=None):
    """Smoothed and bagged: (C,); 0.5 for a class without positives."""
    return draws(truth, probabilities, shares)[0]


def draws(truth, probabilities, shares=None, widths=WIDTHS):
    """-> thresholds (C,), and the best threshold of each bootstrap draw (C, DRAWS x number of widths).

    A width of 0 does not smooth. The same rows give the same draws, in any order.
    """
    rng = np.random.default_rng(0)
    positive = np.ascontiguousarray(np.asarray(truth, bool).T)
    values = np.ascontiguousarray(np.asarray(probabilities, np.float64).T)
    own = [np.sort(logit(column[rows], FLOOR)) for column, rows in zip(values, positive, strict=True)]
    spreads = _spreads(own)
    found = np.full((len(values), DRAWS * len(widths)), 0.5)
    thresholds = np.full(len(values), 0.5)
    for c, weight in enumerate(class_weights(truth, shares)):
        if len(own[c]):
            found[c] = _one_class(positive[c], values[c], own[c], spreads[c], weight, widths, rng)
            middle = sigmoid(logit(found[c], FLOOR).mean())
            # Rounding must not lift a threshold that all draws agree on, and 0 has no logit.
            thresholds[c] = found[c, 0] if np.ptp(found[c]) == 0 else middle if middle > 2 * FLOOR else 0.0
    return thresholds, found


def _spreads(own):
    """Spread of each class's positives: the smaller of standard deviation and quartile distance / 1.349 (Silverman 1986,
    section 3.4.2), with what is usual among classes added in where there are few."""
    counts = np.array([len(column) for column in own])
    each = np.array([_spread(column) for column in own])
    known = each[counts > 1]
    usual = np.median(known) if len(known) else 0.0
    return np.sqrt((counts * each**2 + BORROWED * usual**2) / (counts + BORROWED))


def _spread(column):
    if len(column) < 2:
        return 0.0
    deviation = column.std(ddof=1)
    quartiles = np.subtract(*np.percentile(column, [75, 25])) / 1.349 if len(column) > 3 else 0.0
    return min(deviation, quartiles) if quartiles > 0 else deviation


def _one_class(positive, values, own, spread, weight, widths, rng):
    """(DRAWS x widths,): the best threshold of each draw. own: sorted logits of the positives."""
    cuts, edges, hits, called = _candidates(positive, values)
    centres, each = own, np.ones(len(own))
    if len(own) > BINS:
        centres, each = np.quantile(own, (np.arange(BINS) + 0.5) / BINS), np.full(BINS, len(own) / BINS)
    calls = weight[0] * hits + weight[1] * (called - hits)
    best = []
    for width in widths:
        deviation = max(width * spread / np.sqrt(len(own)), 1e-9)
        reached = ndtr(
            (centres - edges[:, None]) / deviation
        )  # (cuts, positives): how much of each lies above each cut
        weights = rng.gamma(each, size=(DRAWS, len(each))).T * weight[0]  # a sum of `each` exponentials
        f1 = 2 * (reached @ weights) / (weights.sum(axis=0) + calls[:, None])
        best.append(cuts[f1.argmax(axis=0)])
    return np.concatenate(best)


def _candidates(positive, values):
    """Thresholds between neighbouring probabilities, falling, the last below all: -> cuts (K,), halfway in probability; where
    the kernels are cut (K,), halfway in logit, the last −∞; and the positives and images above each."""
    order, last, upper, lower = levels(values)
    if len(last) > CANDIDATES:
        kept = np.unique(np.geomspace(1, len(last), CANDIDATES).astype(int)) - 1
        last, upper, lower = last[kept], upper[kept], lower[kept]
    cuts = (upper + lower) / 2
    edges = (logit(upper, FLOOR) + logit(lower, FLOOR)) / 2
    edges[-1] = -np.inf  # below all: every positive is reached
    return cuts, edges, np.cumsum(positive[order])[last], last + 1
