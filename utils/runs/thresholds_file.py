"""Reading thresholds.json."""

from pathlib import Path

import numpy as np

from utils.errors import InputError, listing
from utils.data.tables import as_number, read_table
from utils.safe_load import read_json

UNREADABLE = (ValueError, KeyError, TypeError)  # of a content of other types
WHAT, MEND = "a thresholds.json with classes and thresholds", "fit it with threshold.py"


def read_thresholds(spec, classes):
    """(C,) thresholds from a thresholds.json that fits `classes`, names or the numbers in text, or one number for all."""
    if not Path(spec).is_file() and (number := as_number(spec)) is not None:
        values = [number] * len(classes)
    else:
        values = _read_fitted(spec, classes)
    if not all(map(_is_share, values)):
        raise InputError(f"{spec}: every threshold must be a number from 0 to 1; fit them with threshold.py")
    return np.array(values, np.float64)


def read_positive_rates(path, classes):
    """(C,): how large a part of the images each class of a thresholds.json is called in, counted on out-of-fold rows,
    which weigh as the shares say that it was fitted for."""
    try:
        called = read_json(path, WHAT, MEND)["per_class"]["called"]
        if not (isinstance(called, list) and len(called) == len(classes) and all(map(_is_share, called))):
            raise ValueError(f"per_class: called is no list of {len(classes)} shares")
        return np.array(called, np.float64)
    except UNREADABLE as error:
        raise InputError(
            f"{path} does not say how often each class was called ({str(error)[:100]}); fit it with threshold.py"
        ) from None


def read_per_class(path, classes, keys):
    """{key: (C,) float64} of what a thresholds.json knows of each class: positives, f1_in_sample, f1_cross_fitted, …"""
    try:
        table = read_json(path, WHAT, MEND)["per_class"]
        known = {key: np.array(table[key], np.float64) for key in keys}
        if wrong := [key for key, values in known.items() if values.shape != (len(classes),)]:
            raise ValueError(f"per_class: {wrong[0]} is no list of {len(classes)} numbers")
        return known
    except UNREADABLE as error:
        raise InputError(f"{path} does not say what is known of each class ({str(error)[:100]}); {MEND}") from None


def _is_share(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


def _read_fitted(path, classes):
    if not Path(path).exists():
        raise InputError(f"{path} does not exist; fit it with threshold.py, or give a number such as 0.5")
    content = read_json(path, WHAT, MEND)
    try:
        names, values = list(content["classes"]), list(content["thresholds"])
    except UNREADABLE as error:
        raise InputError(f"{path} is not {WHAT} ({str(error)[:100]}); {MEND}") from None
    by_number = classes == [str(number) for number in range(len(names))] and set(names) != set(classes)
    if not (names == classes or by_number) or len(values) != len(names):
        differing = sorted(set(map(str, names)) ^ set(classes)) or ["their order or number"]
        raise InputError(
            f"{path} was fitted for other classes than the predictions have: {listing(differing)}; fit it on the same run"
        )
    return values


def read_class_priors(path, classes):
    """(C,) shares from a CSV class,share, where class is a number or a name. Raises InputError unless each class has one."""
    table = read_table(path, ["class", "share"], what="a table of shares")
    numbers = {str(number): number for number in range(len(classes))} | {name: n for n, name in enumerate(classes)}
    shares = np.full(len(classes), np.nan)
    for row, (name, text) in enumerate(zip(table["class"], table["share"], strict=True)):
        number, share = numbers.get(name.strip()), as_number(text)
        if number is None or share is None or not 0 < share < 1 or not np.isnan(shares[number]):
            raise InputError(
                f"{path}: row {row + 2} ({name}, {text}) should be a class, once, and its share of the images, above 0 and below 1"
            )
        shares[number] = share
    if missing := [name for name, value in zip(classes, shares, strict=True) if np.isnan(value)]:
        raise InputError(f"{path} has no share of {missing[0]}; give each of the {len(classes)} classes one")
    return shares
