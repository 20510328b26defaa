"""Losses and their schedules, by hand and against scikit-learn and torch."""

from itertools import permutations, product

import numpy as np
import pytest
import timm.loss
import torch
import torchvision.ops
from conftest import random_table
from example_labels import real_labels
from sklearn.metrics import f1_score, log_loss

from utils.engine import losses
from utils.errors import InputError
from utils.schedule import first_steps, stage_at


def logits_and_targets(rows=16, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=generator, dtype=torch.float64).requires_grad_()
    targets = (torch.rand(rows, classes, generator=generator) < 0.3).double()
    targets[:, 0] = 0  # a class that is absent from the batch
    return logits, targets


def inputs_of(*arguments):
    return losses.LossInputs(*arguments)


def test_soft_f1_of_hard_decisions_is_macro_f1():
    truth, probabilities = random_table(3, 200, 6, absent=False)
    decisions = probabilities >= 0.5
    logits = torch.where(torch.from_numpy(decisions), 200.0, -200.0)
    expected = 1 - f1_score(truth, decisions, average="macro")
    assert float(losses.soft_f1(inputs_of(logits, torch.from_numpy(truth).float()), smooth=1e-9)) == pytest.approx(
        expected, abs=1e-6
    )


def test_soft_f1_gives_an_absent_class_a_gradient_that_pushes_it_down():
    logits, targets = logits_and_targets()
    losses.soft_f1(inputs_of(logits, targets)).backward()
    assert (logits.grad[:, 0] > 0).all()


def test_soft_f1_counts_by_class_not_by_sample():
    """One class found everywhere, one nowhere: by class the mean is 1/2, by sample it would be more."""
    targets = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    logits = torch.tensor([[50.0, -50.0]] * 3)
    assert float(losses.soft_f1(inputs_of(logits, targets), smooth=1e-9)) == pytest.approx(0.5, abs=1e-6)


def test_bce_and_weighted_bce_by_hand():
    logits, targets = logits_and_targets()
    p = torch.sigmoid(logits.detach()).numpy()
    t = targets.numpy()
    entropy = -(t * np.log(p) + (1 - t) * np.log(1 - p))
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0, 50.0])
    assert losses.bce(inputs_of(logits, targets)).item() == pytest.approx(entropy.mean())
    assert losses.weighted_bce(inputs_of(logits, targets, weights)).item() == pytest.approx(
        (entropy * weights.numpy()).mean()
    )
    assert losses.positive_bce(inputs_of(logits, targets)).item() == pytest.approx((entropy * (1 + 20 * t)).mean())


def test_focal_by_hand_and_its_limit():
    logits, targets = logits_and_targets()
    p = torch.sigmoid(logits.detach()).numpy()
    t = targets.numpy()
    p_t, a_t = np.where(t == 1, p, 1 - p), np.where(t == 1, 0.25, 0.75)
    assert losses.focal(inputs_of(logits, targets)).item() == pytest.approx(
        (-a_t * (1 - p_t) ** 5 * np.log(p_t)).mean()
    )
    assert losses.focal(inputs_of(logits, targets), gamma=0, alpha=0.5).item() == pytest.approx(
        losses.bce(inputs_of(logits, targets)).item() / 2
    )


def value_of(term, logits, targets):
    """By way of a schedule."""
    subject = losses.ScheduledLoss(losses.parse_schedule(f"1:{term}"), targets.numpy(), torch.device("cpu"))
    return subject([logits], targets)


def test_focal_with_numbers_in_brackets_is_torchvisions():
    """And 28 times it with both weights .5 is half the winner's of 2018, who sums over 28 classes and weights nothing."""
    logits, targets = logits_and_targets(classes=28)
    for term, alpha in (("focal(2)", 0.25), ("focal(2,.7)", 0.7)):
        expected = torchvision.ops.sigmoid_focal_loss(logits, targets, alpha=alpha, gamma=2, reduction="mean")
        assert value_of(term, logits, targets).item() == pytest.approx(expected.item())
    unweighted = torchvision.ops.sigmoid_focal_loss(logits, targets, alpha=-1, gamma=2)
    assert value_of("28*focal(2,.5)", logits, targets).item() == pytest.approx(unweighted.sum(1).mean().item() / 2)


