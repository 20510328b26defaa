"""Ways to fit cut-offs, calibration and cross-fitting, against brute force, scikit-learn, scipy and closed forms."""

import numpy as np
import pytest
from conftest import random_table
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from utils.scoring import calibration, cross_fit, metrics, thresholds
from utils.scoring.thresholds.exact import class_weights

PLAIN = {name: method for name, method in thresholds.METHODS.items() if name not in thresholds.NEED_EPOCHS}


@pytest.mark.parametrize("name", PLAIN)
@given(st.integers(0, 10**6), st.integers(2, 40), st.integers(1, 4), st.sampled_from([None, 1, 4]))
@settings(max_examples=25, deadline=None)
def test_every_method_gives_each_class_a_threshold(name, seed, rows, classes, levels):
    """Absent classes, ties, constant columns, classes that every row has: a number from 0 to 1, the same each time."""
    truth, probabilities = random_table(seed, rows, classes, levels)
    truth[:, -1] |= seed % 2
    probabilities[:, 0] = [0.0, 1.0, 0.3][seed % 3]
    thresholds = PLAIN[name](truth, probabilities)
    assert thresholds.shape == (classes,) and ((thresholds >= 0) & (thresholds <= 1)).all()
    assert (PLAIN[name](truth.copy(), probabilities.copy()) == thresholds).all()


@pytest.mark.parametrize("name", sorted(set(PLAIN) - {"subsampled"}))  # whose halves are other rows then
def test_no_method_depends_on_the_order_of_rows(name):
    truth, probabilities = random_table(5, 300, 4)
    order = np.random.default_rng(0).permutation(len(truth))
    again = PLAIN[name](truth[order], probabilities[order])
    assert again == pytest.approx(PLAIN[name](truth, probabilities), abs=1e-9)


def test_bagged_is_nearly_the_best_where_there_are_many_positives():
    truth, probabilities = random_table(2, 20000, 3, absent=False)
    reached = metrics.f1_per_class(truth, probabilities >= thresholds.bagged(truth, probabilities))
    assert reached == pytest.approx(metrics.best_thresholds(truth, probabilities)[1], abs=0.01)


def test_bagged_calls_more_than_the_few_positives_it_has_seen():
    """Three positives that happen to lie above all negatives: the exact optimum calls just them, and a fourth, drawn from
    the same place, would be missed half the time; the kernel reaches below them."""
    rng = np.random.default_rng(0)
    truth = np.zeros((2000, 1), np.uint8)
    truth[:3] = 1
    probabilities = calibration.sigmoid(np.concatenate([[1.2, 1.8, 2.6], rng.normal(-4, 1, 1997)]))[:, None]
    lowest = probabilities[:3].min()
    assert thresholds.bagged(truth, probabilities)[0] < lowest - 0.1
    assert probabilities[3:].max() < thresholds.bagged(truth, probabilities)[0], "and not as far down as the negatives"


def test_bagged_beats_the_exact_optimum_on_rare_classes_held_out():
    """What it is for: 40 classes with four to ten positives in 500 rows, logits normal; scored on rows never seen."""
    gains = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        truth = np.zeros((1000, 40), np.uint8)
        for column in range(40):
            for start in (0, 500):
                truth[start + rng.choice(500, 4 + column % 7, replace=False), column] = 1
        probabilities = calibration.sigmoid(rng.normal(-3, 1, truth.shape) + 2 * truth)
        bagged, exact = (
            metrics.macro_f1(truth[500:], probabilities[500:] >= method(truth[:500], probabilities[:500]))
            for method in (thresholds.bagged, thresholds.per_class)
        )
        gains.append(bagged - exact)
    assert min(gains) > 0 and np.mean(gains) > 0.015


def test_draws_spread_less_with_more_rows():
    widths = []
    for rows in (300, 30000):
        truth, probabilities = random_table(4, rows, 2, absent=False)
        _, found = thresholds.draws(truth, probabilities, widths=(0,))
        widths.append(np.ptp(np.percentile(calibration.logit(found), [2.5, 97.5], axis=1), axis=0))
    assert (widths[1] < widths[0] / 2).all()


