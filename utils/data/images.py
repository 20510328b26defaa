"""Finding, checking and reading microscope images: one file a channel, `<Id>_<red|green|blue|yellow>.<ending>`."""

import io
import logging
import os
import re
import struct
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from utils.data import tiff
from utils.data.colour import grey_of
from utils.errors import TOO_MANY_FILES, InputError, listing, plural
from utils.files import is_stem, nfc
from utils.opencv import MOST_PIXELS, cv2
from utils.safe_load import file_size

# What Pillow grumbles about in a damaged file, image_size says in one sentence.
warnings.filterwarnings("ignore", module="PIL")
logging.getLogger("PIL").addHandler(logging.NullHandler())
CHANNELS = {"r": "red", "g": "green", "b": "blue", "y": "yellow"}
BESIDE = "._"  # "._x_red.png" is what macOS leaves beside x_red.png
ENDINGS = ("png", "jpg", "jpeg", "tif", "tiff")
LEAST_SIDE = 16  # pixels that a network sees
MOST_SIDE = 8192  # pixels: MOST_PIXELS is its square
MOST_BYTES = 2**30  # of a file: the largest picture with four channels of 16 bits has half of it
MOST_SCANS = 100  # of a progressive JPEG, each of which goes over all pixels; encoders write ten
MAGIC = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"II*\0": "TIFF", b"MM\0*": "TIFF",
         b"II+\0": "TIFF", b"MM\0+": "TIFF"}  # fmt: skip
OTHERS = {rb"RIFF....WEBP": "WebP", rb"GIF8": "GIF", rb"BM": "BMP", rb"\0\0\0\x0cjP": "JPEG 2000", rb"\xff\x4f\xff\x51": "JPEG 2000",
          rb"P[1-6]\s": "PNM", rb"\x89HDF": "HDF5 or Imaris", rb"\xda\xce\xbe\x0a": "Nikon ND2", rb"ZISRAWFILE": "Zeiss CZI",
          rb"....ftyp(heic|mif1|avif)": "HEIF or AVIF", rb"<\?xml|\{|<": "text"}  # fmt: skip
