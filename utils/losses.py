"""Losses on logits, and the schedule that switches between them.

All take `logits` (B, C) float and `targets` (B, C) of 0/1 and return a scalar, the mean over samples and classes.
"""

import re

import torch
import torch.nn.functional as F

from utils.errors import InputError

POSITIVE_FACTOR = 21.0  # Chen's "positive BCE" curve: positives count 21 times


def bce(logits, targets):
    """Binary cross-entropy."""
    return F.binary_cross_entropy_with_logits(logits, targets)


def weighted_bce(logits, targets, class_weights):
    """Chen's "negatively weighted BCE": each class weighted ∝ 1/count, its positives and its negatives alike.

    `class_weights`: (C,), from `balanced_weights`.
    """
    return (class_weights * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")).mean()


def balanced_weights(counts, largest=50.0):
    """Class weights ∝ 1/count, the rarest class present getting `largest` (Chen: 50): (C,) counts -> (C,) float32.

    A class without positives gets the weight of the rarest one that has some.
    """
    counts = torch.as_tensor(counts, dtype=torch.float32)
    present = counts[counts > 0]
    if not len(present):
        return torch.full_like(counts, largest)
    return largest * present.min() / counts.clamp(min=float(present.min()))


def positive_bce(logits, targets):
    """BCE in which positives count 21 times (a tracked curve, Chen Fig. 5)."""
    return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=logits.new_tensor(POSITIVE_FACTOR))


def focal(logits, targets, gamma=5.0, alpha=0.25):
    """Focal loss, Lin et al. 2017, eq. 5: −α_t (1 − p_t)^γ log p_t. Chen tracks it with γ 5, α .25."""
    log_p = -F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    return (weight * (1 - log_p.exp()) ** gamma * -log_p).mean()


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


TERMS = {"bce": bce, "weighted_bce": weighted_bce, "positive_bce": positive_bce, "focal": focal, "soft_f1": soft_f1}


def parse_schedule(text):
    """Read a loss schedule: stages `<first epoch>:<terms>`, epochs counted from 1, terms joined by +, each with an
    optional factor. Returns [(first epoch, {term: factor})], ascending.

    >>> parse_schedule("1:bce 11:soft_f1+2*weighted_bce")
    [(1, {'bce': 1.0}), (11, {'soft_f1': 1.0, 'weighted_bce': 2.0})]
    """
    stages = []
    for word in text.split() or [""]:
        match = re.fullmatch(r"(\d{1,6}):(.+)", word)
        terms = dict(_parse_term(part, text) for part in match[2].split("+")) if match else None
        if not terms or len(terms) < len(match[2].split("+")):
            raise _not_understood(text)
        stages.append((int(match[1]), terms))
    epochs = [epoch for epoch, _ in stages]
    if epochs[0] != 1 or epochs != sorted(set(epochs)):
        raise InputError(f"loss schedule {text!r}: the first stage must begin at epoch 1 and each later one later")
    return stages


def _parse_term(part, text):
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?|\.\d+)\*)?(\w+)", part)
    if not match or match[2] not in TERMS or (match[1] and float(match[1]) == 0):
        raise _not_understood(text)
    return match[2], float(match[1] or 1)


def _not_understood(text):
    return InputError(
        f"loss schedule {text!r} not understood; write stages like '1:bce 11:soft_f1+2*weighted_bce' "
        f"with the terms {', '.join(TERMS)}"
    )


def stage_at(schedule, epoch):
    """Number of the stage that holds in `epoch` (from 1), and its terms."""
    number = max(i for i, (first, _) in enumerate(schedule) if first <= epoch)
    return number, schedule[number][1]


def curves(logits, targets, class_weights):
    """Every tracked value of a step (Chen, Fig. 5) but total loss and learning rate, as 0-d tensors.

    Precision and recall are those of the batch at the threshold 0.5, over all its decisions together.
    """
    values = {name: TERMS[name](logits, targets) for name in TERMS if name != "weighted_bce"}
    values["weighted_bce"] = weighted_bce(logits, targets, class_weights)
    called = (logits.detach() >= 0).float()
    hits = (called * targets).sum()
    values["precision"] = hits / called.sum().clamp(min=1)
    values["recall"] = hits / targets.sum().clamp(min=1)
    return values
