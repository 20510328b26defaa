"""Platt scaling against scikit-learn."""

import numpy as np
import pytest
from conftest import random_table
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from utils.scoring import calibration


@given(st.integers(0, 10**6), st.integers(2, 60), st.sampled_from([None, 4]))
@settings(max_examples=60, deadline=None)
def test_calibration_never_reverses_an_order(seed, rows, levels):
    truth, probabilities = random_table(seed, rows, 3, levels)
    calibrated = calibration.apply(probabilities, *calibration.fit(truth, probabilities))
    assert ((calibrated >= 0) & (calibrated <= 1)).all()
    for column in range(3):
        order = np.argsort(probabilities[:, column], kind="stable")
        assert (np.diff(calibrated[order, column]) >= -1e-12).all()


def test_calibration_is_logistic_regression_on_platts_targets():
    truth, probabilities = random_table(3, 500, 1, absent=False)
    positives, negatives = truth.sum(), len(truth) - truth.sum()
    target = np.where(truth[:, 0], (positives + 1) / (positives + 2), 1 / (negatives + 2))
    x = calibration.logit(probabilities)
    model = LogisticRegression(C=1e10, tol=1e-10, max_iter=10000)
    model.fit(np.concatenate([x, x]), np.repeat([1, 0], len(x)), sample_weight=np.concatenate([target, 1 - target]))
    slope, intercept = calibration.fit(truth, probabilities)
    assert slope[0] == pytest.approx(model.coef_[0, 0], rel=1e-3)
    assert intercept[0] == pytest.approx(model.intercept_[0], rel=1e-3)


def test_calibration_of_separable_and_of_constant_columns_is_finite():
    truth = np.array([[1, 1]] * 5 + [[0, 0]] * 45, np.uint8)
    probabilities = np.column_stack([np.where(truth[:, 0], 0.99, 0.01), np.full(50, 0.2)])
    slope, intercept = calibration.fit(truth, probabilities)
    assert np.isfinite(slope).all() and slope[0] > 0 and slope[1] == 0
    assert calibration.apply(probabilities, slope, intercept)[:, 1] == pytest.approx(np.full(50, 0.1), abs=0.02)
