"""Finding, checking and reading microscope images: one file a channel, `<Id>_<red|green|blue|yellow>.<ending>`."""

import logging
import os
import re
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from utils import MOST_PIXELS
from utils.errors import TOO_MANY, InputError, listing, plural
from utils.files import is_stem
from utils.reading import file_size

# What Pillow grumbles about in a damaged file, image_size says in one sentence.
warnings.filterwarnings("ignore", module="PIL")
logging.getLogger("PIL").addHandler(logging.NullHandler())
CHANNELS = {"r": "red", "g": "green", "b": "blue", "y": "yellow"}
ENDINGS = ("png", "jpg", "jpeg", "tif", "tiff")
MOST_SIDE = 8192  # pixels: MOST_PIXELS is its square
MOST_BYTES = 2**30  # of a file: the largest picture with four channels of 16 bits has half of it
MOST_SCANS = 100  # of a progressive JPEG, each of which goes over all pixels; encoders write ten
MAGIC = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"II*\0": "TIFF", b"MM\0*": "TIFF",
         b"II+\0": "TIFF", b"MM\0+": "TIFF"}  # fmt: skip
# What Pillow may raise for a damaged file.
UNREADABLE = (
    OSError, LookupError, SyntaxError, ValueError, TypeError, ArithmeticError, AttributeError, RuntimeError, MemoryError,
    struct.error,
)  # fmt: skip
_NAME = re.compile(rf"(.+)_({'|'.join(CHANNELS.values())})\.({'|'.join(ENDINGS)})", re.IGNORECASE)


@dataclass(frozen=True)
class ChannelSet:
    """Which channels are read and how they become the network's input planes.

    `names`: channels read from disk, in order. `mix`: None when they are the input as they are, otherwise a matrix
    (planes, len(names)) that makes each input plane a weighted sum of them.
    """

    names: tuple
    mix: tuple | None = None

    @property
    def planes(self):
        return len(self.mix) if self.mix else len(self.names)


def parse_channels(spec):
    """Read a channel set: letters in any order (``rgby``, ``rgb``, ``bgry``), one name (``green``), or letters with a
    share of another channel added to each (``rgb+y/3``: Xception/GapNet poster, "a third of yellow added to R, G, B").
    """
    if spec in CHANNELS.values():
        return ChannelSet((spec,))
    if match := re.fullmatch(r"([rgby]+)\+([rgby])/([1-9]\d?)", spec):
        letters, extra, share = match[1], match[2], 1 / int(match[3])
        if len(set(letters + extra)) == len(letters) + 1:
            mix = tuple(tuple(float(a == b) for b in letters) + (share,) for a in letters)
            return ChannelSet(tuple(CHANNELS[letter] for letter in letters + extra), mix)
    elif re.fullmatch(r"[rgby]+", spec) and len(set(spec)) == len(spec):
        return ChannelSet(tuple(CHANNELS[letter] for letter in spec))
    raise InputError(
        f"channels {spec!r} not understood; use letters of rgby, each once (rgby, rgb, bgry), green, or rgb+y/3"
    )


