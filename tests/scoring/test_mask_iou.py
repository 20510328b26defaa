"""Overlap of label images, against boolean masks and an exhaustive search for pairs."""

from itertools import permutations

import numpy as np
import pytest

from utils.scoring.mask_iou import cells_in, iou, match


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
def test_iou_is_that_of_boolean_masks(dtype):
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, (2, 30, 40)).astype(dtype)
    a[a == 2], b[b == 5] = 0, 200  # a number that is left out, and a large one
    wanted = [[(A & B).sum() / (A | B).sum() for B in (b == label for label in (1, 2, 3, 4, 200))]
              for A in (a == label for label in (1, 3, 4, 5))]  # fmt: skip
    assert cells_in(a)[0].tolist() == [1, 3, 4, 5] and cells_in(b)[0].tolist() == [1, 2, 3, 4, 200]
    np.testing.assert_allclose(iou(a, b), wanted, rtol=1e-15)


def test_an_image_without_cells():
    empty, full = np.zeros((4, 5), np.uint16), np.full((4, 5), 65535, np.uint16)
    assert iou(empty, full).shape == (0, 1) and iou(full, empty).shape == (1, 0) and iou(full, full) == 1
    assert [len(side) for side in match(iou(empty, full))] == [0, 0]
    with pytest.raises(ValueError, match="shape"):
        iou(full, full.T)


@pytest.mark.parametrize("seed", range(20))
def test_match_is_the_best_of_all_pairings(seed):
    overlap = np.random.default_rng(seed).random((4, 5))
    rows, columns = match(overlap, 0.4)
    assert len(set(rows)) == len(set(columns)) == len(rows) and (overlap[rows, columns] >= 0.4).all()
    pairings = [overlap[range(4), order] for order in permutations(range(5), 4)]
    best = max(((pairs >= 0.4).sum(), pairs[pairs >= 0.4].sum()) for pairs in pairings)
    assert (len(rows), overlap[rows, columns].sum()) == (best[0], pytest.approx(best[1]))
