"""Where the pixels of a list of samples come from: their files, or a packed copy that needs no decoding.

utils/data/packing.py makes the copies. One holds the samples of one image folder as the network's side of the kit reads them (these
channels, in this order, at this size), one record after another, memory-mapped: a sample is one copy of about 1 MB at 512²
instead of four PNGs to decode. Uncompressed, or where the disk is short by zstd, one channel after another.
"""

import json
import math
import mmap
import os
from pathlib import Path

import numpy as np
import zstandard

from utils.data.images import join_planes, load_sample
from utils.errors import InputError
from utils.files import destination
from utils.opencv import MOST_PIXELS, cv2
from utils.safe_load import file_size

FORMAT = 2
KINDS = ("uint8", "float32")
CODECS = ("raw", "zstd")
RECORD = np.dtype([("pack", "i2"), ("codec", "i1"), ("kind", "i1"), ("channels", "i2"), ("height", "i4"), ("width", "i4"),
                   ("offset", "i8"), ("length", "i8")])  # fmt: skip
MOST_INDEX = 2**30  # bytes
KEPT = 2**28  # bytes read after which the maps' pages are let go: they would count as this process's memory


class Images:
    """The samples of a list of tuples of paths, by row: `read` gives what `load_sample(files[row], size, bits)` gives, to the bit.

    table: (N,) RECORD, where each sample lies in `maps` (pack −1: nowhere, it is decoded); None: all are decoded.
    """

    def __init__(self, files, size=None, table=None, maps=(), bits=0):
        self.files, self.size, self.table, self.maps, self.bits = files, size, table, maps, bits
        self._since = 0

    def __len__(self):
        return len(self.files)

    def __getitem__(self, part):
        """A slice of the samples, or those of a list of rows."""
        files = self.files[part] if isinstance(part, slice) else [self.files[row] for row in part]
        return Images(files, self.size, None if self.table is None else self.table[part], self.maps, self.bits)

    def read(self, row):
        """(H, W, channels) uint8, or float32 in [0, 1] where a file has 16 bits. Not to be written to: it may be the map."""
        if self.table is None or self.table[row]["pack"] < 0:
            return load_sample(self.files[row], self.size, self.bits)
        record = self.table[row]
        self._since += int(record["length"])
        if self._since > KEPT:
            self._since = 0
            for mapped in self.maps:
                mapped.let_go()
        part = self.maps[record["pack"]].bytes(int(record["offset"]), int(record["length"]))
        height, width, channels = (int(record[name]) for name in ("height", "width", "channels"))
        kind = KINDS[record["kind"]]
        try:
            if CODECS[record["codec"]] == "raw":
                return part.view(kind).reshape(height, width, channels)
            planes = np.frombuffer(_unpacked(part, height * width * channels * np.dtype(kind).itemsize), kind)
            planes = planes.reshape(channels, height, width)
        except (zstandard.ZstdError, ValueError, MemoryError):
            path = self.maps[record["pack"]].path
            raise InputError(
                f"{path} is damaged where {self.files[row][0].name} lies; delete it, it is made again"
            ) from None
        return join_planes(list(planes))

    def itemsize(self):
        """Bytes that a pixel of a channel takes at most, as far as it is known: of what is not packed it is not."""
        return 1 if self.table is None or KINDS[self.table["kind"].max(initial=0)] == "uint8" else 4

    def decoded(self):
        """The rows that lie nowhere packed and are decoded each time."""
        rows = np.arange(len(self))
        return rows if self.table is None else rows[self.table["pack"] < 0]

    def will_need(self, rows):
        """Let the system fetch these samples from the disk together, if it has not got them in memory."""
        if self.table is not None:
            for record in self.table[rows]:
                if record["pack"] >= 0:
                    self.maps[record["pack"]].will_need(int(record["offset"]), int(record["length"]))


def _unpacked(part, length):
    """Undo zstd: what claims to be another length than `length` is not unpacked at all. Raises ValueError or ZstdError."""
    if zstandard.frame_content_size(part) not in (-1, length):
        raise ValueError("another length")
    return zstandard.ZstdDecompressor().decompress(part, max_output_size=length)


