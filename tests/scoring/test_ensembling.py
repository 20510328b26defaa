"""Combinations of networks: means, greedy weights, the stack, and how they are compared."""

import numpy as np
import pytest
from conftest import random_table
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import gmean, rankdata
from sklearn.linear_model import LogisticRegression

from utils.scoring import ensembling, stacking
from utils.scoring.calibration import logit, sigmoid
from utils.scoring.cross_fit import deal
from utils.scoring.metrics import best_thresholds, macro_f1
from utils.scoring.stacking import Stack


def networks(seed=0, rows=300, classes=4, skills=(1.5, 1.0), rare=0.1):
    """Labels (N, C) and predictions of several networks of different skill (M, N, C), with independent errors."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((rows, classes)) < rare).astype(np.uint8)
    truth[:2] = 1
    members = np.stack([sigmoid(rng.normal(-2, 1, truth.shape) + skill * truth) for skill in skills])
    return truth, members


@given(st.integers(0, 10**6), st.integers(1, 3), st.sampled_from([None, 3]))
@settings(max_examples=25, deadline=None)
def test_means_are_the_arithmetic_the_geometric_and_that_of_ranks(seed, count, levels):
    members = np.stack([random_table(seed + m, 30, 3, levels)[1] for m in range(count)])
    assert ensembling.Mean().fit(None, members).apply(members) == pytest.approx(np.mean(members, axis=0))
    odds = gmean(np.clip(members, 1e-7, 1 - 1e-7) / (1 - np.clip(members, 1e-7, 1 - 1e-7)), axis=0)
    assert ensembling.LogitMean().fit(None, members).apply(members) == pytest.approx(odds / (1 + odds))
    ranks = np.mean([rankdata(member, axis=0) for member in members], axis=0)
    assert ensembling.RankMean().fit(None, members).apply(members) * 30 + 0.5 == pytest.approx(ranks)


def test_ranks_of_new_images_are_among_those_fitted_on():
    fitted = ensembling.RankMean().fit(None, np.array([[[0.1], [0.3], [0.5], [0.7]]]))
    assert fitted.apply(np.array([[[0.0], [0.4], [0.5], [0.9]]]))[:, 0].tolist() == [0, 0.5, 0.625, 1]


@given(st.integers(0, 10**6), st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_greedy_weights_lie_on_the_simplex_and_are_no_worse_than_the_best_network(seed, count):
    truth, _ = random_table(seed, 40, 3)
    members = np.stack([random_table(seed + m, 40, 3)[1] for m in range(count)])
    fitted = ensembling.Weighted().fit(truth, members)
    assert fitted.weights.sum() == pytest.approx(1) and (fitted.weights >= 0).all()
    best = max(best_thresholds(truth, member)[1].mean() for member in members)
    assert best_thresholds(truth, fitted.apply(members))[1].mean() >= best - 1e-12


def test_stack_is_the_highest_posterior():
    """Against scipy's minimiser on the stated posterior of one class: own weights drawn to the common ones, others to 0."""
    truth, members = networks(rows=150, classes=2, rare=0.3)
    fitted = Stack().fit(truth, members)

    def standardised(*columns):
        columns = np.stack(columns, axis=1)
        return (columns - columns.mean(axis=0)) / columns.std(axis=0)

    def posterior(weights, x, target, mean, precision):
        scores = x @ weights[:-1] + weights[-1]
        usual = np.log((target.sum() + 0.5) / (len(target) - target.sum() + 0.5))
        prior = (precision * (weights[:-1] - mean) ** 2).sum() / 2 + 1e-3 * (weights[-1] - usual) ** 2 / 2
        return (np.logaddexp(0, scores) - target * scores).sum() + prior

    def best(x, *arguments):
        return minimize(posterior, np.zeros(x.shape[1] + 1), (x, *arguments), options={"gtol": 1e-8}).x

    logits, roots = np.clip(np.log(members / (1 - members)), -6, 6), np.sqrt(members)
    own = np.stack([standardised(*logits[:, :, c], *roots[:, :, c]) for c in range(2)], axis=1)
    others = standardised(*(roots[m, :, c] for m in range(2) for c in range(2)))
    # The common weights: the mean over both classes of a ridge of precision 1.
    common = np.mean([best(own[:, c], truth[:, c], 0.0, 1.0)[:-1] for c in range(2)], axis=0)
    mean = np.concatenate([common, np.zeros(others.shape[1])])
    precision = np.concatenate([np.full(len(common), stacking.OWN), np.full(others.shape[1], stacking.OTHERS)])
    expected = best(np.concatenate([own[:, 1], others], axis=1), truth[:, 1], mean, precision)
    assert np.append(fitted.weights[1], fitted.intercepts[1]) == pytest.approx(expected, abs=2e-3)


def test_a_fit_without_shared_weights_is_ridge_logistic_regression():
    """Against scikit-learn, whose intercept has no prior."""
    rng = np.random.default_rng(5)
    inputs = rng.normal(size=(400, 6))
    target = (rng.random(400) < sigmoid(inputs @ [1, -1, 0.5, 0, 0, 0] - 1)).astype(float)
    ours = stacking._newton(np.append(inputs, np.ones((400, 1)), axis=1), target, np.zeros(6), np.full(6, 4.0))
    theirs = LogisticRegression(C=1 / 4, tol=1e-9, max_iter=1000).fit(inputs, target)
    assert ours == pytest.approx(np.append(theirs.coef_, theirs.intercept_), abs=1e-4)


