"""Options that change between epochs: stages `<first epoch>:<value>`, with spaces between."""

import re

from utils.errors import InputError


def parse_stages(text, what, example):
    """Read stages: [(first epoch, value)], ascending, the first at epoch 1. what, example: for the message of
    InputError.

    >>> parse_stages("1:bce 11:soft_f1", "loss schedule", "")
    [(1, 'bce'), (11, 'soft_f1')]
    """
    matches = [re.fullmatch(r"(\d{1,6}):(.+)", word) for word in text.split()]
    if not matches or None in matches:
        raise InputError(f"{what} {text!r} not understood; write stages like {example!r}")
    epochs = [int(match[1]) for match in matches]
    if epochs[0] != 1 or epochs != sorted(set(epochs)):
        raise InputError(f"{what} {text!r}: the first stage must begin at epoch 1 and each later one later")
    return [(epoch, match[2]) for epoch, match in zip(epochs, matches, strict=True)]


def stage_at(stages, epoch):
    """The number of the stage that `epoch` (from 1) is in, and its value."""
    number = max(i for i, (first, _) in enumerate(stages) if first <= epoch)
    return number, stages[number][1]
