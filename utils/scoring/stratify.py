"""Multilabel stratification (Sechidis et al. 2011) by iterative-stratification, for any label matrix and any shares, and for
groups of rows that stay together."""

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


def stratify(counted, shares, seed):
    """Deal units out: (U, C + 1) images a unit in each class and in all, (P,) shares -> (U,) numbers of parts.

    Iterative stratification (Sechidis et al. 2011) knows only whether a unit has a class; the moves after it settle
    what groups of several images leave uneven.
    """
    return even_out(counted, stratified_parts(counted[:, :-1] > 0, shares, seed), shares)


def even_out(counted, unit_fold, shares, most_moves=2000):
    """Move one unit at a time to another part, always the move that lowers the unevenness most, until none does.

    Unevenness: the sum over parts and columns of (count − ideal)², each column divided by its total, so that an image
    of a rare class weighs more than one of a common class.
    """
    used = counted[:, counted.any(axis=0)]
    weight = 1 / used.sum(axis=0)
    counts = np.stack([used[unit_fold == part].sum(axis=0) for part in range(len(shares))])
    # A quotient, since a tenth as a factor is rounded, and equally good moves should stay equally good.
    excess = counts - used.sum(axis=0) / (1 / shares)[:, None]
    weighted, own = used * weight, used**2 @ weight
    units = np.arange(len(used))
    for _ in range(most_moves):
        pull = weighted @ excess.T
        change = pull - pull[units, unit_fold][:, None] + own[:, None]  # half of what moving unit u to fold f changes
        change[units, unit_fold] = 0
        unit, fold = np.unravel_index(change.argmin(), change.shape)
        if change[unit, fold] > -1e-9:
            break
        excess[unit_fold[unit]] -= used[unit]
        excess[fold] += used[unit]
        unit_fold[unit] = fold
    return unit_fold
