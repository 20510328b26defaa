"""Untrusted files: their size is checked before they are read, and JSON, .npy and .npz hold plain values only."""

import json
import math
import os
import stat
import warnings
import zipfile
from pathlib import Path

import numpy as np

from utils.errors import InputError, first_line

MOST_JSON = 2**24  # bytes
DEEPEST = 20  # lists in lists; what is nested deeper cannot be printed or compared
MOST_ITEMS = 10**6
MOST_ARRAYS = 2**30  # bytes of an .npz, unpacked


def file_size(path, most=None):
    """The bytes of a regular file. Raises InputError for anything else (opening a pipe could wait forever) and for
    more than `most` bytes."""
    try:
        state = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a name with NUL
        raise InputError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if not stat.S_ISREG(state.st_mode):
        kind = "a folder" if stat.S_ISDIR(state.st_mode) else "no regular file"
        raise InputError(f"{path} is {kind}; give a file")
    if most is not None and state.st_size > most:
        raise InputError(
            f"{path} has {state.st_size:,} bytes, more than the {most:,} such a file can have; give another"
        )
    return state.st_size


def read_json(path, what, fix):
    """The content of a JSON file, UTF-8. Raises InputError, "`path` is not `what` (why); `fix`", if it is not JSON,
    has more than MOST_JSON bytes, repeats a key or is nested deeper than DEEPEST."""
    file_size(path, MOST_JSON)
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=_unique)
        check_plain(content, finite=False)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not {what} ({str(error)[:100]}); {fix}") from None
    return content


def _unique(pairs):
    content = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"the key {key[:40]!r} twice")
        content[key] = value
    return content


def check_plain(value, finite=True):
    """Raise ValueError unless `value` can be printed, compared and written as JSON: None, bool, str without control
    characters, numbers of at most 64 bits that are finite (unless `finite` is false), and lists and dicts (str keys)
    of these, at most DEEPEST levels and MOST_ITEMS values."""
    waiting, seen = [(value, 0)], 0
    while waiting:
        one, depth = waiting.pop()
        seen += 1
        if not isinstance(one, (list, dict)):
            _check_single(one, finite)
            continue
        if depth == DEEPEST:
            raise ValueError(f"nested deeper than {DEEPEST} levels")
        if seen + len(waiting) + len(one) > MOST_ITEMS:
            raise ValueError(f"more than {MOST_ITEMS:,} values")
        if isinstance(one, dict):
            if not all(isinstance(key, str) for key in one):
                raise ValueError("a key that is no text")
            waiting += [(key, depth + 1) for key in one]
            one = one.values()
        waiting += [(part, depth + 1) for part in one]


def _check_single(value, finite):
    if isinstance(value, str):
        if not is_text(value):
            raise ValueError("a text with control characters")
    elif isinstance(value, float):
        if finite and not math.isfinite(value):
            raise ValueError(f"{value} in place of a number")
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise ValueError("a number longer than 64 bits")
    elif value is not None:
        raise ValueError(f"a value of the type {type(value).__name__}")


def is_text(value):
    """Return whether a text can be printed and written: control characters would act on a terminal, lone surrogates
    have no UTF-8."""
    return not any(
        mark < " " and mark not in "\t\n\r" or "\x7f" <= mark < "\xa0" or "\ud800" <= mark < "\ue000" for mark in value
    )


def is_line(text):
    """Return whether a text is not empty and can be printed as one line."""
    return 0 < len(text) <= 4096 and is_text(text) and not set(text) & set("\t\n\r")


def read_npy(path, fix):
    """The array of an .npy file. Raises InputError, "`path` cannot be read (why); `fix`", unless it holds plain
    numbers."""
    file_size(path)
    try:
        # Mapped, since numpy then compares the shape with the bytes of the file before it allocates anything.
        with _quiet():
            return np.array(_plain_numbers(np.lib.format.open_memmap(path, mode="r")))
    except Exception as error:  # numpy's parser of headers passes on whatever Python's raises
        raise InputError(f"{path} cannot be read ({first_line(error, 100)}); {fix}") from None


def read_npz(path, names, what):
    """The arrays `names` of an .npz file: a list. Raises InputError, "`path` is not `what` (why)", if one is missing
    or holds anything but plain numbers, or if the file unpacks to more than MOST_ARRAYS bytes."""
    file_size(path)
    try:
        with zipfile.ZipFile(path) as archive, _quiet():
            if (size := sum(member.file_size for member in archive.infolist())) > MOST_ARRAYS:
                raise ValueError(f"it unpacks to {size:,} bytes")
            return [_read_member(archive, f"{name}.npy") for name in names]
    except Exception as error:  # as above, and what zipfile and its decompressors raise
        raise InputError(f"{path} is not {what} ({first_line(error, 100)})") from None


def _read_member(archive, name):
    with archive.open(name) as file:
        return _plain_numbers(np.lib.format.read_array(file, allow_pickle=False))


def _plain_numbers(array):
    if array.dtype.kind not in "fiub":
        raise ValueError(f"values of the type {array.dtype}, which are no plain numbers")
    return array


def _quiet():
    """Ignore what numpy warns of: a header written by Python 2, or a damaged one."""
    return warnings.catch_warnings(action="ignore")
