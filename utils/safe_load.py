"""Reading untrusted JSON, .npy and .npz files: their size is checked first, and they may have plain values only."""

import json
import math
import os
import re
import stat
import zipfile
from pathlib import Path

import numpy as np

from utils.errors import InputError, first_line, ignored_warnings

MOST_JSON = 2**24  # bytes
DEEPEST = 20  # levels of nesting: deeper values cannot be printed or compared
MOST_ITEMS = 10**6
MOST_ARRAYS = 2**30  # bytes of an .npz, unpacked


def file_size(path, most=None):
    """Return the bytes of a regular file. Raise InputError for anything else (opening a pipe could block forever) and
    for more than `most` bytes."""
    try:
        state = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a name with NUL
        raise InputError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if not stat.S_ISREG(state.st_mode):
        kind = "a folder" if stat.S_ISDIR(state.st_mode) else "not a regular file"
        raise InputError(f"{path} is {kind}; give a file")
    if most is not None and state.st_size > most:
        raise InputError(f"{path} has {state.st_size:,} bytes, more than the {most:,} allowed; give another")
    return state.st_size


def read_json(path, what, fix):
    """Read a JSON file. Raise InputError, "`path` is not `what` (why); `fix`", unless it is UTF-8 JSON of at most
    MOST_JSON bytes and DEEPEST levels without duplicate keys."""
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
            raise ValueError(f"duplicate key {key[:40]!r}")
        content[key] = value
    return content


def check_plain(value, finite=True):
    """Raise ValueError unless `value` can be printed, compared and written as JSON: None, bool, str without control
    characters, numbers of at most 64 bits that are finite (unless `finite` is false), and lists and dicts (str keys)
    of these, at most DEEPEST levels and MOST_ITEMS values."""
    pending, seen = [(value, 0)], 0
    while pending:
        item, depth = pending.pop()
        seen += 1
        if not isinstance(item, (list, dict)):
            _check_scalar(item, finite)
            continue
        if depth == DEEPEST:
            raise ValueError(f"nested deeper than {DEEPEST} levels")
        if seen + len(pending) + len(item) > MOST_ITEMS:
            raise ValueError(f"more than {MOST_ITEMS:,} values")
        if isinstance(item, dict):
            if not all(isinstance(key, str) for key in item):
                raise ValueError("a key that is not text")
            pending += [(key, depth + 1) for key in item]
            item = item.values()
        pending += [(part, depth + 1) for part in item]


def _check_scalar(value, finite):
    if isinstance(value, str):
        if not is_text(value):
            raise ValueError("text with control characters")
    elif isinstance(value, float):
        if finite and not math.isfinite(value):
            raise ValueError(f"{value} in place of a number")
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise ValueError("a number longer than 64 bits")
    elif value is not None:
        raise ValueError(f"a value of the type {type(value).__name__}")


def is_text(value):
    """Return whether text has neither control characters, which act on a terminal, nor surrogates, which UTF-8 lacks."""
    return not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]", value)


def is_line(text):
    """Return whether text is not empty and can be printed as one line."""
    return 0 < len(text) <= 4096 and is_text(text) and not set(text) & set("\t\n\r")


def read_npy(path, fix):
    """Read an .npy file of plain numbers. Raise InputError, "`path` cannot be read (why); `fix`", otherwise."""
    file_size(path)
    try:
        with ignored_warnings():  # mapping compares the shape with the size of the file before anything is allocated
            return np.array(_plain_numbers(np.lib.format.open_memmap(path, mode="r")))
    except Exception as error:  # numpy evaluates headers as Python literals, which may raise anything
        raise InputError(f"{path} cannot be read ({first_line(error, 100)}); {fix}") from None


def read_npz(path, names, what):
    """Read the arrays `names` of an .npz file: -> list. Raise InputError, "`path` is not `what` (why)", if one is
    missing or not of plain numbers, or if the file unpacks to more than MOST_ARRAYS bytes."""
    file_size(path)
    try:
        with zipfile.ZipFile(path) as archive, ignored_warnings():
            if (size := sum(member.file_size for member in archive.infolist())) > MOST_ARRAYS:
                raise ValueError(f"it unpacks to {size:,} bytes")
            return [_read_member(archive, f"{name}.npy") for name in names]
    except Exception as error:  # as above; zipfile and its decompressors raise many more
        raise InputError(f"{path} is not {what} ({first_line(error, 100)})") from None


def _read_member(archive, name):
    with archive.open(name) as file:
        return _plain_numbers(np.lib.format.read_array(file, allow_pickle=False))


def _plain_numbers(array):
    if array.dtype.kind not in "fiub":
        raise ValueError(f"values of the type {array.dtype}, not plain numbers")
    return array
