"""Reading microscope images: one file per channel, or files and planes of files that a table names (see image_table.py).

To read another file format, add a row to `FORMATS`.
"""

import io
import logging
import re
import struct
import warnings
from collections import namedtuple
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
from PIL import Image

from utils.data import tiff
from utils.data.colour import grey_of
from utils.data.image_table import split_plane
from utils.errors import TOO_MANY_FILES, InputError
from utils.opencv import MOST_PIXELS, cv2
from utils.safe_load import file_size

# Silence Pillow's warnings about damaged files: image_size raises an error for them.
warnings.filterwarnings("ignore", module="PIL")
logging.getLogger("PIL").addHandler(logging.NullHandler())
CHANNELS = {"r": "red", "g": "green", "b": "blue", "y": "yellow"}
MISSABLE = ("red", "yellow")  # channels without which a network can still predict
LEAST_SIDE = 16  # pixels of the smallest network input
MOST_SIDE = 8192  # pixels: MOST_PIXELS is its square
MOST_BYTES = 2**30  # of a file: the largest image with four channels of 16 bits has half of it
MOST_SCANS = 100  # of a progressive JPEG: each decodes all pixels, and encoders write ten
# What Pillow may raise for a damaged file.
UNREADABLE = (OSError, LookupError, SyntaxError, ValueError, TypeError, ArithmeticError, AttributeError, RuntimeError)
UNREADABLE += (MemoryError, struct.error)


# A format has two functions of (path, open file, its length): `size` -> (height, width, channels to choose from), and
# `decode` -> Decoded, or None for a damaged file. The path may name a page (see image_table.py). pixels: (H, W) or
# (H, W, planes), RGB or any; bits: significant bits of a 16-bit pixel, 0: unknown; lossy: the compression blurs colour;
# ycc: luma and chroma (H, W, 3) uint8 of a JPEG.
Decoded = namedtuple("Decoded", "pixels bits lossy ycc", defaults=[None])


def _png_size(path, file, length):
    head = file.read(26).ljust(26, b"\0")
    grey = head[25] in (0, 4)  # colour type: PNG specification, 11.2.1
    return int.from_bytes(head[20:24], "big"), int.from_bytes(head[16:20], "big"), 1 if grey else 3


def _decode_png(path, file, length):
    data = np.frombuffer(file.read(), np.uint8)
    pixels = _opencv_pixels(data)
    before_pixels = data[:4096].tobytes().partition(b"IDAT")[0]
    place = before_pixels.find(b"sBIT", 33)  # PNG specification, 11.3.2.7
    return None if pixels is None else Decoded(pixels, int(data[place + 4]) if place > 0 else 0, lossy=False)


def _jpeg_size(path, file, length):
    try:
        with Image.open(file, formats=("JPEG",)) as image:
            (width, height), channels = image.size, 1 if image.mode == "L" else 3
            orientation = image.getexif().get(274, 1)
    except Image.DecompressionBombError:
        raise InputError(f"{path} claims more pixels than {MOST_SIDE}x{MOST_SIDE}; save it smaller") from None
    except UNREADABLE as error:
        if getattr(error, "errno", None) in TOO_MANY_FILES:
            raise
        raise _not_an_image(path) from None
    if orientation not in (0, 1):
        raise InputError(f"{path} is stored rotated or mirrored (orientation {orientation}); save it upright")
    return height, width, channels


def _decode_jpeg(path, file, length):
    data = file.read()
    pixels = None if data.count(b"\xff\xda") > MOST_SCANS else _opencv_pixels(np.frombuffer(data, np.uint8))
    if pixels is None:
        return None
    ycc = None
    if pixels.ndim == 3:  # luma and chroma, before the conversion to RGB rounds and clips them
        with suppress(*UNREADABLE), Image.open(io.BytesIO(data)) as image:
            image.draft("YCbCr", None)
            ycc = np.asarray(image) if image.mode == "YCbCr" else None
    return Decoded(pixels, bits=0, lossy=True, ycc=ycc)


