"""Options that change while a network trains: stages `<start>:<value>`, with spaces between, each from an epoch or from a step on."""

import re
from typing import NamedTuple

from utils.errors import InputError

UNITS = {"": "epoch", "step": "step"}  # as written before the number


class Stage(NamedTuple):
    """From epoch `start` on (the first is 1), or from the first step after `start` steps (`unit`: "epoch" or "step")."""

    start: int
    unit: str
    value: object

    def first_step(self, steps_per_epoch):
        """The number of steps made before it."""
        return self.start if self.unit == "step" else (self.start - 1) * steps_per_epoch

    def __str__(self):
        return f"{'step' if self.unit == 'step' else ''}{self.start}"


def parse_stages(text, what, example):
    """Read stages: [Stage], the first at epoch 1. what, example: for the message of InputError.

    >>> [(str(stage), stage.value) for stage in parse_stages("1:bce 11:soft_f1 step10000:focal", "loss schedule", "")]
    [('1', 'bce'), ('11', 'soft_f1'), ('step10000', 'focal')]
    """
    matches = [re.fullmatch(r"(step|)(\d{1,9}):(.+)", word) for word in text.split()]
    if not matches or None in matches:
        raise InputError(f"{what} {text!r} not understood; write stages like {example!r}")
    stages = [Stage(int(match[2]), UNITS[match[1]], match[3]) for match in matches]
    if stages[0][:2] != (1, "epoch"):
        raise InputError(f"{what} {text!r}: the first stage must begin at epoch 1")
    for unit in UNITS.values():
        starts = [stage.start for stage in stages if stage.unit == unit]
        if starts != sorted(set(starts)) or starts[:1] == [0]:
            raise InputError(f"{what} {text!r}: each stage must begin later than the one before")
    return stages


def first_steps(stages, steps_per_epoch, what):
    """The number of steps made before each stage, ascending. Raises InputError if a stage begins before the one that it follows."""
    steps = [stage.first_step(steps_per_epoch) for stage in stages]
    for before, stage, a, b in zip(stages, stages[1:], steps, steps[1:]):
        if a >= b:
            raise InputError(
                f"{what}: with {steps_per_epoch:,} steps an epoch the stage {stage}: begins in epoch {b // steps_per_epoch + 1}, "
                f"not after the stage {before}: before it; give all stages as epochs"
            )
    return steps


def stage_at(first_steps, step):
    """The number of the stage that the step after `step` steps is in."""
    return max(number for number, first in enumerate(first_steps) if first <= step)
