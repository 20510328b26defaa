"""Methods to fit thresholds against brute force, scikit-learn, scipy and closed forms."""

import warnings

import numpy as np
import pytest
from conftest import random_table
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.metrics import f1_score

from utils.scoring import calibration, metrics
from utils.scoring.thresholds import METHODS, bagging, chen, exact, expected, softened

PLAIN = {name: method.fit for name, method in METHODS.items() if not method.needs_epochs}


@pytest.mark.parametrize("name", PLAIN)
@given(st.integers(0, 10**6), st.integers(2, 40), st.integers(1, 4), st.sampled_from([None, 1, 4]))
@settings(max_examples=25, deadline=None)
def test_every_method_gives_each_class_a_threshold(name, seed, rows, classes, levels):
    """Absent classes, ties, constant columns, classes that every row has: a number from 0 to 1, the same each time."""
    truth, probabilities = random_table(seed, rows, classes, levels)
    truth[:, -1] |= seed % 2
    probabilities[:, 0] = [0.0, 1.0, 0.3][seed % 3]
    found = PLAIN[name](truth, probabilities)
    assert found.shape == (classes,) and ((found >= 0) & (found <= 1)).all()
    assert (PLAIN[name](truth.copy(), probabilities.copy()) == found).all()


@pytest.mark.parametrize("name", sorted(set(PLAIN) - {"subsampled"}))  # whose halves are other rows then
def test_no_method_depends_on_the_order_of_rows(name):
    truth, probabilities = random_table(5, 300, 4)
    order = np.random.default_rng(0).permutation(len(truth))
    again = PLAIN[name](truth[order], probabilities[order])
    assert again == pytest.approx(PLAIN[name](truth, probabilities), abs=1e-9)


# bagged


def test_bagged_is_nearly_the_best_with_many_positives():
    truth, probabilities = random_table(2, 20000, 3, absent=False)
    reached = metrics.f1_per_class(truth, probabilities >= bagging.bagged(truth, probabilities))
    assert reached == pytest.approx(metrics.best_thresholds(truth, probabilities)[1], abs=0.01)


def test_bagged_leaves_room_below_a_few_positives():
    """Three positives above all negatives: the exact optimum predicts just them, and a fourth, drawn from the same place,
    would be missed half the time; the kernel reaches below them, and not as far down as the negatives."""
    rng = np.random.default_rng(0)
    truth = np.zeros((2000, 1), np.uint8)
    truth[:3] = 1
    probabilities = calibration.sigmoid(np.concatenate([[1.2, 1.8, 2.6], rng.normal(-4, 1, 1997)]))[:, None]
    found = bagging.bagged(truth, probabilities)[0]
    assert probabilities[3:].max() < found < probabilities[:3].min() - 0.1


@pytest.mark.parametrize("scale, shift", [(3, 0), (3, -60), (0.5, 8)])
def test_bagged_depends_on_no_scale_of_the_logits(scale, shift):
    """A network may be so sure that its probabilities are 1e-60."""
    rng = np.random.default_rng(2)
    truth = rng.random((800, 4)) < [0.3, 0.1, 0.02, 0.01]
    logits = rng.normal(-3, 2, truth.shape) + 3 * truth
    plain, scaled = expit(logits), expit(scale * logits + shift)
    ours, theirs = plain >= bagging.bagged(truth, plain), scaled >= bagging.bagged(truth, scaled)
    assert (ours == theirs).mean(axis=0).min() > 0.98 and ours.sum() > truth.sum() / 2


def test_bagged_keeps_exact_zeros_and_ones_apart():
    truth = np.repeat([[1, 1, 0], [1, 0, 0], [1, 1, 1]], 50, axis=0)
    probabilities = np.repeat([[0.0, 0.3, 0.7], [0.0, 0.0, 1e-9], [1.0, 1.0, 1.0]], 50, axis=0)
    assert (probabilities >= bagging.bagged(truth, probabilities)).tolist() == (truth == 1).tolist()