def _opencv_pixels(data):
    """Decode a PNG or JPEG; return None if OpenCV cannot."""
    try:
        pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        if pixels is None or pixels.ndim == 2:
            return pixels
        to_rgb = {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}.get(pixels.shape[-1])
        return pixels if to_rgb is None else cv2.cvtColor(pixels, to_rgb)
    except (cv2.error, MemoryError):  # for example more pixels than OpenCV accepts
        return None


def _tiff_size(path, file, length):
    with tiff.opened(path, file, length) as page:
        return *tiff.size(page), tiff.channels(page)


def _decode_tiff(path, file, length):
    # A page of a stack is read alone, a file of one image at once.
    source = file if split_plane(path)[1] else io.BytesIO(file.read())
    with tiff.opened(path, source, length) as page:
        _check_pixel_count(path, *tiff.size(page))  # before anything is decoded
        return Decoded(tiff.pixels(page), tiff.significant_bits(page), tiff.is_lossy(page))


# starts: the first bytes. end: bytes among the last 64 of a complete file; None: `size` checks for truncation.
Format = namedtuple("Format", "endings starts end size decode")
FORMATS = (
    Format(("png",), (b"\x89PNG\r\n\x1a\n",), b"IEND", _png_size, _decode_png),
    Format(("jpg", "jpeg"), (b"\xff\xd8\xff",), b"\xff\xd9", _jpeg_size, _decode_jpeg),
    Format(("tif", "tiff"), (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), None, _tiff_size, _decode_tiff),
)
ENDINGS = tuple(ending for format_ in FORMATS for ending in format_.endings)
# Unsupported formats, to name them in the error message.
OTHER_FORMATS = re.compile(
    rb"(?P<WebP>RIFF....WEBP)|(?P<GIF>GIF8)|(?P<BMP>BM)|(?P<PNM>P[1-6]\s)|(?P<JPEG_2000>\0\0\0\x0cjP|\xff\x4f\xff\x51)"
    rb"|(?P<HDF5_or_Imaris>\x89HDF)|(?P<Nikon_ND2>\xda\xce\xbe\x0a)|(?P<Zeiss_CZI>ZISRAWFILE)"
    rb"|(?P<HEIF_or_AVIF>....ftyp(?:heic|mif1|avif))|(?P<text><\?xml|\{|<)",
    re.DOTALL,
)


def _format_of(path, head):
    """Return the row of `FORMATS` whose files start like `head`."""
    found = next((format_ for format_ in FORMATS if head.startswith(format_.starts)), None)
    if found is None:
        raise _not_an_image(path, head)
    return found


def _not_an_image(path, head=b""):
    other = OTHER_FORMATS.match(head)
    fix = f" (but {other.lastgroup.replace('_', ' ')}); save it as one" if other else "; fetch it again"
    return InputError(f"{path} is not a readable PNG, JPEG or TIFF image{fix}")


def image_size(path):
    """Read (height, width) from the header. Raise InputError for a truncated file and for anything but a PNG, JPEG or
    TIFF of one image with 8 or 16 bits and at most MOST_PIXELS pixels."""
    with _opened(path) as (file, length):
        return size_of(path, file, length)


def size_of(path, file, length):
    """Do what `image_size` does with an open file, or one in memory, of `length` bytes. path: its name in messages, which
    may name a plane."""
    format_ = _format_of(path, file.read(24))
    if format_.end and format_.end not in _end_of(file, length):
        raise InputError(f"{path} is cut short; fetch it again")
    file.seek(0)
    height, width, channels = format_.size(path, file, length)
    _check_pixel_count(path, height, width)
    _check_plane(path, format_, channels)
    return height, width


