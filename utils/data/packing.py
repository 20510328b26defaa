"""Packing image folders: decode each sample once, keep the pixels (see utils/data/cache.py), and do without where that cannot be.

A packed copy is only ever added to, under a lock: two trainings that start together pack once. Its index is written after the
pixels it speaks of are on the disk, so that a kill at any moment loses what was decoded in the last seconds and nothing else.
"""

import hashlib
import math
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import zstandard
from filelock import FileLock, Timeout
from tqdm import tqdm

from utils.data.cache import RECORD, Images, Index, Map, line_of
from utils.data.images import check_crop, load_sample, look_at_files, told
from utils.errors import InputError, data_size, plural
from utils.parallel import cores, in_order
from utils.partial_file import NO_ROOM

DEFAULT = "input/packed"
SPARE = 2 * 10**9  # bytes of the disk that packing leaves free: checkpoints and logs are to come
COMMIT = 2**26  # bytes after which pixels and index are made safe on the disk
PROBES = 8  # samples decoded beforehand to learn how many bytes the others will take
LEVEL = 1  # of zstd: higher ones write four times slower, take as much room and are no faster to read


def open_images(files, channels, size, fit, cache=DEFAULT, bits=0, codec=None):
    """Check the files of samples and pack those that are not packed yet: -> Images, sizes (N, 2) of height, width.

    files: list of tuples of paths. channels: names of their channels. size, fit: as for `Samples`. cache: the folder of
    packed copies, made where it is missing; None packs nothing. bits: as for `images.read_plane`. codec: "raw" or "zstd", or None to
    choose by the room on the disk.
    Raises InputError for files that cannot be used: all those that are found while the others are packed. That a copy cannot
    be written is no error: a sentence says so, and the samples are decoded each time.
    """
    images, sizes, bad = open_sound(files, channels, size, fit, cache, bits, codec)
    if bad:
        raise InputError(told(bad))
    return images, sizes


def open_sound(files, channels, size, fit, cache=DEFAULT, bits=0, codec=None):
    """As `open_images`, but bad samples are handed back: -> Images, sizes, {row: [what is wrong]}. Damage inside a file is
    among it only where the sample was to be packed. Raises InputError on missing files and images smaller than the crop."""
    size, crop = (size, 0) if fit == "resize" else (None, size)
    packs = [] if cache is None else _folders(files, channels, size, cache, bits, codec)
    sizes, bad = look_at_files(files, {row: known for pack in packs for row, known in pack.known().items()})
    sound = [row for row in range(len(files)) if row not in bad]
    check_crop([files[row] for row in sound], sizes[sound], crop)
    table, maps = np.zeros(len(files), RECORD), []
    table["pack"] = -1
    for pack in packs:
        mapped, records = pack.fill(sizes, bad)
        if mapped:
            maps.append(mapped)
            for row, record in records.items():
                table[row] = (len(maps) - 1, *record["where"])
    return Images(files, size, table if packs else None, maps, bits), sizes, bad


def warn_of_bits(images, bits, advice="give --bits", most=64):
    """Print a line where no pixel of 16-bit files is brighter than 12 bits can tell: nobody has said how bright white is. Looks at up to
    `most` of the `images`."""
    if bits or not len(images):
        return
    rows = np.unique(np.linspace(0, len(images) - 1, most).astype(int))
    largest = 0
    for row in rows:
        sample = images.read(row)
        if sample.dtype == np.uint8:
            return
        largest = max(largest, round(float(sample.max()) * 65535))
    if 0 < largest <= 4095:
        print(
            f"warning: no pixel of {plural(len(rows), '16-bit image')} is brighter than {largest:,} of 65,535; if the camera has 12 bits, "
            f"{advice} 12",
            flush=True,
        )


def _folders(files, channels, size, cache, bits, codec):
    if not cache or "\0" in cache:
        raise InputError(f"--cache {cache!r} is no name of a folder; give one, or --no-cache")
    groups = {}
    for row, paths in enumerate(files):
        groups.setdefault(paths[0].parent.resolve(), []).append(row)
    return [_Folder(folder, rows, files, channels, size, cache, bits, codec) for folder, rows in groups.items()]


