"""numpy's files: arrays of numbers only, and no more of them than the file has bytes for."""

import math
import tokenize
import warnings
import zipfile
import zlib

import numpy as np

from utils.errors import InputError, first_line
from utils.safe_load import file_size

MOST_BYTES = 2**30  # of one array of an .npz, unpacked
UNREADABLE = (OSError, ValueError, LookupError, EOFError, TypeError, SyntaxError, MemoryError, RecursionError, OverflowError,
              RuntimeError, tokenize.TokenError, zipfile.BadZipFile, zlib.error)  # fmt: skip


def read_npy(path, mend):
    """The array of an .npy file, read only. Raises InputError where it is none, or no array of plain numbers."""
    size = file_size(path)
    try:
        with open(path, "rb") as file:
            return _read_array(file, size)
    except UNREADABLE as error:
        raise InputError(f"{path} cannot be read ({first_line(error, 100)}); {mend}") from None


def read_npz(path, names, what):
    """The arrays `names` of an .npz file: a list. Raises InputError where it has not got them: "`path` is not `what`"."""
    file_size(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return [_read_member(archive, archive.getinfo(f"{name}.npy")) for name in names]
    except UNREADABLE as error:
        raise InputError(f"{path} is not {what} ({first_line(error, 100)})") from None


def _read_member(archive, member):
    if member.file_size > MOST_BYTES:
        raise ValueError(f"{member.filename} claims {member.file_size:,} bytes")
    with archive.open(member) as file:
        return _read_array(file, member.file_size)


def _read_array(file, size):
    """An array from a stream of `size` bytes, after its header was held against them."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version}")
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a header written by Python 2, or damaged
        shape, fortran, dtype = read_header(file)
    if dtype.kind not in "fiub" or dtype.fields or dtype.shape:
        raise ValueError(f"values of the type {dtype}, which are no plain numbers")
    length = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or length != size - file.tell():
        raise ValueError(f"its header says {length:,} bytes, {size - file.tell():,} are there")
    return np.frombuffer(file.read(length), dtype).reshape(shape, order="F" if fortran else "C")