def _check_plane(path, format_, channels):
    """Raise InputError if the path names a plane that an image with so many channels lacks."""
    _, page, channel = split_plane(path)
    if page and page > 1 and format_.decode is not _decode_tiff:  # of a TIFF, tiff.opened checks it
        raise InputError(f"{path} has one page; leave out #page, or name another file")
    if channel and channels == 1:
        raise InputError(f"{path} is grey, without channels to choose from; name it without #channel or #colour")
    if channel and channel > channels:
        raise InputError(f"{path} has {channels} channels; name one from #channel=1 to #channel={channels}")


@contextmanager
def _opened(path):
    """Yield the open file of a path, which may name a plane, and its length."""
    name, page, _ = split_plane(path)
    length = file_size(name, None if page else MOST_BYTES)
    try:
        with open(name, "rb") as file:
            yield file, length
    except OSError as error:
        if error.errno in TOO_MANY_FILES:  # the file itself is fine
            raise
        raise InputError(f"{path} cannot be read ({error.strerror})") from None


def _end_of(file, length):
    """Return the last 64 bytes of a file, without the zeros that some file systems append."""
    for block in (2**12, length):
        file.seek(max(0, length - block))
        end = file.read().rstrip(b"\0")[-64:]
        if len(end) == 64:
            break
    return end


def _check_pixel_count(path, height, width):
    if not 0 < height * width <= MOST_PIXELS:
        limit = f"{MOST_SIDE}x{MOST_SIDE}"
        raise InputError(f"{path} claims {width}x{height} pixels: none, or more than {limit}; save it smaller")


def read_plane(path, bits=0):
    """Read one channel: -> (H, W) uint8 or uint16, scaled to the whole range; 0 is black.

    bits: significant bits of 16-bit pixels, 8 to 16; 0: from the file (PNG's sBIT, OME-XML's SignificantBits), else 16.
    A colour image of a single channel is accepted (see `grey_of`), as in the Cyto Challenge; of any other the path
    names the channel. Raise InputError for what `image_size` refuses, damaged pixels, other colour images and values
    that exceed `bits`.
    """
    with _opened(path) as (file, length):
        return _read_open(path, file, length, bits)


def decode_plane(path, data, bits=0):
    """Do what `read_plane` does with the bytes of a file, (N,) uint8. path: its name in messages."""
    return _read_open(path, io.BytesIO(data), len(data), bits)


def read_pixels(path):
    """Read an image as its file stores it: -> Decoded, of (H, W) or (H, W, planes) uint8 or uint16 pixels. Raise
    InputError for what `image_size` refuses and for damaged pixels."""
    with _opened(path) as (file, length):
        return _decode(path, file, length)


def _decode(path, file, length):
    format_ = _format_of(path, file.read(24))
    file.seek(0)
    decoded = format_.decode(path, file, length)
    if decoded is None:
        file.seek(0)
        size_of(path, file, length)  # raises a more precise error for a damaged header
        raise InputError(f"{path} is damaged and cannot be decoded; fetch it again")
    pixels = decoded.pixels
    _check_plane(path, format_, pixels.shape[2] if pixels.ndim == 3 else 1)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path} has {pixels.dtype} pixels; save it with 8 or 16 bits")
    return decoded


def _read_open(path, file, length, bits):
    decoded = _decode(path, file, length)
    plane = decoded.pixels
    if channel := split_plane(path)[2]:
        plane = np.ascontiguousarray(plane[..., channel - 1])
    elif plane.ndim == 3:
        plane = grey_of(plane, path, decoded.lossy, decoded.ycc)
    used = bits or decoded.bits
    if plane.dtype != np.uint16 or not 8 <= used < 16:
        return plane
    most, largest = 2**used - 1, int(plane.max())
    if largest > most and bits:
        raise InputError(f"{path} has pixels up to {largest:,}, above {most:,} ({bits} bits); train with more --bits")
    if largest > most:  # the file's own number of bits is wrong
        return plane
    return (plane * np.float32(65535 / most) + np.float32(0.5)).astype(np.uint16)