def scan_folder(folder):
    """All images of a folder: {Id: {channel: path}}. Other files are passed over."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; it should hold <Id>_<red|green|blue|yellow>.png files")
    found, twice = {}, []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            match = _NAME.fullmatch(entry.name)
            if match and not entry.name.startswith("."):  # "._x_red.png" is what macOS leaves beside x_red.png
                sample = found.setdefault(match[1], {})
                if match[2].lower() in sample:
                    twice.append(entry.name)
                sample[match[2].lower()] = Path(entry.path)
    if odd := [name for name in found if not is_stem(name)]:
        raise InputError(
            f"{folder}: {plural(len(odd), 'Id')} not usable: {listing(map(repr, odd))}; rename these images"
        )
    if twice:
        raise InputError(f"{folder}: {plural(len(twice), 'channel')} in two files: {listing(twice)}; keep one of each")
    return found


def scan_folders(folders):
    """`scan_folder` over several folders. An Id that lies in two of them is refused: it could mean either picture."""
    merged = {}
    for folder in folders:
        found = scan_folder(folder)
        if both := sorted(set(found) & set(merged)):
            raise InputError(f"{folder}: {plural(len(both), 'Id')} also in another image folder: {listing(both)}")
        merged.update(found)
    return merged


def find_files(folders, ids, channels, found=None):
    """Paths of each id's channels, in the order of `channels.names`: a list of tuples, one an id.

    found: what `scan_folders(folders)` gave, where the caller has it already. Raises InputError naming how many ids have
    no image or lack a channel, and the first few.
    """
    found = scan_folders(folders) if found is None else found
    where = listing(folders)
    if absent := [id_ for id_ in ids if id_ not in found]:
        raise InputError(f"{plural(len(absent), 'Id')} of {len(ids):,} without an image in {where}: {listing(absent)}")
    lacking = [f"{id_}_{name}" for id_ in ids for name in channels.names if name not in found[id_]]
    if lacking:
        raise InputError(f"{plural(len(lacking), 'channel file')} missing in {where}: {listing(lacking)}")
    return [tuple(found[id_][name] for name in channels.names) for id_ in ids]


def check_files(files, crop=0):
    """Look at head and tail of every file before long work starts; returns the sizes, an array (N, 2) of height, width.

    `files` is a list of tuples of paths. Raises InputError on samples that `look_at_files` finds bad, how many and the first
    few, and on those that `check_crop` refuses.
    """
    sizes, bad = look_at_files(files)
    if bad:
        raise InputError(told(bad))
    check_crop(files, sizes, crop)
    return sizes


def look_at_files(files, known=None):
    """Look at head and tail of every file: -> sizes (N, 2) of height, width, {row: [what is wrong]} of the bad samples.

    Bad are files that cannot be read, are cut short or no images of the kit's, and channels that differ in size. known: {row:
    (height, width)} of samples that need no look. Raises InputError where a file is missing: the folder may be the wrong one.
    Damage inside a file shows only when it is decoded.
    """
    sizes, bad = dict(known or {}), {}
    rows = [row for row in range(len(files)) if row not in sizes]
    quiet = None if len(rows) > 2000 else True
    for row in tqdm(rows, desc="checking images", unit="img", disable=quiet, leave=False):
        shapes, wrong = {}, []
        for path in files[row]:
            try:
                shapes[path.name] = image_size(path)
            except InputError as error:
                if not path.exists():
                    raise
                wrong.append(str(error))
        if len(set(shapes.values())) > 1:
            wrong.append("channels of unequal size: " + ", ".join(f"{name} {w}x{h}" for name, (h, w) in shapes.items()))
        if wrong:
            bad[row] = wrong
        sizes[row] = next(iter(shapes.values()), (0, 0))
    return np.array([sizes[row] for row in range(len(files))]).reshape(-1, 2), bad


def told(bad):
    """What is wrong with bad samples, {row: [what is wrong]}: how many files, and the first few."""
    wrong = [what for whats in bad.values() for what in whats]
    if len(wrong) == 1:
        return wrong[0]
    return f"{plural(len(wrong), 'unusable image file')}: {listing(wrong, sep='; ')}"


def check_crop(files, sizes, crop):
    """Raise InputError where a sample of these `sizes` (N, 2) is smaller than `crop` pixels."""
    if len(small := np.flatnonzero(sizes.min(axis=1) < crop)):
        height, width = sizes[small[0]]
        raise InputError(
            f"{plural(len(small), 'image')} smaller than the crop of {crop}: {files[small[0]][0]} is {width}x{height}; "
            f"give larger images, or train with --size {sizes.min()} or less, or --fit resize"
        )


def image_size(path):
    """(height, width) from the header alone, after checking that the file's end is there too.

    Raises InputError for what is no PNG, JPEG or TIFF of one picture with 8 or 16 bits, and for more than MOST_PIXELS pixels.
    """
    length = file_size(path, MOST_BYTES)
    try:
        with open(path, "rb") as file:
            head = file.read(24)
            file.seek(max(0, length - 64))
            tail = file.read(64)
    except OSError as error:
        if error.errno in TOO_MANY:  # the file may be sound
            raise
        raise InputError(f"{path} cannot be read ({error.strerror})") from None
    kind = _kind(head)
    if kind == "PNG" and len(head) == 24:
        if b"IEND" not in tail:
            raise InputError(f"{path} is cut short (a PNG without its end); fetch it again")
        width, height = struct.unpack(">II", head[16:24])
    else:
        height, width = _size_by_pillow(path, length, tail, kind)
    if not 0 < height * width <= MOST_PIXELS:
        raise InputError(
            f"{path} claims {width}x{height} pixels: none, or more than {MOST_SIDE}x{MOST_SIDE}; save it smaller"
        )
    return height, width


def _kind(head):
    return next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), None)


def _size_by_pillow(path, length, tail, kind):
    """(height, width) of a JPEG or TIFF."""
    try:
        with Image.open(path, formats=("JPEG", "TIFF") if kind else ()) as image:
            width, height = image.size
            mode, pages = image.mode, _pages(image)
            whole = _tiff_end(image) <= length if image.format == "TIFF" else b"\xff\xd9" in tail
    except Image.DecompressionBombError:
        raise InputError(f"{path} claims more pixels than {MOST_SIDE}x{MOST_SIDE}; save it smaller") from None
    except UNREADABLE as error:
        if getattr(error, "errno", None) in TOO_MANY:
            raise
        raise InputError(f"{path} is not a readable PNG, JPEG or TIFF image; fetch it again") from None
    if pages > 1:
        raise InputError(f"{path} holds {pages} pictures; save each channel as one picture")
    if mode in ("F", "I"):
        raise InputError(f"{path} holds 32-bit pixels; save it with 8 or 16 bits")
    if not whole:
        raise InputError(f"{path} is cut short; fetch it again")
    return height, width


def _pages(image, most=100):
    """How many pictures a file holds; no more than `most` are counted, since a TIFF may chain them without end."""
    for page in range(1, most):
        try:
            image.seek(page)
        except EOFError:
            image.seek(0)
            return page
    return most


def _tiff_end(image):
    """Where the last strip (tags 273, 279) or tile (324, 325) of a TIFF ends, in bytes."""
    starts, sizes = (273, 279) if 273 in image.tag_v2 else (324, 325)
    return max(start + size for start, size in zip(image.tag_v2[starts], image.tag_v2[sizes], strict=True))


def read_plane(path):
    """One channel as a 2-D array, uint8 or uint16.

    Grey stored in RGB, in all three planes or in one of them (Cyto Challenge), becomes the brightest plane a pixel.
    """
    file_size(path, MOST_BYTES)
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        if error.errno in TOO_MANY:  # the file may be sound
            raise
        raise InputError(f"{path} cannot be read ({error.strerror})") from None
    plane = _decode(data)
    if plane is None:
        image_size(path)  # says what is wrong with the header
        raise InputError(f"{path} is damaged and cannot be decoded; fetch it again")
    if plane.ndim == 3:
        plane = plane[..., :3].max(axis=-1)  # a fourth plane would be opacity
    if plane.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path} holds {plane.dtype} pixels; save it with 8 or 16 bits")
    return plane


def _decode(data):
    """A file's bytes (N,) uint8 -> pixels, None where they are no usable picture."""
    kind = _kind(data[:24].tobytes())
    if kind is None or (kind == "JPEG" and data.tobytes().count(b"\xff\xda") > MOST_SCANS):
        return None
    try:
        return cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except (cv2.error, MemoryError):  # among others more pixels than OpenCV takes
        return None


