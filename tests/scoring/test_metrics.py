"""F1, thresholds and losses against scikit-learn, brute force and closed forms."""

import warnings

import numpy as np
import pytest
import torch
from conftest import random_table as table
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, precision_recall_fscore_support

from utils.engine import losses
from utils.errors import InputError
from utils.schedule import stage_at
from utils.scoring import cross_fit, metrics, thresholds


@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_macro_f1_is_scikit_learns_with_absent_classes(seed, rows, classes):
    truth, probabilities = table(seed, rows, classes)
    decisions = probabilities >= 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = (
            f1_score(truth, decisions, average="macro", zero_division=0)
            if classes > 1
            else f1_score(truth[:, 0], decisions[:, 0], zero_division=0)
        )
        p, r, f, _ = (
            precision_recall_fscore_support(truth, decisions, average=None, zero_division=0)
            if classes > 1
            else (None,) * 4
        )
    assert metrics.macro_f1(truth, decisions) == pytest.approx(expected, abs=1e-12)
    if classes > 1:
        assert metrics.f1_per_class(truth, decisions) == pytest.approx(f, abs=1e-12)
        precision, recall = metrics.precision_recall(truth, decisions)
        assert precision == pytest.approx(p) and recall == pytest.approx(r)


@given(st.integers(0, 10**6), st.integers(1, 40), st.sampled_from([None, 4, 10]))
@settings(max_examples=60, deadline=None)
def test_best_thresholds_equal_brute_force(seed, rows, levels):
    truth, probabilities = table(seed, rows, 4, levels)
    thresholds, scores = metrics.best_thresholds(truth, probabilities)
    for c in range(4):
        if not truth[:, c].any():
            assert np.isnan(thresholds[c]) and scores[c] == 0
            continue
        tried = [
            f1_score(truth[:, c], probabilities[:, c] >= t, zero_division=0) for t in np.unique(probabilities[:, c])
        ]
        reached = f1_score(truth[:, c], probabilities[:, c] >= thresholds[c], zero_division=0)
        assert reached == pytest.approx(max(tried)) == pytest.approx(scores[c])


@given(st.integers(0, 10**6), st.integers(1, 30), st.sampled_from([None, 5]))
@settings(max_examples=60, deadline=None)
def test_best_global_threshold_equals_brute_force(seed, rows, levels):
    truth, probabilities = table(seed, rows, 3, levels)
    found, score = metrics.best_global_threshold(truth, probabilities)
    tried = [metrics.macro_f1(truth, probabilities >= t) for t in np.unique(probabilities)]
    assert score == pytest.approx(max(tried))
    assert metrics.macro_f1(truth, probabilities >= found) == score


def test_thresholds_are_fitted_on_columns():
    """Classes whose scores live on different scales: only a cut-off for each column separates both."""
    truth = np.array([[1, 0], [1, 1], [0, 0], [0, 1]])
    probabilities = np.array([[0.9, 0.01], [0.8, 0.04], [0.6, 0.02], [0.5, 0.03]])
    found = thresholds.per_class(truth, probabilities)
    assert 0.6 < found[0] <= 0.8 and 0.02 < found[1] <= 0.03
    assert metrics.macro_f1(truth, probabilities >= found) == 1


def test_threshold_lies_between_the_two_probabilities():
    thresholds, _ = metrics.best_thresholds(np.array([[1], [0]]), np.array([[0.8], [0.2]]))
    assert thresholds[0] == pytest.approx(0.5)


def test_cross_fitting_does_not_see_its_own_rows():
    """Labels that have nothing to do with the predictions: in sample they can be fitted, out of sample they cannot."""
    rng = np.random.default_rng(0)
    truth = (rng.random((400, 10)) < 0.04).astype(np.uint8)
    probabilities = rng.random((400, 10))
    result = cross_fit.cross_fit(thresholds.per_class, truth, probabilities, repeats=2)
    calling_all = metrics.macro_f1(truth, np.ones_like(truth))
    assert result["in_sample"] > calling_all + 0.05
    assert result["cross_fitted"] < calling_all + 0.02


def test_interval_holds_the_score_and_shrinks_with_rows():
    truth, probabilities = table(1, 4000, 5, absent=False)
    widths = []
    for rows in (200, 4000):
        decisions = probabilities[:rows] >= 0.5
        low, high = cross_fit.intervals_of(truth[:rows], [decisions])[0][0]
        assert low <= metrics.macro_f1(truth[:rows], decisions) <= high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


# the paper's thresholds