def test_unsmoothed_draws_lie_around_the_exact_optimum():
    truth, probabilities = random_table(4, 2000, 2, absent=False)
    _, found = thresholds.draws(truth, probabilities, widths=(0,))
    low, high = np.percentile(found, [2.5, 97.5], axis=1)
    best = metrics.best_thresholds(truth, probabilities)[0]
    assert ((low <= best) & (best <= high)).all()


@given(st.integers(0, 10**6), st.integers(2, 60))
@settings(max_examples=40, deadline=None)
def test_share_calls_as_many_as_there_are(seed, rows):
    truth, probabilities = random_table(seed, rows, 3)
    called = (probabilities >= thresholds.share(truth, probabilities)).sum(axis=0)
    assert (called[1:] == truth[:, 1:].sum(axis=0))[truth[:, 1:].any(axis=0)].all(), "no ties, so exactly"


def test_share_is_called_where_it_will_differ():
    """Twice the share: positives weigh 2, negatives less, and the calls so weighed come to the new share."""
    truth, probabilities = random_table(8, 5000, 3, absent=False)
    shares = 2 * truth.mean(axis=0) / (1 + truth.mean(axis=0))
    called = probabilities >= thresholds.share(truth, probabilities, shares=shares)
    weights = np.where(truth, *class_weights(truth, shares).T[:, None])
    assert (called * weights).mean(axis=0) == pytest.approx(shares, abs=2e-3)


@pytest.mark.parametrize("name", sorted(thresholds.KNOW_SHARES))
def test_own_shares_change_nothing_and_more_positives_lower_the_threshold(name):
    rng = np.random.default_rng(0)
    truth = (rng.random((4000, 3)) < [0.3, 0.1, 0.02]).astype(np.uint8)
    probabilities = calibration.sigmoid(rng.normal(-2, 1, truth.shape) + 2 * truth)
    own = truth.mean(axis=0)
    plain = thresholds.METHODS[name](truth, probabilities)
    assert thresholds.METHODS[name](truth, probabilities, shares=own) == pytest.approx(plain, abs=1e-6)
    assert (thresholds.METHODS[name](truth, probabilities, shares=own * 1.5) < plain).all()
    assert (thresholds.METHODS[name](truth, probabilities, shares=own / 3) > plain).all()


def test_shares_weigh_as_repeated_rows_do():
    """Each positive twice is the same as the share that makes."""
    truth, probabilities = random_table(10, 3000, 1, absent=False)
    twice = np.concatenate([np.arange(len(truth)), np.flatnonzero(truth[:, 0])])
    repeated = thresholds.METHODS["share"](truth[twice], probabilities[twice])
    weighed = thresholds.METHODS["share"](truth, probabilities, shares=truth[twice].mean(axis=0))
    assert weighed == pytest.approx(repeated, abs=0.01)


def test_calibrated_cuts_at_half_of_the_best_f1():
    """Probabilities that are right and uniform: F1(t) = (1 − t²) / (1.5 − t), best at t = (3 − √5) / 2 = F* / 2."""
    rng = np.random.default_rng(0)
    probabilities = rng.random((200000, 1))
    truth = (rng.random((200000, 1)) < probabilities).astype(np.uint8)
    assert thresholds.calibrated(truth, probabilities)[0] == pytest.approx((3 - 5**0.5) / 2, abs=0.01)


def test_soft_f1_minimises_what_it_says():
    """Against scipy's own search on the unbinned sums."""
    truth, probabilities = random_table(6, 400, 3, absent=False)

    def misfit(threshold, column):
        soft = 1 / (1 + np.exp(-25 * (probabilities[:, column] - threshold[0])))
        f1 = 2 * (soft * truth[:, column]).sum() / ((soft + truth[:, column]).sum() + 1e-6)
        return (f1 - 1) ** 2 + (1e-5 * (threshold[0] - 0.5)) ** 2

    for column, found in enumerate(thresholds.soft_f1(truth, probabilities)):
        best = minimize(misfit, [0.5], (column,), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-12})
        assert found == pytest.approx(best.x[0], abs=2e-3)


