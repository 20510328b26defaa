"""Losses on logits, and the schedule that switches between them.

A loss is a function of a `LossInputs`, and of numbers that have defaults, that returns a 0-d tensor; one entry in `LOSSES` adds one to
train.py's --loss.
"""

import re
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F

from utils.errors import InputError
from utils.schedule import parse_stages

POSITIVE_FACTOR = 21.0  # of Chen's "positive BCE" curve
LARGEST_WEIGHT = 50.0  # of the rarest class (Chen)
MARGIN = 0.05  # of the asymmetric loss: probabilities of negatives below it cost nothing (Ridnik et al.)
TINY = 1e-8  # in place of 0, where a power has no slope that is a number
EXAMPLE = "1:bce 11:soft_f1+2*weighted_bce"
NUMBER = r"(?:\d+(?:\.\d+)?|\.\d+)"
TERM = re.compile(rf"(?:({NUMBER})\*)?((\w+)(?:\(({NUMBER}(?:,{NUMBER})*)\))?)")  # factor, term, its name, its numbers


@dataclass
class LossInputs:
    """Logits (B, C) float and targets (B, C) of 0 and 1; class_weights and pos_weights: (C,), from `class_weights` and `pos_weights`.
    exclusive: the classes exclude each other, so that probabilities are a softmax's.

    Soft targets, between 0 and 1: BCE and focal loss are smallest where the probability equals the target; `asymmetric` is the mean of
    the losses of 1 and 0 with the target's weights; `lovasz` and `hard_negatives` take 0.5 and more for 1."""

    logits: torch.Tensor
    targets: torch.Tensor
    class_weights: torch.Tensor | None = None
    pos_weights: torch.Tensor | None = None
    exclusive: bool = False

    @cached_property
    def bce(self):
        """Binary cross-entropy of each sample and class, (B, C): computed once for all losses that are made of it."""
        return F.binary_cross_entropy_with_logits(self.logits, self.targets, reduction="none")

    @cached_property
    def probabilities(self):
        """Of each sample and class, (B, C)."""
        return self.logits.softmax(1) if self.exclusive else torch.sigmoid(self.logits)

    @property
    def positive(self):
        """Of each sample and class whether it counts as a positive, (B, C) bool."""
        return self.targets >= 0.5


def class_weights(counts, largest=LARGEST_WEIGHT):
    """Weights ∝ 1/count, the rarest class present getting `largest`: (C,) counts of positives -> (C,) float32.

    A class without positives gets the weight of the rarest class that has some.
    """
    counts = np.asarray(counts, np.float32)
    fewest = counts[counts > 0].min(initial=np.inf)
    return torch.tensor(
        largest * fewest / np.maximum(counts, fewest) if counts.any() else np.full_like(counts, largest)
    )


def pos_weights(counts, rows, largest=LARGEST_WEIGHT):
    """Negatives per positive, from 1/`largest` to `largest`: (C,) counts of positives among `rows` samples -> (C,) float32.

    A class without positives gets `largest`.
    """
    counts = torch.as_tensor(counts, dtype=torch.float32)
    return ((rows - counts) / counts.clamp(min=1e-9)).clamp(1 / largest, largest)


def bce(inputs):
    """Binary cross-entropy, the mean over samples and classes, as all losses but soft F1 are."""
    return inputs.bce.mean()


def bce_sum(inputs):
    """BCE summed over the classes, the mean over samples: as many times `bce` as there are classes."""
    return inputs.bce.sum(1).mean()


def cross_entropy(inputs):
    """Cross-entropy of a softmax, for samples of exactly one class."""
    return F.cross_entropy(inputs.logits, inputs.targets)


def weighted_bce(inputs):
    """Chen's "negatively weighted BCE": each class weighted ∝ 1/count, its positives and its negatives alike."""
    return (inputs.class_weights * inputs.bce).mean()


def pos_weight_bce(inputs):
    """BCE with only the positives weighted, by class: the usual `pos_weight`."""
    return (inputs.bce * (1 + (inputs.pos_weights - 1) * inputs.targets)).mean()


