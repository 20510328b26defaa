"""Thresholds of F1 smoothed over the positives' scores and bagged over bootstrap draws.

The best in-sample threshold of a rare class depends on single positives. So a normal kernel smooths each positive's
logit, and a Bayesian bootstrap (exponential weights: Rubin 1981) weights the positives. The draws' best thresholds are
averaged in the logit. The best kernel width is unknown, so draws use several. With many positives all kernels are
narrow, and the result approaches the exact optimum of F1 averaged over bootstraps (Breiman 1996).
"""

import numpy as np
from scipy.special import expit, logit, ndtr

from utils.scoring.metrics import levels
from utils.scoring.thresholds.exact import class_weights

WIDTHS = (1, 2, 3)  # kernel's standard deviation = width x spread of the positives / √positives
DRAWS = 60  # per width
BORROWED = 5  # weight of the median spread in a class's own, in positives
CANDIDATES = 500  # most thresholds tried per class, ever sparser below the highest
BINS = 250  # more positives than this are summarised by quantiles


def bagged(truth, probabilities, epochs=None, class_priors=None):
    """Fit smoothed and bagged thresholds: -> (C,); 0.5 for a class without positives."""
    return bootstrap_thresholds(truth, probabilities, class_priors)[0]


def bootstrap_thresholds(truth, probabilities, class_priors=None, widths=WIDTHS):
    """-> thresholds (C,), and the best threshold of each draw (C, DRAWS x number of widths), for rows in any order. A
    width of 0 does not smooth."""
    rng = np.random.default_rng(0)
    positive = np.ascontiguousarray(np.asarray(truth, bool).T)
    values = np.stack([_without_0_and_1(column) for column in np.asarray(probabilities, np.float64).T])
    own = [np.sort(logit(column[rows])) for column, rows in zip(values, positive, strict=True)]
    spreads = _spreads(own)
    found = np.full((len(values), DRAWS * len(widths)), 0.5)
    thresholds = np.full(len(values), 0.5)
    for c, weight in enumerate(class_weights(truth, class_priors)):
        if len(own[c]):
            found[c] = _draws_of_class(positive[c], values[c], own[c], spreads[c], weight, widths, rng)
            # Rounding must not change a threshold that all draws agree on.
            thresholds[c] = found[c, 0] if np.ptp(found[c]) == 0 else expit(logit(found[c]).mean())
    zeros = np.min(probabilities, axis=0) == 0
    for part in (thresholds, found.T):  # a threshold that includes every image includes the exact zeros
        part[zeros & (part <= values.min(axis=1))] = 0
    return thresholds, found


def _without_0_and_1(column):
    """Replace 0 and 1, which have no logit, by values that lie somewhat beyond all others: (N,) -> (N,)."""
    inner = column[(column > 0) & (column < 1)]
    low, high = (inner.min(), inner.max()) if len(inner) else (0.5, 0.5)
    low, high = max(low / 4, np.nextafter(0, 1)), min(1 - (1 - high) / 4, np.nextafter(1, 0))
    return np.select([column == 0, column == 1], [low, high], column)


def _spreads(own):
    """Spread of each class's positives (Silverman 1986, section 3.4.2), shrunk towards the median if they are few."""
    counts = np.array([len(column) for column in own])
    each = np.array([_spread(column) if len(column) > 1 else 0.0 for column in own])
    usual = np.median(each[counts > 1]) if (counts > 1).any() else 0.0
    return np.sqrt((counts * each**2 + BORROWED * usual**2) / (counts + BORROWED))


def _spread(column):
    """Return the smaller of standard deviation and interquartile range / 1.349."""
    deviation = column.std(ddof=1)
    quartiles = np.subtract(*np.percentile(column, [75, 25])) / 1.349 if len(column) > 3 else 0.0
    return min(deviation, quartiles) if quartiles > 0 else deviation


def _draws_of_class(positive, values, own, spread, weight, widths, rng):
    """-> (DRAWS x widths,), the best threshold of each draw. own: sorted logits of the positives."""
    order, last, upper, lower = levels(values)
    if len(last) > CANDIDATES:
        kept = np.unique(np.geomspace(1, len(last), CANDIDATES).astype(int)) - 1
        last, upper, lower = last[kept], upper[kept], lower[kept]
    cuts = (upper + lower) / 2
    edges = (logit(upper) + logit(lower)) / 2
    edges[-1] = -np.inf  # the lowest threshold includes every positive
    tp, predicted = np.cumsum(positive[order])[last], last + 1
    weighted = weight[0] * tp + weight[1] * (predicted - tp)
    centres, counts = own, np.ones(len(own))
    if len(own) > BINS:
        centres, counts = np.quantile(own, (np.arange(BINS) + 0.5) / BINS), np.full(BINS, len(own) / BINS)
    best = []
    for width in widths:
        deviation = max(width * spread / np.sqrt(len(own)), 1e-9)
        # (cuts, positives): fraction of each positive above each threshold
        reached = ndtr((centres - edges[:, None]) / deviation)
        weights = rng.gamma(counts, size=(DRAWS, len(counts))).T * weight[0]  # sums of `counts` exponentials
        f1 = 2 * (reached @ weights) / (weights.sum(axis=0) + weighted[:, None])
        best.append(cuts[f1.argmax(axis=0)])
    return np.concatenate(best)
