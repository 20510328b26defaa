"""Multilabel stratification (Sechidis et al. 2011) of rows, or of groups of rows that stay together."""

import numpy as np
from iterstrat.ml_stratifiers import IterativeStratification


def stratified_parts(labels, shares, seed):
    """Split rows into parts so that every class has the same proportions: (N, C) 0/1 -> (N,) int, number of the part.

    shares: the number of equal parts, or each part's fraction (sum 1); at least two parts. Rows without a class form an
    additional class.
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


def stratify(counted, shares, seed):
    """Split groups of rows into parts: (U, C + 1) rows per group with each class and in total, (P,) fractions -> (U,)
    parts.

    Iterative stratification only sees whether a group has a class; `even_out` then corrects for large groups.
    """
    return even_out(counted, stratified_parts(counted[:, :-1] > 0, shares, seed), shares)


def even_out(counted, unit_fold, shares, most_moves=2000):
    """Move one group at a time to another part, always with the largest gain, until no move helps.

    It minimises the sum over parts and columns of (count − ideal)², each column divided by its total, so that rare
    classes weigh more.
    """
    used = counted[:, counted.any(axis=0)]
    weight = 1 / used.sum(axis=0)
    counts = np.stack([used[unit_fold == part].sum(axis=0) for part in range(len(shares))])
    # Divide by 1 / share: a product with 0.1 is rounded, and ties between moves would break.
    excess = counts - used.sum(axis=0) / (1 / shares)[:, None]
    weighted, own = used * weight, used**2 @ weight
    units = np.arange(len(used))
    for _ in range(most_moves):
        pull = weighted @ excess.T
        change = pull - pull[units, unit_fold][:, None] + own[:, None]  # half the change from moving unit u to fold f
        change[units, unit_fold] = 0
        unit, fold = np.unravel_index(change.argmin(), change.shape)
        if change[unit, fold] > -1e-9:
            break
        excess[unit_fold[unit]] -= used[unit]
        excess[fold] += used[unit]
        unit_fold[unit] = fold
    return unit_fold
