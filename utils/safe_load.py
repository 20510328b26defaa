"""What is asked of a file before it is read, and JSON that cannot surprise who reads it."""

import json
import math
import os
import stat
from pathlib import Path

from utils.errors import InputError

MOST_JSON = 2**24  # bytes
DEEPEST = 20  # lists in lists: what is nested deeper cannot be printed or compared
MOST_ITEMS = 10**6


def file_size(path, most=None):
    """Bytes of a regular file. Raises InputError where `path` is none (opening a pipe could wait for ever) or has more than
    `most` bytes."""
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


def read_json(path, what, mend):
    """The content of a JSON file, UTF-8. Raises InputError where it is none, has more than MOST_JSON bytes, says a key
    twice or is nested deeper than DEEPEST: "`path` is not `what` (why); `mend`"."""
    file_size(path, MOST_JSON)
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=_unique)
        check_plain(content, finite=False)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not {what} ({str(error)[:100]}); {mend}") from None
    return content


def check_plain(value, finite=True):
    """Raise ValueError unless `value` can be printed, compared and written as JSON: None, bool, str without control
    characters, numbers that are finite (unless not asked for) and no longer than 64 bits, lists and dicts (str keys) of such,
    at most DEEPEST levels and MOST_ITEMS values."""
    waiting, seen = [(value, 0)], 0
    while waiting:
        one, depth = waiting.pop()
        seen += 1
        if seen + len(waiting) > MOST_ITEMS:
            raise ValueError(f"more than {MOST_ITEMS:,} values")
        if isinstance(one, (list, dict)):
            if depth == DEEPEST:
                raise ValueError(f"nested deeper than {DEEPEST} levels")
            if len(one) > MOST_ITEMS:
                raise ValueError(f"more than {MOST_ITEMS:,} values")
            parts = [*one.keys(), *one.values()] if isinstance(one, dict) else one
            if isinstance(one, dict) and not all(isinstance(key, str) for key in one):
                raise ValueError("a key that is no text")
            waiting += [(part, depth + 1) for part in parts]
        else:
            _check_single(one, finite)


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
    """Can it be printed and written? (Control characters would act on a terminal, lone surrogates have no UTF-8.)"""
    return not any(
        mark < " " and mark not in "\t\n\r" or "\x7f" <= mark < "\xa0" or "\ud800" <= mark < "\ue000" for mark in value
    )


def is_line(text):
    """Is it a text, not empty, that can be printed as one line?"""
    return 0 < len(text) <= 4096 and is_text(text) and not set(text) & set("\t\n\r")


def _unique(pairs):
    content = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"the key {key[:40]!r} twice")
        content[key] = value
    return content
