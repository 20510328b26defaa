"""CSV tables in any common form: optionally gzipped, UTF-8, -16 or -32, with commas, semicolons, tabs or bars."""

import csv
import gzip
import io
import itertools
import os
import re
import stat
import zlib
from contextlib import suppress
from pathlib import Path

import pandas as pd

from utils.errors import InputError, explain_system_error, first_line, listing, plural
from utils.files import is_stem, nfc
from utils.safe_load import file_size

MOST_BYTES, MOST_CELLS = 2**30, 3 * 10**7  # of a table: a million rows of 28 classes
MOST_HEADER = 2**24  # characters
SEPARATORS = (",", ";", "\t", "|")
BYTE_ORDER_MARKS = {  # the longer ones first
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
OTHER_FORMATS = {
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"BZh": "packed with bzip2",
    b"\xfd7zXZ\0": "packed with xz",
    b"\x28\xb5\x2f\xfd": "packed with zstd",
}
GZIP = b"\x1f\x8b"
csv.field_size_limit(MOST_BYTES)  # a cell with all masks of an image has more than the default of 131,072
_SEPARATOR_LINE = re.compile(r'"?sep=([,;\t|])"?', re.IGNORECASE)  # an optional first line for Excel


def read_table(path, columns, what="a table", least=1, other_names=None):
    """Read a CSV: -> DataFrame of str, its Ids in composed Unicode. Raise InputError unless it is well-formed and has
    `columns` and at least `least` rows. what: the expected content, for the message. other_names: {column: a name that it
    may have instead, and keeps}. A column ID becomes Id."""
    path, names = Path(path), ",".join(columns)
    _check_exists(path, f"{what} with the columns {names}")
    header, rows = _read_rows(path, columns)
    if not header and not rows:
        raise InputError(f"{path} is empty; it should have the columns {names}")
    if "Id" not in header:
        header = ["Id" if name == "ID" else name for name in header]
    present = {*header, *(name for name, other in (other_names or {}).items() if other in header)}
    if missing := [column for column in columns if column not in present]:
        fix = f"name its columns {names}" + (", with commas between" if len(header) == 1 < len(columns) else "")
        found = listing(header, show=6)
        raise InputError(f"{path} lacks the column {' and '.join(missing)} (it has: {found}); {fix}")
    if len(set(header)) < len(header):
        raise InputError(f"{path} has two columns of the same name ({listing(header, show=6)}); rename one")
    if ragged := [f"row {number} ({len(row)})" for number, row in enumerate(rows, 2) if len(row) != len(header)]:
        count = f"{plural(len(header), 'column')}, but {plural(len(ragged), 'row')} with more or fewer"
        raise InputError(f"{path} has {count}: {listing(ragged)}")
    if len(rows) < least:
        raise InputError(f"{path} has a header but no rows")
    frame = pd.DataFrame(rows, columns=header, dtype=object)
    for name in {"Id", "twin"} & set(header):
        frame[name] = [nfc(text.strip(" ")) for text in frame[name]]
    return frame


def _check_exists(path, expected):
    try:
        mode = os.stat(path).st_mode
    except PermissionError as error:
        raise InputError(explain_system_error(error)) from None
    except (OSError, ValueError):  # also a name that is too long or contains NUL
        raise InputError(f"{path} does not exist; it should be {expected}") from None
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise InputError(f"{path} is {kind}; it should be {expected}")


def _read_rows(path, columns):
    """Read header and rows of a CSV that should have `columns`: lists of str, without blank lines at the end."""
    file_size(path, MOST_BYTES)
    rows, cells = [], 0
    try:
        for row in _reader(path, columns):
            cells += len(row)
            if cells > MOST_CELLS:
                raise InputError(f"{path} has more than {MOST_CELLS:,} cells; give a smaller table")
            rows.append(row)
    except UnicodeError as error:
        name = getattr(error, "encoding", "utf-8").upper()
        raise InputError(f"{path} is not text in {name} ({first_line(error)}); save it in UTF-8") from None
    except (csv.Error, OSError, EOFError, zlib.error) as error:
        damage = f"{path} is not a CSV file ({first_line(error)}); fix it, or save it as CSV"
        raise InputError(explain_system_error(error) or damage) from None
    while len(rows) > 1 and not rows[-1]:
        rows.pop()
    return ([name.strip() for name in rows[0]], rows[1:]) if rows else ([], [])


def _reader(path, columns):
    """Return an iterator over the rows of a CSV. The separator is that of a first line `sep=;`, or else the first of
    SEPARATORS that splits the header into `columns`."""
    content = path.read_bytes()
    if kind := _kind(content, OTHER_FORMATS):
        raise InputError(f"{path} is {kind}; unpack it, or save it as CSV")
    if content.startswith(GZIP):
        with gzip.open(io.BytesIO(content)) as packed:
            content = packed.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise InputError(f"{path} unpacks to more than {MOST_BYTES:,} bytes; give a smaller table")
    encoding = _kind(content, BYTE_ORDER_MARKS) or "utf-8-sig"
    lines = io.TextIOWrapper(io.BytesIO(content), encoding, newline="")
    first = lines.readline(MOST_HEADER)
    if named := _SEPARATOR_LINE.fullmatch(first.strip("\r\n")):
        first = lines.readline(MOST_HEADER)
    if len(first) == MOST_HEADER:
        raise InputError(f"{path} has a first line of {MOST_HEADER:,} characters or more; give a table")
    if "\0" in first:
        raise InputError(f"{path} has NUL bytes, as UTF-16 without a byte order mark; save it in UTF-8")
    return _parse(itertools.chain([first], lines), named[1] if named else _find_separator(first, columns))


def _kind(content, starts):
    return next((kind for start, kind in starts.items() if content.startswith(start)), None)


def _parse(lines, separator):
    return csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=True)


def _find_separator(header, columns):
    """Return the first separator that splits the header into `columns`, or if none does, into most columns."""
    found = {}
    for separator in SEPARATORS:
        found[separator] = []
        with suppress(csv.Error):
            found[separator] = [name.strip() for name in next(_parse([header], separator), [])]
    fitting = [separator for separator in SEPARATORS if set(columns) <= set(found[separator])]
    return fitting[0] if fitting else max(SEPARATORS, key=lambda separator: len(found[separator]))


def as_number(text):
    """Parse a number with a decimal point or comma; return None if the text is not a number."""
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return None


def check_ids(path, ids):
    """Raise InputError unless each of the Ids, a Series in row order, is unique and usable as a file name."""
    if bad := [f"row {row + 2} ({id_!r})" for row, id_ in ids.items() if not is_stem(id_)]:
        unusable = f"{plural(len(bad), 'Id')} empty or not usable as a file name"
        raise InputError(f"{path}: {unusable}: {listing(bad)}; fix the column Id")
    if len(repeated := ids[ids.duplicated()].unique()):
        count = plural(len(repeated), "Id")
        raise InputError(f"{path}: {count} more than once: {listing(repeated)}; keep one row of each")