class _Folder:
    """The samples of one folder and their packed copy."""

    def __init__(self, folder, rows, files, channels, size, cache, bits, codec=None):
        self.folder, self.rows, self.files, self.size, self.bits, self.codec = folder, rows, files, size, bits, codec
        letters = "".join(name[0] for name in channels)
        digest = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
        self.base = Path(cache) / f"{folder.name}-{digest}-{letters}-{size or 'whole'}{f'-{bits}bits' if bits else ''}"
        self.bad = {}
        self.stamps = {row: _stamps(files[row]) for row in rows}
        self.index = Index(self.base, channels, size, bits)

    def known(self):
        """{row: (height, width) of its files} of the samples that are packed already."""
        return {row: record["source"] for row, record in self._fresh().items()}

    def _fresh(self):
        found = {row: self.index.fresh(self.files[row][0].name, self.stamps[row]) for row in self.rows}
        return {row: record for row, record in found.items() if record}

    def fill(self, sizes, bad):
        """Pack what is missing: -> Map, {row: record} of all samples that are packed then; None, {} where there are none.

        bad: {row: [what is wrong]}: samples to pass over; those that cannot be decoded are added.
        """
        self.bad = bad
        self.rows = [row for row in self.rows if row not in bad]
        try:
            with _alone(f"{self.base}.lock", self.folder):
                self.index.read()
                if self._missing():
                    self._pack(sizes)
                return self._mapped()
        except (OSError, NotImplementedError) as error:  # the second: a file system without locks
            found = self._mapped()
            if len(found[1]) < len(self._sound(self.rows)):
                _notice(self.folder, f"{self.base}.bin cannot be written ({getattr(error, 'strerror', None) or error})")
            return found

    def _mapped(self):
        records = self._fresh()
        try:
            mapped = Map(self.index.data) if records else None
        except (OSError, ValueError):
            mapped = None
        # Without the lock, the data may be newer than the index that was read.
        return (mapped, records) if mapped and self.index.still_there() else (None, {})

    def _missing(self):
        fresh = self._fresh()
        return [row for row in self.rows if row not in fresh]

    def _sound(self, rows):
        return [row for row in rows if row not in self.bad]

    def _pack(self, sizes):
        stale = {self.files[row][0].name for row in self._missing()}
        live = sum(record["where"][-1] for name, record in self.index.records.items() if name not in stale)
        if self.index.damaged or live < 0.75 * self.index.end:
            self.index.remove()  # begin anew rather than carry along what is out of date
        missing = self._missing()
        raw, packed = self._probe(missing, sizes)
        free = shutil.disk_usage(self.base.parent).free
        codec = self.codec or choose(raw, packed, free)
        if codec is None:
            _notice(
                self.folder,
                f"{data_size(raw)}, or {data_size(packed)} compressed, do not fit on the disk with {data_size(free)} free",
            )
            return
        size = data_size(raw) if codec == "raw" else f"about {data_size(packed)}, compressed for want of room"
        print(
            f"packing {plural(len(missing), 'image')} of {self.folder} into {self.base}.bin: {size}; {data_size(free)} free",
            flush=True,
        )
        try:
            self._write(self._sound(missing), codec, sizes)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            self.index.remove()  # give the room back, to checkpoints among others
            _notice(self.folder, "the disk became full")

    def _probe(self, missing, sizes):
        """Bytes that the missing samples will take uncompressed and compressed, judged by a few of them."""
        rows = [missing[i] for i in np.unique(np.linspace(0, len(missing) - 1, PROBES).astype(int))]
        images = []
        for row in rows:
            try:
                images.append(load_sample(self.files[row], self.size, self.bits))
            except InputError as error:
                self.bad[row] = [str(error)]
        pixels = len(missing) * self.size**2 if self.size else int(sizes[missing].prod(axis=1).sum())
        if not images:
            return (pixels * len(self.files[missing[0]]),) * 2  # as 8 bits that do not shrink
        a_pixel = sum(image.nbytes for image in images) / sum(image.shape[0] * image.shape[1] for image in images)
        shrinks = sum(len(_encode(image, "zstd")) for image in images) / sum(image.nbytes for image in images)
        return round(pixels * a_pixel), round(pixels * a_pixel * shrinks * 1.1)

    def _write(self, missing, codec, sizes):
        """Add records at the end of both files, the pixels of a record always before its line."""
        with open(self.index.data, "ab", buffering=0) as data, open(self.index.path, "ab", buffering=0) as lines:
            os.ftruncate(data.fileno(), self.index.end)  # without what a kill left unfinished
            os.ftruncate(lines.fileno(), self.index.bytes)
            if not self.index.bytes:
                _write_all(lines, self.index.first_line())
            try:
                self._append(missing, codec, sizes, data, lines)
            finally:
                self.index.read()

    def _append(self, missing, codec, sizes, data, lines):
        offset, pending = self.index.end, []

        def commit():
            os.fsync(data.fileno())
            _write_all(lines, b"".join(pending))
            pending.clear()

        def made(row):
            image = load_sample(self.files[row], self.size, self.bits)
            return image.shape, image.dtype.name, _encode(image, codec)

        safe, most = (
            offset,
            max((math.prod(sizes[row]) for row in missing), default=1) if not self.size else self.size**2,
        )
        ahead = max(1, min(3 * cores(), 2**28 // int(most)))  # decoded samples that wait to be written
        try:
            bar = tqdm(total=len(missing), desc="packing", unit="img", disable=None, leave=False)
            with bar, ThreadPoolExecutor(cores()) as pool:
                results = in_order(lambda row: pool.submit(made, row), missing, ahead)
                for done, (row, result) in enumerate(zip(missing, results, strict=True), start=1):
                    bar.update()
                    try:
                        shape, kind, content = result.result()
                    except InputError as error:
                        self.bad[row] = [str(error)]
                        continue
                    _write_all(data, content)
                    where = (offset, len(content), shape, kind, codec)
                    pending.append(line_of(self.files[row][0].name, self.stamps[row], *where, sizes[row]))
                    offset += len(content)
                    if offset - safe >= COMMIT:
                        commit()
                        safe = offset
                        if shutil.disk_usage(self.base.parent).free < SPARE:
                            _notice(self.folder, "the disk is filling up", f"{len(missing) - done:,} of its images")
                            break
        except OSError:
            raise
        except BaseException:  # Ctrl+C: what is done is done
            with suppress(OSError):
                commit()
            raise
        commit()


def choose(raw, packed, free):
    """How to write samples that take `raw` bytes, or `packed` compressed, where `free` are free: "raw", "zstd", or None.

    Uncompressed wherever it fits: a sample of 4x512x512 is then read in 0.06 ms instead of 0.75, and the disk is all it costs.
    """
    room = free - SPARE
    return "raw" if raw <= room else "zstd" if packed <= room else None


def _encode(image, codec):
    """(H, W, C) pixels -> bytes as `Images.read` takes them."""
    if codec == "raw":
        return np.ascontiguousarray(image).reshape(-1).view(np.uint8)
    return zstandard.ZstdCompressor(level=LEVEL).compress(np.ascontiguousarray(image.transpose(2, 0, 1)))


def _stamps(paths):
    """What tells whether files are still the same: size and times of change of each. (One written back with its old size
    and date has a new ctime.) None where one is missing."""
    try:
        states = [os.stat(path) for path in paths]
    except OSError:
        return None
    return [[state.st_size, state.st_mtime_ns, state.st_ctime_ns] for state in states]


def _write_all(file, content):
    content = memoryview(content)
    while content:
        content = content[file.write(content) :]


@contextmanager
def _alone(path, folder):
    """Hold the lock of a packed copy. It goes with the process, however that ends."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=1)
    except Timeout:
        print(f"another process is packing {folder}; waiting for it", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _notice(folder, why, which="its images"):
    print(f"{folder} is not packed, {which} are decoded each time: {why}", flush=True)
