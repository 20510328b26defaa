"""utils.scoring.mahalanobis against scikit-learn, and its false-alarm rate."""

import numpy as np
import pytest
from scipy.stats import betabinom
from sklearn.covariance import LedoitWolf

from utils.scoring import mahalanobis


def rows(count, seed=0, columns=8):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).normal(size=(columns, columns))
    return rng.standard_t(5, (count, columns)) @ mixing + 3


@pytest.mark.parametrize("count", [6, 30, 1000])
def test_distances_are_scikit_learns(count):
    values, new = rows(count), rows(50, seed=1)
    ours = mahalanobis.fit(values)
    theirs = LedoitWolf(assume_centered=True).fit(ours.standardise(values))
    assert ours.covariance == pytest.approx(theirs.covariance_, abs=1e-10)
    assert ours.distance(new) ** 2 == pytest.approx(theirs.mahalanobis(ours.standardise(new)), rel=1e-8)


def test_a_constant_column_is_judged_by_the_least_deviation():
    values = rows(200)
    values[:, 2] = 1.0
    fitted, new = mahalanobis.fit(values), np.array([values.mean(axis=0)] * 2)
    new[1, 2] += 3 * mahalanobis.LEAST_DEVIATION
    assert fitted.distance(new) == pytest.approx([0, 3], abs=0.1)


def test_false_alarms_are_as_many_as_the_rate_allows():
    """Of new rows, over repeated fits: the number above the k-th largest of N is beta-binomial."""
    false, expected = [], betabinom(500, 5, 496)
    for seed in range(20):
        threshold, rate = mahalanobis.fit_threshold(rows(500, seed), 0.01)
        assert rate == 5 / 501
        false.append((mahalanobis.fit(rows(500, seed)).distance(rows(500, 100 + seed)) > threshold).sum())
    spread = expected.std() / len(false) ** 0.5
    assert np.mean(false) == pytest.approx(expected.mean(), abs=3 * spread)


def test_few_rows_hold_only_a_higher_rate():
    threshold, rate = mahalanobis.fit_threshold(rows(24), 0.01)
    assert rate == 1 / 25 and np.isfinite(threshold)
