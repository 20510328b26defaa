"""Cross-fitting sees no row twice; bootstrap intervals."""

import numpy as np
import pytest
from conftest import random_table

from utils.scoring import cross_fit, metrics
from utils.scoring.thresholds import METHODS
from utils.scoring.thresholds.exact import per_class, share


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if not method.needs_epochs])
def test_random_labels_give_chance_level(name):
    """If a row saw itself, random labels could be fitted."""
    rng = np.random.default_rng(0)
    truth = (rng.random((1500, 20)) < 0.02).astype(np.uint8)
    decisions = cross_fit.held_out_decisions(METHODS[name].fit, truth, rng.random((1500, 20)))
    assert metrics.macro_f1(truth, decisions) < metrics.macro_f1(truth, np.ones_like(truth)) + 0.02


def test_a_row_is_decided_by_thresholds_of_other_rows():
    """The method gets every row except those of one part, each part once."""
    truth, probabilities = random_table(0, 40, 2, absent=False)
    part = cross_fit.deal(truth, 1)[0]
    seen = []

    def spy(truth, probabilities, epochs=None):
        seen.append(set(probabilities[:, 0]))
        return np.full(2, 0.5)

    cross_fit.held_out_decisions(spy, truth, probabilities, part=part)
    assert [set(probabilities[part != k, 0]) for k in range(5)] == seen


def test_all_methods_are_measured_on_the_same_fifths():
    truth, probabilities = random_table(12, 200, 3, absent=False)
    together = cross_fit.cross_fit({"a": per_class, "b": share}, truth, probabilities, repeats=2)["b"]
    alone = cross_fit.cross_fit({"b": share}, truth, probabilities, repeats=2)["b"]
    for arrays in ("thresholds", "held_out"):
        assert np.array_equal(together.pop(arrays), alone.pop(arrays))
    assert together == alone


def test_intervals_cover_the_score_and_shrink_with_rows():
    truth, probabilities = random_table(1, 4000, 5, absent=False)
    widths = []
    for rows in (200, 4000):
        own, decisions = truth[:rows], probabilities[:rows] >= 0.5
        found = cross_fit.summaries(own, {"": (decisions, [decisions])})[""]
        intervals = [found["interval_95"], *found["per_class_interval_95"]]
        for (low, high), f1 in zip(intervals, [found["in_sample"], *found["per_class"]], strict=True):
            assert low <= f1 <= high
        widths.append(np.diff(intervals).ravel())
    assert widths[1][0] < widths[0][0] / 2 and widths[1].mean() < widths[0].mean() / 2


def test_a_paired_gain_is_the_difference_and_its_bootstrap_error():
    """The error against a plain loop over resampled rows; of identical decisions both are 0."""
    truth, probabilities = random_table(3, 300, 4, absent=False)
    new, old = probabilities >= 0.4, probabilities >= 0.5
    gain, error = cross_fit.paired_gain(truth, [new, old], [old, old])
    assert gain == pytest.approx((metrics.macro_f1(truth, new) - metrics.macro_f1(truth, old)) / 2)
    rng = np.random.default_rng(1)
    drawn = []
    for rows in rng.integers(300, size=(1000, 300)):
        drawn.append(metrics.macro_f1(truth[rows], new[rows]) - metrics.macro_f1(truth[rows], old[rows]))
    assert error == pytest.approx(np.std(drawn), rel=0.1)
    assert cross_fit.paired_gain(truth, [old], [old]) == (0, 0)
    assert "noise" in cross_fit.describe_gain(0.0, 0.0) and "noise" in cross_fit.describe_gain(0.019, 0.01)
    assert cross_fit.describe_gain(0.021, 0.01) == "+0.0210 ± 0.0100"