def test_stack_keeps_a_rare_class_close_to_the_common_ones():
    """A class with one positive: its weights stay near the common ones, whatever that image looks like."""
    truth, members = networks(rows=800, classes=5, rare=0.2)
    truth[:, 4] = 0
    truth[0, 4] = 1
    own = Stack().fit(truth, members).weights[:, :4]
    assert np.abs(own[4] - own[:4].mean(axis=0)).max() < 0.2


def test_a_constant_class_does_not_decide_the_others():
    """Its probabilities differ by rounding alone, on other images by a little more."""
    truth, members = networks(rows=1000)
    members[:, :, 3] = 0.1 + np.random.default_rng(1).normal(0, 4e-9, (2, 1000))
    fitted = Stack().fit(truth, members)
    scores = fitted.apply(members)
    members[:, :, 3] += 1e-6
    assert fitted.apply(members) == pytest.approx(scores, abs=1e-4)


def test_fits_on_different_rows_are_comparable_on_one_scale():
    """A rare class loses half of its positives with other rows left out: its scores keep their scale."""
    truth, members = networks(rows=1000, classes=3)
    truth[:, 2] = 0
    truth[:4, 2] = 1
    whole = Stack().fit(truth, members)
    part = Stack().fit(truth[2:], members[:, 2:], whole)
    target = logit(whole.apply(members))
    apart, scaled = (np.abs(logit(fit.apply(members)) - target)[:, 2].mean() for fit in (part, part.scaled_like(whole)))
    assert scaled < apart / 2


@pytest.mark.parametrize("binary", [False, True])
def test_the_start_of_a_fit_does_not_matter(binary):
    """Also if a network predicts only 0 or 1, from which Newton's method without a halved step would diverge."""
    truth, members = networks(rows=400)
    members[1] = members[1] >= 0.5 if binary else members[1]
    alone = Stack().fit(truth[40:], members[:, 40:])
    started = Stack().fit(truth[40:], members[:, 40:], Stack().fit(truth, members))
    assert started.apply(members) == pytest.approx(alone.apply(members), abs=1e-4)


@pytest.mark.parametrize("name", ensembling.COMBINATIONS)
def test_no_combination_fits_random_labels(name):
    """A probe for leaks: if a row's own label, or its fifth's, reached its score or threshold, this would exceed chance."""
    rng = np.random.default_rng(0)
    truth = (rng.random((1200, 12)) < 0.03).astype(np.uint8)
    found = ensembling.fit_and_decide(ensembling.COMBINATIONS[name], truth, rng.random((2, 1200, 12)), repeats=1)
    assert macro_f1(truth, found.held_out[0]) < macro_f1(truth, np.ones_like(truth)) + 0.015


def test_neither_score_nor_threshold_of_a_row_has_seen_its_fifth():
    """A spy for a combination: a fifth is decided by a fit without it, whose thresholds are fitted on scores by fits without
    the rows they score."""
    truth, members = networks(rows=50)
    part = deal(truth, 1, 0)[0]
    rows_of = {value: row for row, value in enumerate(members[0, :, 0])}
    log = []

    class Spy(ensembling.Mean):
        def fit(self, truth, members, start=None):
            self.rows = {rows_of[value] for value in members[0, :, 0]}
            return self

        def apply(self, members):
            log.append((self.rows, {rows_of[value] for value in members[0, :, 0]}))
            return members[0]

    ensembling.fit_and_decide(Spy, truth, members, repeats=1)
    parts = [set(np.flatnonzero(part == k)) for k in range(5)]
    for place, (fitted_on, scored) in enumerate(log[:25]):
        held_out, inner = divmod(place, 5)
        assert scored == parts[inner] and fitted_on == set(range(50)) - parts[held_out] - parts[inner]


def test_the_stack_beats_the_best_network_if_each_knows_another_class():
    rng = np.random.default_rng(3)
    truth = (rng.random((1500, 4)) < 0.15).astype(np.uint8)
    skills = np.array([[3, 3, 0, 0], [0, 0, 3, 3]])
    members = sigmoid(rng.normal(-2, 1, (2, *truth.shape)) + skills[:, None] * truth)
    found = ensembling.compare(["a", "b"], truth, members, repeats=1, leave_out=True)
    best = max(figures["cross_fitted"] for figures in found.networks.values())
    assert found.chosen == "stack" and found.combinations["stack"]["cross_fitted"] > best + 0.1
    other, gain, error = found.gain
    rest = {0: found.networks["a"], 1: found.networks["b"]} | found.combinations
    assert gain == pytest.approx(rest["stack"]["cross_fitted"] - rest[other]["cross_fitted"]) and gain > 2 * error
    assert all(
        figures["cross_fitted"] <= rest[other]["cross_fitted"] for key, figures in rest.items() if key != "stack"
    )
    assert min(found.losses) > 0.1


def test_of_nearly_equal_combinations_the_simplest_is_chosen():
    truth, members = networks(rows=600, skills=(2.0,))
    better = members[0] >= 0.5
    changed = better.copy()
    changed[0] = ~changed[0]
    assert ensembling.simplest_of_the_best(truth, {"mean": [changed], "stack": [better]}) == "mean"
    assert ensembling.simplest_of_the_best(truth, {"mean": [~better], "stack": [better]}) == "stack"