@given(st.integers(0, 10**6), st.integers(1, 40), st.sampled_from([None, 4, 999]))
@settings(max_examples=40, deadline=None)
def test_grid_f1_is_scikit_learns(seed, rows, levels):
    truth, probabilities = table(seed, rows, 3, levels)
    grid = thresholds.grid_f1(truth, probabilities)
    assert grid.shape == (1000, 3)
    for point in (0, 1, 250, 500, 998, 999):
        called = probabilities >= thresholds.GRID[point]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert grid[point] == pytest.approx(f1_score(truth, called, average=None, zero_division=0))


def test_raw_thresholds_lie_on_the_papers_grid():
    """Table I: 0.07007, 0.965 and 0.003003 are 70, 964 and 3 of 999."""
    for printed, step in ((0.07007, 70), (0.965, 964), (0.003003, 3), (0.2332, 233)):
        assert float(f"{thresholds.GRID[step]:.4g}") == printed
    truth, probabilities = np.array([[1, 0], [0, 0], [1, 0]]), np.array([[0.9, 0.5], [0.2, 0.4], [0.3, 0.3]])
    assert thresholds.chen_raw(truth, probabilities).tolist() == [thresholds.GRID[200], 0.0], "the lowest of the best"
    assert thresholds.chen_global(truth, probabilities).tolist() == [thresholds.GRID[200]] * 2


def test_smoothed_thresholds_use_every_epoch():
    """One class, three epochs whose best cut-offs begin above .1, .3 and .8: the mean of the three lowest best points; the
    averaged curve is best where two of the three are."""
    truth = np.array([[1], [0]])
    epochs = np.array([[[0.2], [0.1]], [[0.4], [0.3]], [[0.9], [0.8]]])
    lowest = [thresholds.GRID[k] for k in (100, 300, 800)]
    assert thresholds.chen_smoothed(truth, epochs[-1], epochs) == pytest.approx(np.mean(lowest))
    overlapping = np.array([[[0.5], [0.1]], [[0.6], [0.4]], [[0.9], [0.8]]])
    assert 0.4 < thresholds.epochs_curve(truth, overlapping[-1], overlapping)[0] <= 0.5
    raw, smoothed = thresholds.table_one(truth, epochs[-1], epochs)
    assert raw.tolist() == [lowest[2]] * 2 and smoothed == pytest.approx([np.mean(lowest)] * 2)


# losses


def logits_and_targets(rows=16, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=generator, dtype=torch.float64).requires_grad_()
    targets = (torch.rand(rows, classes, generator=generator) < 0.3).double()
    targets[:, 0] = 0  # a class that is absent from the batch
    return logits, targets


def test_soft_f1_of_hard_decisions_is_macro_f1():
    truth, probabilities = table(3, 200, 6, absent=False)
    decisions = probabilities >= 0.5
    logits = torch.where(torch.from_numpy(decisions), 200.0, -200.0)
    expected = 1 - f1_score(truth, decisions, average="macro")
    assert float(losses.soft_f1(logits, torch.from_numpy(truth).float(), smooth=1e-9)) == pytest.approx(
        expected, abs=1e-6
    )


def test_soft_f1_gives_an_absent_class_a_gradient_that_pushes_it_down():
    logits, targets = logits_and_targets()
    losses.soft_f1(logits, targets).backward()
    assert (logits.grad[:, 0] > 0).all()


def test_soft_f1_counts_by_class_not_by_sample():
    """One class found everywhere, one nowhere: by class the mean is 1/2, by sample it would be more."""
    targets = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    logits = torch.tensor([[50.0, -50.0]] * 3)
    assert float(losses.soft_f1(logits, targets, smooth=1e-9)) == pytest.approx(0.5, abs=1e-6)


def test_bce_and_weighted_bce_by_hand():
    logits, targets = logits_and_targets()
    p = torch.sigmoid(logits.detach()).numpy()
    t = targets.numpy()
    entropy = -(t * np.log(p) + (1 - t) * np.log(1 - p))
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0, 50.0])
    assert losses.bce(logits, targets).item() == pytest.approx(entropy.mean())
    assert losses.weighted_bce(logits, targets, weights).item() == pytest.approx((entropy * weights.numpy()).mean())
    assert losses.positive_bce(logits, targets).item() == pytest.approx((entropy * (1 + 20 * t)).mean())


