"""The kit's own thresholds: F1 smoothed over the scores of a class's few positives.

The best threshold in sample depends on single positives, most if there are few. So a normal kernel in the logit smears out
each positive, and a Bayesian bootstrap (weights from an exponential distribution: Rubin 1981) weights them. The best
thresholds of all draws are averaged in the logit. The right kernel width is unknown, so draws use a narrow to a wide one.
With many positives all are narrow, and this approaches the exact optimum of F1 averaged over bootstraps (Breiman 1996).
"""

import numpy as np
from scipy.special import ndtr

from utils.scoring.calibration import logit, sigmoid
from utils.scoring.metrics import levels
from utils.scoring.thresholds.exact import class_weights

WIDTHS = (1, 2, 3)  # of the kernel: spread of the positives x width / √positives
DRAWS = 60  # of each width
BORROWED = 5  # positives' weight of the usual spread in a class's own
CANDIDATES = 500  # thresholds tried in a class: each of the highest, then ever fewer
BINS = 250  # more positives than this are summarised by quantiles
FLOOR = 1e-12  # probabilities below are alike


def bagged(truth, probabilities, epochs=None, class_priors=None):
    """Smoothed and bagged: (C,); 0.5 for a class without positives."""
    return bootstrap_thresholds(truth, probabilities, class_priors)[0]


def bootstrap_thresholds(truth, probabilities, class_priors=None, widths=WIDTHS):
    """-> thresholds (C,), and the best threshold of each draw (C, DRAWS x number of widths); a width of 0 does not smooth.

    The same rows give the same draws, in any order.
    """
    rng = np.random.default_rng(0)
    positive = np.ascontiguousarray(np.asarray(truth, bool).T)
    values = np.ascontiguousarray(np.asarray(probabilities, np.float64).T)
    own = [np.sort(logit(column[rows], FLOOR)) for column, rows in zip(values, positive, strict=True)]
    spreads = _spreads(own)
    found = np.full((len(values), DRAWS * len(widths)), 0.5)
    thresholds = np.full(len(values), 0.5)
    for c, weight in enumerate(class_weights(truth, class_priors)):
        if len(own[c]):
            found[c] = _draws_of_class(positive[c], values[c], own[c], spreads[c], weight, widths, rng)
            mean = sigmoid(logit(found[c], FLOOR).mean())
            # Rounding must not lift a threshold that all draws agree on, and 0 has no logit.
            thresholds[c] = found[c, 0] if np.ptp(found[c]) == 0 else mean if mean > 2 * FLOOR else 0.0
    return thresholds, found


def _spreads(own):
    """Spread of each class's positives (Silverman 1986, section 3.4.2), averaged with the usual one if there are few."""
    counts = np.array([len(column) for column in own])
    each = np.array([_spread(column) if len(column) > 1 else 0.0 for column in own])
    usual = np.median(each[counts > 1]) if (counts > 1).any() else 0.0
    return np.sqrt((counts * each**2 + BORROWED * usual**2) / (counts + BORROWED))


def _spread(column):
    """The smaller of standard deviation and interquartile range / 1.349."""
    deviation = column.std(ddof=1)
    quartiles = np.subtract(*np.percentile(column, [75, 25])) / 1.349 if len(column) > 3 else 0.0
    return min(deviation, quartiles) if quartiles > 0 else deviation


def _draws_of_class(positive, values, own, spread, weight, widths, rng):
    """(DRAWS x widths,): the best threshold of each draw. own: sorted logits of the positives."""
    order, last, upper, lower = levels(values)
    if len(last) > CANDIDATES:
        kept = np.unique(np.geomspace(1, len(last), CANDIDATES).astype(int)) - 1
        last, upper, lower = last[kept], upper[kept], lower[kept]
    cuts = (upper + lower) / 2
    edges = (logit(upper, FLOOR) + logit(lower, FLOOR)) / 2  # where the kernels are cut
    edges[-1] = -np.inf  # below all: every positive is reached
    tp, predicted = np.cumsum(positive[order])[last], last + 1
    weighted = weight[0] * tp + weight[1] * (predicted - tp)
    centres, counts = own, np.ones(len(own))
    if len(own) > BINS:
        centres, counts = np.quantile(own, (np.arange(BINS) + 0.5) / BINS), np.full(BINS, len(own) / BINS)
    best = []
    for width in widths:
        deviation = max(width * spread / np.sqrt(len(own)), 1e-9)
        reached = ndtr(
            (centres - edges[:, None]) / deviation
        )  # (cuts, positives): part of each positive above each cut
        weights = rng.gamma(counts, size=(DRAWS, len(counts))).T * weight[0]  # sums of `counts` exponentials
        f1 = 2 * (reached @ weights) / (weights.sum(axis=0) + weighted[:, None])
        best.append(cuts[f1.argmax(axis=0)])
    return np.concatenate(best)