def test_bagged_beats_the_exact_optimum_on_rare_classes_held_out():
    """Its purpose: 40 classes with four to ten positives in 500 rows, logits normal; scored on new rows."""
    gains = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        truth = np.zeros((1000, 40), np.uint8)
        for column in range(40):
            for start in (0, 500):
                truth[start + rng.choice(500, 4 + column % 7, replace=False), column] = 1
        probabilities = calibration.sigmoid(rng.normal(-3, 1, truth.shape) + 2 * truth)
        bagged, best = (
            metrics.macro_f1(truth[500:], probabilities[500:] >= method(truth[:500], probabilities[:500]))
            for method in (bagging.bagged, exact.per_class)
        )
        gains.append(bagged - best)
    assert min(gains) > 0 and np.mean(gains) > 0.015


def test_unsmoothed_draws_cover_the_exact_optimum_and_spread_less_with_more_rows():
    spans = {}
    for rows in (300, 2000, 30000):
        truth, probabilities = random_table(4, rows, 2, absent=False)
        _, found = bagging.bootstrap_thresholds(truth, probabilities, widths=(0,))
        spans[rows] = low, high = np.percentile(found, [2.5, 97.5], axis=1)
        if rows == 2000:
            best = metrics.best_thresholds(truth, probabilities)[0]
            assert ((low <= best) & (best <= high)).all()
    few, many = (np.ptp(calibration.logit(spans[rows]), axis=0) for rows in (300, 30000))
    assert (many < few / 2).all()


# class priors


@given(st.integers(0, 10**6), st.integers(2, 60))
@settings(max_examples=40, deadline=None)
def test_share_predicts_as_many_as_there_are(seed, rows):
    truth, probabilities = random_table(seed, rows, 3)
    predicted = (probabilities >= exact.share(truth, probabilities)).sum(axis=0)
    assert (predicted[1:] == truth[:, 1:].sum(axis=0))[truth[:, 1:].any(axis=0)].all(), "no ties, so exactly"


def test_share_predicts_as_many_as_there_will_be():
    """Twice the prior: positives weigh 2, negatives less, and the predicted positives so weighted reach the new prior."""
    truth, probabilities = random_table(8, 5000, 3, absent=False)
    priors = 2 * truth.mean(axis=0) / (1 + truth.mean(axis=0))
    predicted = probabilities >= exact.share(truth, probabilities, class_priors=priors)
    weights = np.where(truth, *exact.class_weights(truth, priors).T[:, None])
    assert (predicted * weights).mean(axis=0) == pytest.approx(priors, abs=2e-3)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.takes_priors])
def test_own_priors_change_nothing_and_higher_ones_lower_the_threshold(name):
    rng = np.random.default_rng(0)
    truth = (rng.random((4000, 3)) < [0.3, 0.1, 0.02]).astype(np.uint8)
    probabilities = calibration.sigmoid(rng.normal(-2, 1, truth.shape) + 2 * truth)
    own, fit = truth.mean(axis=0), METHODS[name].fit
    plain = fit(truth, probabilities)
    assert fit(truth, probabilities, class_priors=own) == pytest.approx(plain, abs=1e-6)
    assert (fit(truth, probabilities, class_priors=own * 1.5) < plain).all()
    assert (fit(truth, probabilities, class_priors=own / 3) > plain).all()


# closed forms and brute force


def test_calibrated_cuts_at_half_of_the_best_f1():
    """Probabilities that are right and uniform: F1(t) = (1 − t²) / (1.5 − t), best at t = (3 − √5) / 2 = F* / 2."""
    rng = np.random.default_rng(0)
    probabilities = rng.random((200000, 1))
    truth = (rng.random((200000, 1)) < probabilities).astype(np.uint8)
    assert expected.calibrated(truth, probabilities)[0] == pytest.approx((3 - 5**0.5) / 2, abs=0.01)


