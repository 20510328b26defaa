"""Losses on logits, and the schedule that switches between them.

A loss is a function of a `LossInputs` that returns a 0-d tensor; one entry in `LOSSES` adds one to train.py's --loss.
"""

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F

from utils.errors import InputError
from utils.schedule import parse_stages

POSITIVE_FACTOR = 21.0  # of Chen's "positive BCE" curve
LARGEST_WEIGHT = 50.0  # of the rarest class (Chen)
EXAMPLE = "1:bce 11:soft_f1+2*weighted_bce"


@dataclass
class LossInputs:
    """Logits (B, C) float and targets (B, C) of 0 and 1; class_weights and pos_weights: (C,), from `class_weights` and `pos_weights`.
    exclusive: the classes exclude each other, so that probabilities are a softmax's."""

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
    return (weight * (1 - (-inputs.bce).exp()) ** gamma * inputs.bce).mean()


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
    """separable: the loss of a batch is the mean of its samples' losses, so that micro-batches can be summed. soft_targets: it is
    smallest where the probabilities are the targets, also for targets between 0 and 1."""

    function: callable
    separable: bool = True
    soft_targets: bool = False


LOSSES = {
    "bce": Loss(bce, soft_targets=True),
    "bce_sum": Loss(bce_sum, soft_targets=True),
    "cross_entropy": Loss(cross_entropy, soft_targets=True),
    "weighted_bce": Loss(weighted_bce, soft_targets=True),
    "pos_weight_bce": Loss(pos_weight_bce),
    "positive_bce": Loss(positive_bce),
    "focal": Loss(focal),
    "soft_f1": Loss(soft_f1, separable=False),
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
    +, each with an optional factor. Returns [Stage], whose values are {term: factor}.

    >>> [stage.value for stage in parse_schedule("1:bce 11:soft_f1+2*weighted_bce")]
    [{'bce': 1.0}, {'soft_f1': 1.0, 'weighted_bce': 2.0}]
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
        match = re.fullmatch(r"(?:(\d+(?:\.\d+)?|\.\d+)\*)?(\w+)", part)
        if not match or match[2] not in LOSSES or match[2] in terms or (match[1] and float(match[1]) == 0):
            raise InputError(
                f"loss schedule {text!r} not understood; write stages like {EXAMPLE!r} with the terms {', '.join(LOSSES)}"
            )
        terms[match[2]] = float(match[1] or 1)
    return terms


def describe_terms(terms):
    """A stage's terms as a user writes them: ``soft_f1+10*weighted_bce``."""
    return "+".join(name if factor == 1 else f"{factor:g}*{name}" for name, factor in terms.items())


class ScheduledLoss:
    """The loss of the current stage of a schedule, and the curves that are logged beside it.

    schedule: from `parse_schedule`. targets: (N, C) 0/1 of the training set, for the class weights.
    """

    def __init__(self, schedule, targets, device):
        self.schedule, self.terms, self.exclusive = schedule, schedule[0].value, is_exclusive(schedule)
        counts = targets.sum(axis=0, dtype=np.int64)
        self.class_weights = class_weights(counts).to(device)
        self.pos_weights = pos_weights(counts, len(targets)).to(device)
        used = {term for stage in schedule for term in stage.value}
        self.curve_names = [*CURVES, *sorted(used - set(CURVES))]

    def set_stage(self, number):
        """Use this stage of the schedule from now on."""
        self.terms = self.schedule[number].value

    @property
    def separable(self):
        return all(LOSSES[term].separable for term in self.terms)

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
        return {name: LOSSES[name].function(inputs) for name in self.curve_names if name in self.terms}

    def _weighted_sum(self, values):
        return sum(factor * values[term] for term, factor in self.terms.items())

    @torch.no_grad()
    def _curves(self, inputs, values):
        known = {name: value.detach() for name, value in values.items()} | rates(inputs)
        return {name: known[name] if name in known else LOSSES[name].function(inputs) for name in self.curve_names}