def positive_bce(inputs):
    """BCE in which positives count `POSITIVE_FACTOR` times (a curve of Chen, Fig. 5)."""
    return (inputs.bce * (1 + (POSITIVE_FACTOR - 1) * inputs.targets)).mean()


def focal(inputs, gamma=5.0, alpha=0.25):
    """Focal loss, Lin et al. 2017, eq. 5: −α_t (1 − p_t)^γ log p_t, with the γ 5 and α .25 of Chen's curve."""
    weight = alpha * inputs.targets + (1 - alpha) * (1 - inputs.targets)
    wrong = (1 - (-inputs.bce).exp()).clamp(min=TINY)
    return (weight * wrong**gamma * inputs.bce).mean()


def asymmetric(inputs, gamma_negative=4.0, gamma_positive=1.0):
    """Asymmetric loss (Ridnik et al., ICCV 2021): −(1 − p)^γ+ log p of a positive, −q^γ− log(1 − q) of a negative with
    q = max(p − .05, 0), so that easy negatives cost nothing. The authors sum it over classes and samples."""
    p = torch.sigmoid(inputs.logits)
    q = (p - MARGIN).clamp(min=TINY)
    positives = (1 - p).clamp(min=TINY) ** gamma_positive * F.logsigmoid(inputs.logits)
    negatives = q**gamma_negative * (1 - q).log()
    return -(inputs.targets * positives + (1 - inputs.targets) * negatives).mean()


