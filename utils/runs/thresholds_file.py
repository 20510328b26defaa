"""Reading thresholds.json and tables of class priors."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.data.tables import as_number, read_table
from utils.errors import InputError, listing
from utils.runs.run_folder import ANY_WEIGHTS, first_file
from utils.safe_load import read_json
from utils.scoring.stacking import Stack, from_weights

UNREADABLE = (ValueError, KeyError, TypeError)  # of a file with contents of other types
WHAT, FIX = "a thresholds.json with classes and thresholds", "fit it with threshold.py"
LARGEST = 1e15  # weight of a stack


class DecisionRule(NamedTuple):
    """thresholds (C,) for the scores of a stack, or for a network's probabilities if it is None; classes: names (C)."""

    thresholds: np.ndarray
    stack: Stack | None = None
    classes: tuple = ()

    def scores(self, probabilities):
        """(N, C) of one network -> (N, C), what the thresholds are compared with."""
        return probabilities if self.stack is None else self.stack.apply(probabilities[None])

    def decide(self, probabilities):
        return self.scores(probabilities) >= self.thresholds


def read_rule(spec, classes):
    """Read a thresholds.json that fits `classes`, names or their numbers as text, or one number for all: ->
    DecisionRule."""
    stack, names = None, classes
    if not Path(spec).is_file() and (number := as_number(spec)) is not None:
        values = [number] * len(classes)
    else:
        names, values, stack = _read_fitted(spec, classes)
    if not all(map(_is_fraction, values)):
        raise InputError(f"{spec}: every threshold must be a number from 0 to 1; fit them with threshold.py")
    return DecisionRule(np.array(values, np.float64), stack, tuple(map(str, names)))


def find_thresholds(runs):
    """The thresholds.json in the folder of a run, or of the run that a fold belongs to. runs: paths of runs, folds or
    weights. Raises InputError unless all of them have the same one."""
    found = []
    for run in runs:
        folder = Path(run) if Path(run).is_dir() else Path(run).parent
        places = [folder, folder.parent] if first_file(folder, *ANY_WEIGHTS) else [folder]
        found.append(next((path for place in places if (path := first_file(place, "thresholds.json"))), None))
        if not found[-1]:
            raise InputError(
                f"{run} has no thresholds.json; run python threshold.py {places[-1]}, or give --thresholds"
            )
    if len({path.resolve() for path in found}) > 1:
        raise InputError(
            f"{listing(runs)} have thresholds of their own; fit common ones, and give them as --thresholds"
        )
    return found[0]


def read_per_class(path, classes, keys):
    """{key: (C,) float64} of `per_class` in a thresholds.json: positives, called, f1_in_sample, …"""
    try:
        table = read_json(path, WHAT, FIX)["per_class"]
        for key in keys:
            if not (
                isinstance(table[key], list) and len(table[key]) == len(classes) and all(map(_is_number, table[key]))
            ):
                raise ValueError(f"{key} is no list of {len(classes)} numbers")
        return {key: np.array(table[key], np.float64) for key in keys}
    except UNREADABLE as error:
        raise InputError(f"{path} lacks per_class figures ({str(error)[:100]}); {FIX}") from None


def read_positive_rates(path, classes):
    """(C,): the fraction of out-of-fold rows that each class of a thresholds.json is predicted positive in, weighted to
    the class priors that it was fitted for."""
    rates = read_per_class(path, classes, ["called"])["called"]
    if not all(map(_is_fraction, rates)):
        raise InputError(f"{path} lacks per_class figures (called is not from 0 to 1); {FIX}")
    return rates


def read_held_out_f1(spec, classes):
    """(C,): each class's cross-fitted F1 at the thresholds of a thresholds.json. NaN if it is not known: for a number in
    place of a file, a file of older versions, thresholds for other class priors, and classes without an image."""
    content = read_json(spec, WHAT, FIX) if Path(spec).is_file() else {}
    table = content.get("per_class")
    if content.get("shares") is not None or not isinstance(table, dict) or "f1_cross_fitted" not in table:
        return np.full(len(classes), np.nan)
    known = read_per_class(spec, classes, ["positives", "f1_cross_fitted"])
    return np.where(known["positives"] > 0, known["f1_cross_fitted"], np.nan)


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_fraction(value):
    return _is_number(value) and 0 <= value <= 1


def _read_fitted(path, classes):
    if not Path(path).exists():
        raise InputError(f"{path} does not exist; fit it with threshold.py, or give a number such as 0.5")
    content = read_json(path, WHAT, FIX)
    try:
        names, values = list(content["classes"]), list(content["thresholds"])
    except UNREADABLE as error:
        raise InputError(f"{path} is not {WHAT} ({str(error)[:100]}); {FIX}") from None
    by_number = classes == [str(number) for number in range(len(names))] and set(names) != set(classes)
    if not (names == classes or by_number) or len(values) != len(names):
        differing = sorted(set(map(str, names)) ^ set(classes)) or ["their order or number"]
        raise InputError(
            f"{path} was fitted for other classes than the predictions have: {listing(differing)}; "
            "fit it on the same run"
        )
    stack = content.get("stack")
    return names, values, None if stack is None else _read_stack(path, stack, len(classes))


def _read_stack(path, content, count):
    """Read the stack of one network over `count` classes."""
    try:
        weights, intercepts = (np.array(content[key], np.float64) for key in ("weights", "intercepts"))
    except (*UNREADABLE, OverflowError) as error:
        raise InputError(f"{path} holds no usable stack ({str(error)[:100]}); {FIX}") from None
    if weights.shape != (count, 2 + count) or intercepts.shape != (count,):
        raise InputError(f"{path} holds a stack that is not of {count} classes; {FIX}")
    if not (np.abs(weights) < LARGEST).all() or not (np.abs(intercepts) < LARGEST).all():  # NaN neither
        raise InputError(f"{path} holds a stack with weights that are no usable numbers; {FIX}")
    return from_weights(weights, intercepts)


def read_class_priors(path, classes):
    """(C,) from a CSV class,share; a class is a number or a name. Raises InputError unless each class has one."""
    table = read_table(path, ["class", "share"], what="a table of class priors")
    numbers = {str(number): number for number in range(len(classes))} | {name: n for n, name in enumerate(classes)}
    priors = {}
    for row, (name, text) in enumerate(zip(table["class"], table["share"], strict=True)):
        number, prior = numbers.get(name.strip()), as_number(text)
        if number is None or number in priors or prior is None or not 0 < prior < 1:
            raise InputError(
                f"{path}: row {row + 2} ({name}, {text}) should be a class, once, and its share of the images, "
                "between 0 and 1"
            )
        priors[number] = prior
    if missing := [name for number, name in enumerate(classes) if number not in priors]:
        raise InputError(f"{path} has no share of {missing[0]}; give each of the {len(classes)} classes one")
    return np.array([priors[number] for number in range(len(classes))])
