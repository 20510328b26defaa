"""The pixels of a list of samples: decoded from their files, or read from a packed copy that needs no decoding.

A packed copy stores the samples of one image folder with the channels and size asked for, one after another in a
memory-mapped file: reading a sample of 512² copies 1 MB instead of decoding four PNGs. Samples are stored raw, or
compressed by zstd if disk space is short; if even that does not fit, they are decoded each time. A copy only grows,
under a lock, and the index is written after the pixels: two trainings that start together pack once, and a kill loses
only the samples of the last seconds.
"""

import functools
import hashlib
import json
import math
import mmap
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import zstandard
from filelock import FileLock, Timeout
from tqdm import tqdm

from utils.data.crops import size_to_load
from utils.data.image_files import check_crop, describe_problems, look_at_files
from utils.data.image_table import split_plane
from utils.data.images import image_size, join_planes, load_sample, loaded_shape
from utils.errors import InputError, data_size, plural
from utils.files import NO_ROOM, destination
from utils.opencv import MOST_PIXELS, cv2
from utils.parallel import cores, in_order
from utils.safe_load import file_size

DEFAULT_FOLDER = "input/packed"
FORMAT = 3
KINDS = ("uint8", "float32")
CODECS = ("raw", "zstd")
RECORD = np.dtype("i2, i1, i1, i2, i4, i4, i8, i8")
RECORD.names = ("pack", "codec", "kind", "channels", "height", "width", "offset", "length")
MOST_INDEX = 2**30  # bytes
MOST_FOLDERS = 8  # with packed files of their own; the images of more share those of the folder above them
SPARE = 2 * 10**9  # bytes of disk space that stay free for checkpoints and logs
COMMIT = 2**26  # bytes after which pixels and index are flushed to disk
PROBES = 8  # samples decoded beforehand to estimate the size of the others
LEVEL = 1  # of zstd: higher levels write four times slower, save no space and read no faster
KEPT = 2**28  # bytes read before mapped pages are dropped, which add to this process's memory
_realpath = functools.lru_cache(maxsize=1000)(os.path.realpath)


class Images:
    """The samples of a list of tuples of paths: `read(row)` returns exactly `load_sample(files[row], size, bits, enlarge)`.

    table: (N,) RECORD, the place of each sample in the packed files `maps` (pack −1: not packed); None: none is packed.
    """

    def __init__(self, files, size=None, table=None, maps=(), bits=0, enlarge=True):
        self.files, self.table, self.maps = files, table, maps
        self.size, self.bits, self.enlarge = size, bits, enlarge
        self._bytes_read = 0

    def __len__(self):
        return len(self.files)

    def __getitem__(self, part):
        """Return the Images of a slice or of a list of rows."""
        files = self.files[part] if isinstance(part, slice) else [self.files[row] for row in part]
        table = None if self.table is None else self.table[part]
        return Images(files, self.size, table, self.maps, self.bits, self.enlarge)

    def read(self, row):
        """-> (H, W, channels) uint8, or float32 in [0, 1] if a file has 16 bits; perhaps a read-only view."""
        if self.table is None or self.table[row]["pack"] < 0:
            return load_sample(self.files[row], self.size, self.bits, self.enlarge)
        pack, codec, kind, channels, height, width, offset, length = self.table[row].tolist()
        self._bytes_read += length
        if self._bytes_read > KEPT:
            self._bytes_read = 0
            for mapped in self.maps:
                mapped.let_go()
        content = self.maps[pack].bytes(offset, length)
        kind = np.dtype(KINDS[kind])
        try:
            if CODECS[codec] == "raw":
                return content.view(kind).reshape(height, width, channels)
            planes = np.frombuffer(_unpacked(content, height * width * channels * kind.itemsize), kind)
            return join_planes(list(planes.reshape(channels, height, width)))
        except (zstandard.ZstdError, ValueError, MemoryError):
            damage = f"{self.maps[pack].path} is damaged at {self.files[row][0].name}"
            raise InputError(f"{damage}; delete it, and it is packed again") from None

    def shape(self, row):
        """Return (height, width) of what `read` returns."""
        return loaded_shape(image_size(self.files[row][0]), self.size, self.enlarge)

    def inside(self, whole, row):
        """Return the part of (H, W, …), as large as what `read` returns, that shows the image: all of it."""
        return whole

    def itemsize(self):
        """Return the bytes per pixel and channel of the packed samples, at most; 1 if none is packed."""
        return 1 if self.table is None or KINDS[self.table["kind"].max(initial=0)] == "uint8" else 4

    def decoded(self):
        """Return the rows that are not packed and are decoded each time."""
        rows = np.arange(len(self))
        return rows if self.table is None else rows[self.table["pack"] < 0]

    def will_need(self, rows):
        """Let the system read these samples from disk ahead."""
        if self.table is not None:
            for record in self.table[rows]:
                if record["pack"] >= 0:
                    self.maps[record["pack"]].will_need(int(record["offset"]), int(record["length"]))


