"""CSV files however they were saved: packed with gzip, in UTF-16, separated by semicolons, tabs or bars, with spaces after them."""

import contextlib
import csv
import gzip
import io
import itertools
import re

from utils.errors import InputError

SEPARATORS = (",", ";", "\t", "|")
MARKS = {
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}  # the longer first
OTHERS = {
    b"PK\x03\x04": "a zip archive or an Excel workbook", b"\xd0\xcf\x11\xe0": "an Excel workbook", b"BZh": "packed with bzip2",
    b"\xfd7zXZ\0": "packed with xz", b"\x28\xb5\x2f\xfd": "packed with zstd",
}  # fmt: skip
GZIP = b"\x1f\x8b"
LONGEST = 2**24  # characters of the first line
_SAID = re.compile(r'"?sep=([,;\t|])"?', re.IGNORECASE)  # what Excel reads, and does not show, in the first line


@contextlib.contextmanager
def csv_rows(path, columns, most):
    """Yields an iterator over the rows of a CSV, lists of str, the header first. The separator is that with which the header has
    `columns`, the comma before others, or what a first line `sep=;` says. most: bytes that a packed file may unpack to."""
    with open(path, "rb") as raw:
        head = raw.read(6)
        raw.seek(0)
        if what := _known(OTHERS, head):
            raise InputError(f"{path} is {what}; unpack it, or save it as CSV")
        if head.startswith(GZIP):
            raw = _unpacked(path, raw, most)
            head = raw.getvalue()[:6]
        with io.TextIOWrapper(raw, encoding=_known(MARKS, head) or "utf-8-sig", newline="") as file:
            first = file.readline(LONGEST)
            if said := _SAID.fullmatch(first.strip("\r\n")):
                first = file.readline(LONGEST)
            if len(first) == LONGEST:
                raise InputError(f"{path} has a first line of {LONGEST:,} characters or more; give a table")
            if "\0" in first:
                raise InputError(f"{path} has NUL bytes, as UTF-16 without a byte order mark; save it in UTF-8")
            mark = said[1] if said else _separator(first, columns)
            yield _reader(itertools.chain([first], file), mark)


def _reader(lines, mark):
    return csv.reader(lines, delimiter=mark, strict=True, skipinitialspace=True)


def _known(kinds, head):
    return next((what for start, what in kinds.items() if head.startswith(start)), None)


def _unpacked(path, raw, most):
    """What a gzip file holds, as BytesIO. Raises InputError where that is more than `most` bytes."""
    content = io.BytesIO()
    with gzip.open(raw) as packed:
        while part := packed.read(2**20):
            content.write(part)
            if content.tell() > most:
                raise InputError(f"{path} unpacks to more than {most:,} bytes; give a smaller table")
    content.seek(0)
    return content


def _separator(line, columns):
    """That with which the header has `columns`; else, for the sentence that says so, that with which it has the most."""
    headers = {mark: _header(line, mark) for mark in SEPARATORS}
    fitting = [mark for mark in SEPARATORS if set(columns) <= set(headers[mark])]
    return fitting[0] if fitting else max(SEPARATORS, key=lambda mark: len(headers[mark]))


def _header(line, mark):
    try:
        return [name.strip() for name in next(_reader([line], mark), [])]
    except csv.Error:
        return []