def hard_negatives(inputs):
    """BCE of a class's positives and of its hardest negatives in the batch, the mean of these, then over classes.

    Of N negatives and P positives those min(P + max(N/2, 2), 7/10 N + 2) with the highest logits (fractions rounded down). As in the
    public code of the winner of 2018 (team bestfitting, layers/hard_example.py): of a rare class in a batch of 64, half the negatives.
    """
    positives = inputs.positive.sum(0)
    negatives = len(inputs.targets) - positives
    count = torch.minimum(positives + (negatives // 2).clamp(min=2), negatives * 7 // 10 + 2)
    logits = inputs.logits.detach().masked_fill(inputs.positive, -torch.inf)
    ranks = logits.argsort(dim=0, descending=True, stable=True).argsort(dim=0)
    kept = inputs.positive | (ranks < count)
    return ((inputs.bce * kept).sum(0) / kept.sum(0)).mean()


def lovasz(inputs):
    """Symmetric Lovász hinge: the mean of the Lovász hinge of the labels and of their complements (Berman et al., CVPR 2018).

    For each class over the samples of the batch, then the mean over classes, as in the public code of the winner of 2018 (team
    bestfitting, layers/loss.py). The hinge is the Lovász extension of the Jaccard loss 1 − intersection/union of the set of wrong
    decisions, taken of the margin errors max(1 − y·logit, 0), y = ±1: with logits of ±1 twice the Jaccard loss of the decisions.
    """
    errors = 1 - torch.where(inputs.positive, inputs.logits, -inputs.logits)
    errors, order = errors.sort(dim=0, descending=True, stable=True)
    labels = inputs.positive.gather(0, order)
    slopes = (_jaccard_steps(labels, errors.dtype) + _jaccard_steps(~labels, errors.dtype)) / 2
    return (errors.relu() * slopes).sum(0).mean()


def _jaccard_steps(labels, dtype):
    """By how much the Jaccard loss of each class grows when one more decision is wrong: (B, C) bool, in the order in which decisions
    become wrong -> (B, C). Berman et al., Algorithm 1."""
    wrong = torch.arange(1, len(labels) + 1, device=labels.device).unsqueeze(1)
    lost = labels.cumsum(0)  # labels among the wrong decisions; whole numbers, which a GPU adds in any order alike
    loss = 1 - (lost[-1] - lost) / (lost[-1] + wrong - lost).to(dtype)
    return torch.diff(loss, dim=0, prepend=loss.new_zeros(1, loss.shape[1]))


def soft_f1(inputs, smooth=1.0):
    """1 − macro F1 of the batch with probabilities in the place of decisions; in [0, 1].

    For each class F1 = (2 TP + s) / (2 TP + FP + FN + s). With s in the numerator and the denominator a class without positives in
    the batch still has a gradient: its false positives are pushed down. With s only in the denominator its F1 would be 0 whatever
    is predicted, and so would its gradient. It follows that a network which predicts nothing has F1 1/(positives + 1): .50 on average
    over the competition's classes in batches of 64, so that values of this F1 and of others cannot be compared.
    """
    hits = (inputs.probabilities * inputs.targets).sum(0)
    return 1 - ((2 * hits + smooth) / (inputs.probabilities.sum(0) + inputs.targets.sum(0) + smooth)).mean()


@dataclass(frozen=True)
class Loss:
    """separable: the loss of a batch is the mean of its samples' losses, so that micro-batches can be summed. soft_targets: of a
    target between 0 and 1 it is the mean over labels drawn with that probability, and smallest there. numbers: {name: largest} of
    those that a schedule may give in brackets, from 0, in the function's order."""

    function: callable
    separable: bool = True
    soft_targets: bool = False
    numbers: dict = field(default_factory=dict)


LOSSES = {
    "bce": Loss(bce, soft_targets=True),
    "bce_sum": Loss(bce_sum, soft_targets=True),
    "cross_entropy": Loss(cross_entropy, soft_targets=True),
    "weighted_bce": Loss(weighted_bce, soft_targets=True),
    "pos_weight_bce": Loss(pos_weight_bce),
    "positive_bce": Loss(positive_bce),
    "focal": Loss(focal, numbers={"γ": 20, "α": 1}),
    "soft_f1": Loss(soft_f1, separable=False),
    "asymmetric": Loss(asymmetric, numbers={"γ−": 20, "γ+": 20}),
    "lovasz": Loss(lovasz, separable=False),
    "hard_negatives": Loss(hard_negatives, separable=False),
}
EXCLUSIVE = "cross_entropy"  # the loss under which the classes of a network exclude each other
# With loss and lr Chen's nine, Fig. 5; and the binary accuracy of the poster's table.
CURVES = ["bce", "weighted_bce", "positive_bce", "focal", "soft_f1", "precision", "recall", "accuracy"]


def rates(inputs):
    """{precision, recall, accuracy: 0-d tensor} of the batch at the threshold 0.5, over all its decisions together."""
    predicted = (inputs.probabilities >= 0.5).float()
    hits = (predicted * inputs.targets).sum()
    return {
        "precision": hits / predicted.sum().clamp(min=1),
        "recall": hits / inputs.targets.sum().clamp(min=1),
        "accuracy": (predicted == (inputs.targets >= 0.5)).float().mean(),
    }


def parse_schedule(text):
    """Read a loss schedule: stages `<first epoch>:<terms>` or `step<steps before>:<terms>`, epochs counted from 1, terms joined by
    +, each with an optional factor, and numbers of the loss in brackets. Returns [Stage], whose values are {term: factor}.

    >>> [stage.value for stage in parse_schedule("1:bce 11:soft_f1+2*weighted_bce")]
    [{'bce': 1.0}, {'soft_f1': 1.0, 'weighted_bce': 2.0}]
    >>> [stage.value for stage in parse_schedule("1:.5*focal(2)+lovasz")]
    [{'focal(2)': 0.5, 'lovasz': 1.0}]
    """
    stages = [
        stage._replace(value=_parse_terms(stage.value, text)) for stage in parse_stages(text, "loss schedule", EXAMPLE)
    ]
    if len({EXCLUSIVE in stage.value for stage in stages}) > 1:
        raise InputError(
            f"loss schedule {text!r}: {EXCLUSIVE} in some stages only, but with it probabilities are a softmax's; give it in all or in none"
        )
    return stages


def is_exclusive(schedule):
    """Whether a network trained by this schedule gives probabilities that sum to 1."""
    return EXCLUSIVE in schedule[0].value


def _parse_terms(stage, text):
    terms = {}
    for part in stage.split("+"):
        match = TERM.fullmatch(part)
        if not match or match[3] not in LOSSES or match[2] in terms or (match[1] and float(match[1]) == 0):
            raise InputError(
                f"loss schedule {text!r} not understood; write stages like {EXAMPLE!r} with the terms {', '.join(LOSSES)}"
            )
        numbers, most = _numbers(match[2]), LOSSES[match[3]].numbers
        if len(numbers) > len(most) or any(number > limit for number, limit in zip(numbers, most.values())):
            takes = " and ".join(f"{name} from 0 to {limit}" for name, limit in most.items()) or "none"
            raise InputError(
                f"loss schedule {text!r}: the numbers in the brackets of {match[2]} do not fit; it takes {takes}"
            )
        terms[match[2]] = float(match[1] or 1)
    return terms


def _numbers(term):
    """Those in the brackets of a term."""
    return [float(word) for word in term.partition("(")[2].removesuffix(")").split(",") if word]


def loss_of(term):
    """The Loss of a schedule's term, such as ``bce`` or ``focal(2)``."""
    return LOSSES[term.partition("(")[0]]


def term_value(term, inputs):
    """The value of a schedule's term, such as ``bce`` or ``focal(2)``: 0-d tensor."""
    return loss_of(term).function(inputs, *_numbers(term))


def describe_terms(terms):
    """A stage's terms as a user writes them: ``soft_f1+10*weighted_bce``."""
    return "+".join(name if factor == 1 else f"{factor:g}*{name}" for name, factor in terms.items())


class ScheduledLoss:
    """The loss of the current stage of a schedule, and the curves that are logged beside it.

    schedule: from `parse_schedule`. targets: (N, C) of the training set, 0/1 or soft, for the class weights: from
    0.5 on they count as positives.
    """

    def __init__(self, schedule, targets, device):
        self.schedule, self.terms, self.exclusive = schedule, schedule[0].value, is_exclusive(schedule)
        counts = (targets >= 0.5).sum(axis=0)
        self.class_weights = class_weights(counts).to(device)
        self.pos_weights = pos_weights(counts, len(targets)).to(device)
        used = {term for stage in schedule for term in stage.value}
        self.curve_names = [*CURVES, *sorted(used - set(CURVES))]

    def set_stage(self, number):
        """Use this stage of the schedule from now on."""
        self.terms = self.schedule[number].value

    @property
    def separable(self):
        return all(loss_of(term).separable for term in self.terms)

    def __call__(self, outputs, targets):
        """The sum of the stage's loss over the outputs, a list of (B, C) logits: 0-d tensor."""
        return sum(self._weighted_sum(self._values(self._inputs(output, targets))) for output in outputs)

    def with_curves(self, outputs, targets):
        """-> (the same loss, {curve: 0-d tensor without gradient} of the first output)."""
        inputs = self._inputs(outputs[0], targets)
        values = self._values(inputs)
        rest = [self._values(self._inputs(output, targets)) for output in outputs[1:]]
        loss = sum(self._weighted_sum(each) for each in [values, *rest])
        return loss, self._curves(inputs, values)

    def _inputs(self, output, targets):
        return LossInputs(output, targets, self.class_weights, self.pos_weights, self.exclusive)

    def _values(self, inputs):
        """{term: 0-d tensor} of the current stage, in the order of `curve_names`."""
        return {name: term_value(name, inputs) for name in self.curve_names if name in self.terms}

    def _weighted_sum(self, values):
        return sum(factor * values[term] for term, factor in self.terms.items())

    @torch.no_grad()
    def _curves(self, inputs, values):
        known = {name: value.detach() for name, value in values.items()} | rates(inputs)
        return {name: known[name] if name in known else term_value(name, inputs) for name in self.curve_names}