def test_soft_f1_minimises_its_stated_sum():
    """Against scipy's own search on the unbinned sums."""
    truth, probabilities = random_table(6, 400, 3, absent=False)

    def misfit(threshold, column):
        soft = 1 / (1 + np.exp(-25 * (probabilities[:, column] - threshold[0])))
        f1 = 2 * (soft * truth[:, column]).sum() / ((soft + truth[:, column]).sum() + 1e-6)
        return (f1 - 1) ** 2 + (1e-5 * (threshold[0] - 0.5)) ** 2

    for column, found in enumerate(softened.soft_f1(truth, probabilities)):
        best = minimize(misfit, [0.5], (column,), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-12})
        assert found == pytest.approx(best.x[0], abs=2e-3)


def test_subsampled_is_the_mean_of_optima_of_halves():
    """The same halves, each fitted by brute force with scikit-learn."""
    truth, probabilities = random_table(1, 30, 1, absent=False)
    halves = np.random.default_rng(0).random((20, 30)) < 0.5
    ranked = np.sort(probabilities[:, 0])[::-1]
    found = []
    for half in halves:
        if truth[half].any():
            scores = [f1_score(truth[half, 0], probabilities[half, 0] >= t, zero_division=0) for t in ranked]
            best = int(np.argmax(scores))
            found.append((ranked[best] + (ranked[best + 1] if best < 29 else 0)) / 2)
    assert exact.subsampled(truth, probabilities)[0] == pytest.approx(np.mean(found))


# Chen's thresholds


@given(st.integers(0, 10**6), st.integers(1, 40), st.sampled_from([None, 4, 999]))
@settings(max_examples=40, deadline=None)
def test_grid_f1_is_scikit_learns(seed, rows, levels):
    truth, probabilities = random_table(seed, rows, 3, levels)
    grid = chen.grid_f1(truth, probabilities)
    assert grid.shape == (1000, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for point in (0, 1, 250, 500, 998, 999):
            decisions = probabilities >= chen.GRID[point]
            assert grid[point] == pytest.approx(f1_score(truth, decisions, average=None, zero_division=0))


def test_raw_thresholds_lie_on_the_papers_grid():
    """Table I: 0.07007, 0.965 and 0.003003 are 70, 964 and 3 of 999."""
    for printed, step in ((0.07007, 70), (0.965, 964), (0.003003, 3), (0.2332, 233)):
        assert float(f"{chen.GRID[step]:.4g}") == printed
    truth, probabilities = np.array([[1, 0], [0, 0], [1, 0]]), np.array([[0.9, 0.5], [0.2, 0.4], [0.3, 0.3]])
    assert chen.chen_raw(truth, probabilities).tolist() == [chen.GRID[200], 0.0], "the lowest of the best"
    assert chen.chen_global(truth, probabilities).tolist() == [chen.GRID[200]] * 2
    assert chen.times_07(truth, probabilities) == pytest.approx([0.7 * 200 / 999, 0])


def test_smoothed_thresholds_use_every_epoch():
    """One class, three epochs whose best thresholds begin above .1, .3 and .8: the mean of the three lowest best points; the
    averaged curve is best where two of the three are."""
    truth = np.array([[1], [0]])
    epochs = np.array([[[0.2], [0.1]], [[0.4], [0.3]], [[0.9], [0.8]]])
    lowest = [chen.GRID[k] for k in (100, 300, 800)]
    assert chen.chen_smoothed(truth, epochs[-1], epochs) == pytest.approx(np.mean(lowest))
    overlapping = np.array([[[0.5], [0.1]], [[0.6], [0.4]], [[0.9], [0.8]]])
    assert 0.4 < chen.epochs_curve(truth, overlapping[-1], overlapping)[0] <= 0.5
    raw, smoothed = chen.table_one(truth, epochs[-1], epochs)
    assert raw.tolist() == [lowest[2]] * 2 and smoothed == pytest.approx([np.mean(lowest)] * 2)


def test_smoothed_curve_is_the_best_of_a_moving_average():
    truth, probabilities = random_table(7, 80, 2, absent=False)
    padded = np.pad(chen.grid_f1(truth, probabilities), ((50, 50), (0, 0)), "edge")
    means = np.stack([padded[k : k + 101].mean(axis=0) for k in range(1000)])
    for column, found in enumerate(chen.smoothed_curve(truth, probabilities)):
        assert means[int(round(found * 999)), column] == pytest.approx(means[:, column].max())
