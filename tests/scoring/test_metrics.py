"""F1 and thresholds of highest F1 against scikit-learn and brute force."""

import warnings

import numpy as np
import pytest
from conftest import random_table
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from utils.scoring import metrics

READINGS = {"class": "macro", "sample": "samples", "pooled": "micro"}
SCORES = {"f1": sk.f1_score, "precision": sk.precision_score, "recall": sk.recall_score, "iou": sk.jaccard_score}


@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(2, 8))
@settings(max_examples=25, deadline=None)
def test_scores_are_scikit_learns_with_absent_classes(seed, rows, classes):
    truth, probabilities = random_table(seed, rows, classes)
    decisions = probabilities >= 0.5
    found, by_class = metrics.multilabel_scores(truth, decisions), metrics.class_scores(truth, decisions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, score in SCORES.items():
            for reading, average in READINGS.items():
                expected = score(truth, decisions, average=average, zero_division=0)
                assert found[name][reading] == pytest.approx(expected, abs=1e-12), (name, reading)
            assert by_class[name] == pytest.approx(score(truth, decisions, average=None, zero_division=0))
    assert metrics.f1_per_class(truth, decisions) == pytest.approx(by_class["f1"], abs=1e-12)
    assert metrics.macro_f1(truth, decisions) == pytest.approx(found["f1"]["class"], abs=1e-12)
    assert metrics.precision_recall(truth, decisions)[1] == pytest.approx(by_class["recall"])
    assert found["binary_accuracy"] == pytest.approx(1 - sk.hamming_loss(truth, decisions))
    assert found["correct"] == (truth == decisions).sum() and found["total"] == truth.size


def test_one_class_is_scored():
    assert metrics.macro_f1([[1], [0], [1]], [[1], [1], [0]]) == 0.5


@given(st.integers(0, 10**6), st.integers(1, 40), st.sampled_from([None, 4, 10]))
@settings(max_examples=25, deadline=None)
def test_best_thresholds_equal_brute_force(seed, rows, levels):
    truth, probabilities = random_table(seed, rows, 4, levels)
    thresholds, scores = metrics.best_thresholds(truth, probabilities)
    for own, values, threshold, score in zip(truth.T, probabilities.T, thresholds, scores, strict=True):
        if not own.any():
            assert np.isnan(threshold) and score == 0
            continue
        tried = [sk.f1_score(own, values >= t, zero_division=0) for t in np.unique(values)]
        assert (
            sk.f1_score(own, values >= threshold, zero_division=0) == pytest.approx(max(tried)) == pytest.approx(score)
        )


@given(st.integers(0, 10**6), st.integers(1, 30), st.sampled_from([None, 5]))
@settings(max_examples=25, deadline=None)
def test_best_global_threshold_equals_brute_force(seed, rows, levels):
    truth, probabilities = random_table(seed, rows, 3, levels)
    found, score = metrics.best_global_threshold(truth, probabilities)
    tried = [metrics.macro_f1(truth, probabilities >= t) for t in np.unique(probabilities)]
    assert score == pytest.approx(max(tried))
    assert metrics.macro_f1(truth, probabilities >= found) == score


def test_threshold_lies_between_the_two_probabilities():
    assert metrics.best_thresholds([[1], [0]], [[0.8], [0.2]])[0] == pytest.approx([0.5])