def test_focal_by_hand_and_its_limit():
    logits, targets = logits_and_targets()
    p = torch.sigmoid(logits.detach()).numpy()
    t = targets.numpy()
    p_t, a_t = np.where(t == 1, p, 1 - p), np.where(t == 1, 0.25, 0.75)
    assert losses.focal(logits, targets).item() == pytest.approx((-a_t * (1 - p_t) ** 5 * np.log(p_t)).mean())
    assert losses.focal(logits, targets, gamma=0, alpha=0.5).item() == pytest.approx(
        losses.bce(logits, targets).item() / 2
    )


def test_balanced_weights_are_inverse_counts():
    weights = losses.balanced_weights([12885, 1254, 11, 0])
    assert weights.tolist() == pytest.approx([50 * 11 / 12885, 50 * 11 / 1254, 50, 50])


def test_pos_weight_bce_is_torchs_and_weights_positives_alone():
    logits, targets = logits_and_targets()
    weights = losses.odds_against([8, 2, 0, 16, 1], rows=16)
    assert weights.tolist() == pytest.approx([1, 7, 50, 1 / 50, 15]), "negatives a positive, 1/50 to 50"
    p, t = torch.sigmoid(logits.detach()).numpy(), targets.numpy()
    expected = -(weights.numpy() * t * np.log(p) + (1 - t) * np.log(1 - p)).mean()
    assert losses.pos_weight_bce(logits, targets, weights).item() == pytest.approx(expected)


def test_weighted_bce_weights_negatives_too():
    """The published form: a rare class's negatives weigh as much as its positives; with pos_weight they weigh 1."""
    logits, targets = torch.zeros(4, 2, requires_grad=True), torch.tensor([[0.0, 0.0]] * 4)
    losses.weighted_bce(logits, targets, torch.tensor([1.0, 50.0])).backward()
    assert (logits.grad[:, 1] / logits.grad[:, 0]).tolist() == pytest.approx([50] * 4)
    logits.grad = None
    losses.pos_weight_bce(logits, targets, torch.tensor([1.0, 50.0])).backward()
    assert (logits.grad[:, 1] / logits.grad[:, 0]).tolist() == pytest.approx([1] * 4)


def test_schedule_is_read_and_kept():
    schedule = losses.parse_schedule("1:bce 11:soft_f1+weighted_bce 24:soft_f1+10*weighted_bce")
    assert [stage_at(schedule, epoch)[0] for epoch in (1, 10, 11, 23, 24, 99)] == [0, 0, 1, 1, 2, 2]
    assert stage_at(schedule, 30)[1] == {"soft_f1": 1.0, "weighted_bce": 10.0}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bce",
        "2:bce",
        "1:nothing",
        "1:bce 1:focal",
        "1:bce 5:focal 3:bce",
        "1:bce+",
        "1:0*bce",
        "1:bce+bce",
        "1:bce;2",
    ],
)
def test_impossible_schedules_are_refused(text):
    with pytest.raises(InputError):
        losses.parse_schedule(text)


@pytest.mark.parametrize("learned", [(), ("bce",), ("soft_f1", "weighted_bce"), ("focal", "pos_weight_bce")])
def test_curves_are_those_asked_for_with_the_gradient_of_those_learned_from(learned):
    """Sharing one matrix changes neither the values nor the gradients of the single functions."""
    logits, targets = logits_and_targets()
    weights, positives = torch.rand(5).double() * 9, torch.rand(5).double() * 9
    names = [*losses.TERMS, "precision", "recall"]
    curves = losses.curves(names, logits, targets, weights, positives, learned)
    assert list(curves) == names
    predicted = (logits.detach() >= 0).numpy()
    assert float(curves["precision"]) == pytest.approx((predicted * targets.numpy()).sum() / predicted.sum())
    assert float(curves["recall"]) == pytest.approx((predicted * targets.numpy()).sum() / targets.numpy().sum())
    alone = {
        "bce": torch.nn.functional.binary_cross_entropy_with_logits(logits, targets), "focal": losses.focal(logits, targets),
        "soft_f1": losses.soft_f1(logits, targets), "weighted_bce": losses.weighted_bce(logits, targets, weights),
        "positive_bce": losses.positive_bce(logits, targets),
        "pos_weight_bce": torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=positives),
    }  # fmt: skip
    for name, value in alone.items():
        assert float(curves[name].detach()) == pytest.approx(float(value.detach()), rel=1e-12), name
        assert curves[name].requires_grad == (name in learned)
    if learned:
        ours, theirs = (torch.autograd.grad(sum(part[name] for name in learned), logits)[0] for part in (curves, alone))
        assert torch.allclose(ours, theirs, rtol=1e-10)
    assert list(losses.curves(["recall", "focal"], logits, targets)) == ["recall", "focal"]