def test_smoothed_curve_is_the_best_of_a_moving_average():
    truth, probabilities = random_table(7, 80, 2, absent=False)
    curves = thresholds.grid_f1(truth, probabilities)
    padded = np.pad(curves, ((50, 50), (0, 0)), "edge")
    means = np.stack([padded[k : k + 101].mean(axis=0) for k in range(1000)])
    found = thresholds.smoothed_curve(truth, probabilities)
    for column in range(2):
        place = int(round(found[column] * 999))
        assert means[place, column] == pytest.approx(means[:, column].max())


def test_seven_tenths_of_the_raw_ones():
    """One positive at .9 above a negative at .2: the raw one is the lowest point above .2, 200 of 999."""
    found = thresholds.times_07(np.array([[1], [0]]), np.array([[0.9], [0.2]]))
    assert found == pytest.approx([0.7 * 200 / 999])


def test_subsampled_is_the_mean_of_optima_of_halves():
    """The same halves, each fitted by brute force with scikit-learn."""
    truth, probabilities = random_table(11, 60, 1, absent=False)
    halves = np.random.default_rng(0).random((20, 60)) < 0.5
    ranked = np.sort(probabilities[:, 0])[::-1]
    found = []
    for half in halves:
        if truth[half].any():
            scores = [f1_score(truth[half, 0], probabilities[half, 0] >= t, zero_division=0) for t in ranked]
            best = int(np.argmax(scores))
            found.append((ranked[best] + (ranked[best + 1] if best < 59 else 0)) / 2)
    assert thresholds.subsampled(truth, probabilities)[0] == pytest.approx(np.mean(found))


# calibration


@given(st.integers(0, 10**6), st.integers(2, 60), st.sampled_from([None, 4]))
@settings(max_examples=60, deadline=None)
def test_calibration_never_turns_an_order_round(seed, rows, levels):
    truth, probabilities = random_table(seed, rows, 3, levels)
    sure = calibration.apply(probabilities, *calibration.fit(truth, probabilities))
    assert ((sure >= 0) & (sure <= 1)).all()
    for column in range(3):
        order = np.argsort(probabilities[:, column], kind="stable")
        assert (np.diff(sure[order, column]) >= -1e-12).all()


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


# cross-fitting


@pytest.mark.parametrize("name", PLAIN)
def test_labels_that_mean_nothing_give_chance_level(name):
    """If a row saw itself, random labels could be fitted."""
    rng = np.random.default_rng(0)
    truth = (rng.random((1500, 20)) < 0.02).astype(np.uint8)
    result = cross_fit.cross_fit(PLAIN[name], truth, rng.random((1500, 20)), repeats=2)
    assert result["cross_fitted"] < metrics.macro_f1(truth, np.ones_like(truth)) + 0.02


def test_a_row_is_decided_by_thresholds_of_other_rows():
    """The method is handed every row but those of one part, each part once."""
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
    together = cross_fit.cross_fit_all(
        {"a": thresholds.per_class, "b": thresholds.share}, truth, probabilities, repeats=2
    )
    alone = cross_fit.cross_fit(thresholds.share, truth, probabilities, repeats=2)
    assert (
        together["b"]["cross_fitted"] == alone["cross_fitted"] and together["b"]["interval_95"] == alone["interval_95"]
    )
    assert (together["b"]["thresholds"] == alone["thresholds"]).all()


def test_intervals_of_classes_cover_what_was_seen():
    truth, probabilities = random_table(1, 1000, 4, absent=False)
    decisions = probabilities >= 0.5
    (low, high), by_class = cross_fit.intervals_of(truth, [decisions])[0]
    assert low < metrics.macro_f1(truth, decisions) < high
    for (low, high), f1 in zip(by_class, metrics.f1_per_class(truth, decisions), strict=True):
        assert low <= f1 <= high
    few, many = (np.ptp(cross_fit.intervals_of(truth[:n], [decisions[:n]])[0][1], axis=1).mean() for n in (100, 1000))
    assert many < few / 2
