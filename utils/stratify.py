"""Multilabel stratification (Sechidis et al. 2011) by iterative-stratification, for any label matrix and any shares."""

import numpy as np
from iterstrat.ml_stratifiers import IterativeStratification


def stratified_parts(labels, shares, seed):
    """Deal rows out so that every class is spread in the same proportions: (N, C) 0/1 -> (N,) int, the number of a part.

    shares: how many equal parts, or each part's share (sum 1); two parts or more. Rows without a class count as a class of
    their own.
    """
    labels = np.asarray(labels, bool)
    labels = np.column_stack([labels, ~labels.any(axis=1)])
    shares = np.full(shares, 1 / shares) if np.isscalar(shares) else np.asarray(shares)
    rng = np.random.RandomState(seed)
    order = np.arange(len(labels))
    rng.shuffle(order)
    part = np.empty(len(labels), int)
    part[order] = IterativeStratification(labels[order], shares, rng)
    return part
