"""Average precision of detections, worked out by hand and against its definition."""

import numpy as np
import pytest

from utils.scoring.detections import average_precision, judge_detections, match_in_order


@pytest.mark.parametrize(
    ("right", "positives", "expected"),
    [
        ("R", 1, 1),
        ("R", 2, 1 / 2),  # one cell is missed
        ("WR", 1, 1 / 2),
        ("RWWW", 1, 1),  # wrong ones after the last right one cost nothing
        ("RWR", 2, (1 + 2 / 3) / 2),
        ("WRR", 2, 2 / 3),  # interpolated: the first half of recall is reached with 1/2, but 2/3 comes later
        ("RWRWWR", 4, (1 + 2 / 3 + 1 / 2) / 4),
        ("WW", 3, 0),
        ("", 3, 0),
    ],
)
def test_average_precision_by_hand(right, positives, expected):
    assert average_precision(np.array([letter == "R" for letter in right], bool), positives) == pytest.approx(expected)


def test_without_true_cells_there_is_no_average_precision():
    assert np.isnan(average_precision(np.zeros(3, bool), 0))


@pytest.mark.parametrize("seed", range(3))
def test_weights_are_repetitions(seed):
    rng = np.random.default_rng(seed)
    right, weights = rng.random(60) < 0.4, rng.integers(0, 4, 60)
    positives = int(weights @ right) + 7
    expected = average_precision(np.repeat(right, weights), positives)
    assert average_precision(right, positives, weights) == pytest.approx(expected, abs=1e-12)


def test_each_true_cell_is_found_once_by_the_most_confident():
    overlaps = np.array([[0.59, 0.1], [0.6, 0.1], [0.9, 0.1], [0.7, 0.65]])
    assert match_in_order(overlaps).tolist() == [False, True, False, True], "the last one takes the cell that is left"
    assert match_in_order(np.zeros((2, 0))).tolist() == [False, False]


def test_the_mean_is_over_classes_with_true_cells_and_intervals_over_images():
    """Class 0 is right in both images or in one, class 1 has no true cells, class 2 is never right."""
    images, classes, right = np.array([0, 1, 0, 0]), np.array([0, 0, 1, 2]), np.array([True, True, False, False])
    by_class, mean = judge_detections(images, classes, right, np.array([[1, 0, 1], [3, 0, 1]]), 500, 0)
    assert by_class[0].tolist() == [0.5, pytest.approx(1 / 3), 1], "samples: 2/6, 2/4 and 2/2"
    assert np.isnan(by_class[1]).all() and by_class[2].tolist() == [0, 0, 0]
    assert mean.tolist() == [0.25, pytest.approx(1 / 6), 0.5]
