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


def stratify(counted, shares, seed, sizes=None):
    """Split groups of rows into parts: (U, C + 1) rows per group with each class and in total, (P,) fractions -> (U,)
    parts.

    Iterative stratification only sees whether a group has a class; `even_out` then corrects for large groups.
    sizes: (P,) rows that the parts should have exactly, as far as whole groups allow.
    """
    part = even_out(counted, stratified_parts(counted[:, :-1] > 0, shares, seed), shares)
    return part if sizes is None else fit_sizes(counted, part, shares, sizes)


def even_out(counted, unit_fold, shares, most_moves=2000):
    """Move one group at a time to another part, always with the largest gain, until no move helps.

    It minimises the sum over parts and columns of (count − ideal)², each column divided by its total, so that rare
    classes weigh more.
    """
    units = np.arange(len(counted))
    costs = _Costs(counted, unit_fold, shares)
    for _ in range(most_moves):
        change = costs.of_moves(unit_fold)
        change[units, unit_fold] = 0
        unit, fold = np.unravel_index(change.argmin(), change.shape)
        if change[unit, fold] > -1e-9:
            break
        costs.move(unit, unit_fold, fold)
    return unit_fold


def fit_sizes(counted, part, shares, sizes):
    """Move one group at a time to a part with too few rows, in exchange for another group or for none, until the parts
    have `sizes` rows or no exchange brings them nearer. The one that costs least evenness for what it brings is made."""
    rows = counted[:, -1].astype(int)
    costs = _Costs(counted, part, shares)
    while True:
        over = np.bincount(part, rows, len(sizes)).astype(int) - sizes
        exchanges = _exchanges(rows, part, over, costs.of_moves(part))
        best = min(exchanges, key=lambda exchange: exchange[0], default=None)
        if best is None:
            return part
        for unit, to in best[1]:
            costs.move(unit, part, to)


def _exchanges(rows, part, over, change):
    """Yield (cost, [(group, the part that it goes to)]) of exchanges that bring parts nearer to their sizes; of groups of
    one size only the cheapest. over: rows that each part has too many."""

    def cheapest(source, to):
        for size in np.unique(rows[part == source]):
            units = np.flatnonzero((part == source) & (rows == size))
            unit = units[change[units, to].argmin()]
            yield size, change[unit, to], [(unit, to)]

    for full in np.flatnonzero(over > 0):
        for low in np.flatnonzero(over < 0):
            back = [(0, 0.0, []), *cheapest(low, full)]
            for size, cost, there in cheapest(full, low):
                for size_back, cost_back, here in back:
                    net = size - size_back
                    nearer = over[full] - over[low] - abs(over[full] - net) - abs(over[low] + net)
                    if nearer > 0:
                        yield (cost + cost_back) / nearer, there + here


class _Costs:
    """Unevenness of parts, see `even_out`, and what moving groups changes in it."""

    def __init__(self, counted, part, shares):
        self.used = counted[:, counted.any(axis=0)]
        weight = 1 / self.used.sum(axis=0)
        counts = np.stack([self.used[part == number].sum(axis=0) for number in range(len(shares))])
        # Divide by 1 / share: a product with 0.1 is rounded, and ties between moves would break.
        self.excess = counts - self.used.sum(axis=0) / (1 / shares)[:, None]
        self.weighted, self.own = self.used * weight, self.used**2 @ weight

    def of_moves(self, part):
        """(U, P): half the change from moving each group to each part, that to its own part excepted."""
        pull = self.weighted @ self.excess.T
        return pull - pull[np.arange(len(part)), part][:, None] + self.own[:, None]

    def move(self, unit, part, to):
        """Move a group, also in `part`."""
        self.excess[part[unit]] -= self.used[unit]
        self.excess[to] += self.used[unit]
        part[unit] = to