def _unpacked(content, length):
    """Decompress zstd to `length` bytes. Raise ValueError or ZstdError if the length differs."""
    if zstandard.frame_content_size(content) not in (-1, length):
        raise ValueError("another length")
    return zstandard.ZstdDecompressor().decompress(content, max_output_size=length)


class Map:
    """A packed file, mapped into memory read-only. It is pickled as its path and mapped again when unpickled."""

    def __init__(self, path):
        self.path = Path(path)
        with open(self.path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self.inode = os.fstat(file.fileno()).st_ino
        self._array = np.frombuffer(self._map, np.uint8)

    def __getstate__(self):
        return {"path": self.path, "inode": self.inode, "size": len(self._map)}

    def __setstate__(self, state):
        self.__init__(state["path"])
        if self.inode != state["inode"] or len(self._map) < state["size"]:
            raise InputError(f"{self.path} was replaced while it was in use; run the command again")

    def bytes(self, offset, length):
        """-> (length,) uint8, a view; shorter if the file was truncated: reading past its end kills the process."""
        return self._array[offset : min(offset + length, self._map.size())]

    def let_go(self):
        """Drop the mapped pages from this process's memory; the system's page cache keeps them."""
        if hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def will_need(self, offset, length):
        start = offset - offset % mmap.PAGESIZE
        if hasattr(self._map, "madvise") and start < len(self._map):
            self._map.madvise(mmap.MADV_WILLNEED, start, offset + length - start)


class Index:
    """The index of a packed file: `<base>.index`, a header in JSON and a line of JSON per sample.

    Attributes: `records` {name as of `_sample_name`: (stamps, place, source size)}, `end` (bytes of data that the
    records cover), `bytes` (of the index without an incomplete last line), `damaged` (index or data are invalid).
    """

    def __init__(self, base, channels, size, bits=0, enlarge=True):
        self.path, self.data, self.enlarge = Path(f"{base}.index"), Path(f"{base}.bin"), enlarge
        self.header = dict(format=FORMAT, opencv=cv2.__version__, channels=list(channels), size=size, bits=bits)
        self.header |= {} if enlarge else {"enlarge": False}
        self.read()

    def read(self):
        """Read the index from disk. An invalid one, or one with another header, is treated as empty."""
        self.records, self.end, self.bytes, self.damaged, self._inode = {}, 0, 0, True, None
        try:
            file_size(self.path, MOST_INDEX)
            with open(self.path, "rb") as file:
                lines, self._inode = file.read().split(b"\n")[:-1], os.fstat(file.fileno()).st_ino
            available = file_size(self.data)
            if json.loads(lines[0]) != self.header:
                return
            records = dict(self._parsed(line, available) for line in lines[1:])
        except (OSError, ValueError, TypeError, IndexError, RecursionError, InputError):
            return
        self.records, self.damaged = records, False
        self.bytes = sum(len(line) + 1 for line in lines)
        self.end = max((sum(place[-2:]) for _, place, _ in records.values()), default=0)

    def _parsed(self, line, available):
        """Parse a line: -> name, record. Raise ValueError unless it fits the header and `available` bytes of data."""
        names, stamps, offset, length, shape, kind, codec, source = json.loads(line)
        numbers = [offset, length, *shape, kind, codec, *source]
        named = isinstance(names, list) and all(isinstance(name, str) for name in names)
        if not named or not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError("not a record")
        height, width = loaded_shape(source, self.header["size"], self.enlarge)
        channels, whole = len(self.header["channels"]), math.prod(shape) * np.dtype(KINDS[kind]).itemsize
        if shape != [height, width, channels] or len(source) != 2 or not 0 < math.prod(source) <= MOST_PIXELS:
            raise ValueError("not a record of such images")
        if offset + length > available or (CODECS[codec] == "raw" and length != whole):
            raise ValueError("not a record of these data")
        return tuple(names), (stamps, (codec, kind, channels, height, width, offset, length), tuple(source))

    def unchanged(self):
        """Return whether the index on disk is still the file that was read."""
        with suppress(OSError):
            return self.path.stat().st_ino == self._inode
        return False

    def remove(self):
        """Delete index and data. Processes that have mapped the old data keep them."""
        for path in (self.path, self.data):  # in this order: an index needs its data
            try:
                destination(path).unlink(missing_ok=True)  # a symbolic link stays
            except InputError as error:  # for example a pipe
                raise OSError(str(error)) from None
        self.read()


def open_images(files, channels, size, fit, cache=DEFAULT_FOLDER, bits=0, codec=None):
    """Call `open_and_check` and raise InputError for unusable samples: -> Images, sizes (N, 2) of height, width."""
    images, sizes, bad = open_and_check(files, channels, size, fit, cache, bits, codec)
    if bad:
        raise InputError(describe_problems(bad))
    return images, sizes


def open_and_check(files, channels, size, fit, cache=DEFAULT_FOLDER, bits=0, codec=None):
    """Check the files of samples and pack the new ones: -> Images, sizes (N, 2), {row: [problem]} of bad samples.

    files: list of tuples of paths. channels: names of their channels. size, fit: as for `Samples`. cache: folder of
    packed copies; None: pack nothing. bits: as for `images.read_plane`. codec: one of CODECS; None: by disk space.
    Only packing finds damage inside a file. If a copy cannot be written, a message is printed and the samples are
    decoded each time. Raise InputError for missing files and images smaller than the crop.
    """
    loaded, crop = size_to_load(size, fit), size if fit == "crop" else 0
    if cache is not None and (not cache or "\0" in cache):
        raise InputError(f"--cache {cache!r} is not the name of a folder; give one, or --no-cache")
    folders = _group_by_folder(files if cache else [])
    packs = [_Folder(folder, rows, files, channels, cache, bits, codec, **loaded) for folder, rows in folders.items()]
    known = {row: source for pack in packs for row, (_, _, source) in pack.packed().items()}
    sizes, bad = look_at_files(files, known)
    usable = [row for row in range(len(files)) if row not in bad]
    check_crop([files[row] for row in usable], sizes[usable], crop)
    table, maps = np.zeros(len(files), RECORD), []
    table["pack"] = -1
    for pack in packs:
        mapped, records = pack.fill(sizes, bad)
        for row, (_, place, _) in records.items():
            table[row] = (len(maps), *place)
        maps += [mapped] if mapped else []
    return Images(files, table=table if packs else None, maps=maps, bits=bits, **loaded), sizes, bad


def _group_by_folder(files):
    """Return {folder of the first channel: [row]}; of more than MOST_FOLDERS, that above them."""
    folders = {}
    for row, paths in enumerate(files):
        folders.setdefault(paths[0].parent, []).append(row)
    resolved = {}
    for folder, rows in folders.items():
        resolved.setdefault(folder.resolve(), []).extend(rows)
    if len(resolved) > MOST_FOLDERS:
        with suppress(ValueError):  # on several drives
            return {Path(os.path.commonpath(resolved)): list(range(len(files)))}
    return resolved


def choose_codec(raw, compressed, free):
    """Return "raw" or "zstd" for samples of `raw` or `compressed` bytes and `free` bytes on disk, None if neither fits.

    Raw is preferred: reading a sample of 4x512x512 takes 0.06 ms instead of 0.75.
    """
    room = free - SPARE
    return "raw" if raw <= room else "zstd" if compressed <= room else None


class _Folder:
    """The samples of one image folder, the rows `rows` of `files`, and their packed copy."""

    def __init__(self, folder, rows, files, channels, cache, bits, codec, size, enlarge):
        self.folder, self.rows, self.files, self.bits, self.codec = folder, rows, files, bits, codec
        self.size, self.enlarge = size, enlarge
        letters = "".join(name[0] for name in channels)
        digest = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
        side = f"{'' if enlarge else 'most'}{size or 'whole'}"
        self.base = Path(cache) / f"{folder.name}-{digest}-{letters}-{side}{f'-{bits}bits' if bits else ''}"
        self.stamps = {row: _stamps(files[row]) for row in rows}
        self.names = {row: _sample_name(files[row], str(folder)) for row in rows}
        self.index = Index(self.base, channels, size, bits, enlarge)

    def packed(self):
        """Return {row: record} of the samples whose files have not changed since they were packed."""
        records = {row: self.index.records.get(self.names[row], [None]) for row in self.rows}
        return {row: record for row, record in records.items() if self.stamps[row] and record[0] == self.stamps[row]}

    def fill(self, sizes, bad):
        """Pack the missing samples: -> Map, {row: record} of all packed samples, or None, {} without any.

        bad: {row: [problem]} of samples to skip; samples that cannot be decoded are added.
        """
        self.bad, self.rows = bad, [row for row in self.rows if row not in bad]
        try:
            with _locked(f"{self.base}.lock", self.folder):
                self.index.read()
                if self._missing():
                    self._pack(sizes)
                return self._mapped()
        except (OSError, NotImplementedError) as error:  # the second: a file system without locks
            found = self._mapped()
            if any(row not in found[1] and row not in bad for row in self.rows):
                reason = getattr(error, "strerror", None) or error
                self._report_unpacked(f"{self.base}.bin cannot be written ({reason})")
            return found

    def _mapped(self):
        records, mapped = self.packed(), None
        with suppress(OSError, ValueError):
            mapped = Map(self.index.data) if records else None
        # Without the lock, another process may have replaced both files since the index was read.
        return (mapped, records) if mapped and self.index.unchanged() else (None, {})

    def _report_unpacked(self, why):
        print(f"{self.folder} is not packed, its images are decoded each time: {why}", flush=True)

    def _missing(self):
        packed = self.packed()
        return [row for row in self.rows if row not in packed]

    def _pack(self, sizes):
        stale = {self.names[row] for row in self._missing()}
        live = sum(place[-1] for name, (_, place, _) in self.index.records.items() if name not in stale)
        if self.index.damaged or live < 0.75 * self.index.end:
            self.index.remove()  # too much is out of date: pack everything again
        missing = self._missing()
        raw, compressed = self._estimate(missing, sizes)
        free = shutil.disk_usage(self.base.parent).free
        codec = self.codec or choose_codec(raw, compressed, free)
        if codec is None:
            need = f"{data_size(raw)}, or {data_size(compressed)} compressed"
            return self._report_unpacked(f"it needs {need}, and {data_size(free)} of the disk are free")
        size = data_size(raw) if codec == "raw" else f"about {data_size(compressed)}, compressed to save disk space"
        what = f"{plural(len(missing), 'image')} of {self.folder} into {self.base}.bin"
        print(f"packing {what}: {size}; {data_size(free)} free", flush=True)
        try:
            self._append([row for row in missing if row not in self.bad], codec, sizes)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            self.index.remove()  # checkpoints need the space
            self._report_unpacked("the disk is full")
        finally:
            self.index.read()

    def _load(self, row):
        return load_sample(self.files[row], self.size, self.bits, self.enlarge)

    def _pixels(self, shape):
        """The pixels of a packed sample whose file has this (height, width)."""
        return math.prod(loaded_shape(shape.tolist(), self.size, self.enlarge))

    def _estimate(self, missing, sizes):
        """Estimate the bytes of the missing samples, raw and compressed, from a few of them."""
        images = []
        for place in np.unique(np.linspace(0, len(missing) - 1, PROBES).astype(int)):
            try:
                images.append(self._load(missing[place]))
            except InputError as error:
                self.bad[missing[place]] = [str(error)]
        pixels = sum(self._pixels(sizes[row]) for row in missing)
        if not images:
            return (pixels * len(self.files[missing[0]]),) * 2  # 8 bits, incompressible
        per_pixel = sum(image.nbytes for image in images) / sum(image.shape[0] * image.shape[1] for image in images)
        ratio = sum(len(_encode(image, "zstd")) for image in images) / sum(image.nbytes for image in images)
        return round(pixels * per_pixel), round(pixels * per_pixel * ratio * 1.1)

    def _append(self, missing, codec, sizes):
        """Append samples to both files, the pixels of a sample always before its line."""

        def encoded(row):
            image = self._load(row)
            return list(image.shape), KINDS.index(image.dtype.name), _encode(image, codec)

        def commit():
            os.fsync(data.fileno())
            _write_all(lines, b"".join(pending))
            pending.clear()

        largest = max((self._pixels(sizes[row]) for row in missing), default=1)
        ahead = max(1, min(3 * cores(), 2**28 // largest))  # decoded samples that wait to be written
        pending, offset, committed = [], self.index.end, self.index.end
        progress = tqdm(missing, desc="packing", unit="img", disable=None, leave=False)
        with open(self.index.data, "ab", buffering=0) as data, open(self.index.path, "ab", buffering=0) as lines:
            os.ftruncate(data.fileno(), self.index.end)  # drop what a killed process left unfinished
            os.ftruncate(lines.fileno(), self.index.bytes)
            if not self.index.bytes:
                _write_all(lines, json.dumps(self.index.header).encode() + b"\n")
            with ThreadPoolExecutor(cores()) as pool:
                results = in_order(lambda row: pool.submit(encoded, row), missing, ahead)
                for row, result in zip(progress, results, strict=True):
                    try:
                        shape, kind, content = result.result()
                    except InputError as error:
                        self.bad[row] = [str(error)]
                        continue
                    _write_all(data, content)
                    place = [offset, len(content), shape, kind, CODECS.index(codec), sizes[row].tolist()]
                    line = json.dumps([self.names[row], self.stamps[row], *place])
                    pending.append(line.encode() + b"\n")
                    offset += len(content)
                    if offset - committed >= COMMIT:
                        commit()
                        committed = offset
            commit()


def _encode(image, codec):
    """Encode (H, W, C) pixels as `Images.read` expects them: zstd compresses one channel after another."""
    if codec == "raw":
        return np.ascontiguousarray(image).reshape(-1).view(np.uint8)
    return zstandard.ZstdCompressor(level=LEVEL).compress(np.ascontiguousarray(image.transpose(2, 0, 1)))


def _sample_name(paths, folder):
    """Return the path of each channel, which may name a plane, without `folder`: a tuple of str."""
    split = [(_realpath(place), name) for place, name in map(os.path.split, paths)]
    return tuple(name if place == folder else os.path.join(place, name) for place, name in split)


def _stamps(paths):
    """Return size, mtime and ctime (an mtime can be set back) of each file, None if one is missing."""
    try:
        return [
            [state.st_size, state.st_mtime_ns, state.st_ctime_ns]
            for state in (os.stat(split_plane(path)[0]) for path in paths)
        ]
    except OSError:
        return None


def _write_all(file, content):
    content = memoryview(content)
    while content:
        content = content[file.write(content) :]


@contextmanager
def _locked(path, folder):
    """Hold the lock of a packed copy; the system releases it if the process is killed."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        held = lock.acquire(timeout=1)
    except Timeout:
        print(f"another process is packing {folder}; waiting for it", flush=True)
        held = lock.acquire()
    with held:
        yield


def warn_of_bits(images, bits, advice="give --bits", most=64):
    """Warn if no pixel of up to `most` 16-bit `images` exceeds 12 bits: the camera's white level is then unknown."""
    rows = np.unique(np.linspace(0, len(images) - 1, most).astype(int)) if len(images) and not bits else []
    largest = 0
    for row in rows:
        sample = images.read(row)
        if sample.dtype == np.uint8:
            return
        largest = max(largest, round(float(sample.max()) * 65535))
    if 0 < largest <= 4095:
        seen = f"no pixel of {plural(len(rows), '16-bit image')} is brighter than {largest:,} of 65,535"
        print(f"warning: {seen}; if the camera has 12 bits, {advice} 12", flush=True)