def load_sample(paths, size=None):
    """Read one sample: (H, W, len(paths)), uint8, or float32 in [0, 1] if any channel has 16 bits.

    `size`: resize to size x size pixels (area average when shrinking, linear when enlarging); None keeps the pixels.
    """
    planes = [read_plane(path) for path in paths]
    if len({plane.shape for plane in planes}) > 1:
        shapes = ", ".join(f"{path.name} {p.shape[1]}x{p.shape[0]}" for path, p in zip(paths, planes))
        raise InputError(f"channels of unequal size: {shapes}")
    if any(plane.dtype == np.uint16 for plane in planes):
        planes = [plane.astype(np.float32) / np.iinfo(plane.dtype).max for plane in planes]
    if size and planes[0].shape != (size, size):
        shrinks = min(planes[0].shape) > size
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        planes = [cv2.resize(plane, (size, size), interpolation=how) for plane in planes]
    return join_planes(planes)


def join_planes(planes):
    """A list of (H, W) arrays -> (H, W, len(planes)), ten times faster than numpy's."""
    return cv2.merge(planes).reshape(*planes[0].shape, len(planes))


def tiles(image, size):
    """Cut (H, W, C) into the fewest size x size tiles that cover it, evenly spaced: (T, size, size, C).

    A 2048² image gives the 2 x 2 patches of Rumetshofer et al., section 3.1, a 1728² image four that overlap.
    """
    rows, columns = (tile_starts(length, size) for length in image.shape[:2])
    return np.stack([image[y : y + size, x : x + size] for y in rows for x in columns])


def most_tiles(sizes, size, fit):
    """Tiles of the largest image: `sizes` (N, 2) of height, width. One where whole images are resized."""
    return 1 if fit == "resize" else int(np.prod(-(-sizes.max(axis=0) // size)))


def tile_starts(length, size):
    count = -(-length // size)
    return [round(i * (length - size) / max(count - 1, 1)) for i in range(count)]
