"""What the config of a run may say: values that others' code relies on have the type and range they rely on."""

from utils.errors import InputError
from utils.data.images import MOST_SIDE, parse_channels
from utils.safe_load import check_plain, is_line

MOST_CLASSES = 10_000
MOST_PLANES = 64
MOST_BATCH = 2**20
MOST_FOLD = 99_999  # what a table of folds can hold


def check_config(path, config, words=None):
    """Raise InputError, naming the file `path`, unless `config`, a dict, is of plain values (see `check_plain`) in which each
    of the keys of `VALUES` that is there has such a value, and each of `words` {key: allowed texts} one of these."""
    try:
        check_plain(config)
    except ValueError as error:
        raise InputError(f"{path}: its config cannot be used ({error}); give one that train.py wrote") from None
    for key, (what, fits) in (VALUES | {key: _one_of(allowed) for key, allowed in (words or {}).items()}).items():
        if key in config and not fits(config[key]):
            shown = repr(config[key])
            shown = shown if len(shown) < 60 else f"{shown[:57]}..."
            raise InputError(f"{path}: {key} in its config should be {what}, not {shown}; give one that train.py wrote")
    if "channels" in config:
        _check_planes(path, config, parse_channels(config["channels"]).planes)


def _check_planes(path, config, planes):
    """What must have as many values as the channels give planes."""
    if config.get("planes", planes) != planes:
        raise InputError(
            f"{path}: its config has {config['planes']} planes, which its channels {config['channels']} do not give"
        )
    moments = [config.get("mean"), config.get("std")]
    needed = "planes" in config and config.get("normalise") == "dataset"
    if (needed or moments != [None, None]) and not all(_of_planes(values, planes) for values in moments):
        raise InputError(f"{path}: its config lacks the mean and std of its {planes} planes")


def _whole(least, most):
    return f"a whole number from {least:,} to {most:,}", lambda value: type(value) is int and least <= value <= most


def _of_planes(value, planes):
    return isinstance(value, list) and len(value) == planes and all(type(number) is float for number in value)


def _one_of(words):
    return f"one of {', '.join(words)}", lambda value: isinstance(value, str) and value in words


def _line(value):
    return isinstance(value, str) and is_line(value)


def _class_names(value):
    return (
        isinstance(value, list)
        and 0 < len(value) <= MOST_CLASSES
        and all(_line(name) and name.isprintable() and name != "Id" for name in value)
        and len(set(value)) == len(value)
    )


def _channels(value):
    try:
        return isinstance(value, str) and len(value) < 20 and bool(parse_channels(value))
    except InputError:
        return False


def _ids(value):
    return isinstance(value, list) and all(map(_line, value))


_TEXT = ("a text of one line", _line)
VALUES = {
    "class_names": (f"a list of at most {MOST_CLASSES:,} different printable names other than Id", _class_names),
    "model": _TEXT, "channels": ("a set of channels such as rgby", _channels), "planes": _whole(1, MOST_PLANES),
    "size": _whole(1, MOST_SIDE), "stem": _TEXT, "fit": _TEXT, "normalise": _TEXT, "amp": _TEXT, "bits": _whole(0, 16),
    "batch_size": _whole(1, MOST_BATCH), "fold": _whole(0, 10**6),
    "folds": ("the name of a file", _line), "name": _TEXT, "loss": _TEXT, "recipe": _TEXT, "rows_sha256": _TEXT,
    "parameters": _whole(0, 2**50), "skipped": ("a list of Ids", _ids),
}  # fmt: skip