def load_sample(paths, size=None, bits=0, enlarge=True, shape=None):
    """Read one sample: -> (H, W, len(paths)) uint8, or float32 in [0, 1] if any channel has 16 bits.

    size, enlarge: resize to `loaded_shape`, or to `shape`, (height, width). bits: as `read_plane`.
    """
    planes = [read_plane(path, bits) for path in paths]
    if len({plane.shape for plane in planes}) > 1:
        raise InputError(describe_unequal(paths, [plane.shape for plane in planes]))
    if any(plane.dtype == np.uint16 for plane in planes):
        planes = [plane.astype(np.float32) / np.iinfo(plane.dtype).max for plane in planes]
    shape = shape or loaded_shape(planes[0].shape, size, enlarge)
    return join_planes([resize(plane, *shape) for plane in planes])


def loaded_shape(shape, size, enlarge=True):
    """The (height, width) that an image of another is resized to: `size` twice, or as it is if None. Without `enlarge`
    a side shorter than `size` stays."""
    return tuple(shape) if not size else (size, size) if enlarge else tuple(min(side, size) for side in shape)


def resize(image, height, width):
    """Resize (H, W) or (H, W, C), to shrink both sides by area, else linearly; the image itself if it has this shape."""
    if image.shape[:2] == (height, width):
        return image
    method = cv2.INTER_AREA if image.shape[0] > height and image.shape[1] > width else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=method).reshape(height, width, *image.shape[2:])


def describe_unequal(paths, shapes):
    """Describe channels of unequal (height, width)."""
    sizes = ", ".join(f"{path.name} {width}x{height}" for path, (height, width) in zip(paths, shapes))
    return f"channels of unequal size: {sizes}"


def join_planes(planes):
    """Stack a list of (H, W) arrays: -> (H, W, len(planes)), ten times faster than np.stack."""
    return cv2.merge(planes).reshape(*planes[0].shape, len(planes))


@dataclass(frozen=True)
class ChannelSet:
    """The channels to read, in order. mix: matrix (planes, len(names)) whose rows weight the channels of each input
    plane, zeros for a plane that stays black; None: the channels are the planes."""

    names: tuple
    mix: tuple | None = None

    @property
    def planes(self):
        return len(self.mix) if self.mix else len(self.names)


def parse_channels(spec):
    """Parse a channel set: letters in any order (``rgby``, ``bgry``), one name (``green``), or letters with a fraction
    of another channel added to each (``rgb+y/3``: Xception/GapNet poster, "a third of yellow added to R, G, B"). After
    a minus, letters of those that are not read and count as black, with as many planes (``rgby-y``)."""
    spec, *missing = spec.split("-")
    if missing:
        return _without(parse_channels(spec), "".join(missing))
    if spec in CHANNELS.values():
        return ChannelSet((spec,))
    if match := re.fullmatch(r"([rgby]+)\+([rgby])/([1-9]\d?)", spec):
        letters, extra, fraction = match[1], match[2], 1 / int(match[3])
        if len(set(letters + extra)) == len(letters) + 1:
            mix = tuple(tuple(float(a == b) for b in letters) + (fraction,) for a in letters)
            return ChannelSet(tuple(CHANNELS[letter] for letter in letters + extra), mix)
    elif re.fullmatch(r"[rgby]+", spec) and len(set(spec)) == len(spec):
        return ChannelSet(tuple(CHANNELS[letter] for letter in spec))
    allowed = "letters of rgby, each once (rgby, rgb, bgry), green, or rgb+y/3"
    raise InputError(f"channels {spec!r} not understood; use {allowed}")


def _without(channels, letters):
    """Return a ChannelSet whose `letters` are not read, but keep their planes."""
    missing = {CHANNELS.get(letter) for letter in letters}
    kept = [place for place, name in enumerate(channels.names) if name not in missing]
    if not kept or not missing or not missing <= set(channels.names):
        raise InputError(f"channels {', '.join(channels.names)} without {letters!r} not understood")
    mix = channels.mix or np.eye(len(channels.names)).tolist()
    return ChannelSet(tuple(channels.names[place] for place in kept), tuple(tuple(row[k] for k in kept) for row in mix))
