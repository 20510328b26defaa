"""Samplers: how often each row is drawn in an epoch of training, so that rare classes are seen more often.

To add a sampler, add an entry to `SAMPLERS`: a function of the labels and of how far the training is that returns how
often each row is drawn on average. Its sum, the length of an epoch, must be the same at any time.
"""

import numpy as np

MOST_REPEATS = 8
BALANCED = (0.5, 0.05)  # share of the draws that are balanced by class, in the first epoch and in the last


def repeat_factors(targets, done):
    """Repeat factors of Gupta et al., "LVIS: A Dataset for Large Vocabulary Instance Segmentation", CVPR 2019.

    r(class) = max(1, √(t / f(class))), where f is the fraction of the rows that have the class; a row gets the largest
    of its classes, here at most `MOST_REPEATS`. t is 1 / number of classes: if every row has one of equally common
    classes, nothing is repeated. (LVIS has t = .001 for 1,230 classes.)
    """
    fractions = targets.mean(axis=0)
    factors = np.sqrt(1 / (targets.shape[1] * np.maximum(fractions, 1 / len(targets))))
    return np.clip((targets * factors).max(axis=1), 1, MOST_REPEATS)


def balanced_draws(targets, done):
    """As many draws as rows. A share of them, `BALANCED`, draws a class and then one of its rows, all classes and all
    rows of a class equally likely; the rest draws any row."""
    share = BALANCED[0] + done * (BALANCED[1] - BALANCED[0])
    counts = targets.sum(axis=0, dtype=np.int64)
    by_class = (targets / np.maximum(counts, 1)).sum(axis=1) / max(1, np.count_nonzero(counts))
    return share * len(targets) * by_class + (1 - share * by_class.sum())


SAMPLERS = {"repeat": repeat_factors, "balanced": balanced_draws}


class RowSampler:
    """Draws the rows of an epoch of training; its length is their number. name: of `SAMPLERS`. targets: (N, C) of 0 and
    1; soft ones count from 0.5 on. epochs: of the whole training."""

    def __init__(self, name, targets, epochs):
        self.function, self.targets, self.epochs = SAMPLERS[name], targets >= 0.5, epochs
        self.length = round(float(self.function(self.targets, 0.0).sum()))

    def __len__(self):
        return self.length

    def rows(self, epoch, rng):
        """Draw the rows of an epoch, the first of which is 1: -> (len(self),) int64, in no useful order."""
        return draw(self.function(self.targets, (epoch - 1) / max(1, self.epochs - 1)), self.length, rng)


def draw(expected, total, rng):
    """Draw row i either ⌊expected[i]⌋ or ⌈expected[i]⌉ times, on average expected[i] times: -> (total,) int64 rows.

    expected: (N,) float whose sum is `total` but for rounding. Systematic sampling (Madow 1949): points at equal
    distances, with one random offset, fall on the fractions laid end to end in random order. Independent draws would
    give each epoch another length.
    """
    whole = np.floor(expected).astype(np.int64)
    extra = total - whole.sum()
    order = rng.permutation(len(expected))
    ends = np.cumsum((expected - whole)[order])
    points = (np.arange(extra) + rng.random()) * (ends[-1] / max(1, extra))
    chosen = np.minimum(np.searchsorted(ends, points, side="right"), len(order) - 1)
    return np.concatenate([np.repeat(np.arange(len(expected)), whole), order[chosen]])


def count_repeats(rows):
    """How many times each of the rows (n,) has come before: (n,) int64."""
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    repeats = np.empty(len(rows), np.int64)
    repeats[order] = np.arange(len(rows)) - np.searchsorted(ordered, ordered)
    return repeats


def build(name, targets, epochs):
    """Return the RowSampler of a name, or None for ``none``: every row once."""
    return None if name == "none" else RowSampler(name, targets, epochs)
