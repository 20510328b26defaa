"""Reading thresholds.json, and the table of class priors it can be fitted for."""

from pathlib import Path

import numpy as np

from utils.data.tables import as_number, read_table
from utils.errors import InputError, listing
from utils.runs.predictions import numbers_of
from utils.safe_load import read_json

WHAT, FIX = "a thresholds.json with classes and thresholds", "fit it with threshold.py"


def read_thresholds(spec, classes):
    """(C,) thresholds. spec: a thresholds.json that fits `classes`, names or the numbers as text; or one number for
    all."""
    if not Path(spec).is_file() and (number := as_number(spec)) is not None:
        values = [number] * len(classes)
    else:
        values = _read_fitted(spec, classes)
    if not all(type(value) in (int, float) and 0 <= value <= 1 for value in values):
        raise InputError(f"{spec}: every threshold must be a number from 0 to 1; fit them with threshold.py")
    return np.array(values, np.float64)


def _read_fitted(path, classes):
    if not Path(path).exists():
        raise InputError(f"{path} does not exist; fit it with threshold.py, or give a number such as 0.5")
    content = read_json(path, WHAT, FIX)
    try:
        names, values = list(content["classes"]), list(content["thresholds"])
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} is not {WHAT} ({str(error)[:100]}); {FIX}") from None
    by_number = list(classes) == numbers_of(names) and set(names) != set(classes)
    if not (names == list(classes) or by_number) or len(values) != len(names):
        differing = sorted(set(map(str, names)) ^ set(classes)) or ["their order or number"]
        raise InputError(
            f"{path} was fitted for other classes than the predictions have: {listing(differing)}; "
            "fit it on the same run"
        )
    return values


def read_per_class(path, classes, keys):
    """{key: (C,) float64} of the numbers that a thresholds.json has per class: positives, f1_in_sample,
    f1_cross_fitted, …"""
    content = read_json(path, WHAT, FIX)
    try:
        found = {key: np.array(content["per_class"][key], np.float64) for key in keys}
        if wrong := [key for key, values in found.items() if values.shape != (len(classes),)]:
            raise ValueError(f"per_class: {wrong[0]} is no list of {len(classes)} numbers")
        return found
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} does not hold {', '.join(keys)} per class ({str(error)[:100]}); {FIX}") from None


def read_positive_rates(path, classes):
    """(C,) part of the images predicted positive per class: out of fold, weighted by the class priors it was fitted
    for."""
    rates = read_per_class(path, classes, ["called"])["called"]
    if not ((rates >= 0) & (rates <= 1)).all():
        raise InputError(f"{path}: per_class: called should be numbers from 0 to 1; {FIX}")
    return rates


def read_class_priors(path, classes):
    """(C,) class frequencies from a CSV class,share, where class is a number or a name. Raises InputError unless each
    has one."""
    table = read_table(path, ["class", "share"], what="a table of shares")
    numbers = {str(number): number for number in range(len(classes))} | {name: n for n, name in enumerate(classes)}
    priors = np.full(len(classes), np.nan)
    for row, (name, text) in enumerate(zip(table["class"], table["share"], strict=True), 2):
        number, share = numbers.get(name.strip()), as_number(text)
        if number is None or share is None or not 0 < share < 1 or not np.isnan(priors[number]):
            raise InputError(
                f"{path}: row {row} ({name}, {text}) should be a class, once, and its share of the images, "
                "above 0 and below 1"
            )
        priors[number] = share
    if missing := [name for name, value in zip(classes, priors, strict=True) if np.isnan(value)]:
        raise InputError(f"{path} has no share of {missing[0]}; give each of the {len(classes)} classes one")
    return priors
