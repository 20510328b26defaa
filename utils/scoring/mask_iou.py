"""Overlap of the cells of two label images: intersection over union of each pair, and the pairs that match one to one."""

import numpy as np
from scipy.optimize import linear_sum_assignment


def cells_in(labels):
    """The cells of a label image (H, W) of integers, 0 for none, and how many pixels each has: -> (N,), (N,)."""
    counts = np.bincount(np.ravel(labels))
    cells = np.flatnonzero(counts[1:]) + 1
    return cells, counts[cells]


def iou(a, b):
    """Intersection over union of each cell of `a` with each of `b`: -> (A, B) float64, rows and columns as in `cells_in`.

    a, b: label images (H, W) of integers, 0 for none. Raise ValueError for two of different shape.
    """
    if np.shape(a) != np.shape(b):
        raise ValueError(f"label images of different shape: {np.shape(a)} and {np.shape(b)}")
    (cells_a, area_a), (cells_b, area_b) = cells_in(a), cells_in(b)
    rows, columns = _places(cells_a)[np.ravel(a)], _places(cells_b)[np.ravel(b)]
    shape = len(cells_a) + 1, len(cells_b) + 1
    common = np.bincount(rows * shape[1] + columns, minlength=shape[0] * shape[1]).reshape(shape)[1:, 1:]
    return common / (area_a[:, None] + area_b - common)


def _places(cells):
    """-> array from the number of a cell to 1, 2, … and from 0 to 0."""
    places = np.zeros(cells.max(initial=0) + 1, np.int64)
    places[cells] = np.arange(1, len(cells) + 1)
    return places


def match(overlap, least=0.6):
    """Pair cells one to one, of an IoU (A, B) of at least `least`: -> rows, columns. As many pairs as possible, and of these the
    largest sum of IoU. Above 0.5 the cells of two label images have only one such pairing."""
    allowed = overlap >= least
    rows, columns = linear_sum_assignment(allowed * (1 + overlap / (1 + min(overlap.shape))), maximize=True)
    kept = allowed[rows, columns]
    return rows[kept], columns[kept]