# What Pillow may raise for a damaged file.
UNREADABLE = (
    OSError, LookupError, SyntaxError, ValueError, TypeError, ArithmeticError, AttributeError, RuntimeError, MemoryError,
    struct.error,
)  # fmt: skip
_COLOURS = "|".join(CHANNELS.values())
_NAME = re.compile(rf"(.+)_({_COLOURS})\.({'|'.join(ENDINGS)})", re.IGNORECASE)
# Several channels in one colour image, as the Human Protein Atlas publishes them beside: X_blue_red_green.jpg.
_COMPOSITE = re.compile(rf".+_({_COLOURS})_(?!\1\.)({_COLOURS})\.\w+", re.IGNORECASE)


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
    """All images of a folder: {Id in composed Unicode: {channel: path}}. Other files, composites of several channels among them, are
    passed over."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; it should hold <Id>_<red|green|blue|yellow>.png files")
    found, twice = {}, []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            match = _NAME.fullmatch(entry.name)
            if match and not entry.name.startswith(BESIDE) and not _COMPOSITE.fullmatch(entry.name):
                sample = found.setdefault(nfc(match[1]), {})
                if other := sample.get(match[2].lower()):
                    twice.append(
                        " and ".join(name if name.isascii() else ascii(name) for name in (other.name, entry.name))
                    )
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
    ids = [nfc(id_) for id_ in ids]
    if absent := [id_ for id_ in ids if id_ not in found]:
        passed = f"; files whose names begin with {BESIDE} are macOS's own and passed over, rename the images"
        raise InputError(
            f"{plural(len(absent), 'Id')} of {len(ids):,} without an image in {where}: {listing(absent)}"
            + passed * any(id_.startswith(BESIDE) for id_ in absent)
        )
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
            f"give larger images, or train with {f'--size {sizes.min()} or less, or ' if sizes.min() >= LEAST_SIDE else ''}--fit resize"
        )


def image_size(path):
    """(height, width) from the header alone, after checking that the file's end is there too.

    Raises InputError for what is no PNG, JPEG or TIFF of one picture with 8 or 16 bits, and for more than MOST_PIXELS pixels.
    """
    length = file_size(path, MOST_BYTES)
    try:
        with open(path, "rb") as file:
            head = file.read(24)
            kind = _kind(head)
            end = _end(file, length)
            if kind == "TIFF":
                file.seek(0)
                with tiff.opened(path, file, length) as image:
                    height, width = image.height, image.width
    except OSError as error:
        if error.errno in TOO_MANY_FILES:  # the file may be sound
            raise
        raise InputError(f"{path} cannot be read ({error.strerror})") from None
    if kind == "PNG" and len(head) == 24:
        if b"IEND" not in end:
            raise InputError(f"{path} is cut short (a PNG without its end); fetch it again")
        width, height = struct.unpack(">II", head[16:24])
    elif kind != "TIFF":
        height, width = _size_of_jpeg(path, head, end)
    _check_pixels(path, height, width)
    return height, width


def _check_pixels(path, height, width):
    if not 0 < height * width <= MOST_PIXELS:
        raise InputError(
            f"{path} claims {width}x{height} pixels: none, or more than {MOST_SIDE}x{MOST_SIDE}; save it smaller"
        )


def _kind(head):
    return next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), None)


def _end(file, length, block=2**16):
    """The last 64 bytes of a file, without the zeros that some file systems leave behind the last one."""
    end = b""
    while length and len(end) < 64:
        start = max(0, length - block)
        file.seek(start)
        end = (file.read(length - start) + end).rstrip(b"\0") if not end else file.read(length - start) + end
        length = start
    return end[-64:]


def _size_of_jpeg(path, head, end):
    """(height, width); of what is no JPEG either, InputError."""
    try:
        with Image.open(path, formats=("JPEG",) if _kind(head) else ()) as image:
            width, height = image.size
            turned = image.getexif().get(274, 1)
    except Image.DecompressionBombError:
        raise InputError(f"{path} claims more pixels than {MOST_SIDE}x{MOST_SIDE}; save it smaller") from None
    except UNREADABLE as error:
        if getattr(error, "errno", None) in TOO_MANY_FILES:
            raise
        other = next((f" (but {name})" for magic, name in OTHERS.items() if re.match(magic, head, re.DOTALL)), "")
        raise InputError(
            f"{path} is not a readable PNG, JPEG or TIFF image{other}; {'save it as one' if other else 'fetch it again'}"
        ) from None
    if turned not in (0, 1):
        raise InputError(f"{path} is stored turned or mirrored (orientation {turned}); save it upright")
    if b"\xff\xd9" not in end:
        raise InputError(f"{path} is cut short; fetch it again")
    return height, width


def read_plane(path, bits=0):
    """One channel as a 2-D array, uint8 or uint16 over their whole range, 0 black.

    bits: how many of 16 the camera used, 8 to 16; 0: as many as the file says (PNG's sBIT, OME-XML's SignificantBits), else 16.
    A colour image is taken where it is a grey one in disguise (see `grey_of`), as in the Cyto Challenge. Raises InputError for what
    `image_size` refuses, for damaged pixels, for other colour images and for values that `bits` do not hold.
    """
    length = file_size(path, MOST_BYTES)
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        if error.errno in TOO_MANY_FILES:  # the file may be sound
            raise
        raise InputError(f"{path} cannot be read ({error.strerror})") from None
    kind = _kind(data[:24].tobytes())
    if kind == "TIFF":
        with tiff.opened(path, io.BytesIO(data), length) as image:
            _check_pixels(path, image.height, image.width)  # before anything is decoded
            plane, lossy, written = tiff.pixels(image), image.lossy, tiff.significant_bits(image)
    else:
        plane, lossy, written = _decode(data, kind), kind == "JPEG", _significant_bits(data, kind)
    if plane is None:
        image_size(path)  # says what is wrong with the header
        raise InputError(f"{path} is damaged and cannot be decoded; fetch it again")
    if plane.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path} holds {plane.dtype} pixels; save it with 8 or 16 bits")
    if plane.ndim == 3:
        plane = grey_of(plane, path, lossy, _luma_and_chroma(data) if kind == "JPEG" else None)
    used = bits or written
    if plane.dtype != np.uint16 or not 8 <= used < 16:
        return plane
    most, largest = 2**used - 1, int(plane.max())
    if largest > most and not bits:  # the file is wrong about itself
        return plane
    if largest > most:
        raise InputError(f"{path} has pixels up to {largest:,}, and {bits} bits hold {most:,}; train with more --bits")
    return (plane * np.float32(65535 / most) + np.float32(0.5)).astype(np.uint16)


def _significant_bits(data, kind):
    """The bits of a pixel that a PNG's sBIT chunk names (PNG specification, 11.3.2.7), 0 where there is none."""
    before_pixels = data[:4096].tobytes().partition(b"IDAT")[0] if kind == "PNG" else b""
    place = before_pixels.find(b"sBIT", 33)
    return int(data[place + 4]) if place > 0 else 0


def _decode(data, kind):
    """A PNG's or JPEG's bytes (N,) uint8 -> pixels, None where they are no usable picture."""
    if kind is None or (kind == "JPEG" and data.tobytes().count(b"\xff\xda") > MOST_SCANS):
        return None
    try:
        plane = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        order = (
            {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}.get(plane.shape[-1])
            if plane is not None and plane.ndim == 3
            else None
        )
        return plane if order is None else cv2.cvtColor(plane, order)
    except (cv2.error, MemoryError):  # among others more pixels than OpenCV takes
        return None


def _luma_and_chroma(data):
    """(H, W, 3) uint8 of a JPEG as they are stored, before they are rounded to RGB and cut off at black; None of one that has others."""
    with suppress(*UNREADABLE), Image.open(io.BytesIO(data)) as image:
        image.draft("YCbCr", None)
        return np.asarray(image) if image.mode == "YCbCr" else None


def load_sample(paths, size=None, bits=0):
    """Read one sample: (H, W, len(paths)), uint8, or float32 in [0, 1] if any channel has 16 bits.

    `size`: resize to size x size pixels (area average when shrinking, linear when enlarging); None keeps the pixels. `bits`: as for
    `read_plane`.
    """
    planes = [read_plane(path, bits) for path in paths]
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