def test_asymmetric_is_timms_sum_as_a_mean():
    logits, targets = logits_and_targets(
        rows=1, classes=500
    )  # of one sample, since timm's releases differ in what they sum
    logits = (4 * logits.detach()).requires_grad_()
    targets[:, ::3] = 1
    for term, options in (("asymmetric", {}), ("asymmetric(2,0)", {"gamma_neg": 2, "gamma_pos": 0})):
        theirs = timm.loss.AsymmetricLossMultiLabel(**options)(logits, targets) / 500
        ours = value_of(term, logits, targets)
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
        slopes = [torch.autograd.grad(value, logits)[0] for value in (ours, theirs)]
        assert torch.allclose(*slopes, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("term", ["focal(.5)", "asymmetric(.5,.5)"])
def test_a_power_below_one_has_a_slope_where_it_is_zero(term):
    logits = torch.tensor([[200.0, -200.0, 30.0, -30.0]], requires_grad=True)
    value_of(term, logits, torch.tensor([[1.0, 0.0, 1.0, 0.0]])).backward()
    assert logits.grad.isfinite().all()


def jaccard_loss(truth, predicted):
    union = (truth | predicted).sum()
    return 1 - (truth & predicted).sum() / union if union else 0.0


def test_lovasz_of_decisions_is_twice_the_jaccard_loss():
    """Of the labels and of their complements, halved: for all labels and all decisions of five samples."""
    sets = np.array(list(product((False, True), repeat=5)))
    for truth in sets:
        logits = torch.tensor(np.where(sets, 1.0, -1.0).T)  # (5, 32): all decisions, as if of 32 classes
        targets = torch.tensor(np.tile(truth[:, None], 32)).double()
        expected = [jaccard_loss(truth, predicted) + jaccard_loss(~truth, ~predicted) for predicted in sets]
        for column, value in enumerate(expected):
            found = losses.lovasz(inputs_of(logits[:, [column]], targets[:, [column]]))
            assert found.item() == pytest.approx(value, abs=1e-12)
        assert losses.lovasz(inputs_of(logits, targets)).item() == pytest.approx(np.mean(expected)), (
            "the mean of classes"
        )


def test_lovasz_is_the_largest_sum_over_all_orders():
    """The Lovász extension of a submodular function by another definition: decisions become wrong one after the other, in the worst
    order. Its gradient is that of this sum."""
    logits, targets = logits_and_targets(rows=5, classes=3)
    expected = []
    for column, truth in zip((2 * logits).T, targets.T.numpy().astype(bool), strict=True):
        errors = (1 - torch.tensor(np.where(truth, 1.0, -1.0)) * column).relu()
        total = 0
        for labels in (truth, ~truth):
            sums = []
            for order in permutations(range(5)):
                wrong = [np.isin(range(5), order[:count]) for count in range(6)]
                lost = np.diff([jaccard_loss(labels, labels ^ each) for each in wrong])
                sums.append((errors[list(order)] * torch.tensor(lost)).sum())
            total = total + max(sums) / 2
        expected.append(total)
    theirs, ours = sum(expected) / 3, losses.lovasz(inputs_of(2 * logits, targets))
    assert ours.item() == pytest.approx(theirs.item())
    assert torch.allclose(*(torch.autograd.grad(value, logits)[0] for value in (ours, theirs)))


@pytest.mark.parametrize("rows", [4, 16, 64])
def test_hard_negatives_are_counted_one_by_one(rows):
    logits, targets = logits_and_targets(rows)
    targets[:, 1], targets[: rows // 2, 2] = 1, 1  # a class without negatives, one with many positives
    means = []
    for scores, labels in zip(logits.detach().numpy().T, targets.numpy().T, strict=True):
        costs = sorted((-score, np.logaddexp(0, score)) for score, label in zip(scores, labels) if not label)
        positives = [np.logaddexp(0, -score) for score, label in zip(scores, labels) if label]
        count = min(len(positives) + max(2, len(costs) // 2), 7 * len(costs) // 10 + 2)
        means.append(np.mean(positives + [cost for _, cost in costs[:count]]))
    assert losses.hard_negatives(inputs_of(logits, targets)).item() == pytest.approx(np.mean(means))


def test_soft_targets():
    """As LossInputs has it."""
    targets = torch.tensor([[0.1, 0.3, 0.5], [0.7, 0.9, 0.2], [0.6, 0.4, 0.8]], dtype=torch.float64)
    logits = torch.logit(targets).requires_grad_()
    for term in ("bce", "focal", "focal(2,.5)"):
        assert torch.autograd.grad(value_of(term, logits, targets), logits)[0].abs().max() < 1e-9, term
    moved = logits.detach() + torch.randn(3, 3)
    ends = [losses.asymmetric(inputs_of(moved, torch.full_like(targets, end))) for end in (0.0, 1.0)]
    mixed = losses.asymmetric(inputs_of(moved, torch.full_like(targets, 0.3)))
    assert float(mixed) == pytest.approx(0.7 * float(ends[0]) + 0.3 * float(ends[1]))
    hard = (targets >= 0.5).double()
    assert losses.lovasz(inputs_of(moved, targets)) == losses.lovasz(inputs_of(moved, hard))
    few = torch.tensor(
        [[3.0], [0.0], [-3.0], [-4.0], [-5.0], [-6.0], [-7.0]]
    )  # of 6 negatives the three hardest and one more
    found = losses.hard_negatives(inputs_of(few, torch.tensor([[0.9], [0.4], [0.1], [0.1], [0.1], [0.1], [0.1]])))
    costs = torch.nn.functional.binary_cross_entropy_with_logits(
        few[:5], torch.tensor([[0.9], [0.4], [0.1], [0.1], [0.1]]), reduction="mean"
    )
    assert float(found) == pytest.approx(float(costs))


def test_balanced_weights_are_inverse_counts():
    weights = losses.class_weights([12885, 1254, 11, 0])
    assert weights.tolist() == pytest.approx([50 * 11 / 12885, 50 * 11 / 1254, 50, 50])


def test_pos_weight_bce_is_torchs_and_weights_positives_alone():
    logits, targets = logits_and_targets()
    weights = losses.pos_weights([8, 2, 0, 16, 1], rows=16)
    assert weights.tolist() == pytest.approx([1, 7, 50, 1 / 50, 15]), "negatives a positive, 1/50 to 50"
    p, t = torch.sigmoid(logits.detach()).numpy(), targets.numpy()
    expected = -(weights.numpy() * t * np.log(p) + (1 - t) * np.log(1 - p)).mean()
    assert losses.pos_weight_bce(inputs_of(logits, targets, None, weights)).item() == pytest.approx(expected)


def test_weighted_bce_weights_negatives_too():
    """The published form: a rare class's negatives weigh as much as its positives; with pos_weight they weigh 1."""
    logits, targets = torch.zeros(4, 2, requires_grad=True), torch.tensor([[0.0, 0.0]] * 4)
    losses.weighted_bce(inputs_of(logits, targets, torch.tensor([1.0, 50.0]))).backward()
    assert (logits.grad[:, 1] / logits.grad[:, 0]).tolist() == pytest.approx([50] * 4)
    logits.grad = None
    losses.pos_weight_bce(inputs_of(logits, targets, None, torch.tensor([1.0, 50.0]))).backward()
    assert (logits.grad[:, 1] / logits.grad[:, 0]).tolist() == pytest.approx([1] * 4)


@pytest.mark.parametrize("name", [name for name, loss in losses.LOSSES.items() if loss.soft_targets])
def test_a_loss_of_soft_targets_is_its_mean_over_labels_drawn_with_them(name):
    logits, weights = (torch.tensor(values, dtype=torch.float64) for values in ([[0.5, -1.0, 2.0]], [1.0, 3.0, 9.0]))
    soft = torch.tensor([[0.2, 0.7, 0.9]], dtype=torch.float64)
    labels = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 3)[:, None]
    chances = torch.where(labels == 1, soft, 1 - soft).prod(2)[:, 0]
    function = losses.LOSSES[name].function
    drawn = torch.stack([function(inputs_of(logits, target, weights, weights)) for target in labels])
    assert torch.isclose(function(inputs_of(logits, soft, weights, weights)), (chances * drawn).sum())


def test_schedule_is_read_and_kept():
    schedule = losses.parse_schedule("1:bce 11:soft_f1+weighted_bce step10000:soft_f1+10*weighted_bce")
    starts = first_steps(schedule, 437, "loss schedule")  # Chen's 27,965 images in batches of 64
    assert starts == [0, 4370, 10_000]
    assert [stage_at(starts, step) for step in (0, 4369, 4370, 9999, 10_000, 99_999)] == [0, 0, 1, 1, 2, 2]
    assert schedule[2].value == {"soft_f1": 1.0, "weighted_bce": 10.0}


def test_a_step_before_an_earlier_stage_is_refused():
    schedule = losses.parse_schedule("1:bce 11:focal step10000:bce")
    with pytest.raises(InputError, match="the stage step10000: begins in epoch 7, not after the stage 11: before it"):
        first_steps(schedule, 1641, "--loss")


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
        "step0:bce",
        "1:bce step0:focal",
        "1:bce step9:focal step5:bce",
        "1:bce 5:cross_entropy",
        "1:focal(2",
        "1:focal()",
        "1:focal(-1)",
        "1:focal(21)",
        "1:focal(2,.5,1)",
        "1:bce(2)",
        "1:lovasz(.5)",
    ],
)
def test_impossible_schedules_are_refused(text):
    with pytest.raises(InputError):
        losses.parse_schedule(text)


@pytest.mark.parametrize("terms", [("bce",), ("soft_f1", "weighted_bce"), ("focal", "pos_weight_bce")])
def test_the_curves_beside_a_loss_change_neither_its_value_nor_its_gradient(terms):
    """What all losses share is computed once; against each function alone and torch's own."""
    logits, targets = logits_and_targets()
    matrix = targets.numpy().astype(np.uint8)
    subject = losses.ScheduledLoss(losses.parse_schedule("1:" + "+".join(terms)), matrix, torch.device("cpu"))
    loss, curves = subject.with_curves([logits], targets)
    assert list(curves) == subject.curve_names and set(terms) <= set(curves)
    predicted = (logits.detach() >= 0).numpy()
    assert float(curves["precision"]) == pytest.approx((predicted * targets.numpy()).sum() / predicted.sum())
    assert float(curves["accuracy"]) == pytest.approx((predicted == targets.numpy()).mean())
    assert float(curves["recall"]) == pytest.approx((predicted * targets.numpy()).sum() / targets.numpy().sum())
    inputs = inputs_of(logits, targets, subject.class_weights, subject.pos_weights)
    alone = {name: term.function(inputs) for name, term in losses.LOSSES.items()}
    torchs = torch.nn.functional.binary_cross_entropy_with_logits
    alone |= {"bce": torchs(logits, targets), "pos_weight_bce": torchs(logits, targets, pos_weight=subject.pos_weights)}
    for name, value in curves.items():
        assert not value.requires_grad
        if name in alone:
            assert float(value) == pytest.approx(float(alone[name].detach()), rel=1e-6), name
    ours, theirs = (torch.autograd.grad(value, logits)[0] for value in (loss, sum(alone[name] for name in terms)))
    assert torch.allclose(ours, theirs, rtol=1e-6)


def test_soft_f1_of_a_network_that_predicts_nothing():
    """E[1/(n + 1)] of a binomial n has a closed form; with the competition's counts and batches of 64 it is .50 on average."""
    share, batch = real_labels().mean(0), 64
    expected = np.mean((1 - (1 - share) ** (batch + 1)) / ((batch + 1) * share))
    rng = np.random.default_rng(0)
    targets = torch.tensor(rng.random((400, batch, 28)) < share).float()
    found = [1 - float(losses.soft_f1(inputs_of(torch.full((batch, 28), -80.0), each))) for each in targets]
    assert np.mean(found) == pytest.approx(expected, abs=0.01) and expected == pytest.approx(0.50, abs=0.005)


def test_summed_over_classes_is_as_many_times_the_mean():
    logits, targets = logits_and_targets()
    values = [function(inputs_of(logits, targets)) for function in (losses.bce_sum, losses.bce)]
    assert float(values[0].detach()) == pytest.approx(logits.shape[1] * float(values[1].detach()))
    by_hand = -(targets * torch.sigmoid(logits).log() + (1 - targets) * torch.sigmoid(-logits).log()).sum(1).mean()
    assert float(values[0].detach()) == pytest.approx(float(by_hand.detach()), rel=1e-5)


def test_exclusive_classes_have_a_softmax():
    """Against scikit-learn's log loss of classes; precision and recall count the same probabilities."""
    logits = torch.tensor([[2.0, 1.0, -1.0], [0.0, 3.0, 0.5], [1.0, 1.1, 0.9]])
    targets = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    subject = losses.ScheduledLoss(losses.parse_schedule("1:cross_entropy"), targets.numpy(), torch.device("cpu"))
    loss, curves = subject.with_curves([logits], targets)
    assert float(loss) == pytest.approx(log_loss([0, 1, 2], logits.double().softmax(1).numpy()), rel=1e-5)
    assert float(curves["precision"]) == 1 and float(curves["recall"]) == pytest.approx(2 / 3)
    assert float(curves["accuracy"]) == pytest.approx(8 / 9)


def test_a_network_with_two_outputs_learns_from_both():
    logits, targets = logits_and_targets()
    subject = losses.ScheduledLoss(losses.parse_schedule("1:bce 3:2*focal"), targets.numpy(), torch.device("cpu"))
    subject.set_stage(1)
    assert subject.separable
    loss, curves = subject.with_curves([logits, logits / 2], targets)
    alone = [2 * losses.focal(inputs_of(each, targets)) for each in (logits, logits / 2)]
    assert float(loss.detach()) == pytest.approx(float(sum(alone).detach()))
    assert float(curves["focal"]) == pytest.approx(float(alone[0].detach()) / 2), "the first output's"
