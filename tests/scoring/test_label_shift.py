"""Test sets with other class priors, and other exposure."""

import numpy as np
import pytest

from utils.scoring import label_shift
from utils.scoring.calibration import sigmoid


def images(rng, priors, rows):
    """Labels drawn with these priors, and predictions that do not depend on the priors: (N, C), (N, C)."""
    truth = (rng.random((rows, len(priors))) < priors).astype(np.uint8)
    return truth, sigmoid(rng.normal(-2, 1, truth.shape) + 3 * truth)


def test_a_changed_prior_is_found_and_an_unchanged_one_kept():
    rng = np.random.default_rng(0)
    truth, probabilities = images(rng, [0.2, 0.2, 0.1], 4000)
    test, unlabelled = images(rng, [0.4, 0.2, 0.05], 4000)
    changed = label_shift.log_prior_ratio(truth, probabilities, unlabelled)
    assert changed == pytest.approx(np.log(test.mean(axis=0) / truth.mean(axis=0)), abs=0.08)
    estimated = label_shift.estimate_class_priors(truth, probabilities, unlabelled)
    assert estimated == pytest.approx(test.mean(axis=0), rel=0.12)


def test_without_a_change_the_estimate_is_shrunk_to_none():
    """Expectation–maximisation alone is off by chance; shrunk it is off by less than half of that."""
    rng = np.random.default_rng(1)
    truth, probabilities = images(rng, np.linspace(0.05, 0.2, 20), 3000)
    _, unlabelled = images(rng, np.linspace(0.05, 0.2, 20), 3000)
    alone = np.abs(label_shift.log_prior_ratio(truth, probabilities, unlabelled)).mean()
    estimated = label_shift.estimate_class_priors(truth, probabilities, unlabelled)
    assert np.abs(np.log(estimated / truth.mean(axis=0))).mean() < alone / 2


def test_a_class_that_is_too_rare_or_absent_keeps_its_prior():
    rng = np.random.default_rng(2)
    truth, probabilities = images(rng, [0.3, 0.002, 0.0], 3000)
    _, unlabelled = images(rng, [0.6, 0.02, 0.1], 3000)
    estimated = label_shift.estimate_class_priors(truth, probabilities, unlabelled)
    assert estimated[0] > 0.5 and estimated[1:] == pytest.approx(truth.mean(axis=0)[1:])


def test_predicted_positives_match_the_rates():
    scores = np.random.default_rng(3).random((1000, 4))
    scores[:, 3] = 0.5
    counts = (scores >= label_shift.match_positives(scores, np.array([0, 0.25, 1, 0.3]))).sum(axis=0)
    assert counts.tolist() == [0, 250, 1000, 1000], "images of equal score are all positive"
