"""Losses on logits, and the schedule that switches between them.

All take `logits` (B, C) float and `targets` (B, C) of 0/1 and return a scalar, the mean over samples and classes.
"""

import re

import numpy as np
import torch
import torch.nn.functional as F

from utils.errors import InputError
from utils.schedule import parse_stages

POSITIVE_FACTOR = 21.0  # Chen's "positive BCE" curve: positives count 21 times


def bce_matrix(logits, targets):
    """Binary cross-entropy of each sample and class, (B, C): what every loss here but soft F1 is made of."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def bce(logits, targets, matrix=None):
    """Binary cross-entropy. `matrix`, here and below: `bce_matrix` of the same batch, where it is known already."""
    return _matrix(logits, targets, matrix).mean()


def weighted_bce(logits, targets, class_weights, matrix=None):
    """Chen's "negatively weighted BCE": each class weighted ∝ 1/count, its positives and its negatives alike.

    `class_weights`: (C,), from `balanced_weights`.
    """
    return (class_weights * _matrix(logits, targets, matrix)).mean()


def _matrix(logits, targets, matrix):
    return bce_matrix(logits, targets) if matrix is None else matrix


def balanced_weights(counts, largest=50.0):
    """Class weights ∝ 1/count, the rarest class present getting `largest` (Chen: 50): (C,) counts -> (C,) float32.

    A class without positives gets the weight of the rarest one that has some.
    """
    counts = np.asarray(counts, np.float32)
    fewest = counts[counts > 0].min(initial=np.inf)
    return torch.tensor(
        largest * fewest / np.maximum(counts, fewest) if counts.any() else np.full_like(counts, largest)
    )


def pos_weight_bce(logits, targets, pos_weights, matrix=None):
    """BCE whose positives alone are weighted, by class: the usual `pos_weight`. `pos_weights`: (C,), from `odds_against`, or
    one number for all classes."""
    return (_matrix(logits, targets, matrix) * (1 + (pos_weights - 1) * targets)).mean()


def odds_against(counts, rows, largest=50.0):
    """Negatives a positive, from 1/`largest` to `largest`: (C,) counts among `rows` -> (C,) float32. A class without
    positives gets `largest`."""
    counts = torch.as_tensor(counts, dtype=torch.float32)
    return ((rows - counts) / counts.clamp(min=1e-9)).clamp(1 / largest, largest)


def positive_bce(logits, targets, matrix=None):
    """BCE in which positives count 21 times (a tracked curve, Chen Fig. 5)."""
    return pos_weight_bce(logits, targets, POSITIVE_FACTOR, matrix)


def focal(logits, targets, gamma=5.0, alpha=0.25, matrix=None):
    """Focal loss, Lin et al. 2017, eq. 5: −α_t (1 − p_t)^γ log p_t. Chen tracks it with γ 5, α .25."""
    matrix = _matrix(logits, targets, matrix)  # −log p_t
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    return (weight * (1 - (-matrix).exp()) ** gamma * matrix).mean()


def soft_f1(logits, targets, smooth=1.0):
    """1 − macro F1 of a batch with probabilities in the place of decisions; in [0, 1].

    For each class (a column, not a sample) F1 = (2 TP + s) / (2 TP + FP + FN + s). With s in the numerator and the
    denominator a class that is absent from the batch still has a gradient: its false positives are pushed down.
    With s only in the denominator its F1 would be 0 whatever is predicted, and its gradient with it.
    """
    return 1 - soft_f1_per_class(torch.sigmoid(logits), targets, smooth).mean()


def soft_f1_per_class(probabilities, targets, smooth=1.0):
    hits = (probabilities * targets).sum(0)
    return (2 * hits + smooth) / (probabilities.sum(0) + targets.sum(0) + smooth)


TERMS = ("bce", "weighted_bce", "pos_weight_bce", "positive_bce", "focal", "soft_f1")
COUPLED = {"soft_f1"}  # no mean over samples: the loss of a batch is not the mean of its parts' losses
EXAMPLE = "1:bce 11:soft_f1+2*weighted_bce"


def parse_schedule(text):
    """Read a loss schedule: stages `<first epoch>:<terms>`, epochs counted from 1, terms joined by +, each with an
    optional factor. Returns [(first epoch, {term: factor})], ascending.

    >>> parse_schedule("1:bce 11:soft_f1+2*weighted_bce")
    [(1, {'bce': 1.0}), (11, {'soft_f1': 1.0, 'weighted_bce': 2.0})]
    """
    return [(epoch, _parse_terms(stage, text)) for epoch, stage in parse_stages(text, "loss schedule", EXAMPLE)]


def _parse_terms(stage, text):
    terms = {}
    for part in stage.split("+"):
        match = re.fullmatch(r"(?:(\d+(?:\.\d+)?|\.\d+)\*)?(\w+)", part)
        if not match or match[2] not in TERMS or match[2] in terms or (match[1] and float(match[1]) == 0):
            raise InputError(
                f"loss schedule {text!r} not understood; write stages like {EXAMPLE!r} with the terms {', '.join(TERMS)}"
            )
        terms[match[2]] = float(match[1] or 1)
    return terms


def curves(names, logits, targets, class_weights=None, pos_weights=None, learned=()):
    """The curves of a batch (Chen, Fig. 5) called `names`, of `TERMS`, `precision` and `recall`: {name: 0-d tensor}.

    Gradients flow through those in `learned` alone. Precision and recall are those of the batch at the threshold 0.5, over
    all its decisions together.
    """
    needs_matrix = [name for name in names if name in TERMS and name != "soft_f1"]
    with torch.set_grad_enabled(torch.is_grad_enabled() and bool(set(needs_matrix) & set(learned))):
        matrix = bce_matrix(logits, targets) if needs_matrix else None
    values = {}
    for name in names:
        with torch.set_grad_enabled(torch.is_grad_enabled() and name in learned):
            if name in TERMS:
                values[name] = value(name, logits, targets, class_weights, pos_weights, matrix)
            else:
                values[name] = _rate(name, logits, targets)
    return values


def value(term, logits, targets, class_weights=None, pos_weights=None, matrix=None):
    """One of `TERMS` as a 0-d tensor."""
    if term == "soft_f1":
        return soft_f1(logits, targets)
    weights = {"weighted_bce": (class_weights,), "pos_weight_bce": (pos_weights,)}.get(term, ())
    function = {"bce": bce, "weighted_bce": weighted_bce, "pos_weight_bce": pos_weight_bce, "positive_bce": positive_bce,
                "focal": focal}[term]  # fmt: skip
    return function(logits, targets, *weights, matrix=matrix)


def _rate(name, logits, targets):
    predicted = (logits >= 0).float()
    of = {"precision": predicted, "recall": targets}[name]
    return (predicted * targets).sum() / of.sum().clamp(min=1)


def weighted_sum(terms, values):
    """The loss of one stage: {term: factor} and {term: value} -> 0-d tensor."""
    return sum(factor * values[term] for term, factor in terms.items())


def describe(terms):
    """A stage's terms as a user writes them: ``soft_f1+10*weighted_bce``."""
    return "+".join(name if factor == 1 else f"{factor:g}*{name}" for name, factor in terms.items())