class Map:
    """A packed file, mapped into memory read-only. Travels to processes that are forked as it is, to others by its path."""

    def __init__(self, path):
        self.path = Path(path)
        self._open()

    def _open(self):
        with open(self.path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            state = os.fstat(file.fileno())
        self.identity = (state.st_size, state.st_ino)
        self._array = np.frombuffer(self._map, np.uint8)

    def __getstate__(self):
        return {"path": self.path, "identity": self.identity}

    def __setstate__(self, state):
        self.path = state["path"]
        self._open()
        size, inode = state["identity"]
        if self.identity[0] < size or self.identity[1] != inode:
            raise InputError(f"{self.path} was replaced while it was in use; run the command again")

    def bytes(self, offset, length):
        """(length,) uint8, a view of the map; shorter where the file is. A part of the map beyond the end of the file, cut off
        since it was opened, would end the process when touched."""
        return self._array[offset : min(offset + length, self._map.size())]

    def let_go(self):
        """Pages that are in memory here are no longer counted as this process's; the system keeps them while it has room."""
        if hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def will_need(self, offset, length):
        if hasattr(self._map, "madvise"):
            start = offset - offset % mmap.PAGESIZE
            if start < len(self._map):
                self._map.madvise(mmap.MADV_WILLNEED, start, offset + length - start)


class Index:
    """What a packed file holds: `<base>.index`, a line of JSON for the form and one for each sample, written after its pixels.

    Attributes: `records` {file name of the first channel: record}, `end` (bytes of the data that records speak of),
    `bytes` (of the index, without a last line that was cut short), `damaged` (it, or the data, are not as they were written).
    """

    def __init__(self, base, channels, size, bits=0):
        self.path, self.data = Path(f"{base}.index"), Path(f"{base}.bin")
        self.header = {
            "format": FORMAT,
            "opencv": cv2.__version__,
            "channels": list(channels),
            "size": size,
            "bits": bits,
        }
        self.read()

    def read(self):
        """Take in what is on the disk. Of another form, or not as it was written, it counts as nothing."""
        self.records, self.end, self.bytes, self.damaged, self._inode = {}, 0, 0, True, None
        try:
            file_size(self.path, MOST_INDEX)
            with open(self.path, "rb") as file:
                lines, self._inode = file.read().split(b"\n")[:-1], os.fstat(file.fileno()).st_ino
            held = file_size(self.data)
            if json.loads(lines[0]) != self.header:
                return
            records = [(*_parsed(line, held, self.header), len(line) + 1) for line in lines[1:]]
        except (OSError, ValueError, TypeError, IndexError, RecursionError, InputError):
            return
        self.bytes, self.damaged = len(lines[0]) + 1, False
        for name, record, bytes_ in records:
            self.records[name] = record
            self.end, self.bytes = max(self.end, sum(record["where"][-2:])), self.bytes + bytes_

    def still_there(self):
        """Is the index on the disk the one that was read, and not one begun anew since?"""
        try:
            return self.path.stat().st_ino == self._inode
        except OSError:
            return False

    def fresh(self, name, stamps):
        """The record of a sample whose files are still those that were packed, or None."""
        record = self.records.get(name)
        return record if record and stamps and record["stamps"] == stamps else None

    def first_line(self):
        return _line(self.header)

    def remove(self):
        """Forget it all. Who has the old data mapped keeps them."""
        for path in (self.path, self.data):  # in this order: no index may speak of data that are not there
            try:
                destination(path).unlink(missing_ok=True)  # a link to it stays
            except InputError as error:  # as a pipe: then nothing is packed
                raise OSError(str(error)) from None
        self.read()


def line_of(name, stamps, offset, length, shape, kind, codec, source):
    """A sample's line of the index, as `Index.read` takes it apart."""
    shape, source = ([int(value) for value in values] for values in (shape, source))
    return _line([name, stamps, offset, length, shape, KINDS.index(kind), CODECS.index(codec), source])


def _parsed(line, held, header):
    """A line of `line_of` -> name, record; ValueError where it is none of data of `held` bytes, of an index with this header."""
    name, stamps, offset, length, shape, kind, codec, source = json.loads(line)
    numbers = [offset, length, *shape, kind, codec, *source]
    if not all(type(number) is int and number >= 0 for number in numbers) or len(shape) != 3 or len(source) != 2:
        raise ValueError("not a record")
    expected = [header["size"]] * 2 if header["size"] else list(source)
    if (
        not isinstance(name, str)
        or shape != [*expected, len(header["channels"])]
        or not 0 < math.prod(source) <= MOST_PIXELS
    ):
        raise ValueError("not a record of such pictures")
    whole = math.prod(shape) * np.dtype(KINDS[kind]).itemsize
    if offset + length > held or (CODECS[codec] == "raw" and length != whole):
        raise ValueError("not a record of these data")
    where = (codec, kind, shape[2], shape[0], shape[1], offset, length)
    return name, {"stamps": stamps, "where": where, "source": tuple(source)}


def _line(content):
    return json.dumps(content).encode() + b"\n"
