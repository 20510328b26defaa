"""TIFF images by tifffile: one plane of grey, or of colour that `utils.data.images` looks at, whatever its tags say of how it is stored."""

import logging
import math
import operator
import re
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from utils.errors import TOO_MANY_FILES, InputError

logging.getLogger("tifffile").addHandler(logging.NullHandler())
logging.getLogger("tifffile").propagate = False
MOST_PAGES = 100  # counted; a file may chain them without end
LOSSY = {
    "JPEG",
    "OJPEG",
    "WEBP",
    "JPEG2000",
    "JPEG_LOSSY",
    "APERIO_JP2000_YCBC",
    "APERIO_JP2000_RGB",
    "JPEGXR",
    "JPEGXL",
}
AS = "save it as grey of 8 or 16 bits, one image a file, without compression or with LZW or deflate"


@dataclass(frozen=True)
class Tiff:
    """What the tags say: size, whether colours come from a lossy compression, and the file that tifffile has opened."""

    page: object
    height: int
    width: int
    lossy: bool


@contextmanager
def opened(path, source, length):
    """A `Tiff` of `source` (a path or a binary file of `length` bytes). Raises InputError naming `path` for anything but one image of
    unsigned integers of 1 to 16 bits that the installed decoders can read."""
    import tifffile  # here, since only TIFFs need it

    try:
        # Not as OME: that would look for planes in other files. Pages are the same.
        with tifffile.TiffFile(source, is_ome=False) as file:
            page = file.pages[0]
            if reason := _refused(tifffile, file, page, length):
                raise InputError(f"{path} {reason}")
            height, width = map(operator.index, (page.imagelength, page.imagewidth))
            yield Tiff(page, height, width, _name(tifffile.COMPRESSION, page.compression) in LOSSY)
    except InputError:
        raise
    except Exception as error:  # a damaged file may make tifffile raise anything
        if getattr(error, "errno", None) in TOO_MANY_FILES:
            raise
        raise InputError(f"{path} is damaged and cannot be decoded ({_said(error)}); fetch it again") from None


def _refused(tifffile, file, page, length):
    """Why the image cannot be used, or ""."""
    pages = _count(file, page)
    if pages > 1:
        return f"holds {pages} pictures; save each channel as one picture"
    bits, kind = page.bitspersample, _name(tifffile.SAMPLEFORMAT, page.sampleformat)
    if isinstance(bits, tuple):
        return f"holds pixels of {' and '.join(map(str, bits))} bits; {AS}"
    if kind not in ("UINT", "VOID") or not 1 <= bits <= 16:
        what = {"IEEEFP": "floating-point", "INT": "signed", "UINT": "unsigned"}.get(kind, "complex")
        return f"holds {bits}-bit pixels ({what}); {AS}"
    compression = _name(tifffile.COMPRESSION, page.compression)
    try:
        tifffile.TIFF.DECOMPRESSORS[page.compression]
    except (KeyError, ValueError, ImportError):
        return f"is compressed by {compression}, which {_missing(tifffile)}; {AS}"
    photometric = _name(tifffile.PHOTOMETRIC, page.photometric)
    colour = photometric in ("RGB", "PALETTE") or (photometric == "YCBCR" and compression in LOSSY)
    if not colour and photometric not in ("MINISBLACK", "MINISWHITE"):
        return f"stores its pixels as {photometric}; {AS}"
    opacity = sum(int(kind) in (1, 2) for kind in page.extrasamples)  # premultiplied or not
    if page.samplesperpixel > (4 if colour else 1 + min(opacity, 1)):
        return f"holds {page.samplesperpixel} channels in one image; save each channel as one picture"
    turned = page.tags.get("Orientation")
    if turned is not None and turned.value not in (0, 1):
        return f"is stored turned or mirrored (orientation {turned.value}); save it upright"
    ends = [start + size for start, size in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if not ends or max(ends) > length:
        return "is cut short; fetch it again"
    return ""


def _count(file, page):
    """Pictures of full size: a page flagged as a reduced copy or a mask is none, and a page may hold a whole stack."""
    full, seen = 0, set()
    for number in range(MOST_PAGES):
        try:
            other = file.pages[number]
        except IndexError:
            break
        if other.offset in seen:  # a chain that bites its tail
            break
        seen.add(other.offset)
        full += number == 0 or not int(other.subfiletype) & 5  # 1: reduced, 4: a mask
    stacked = max(1, page.imagedepth)
    if file.is_imagej:
        stacked = max(stacked, int((file.imagej_metadata or {}).get("images", 1)))
    if file.is_stk:
        stacked = max(stacked, int((file.stk_metadata or {}).get("NumberPlanes", 1)))
    if file.is_shaped:
        shapes = [tuple(part["shape"]) for part in file.shaped_metadata or () if part.get("shape")]
        stacked = max([stacked, *(math.prod(shape) // max(page.size, 1) for shape in shapes[:1])])
    return max(full, stacked)


def pixels(tiff):
    """(H, W) grey or (H, W, S) RGB and alpha, uint8 or uint16 over their whole range, 0 black."""
    page = tiff.page
    data = page.asarray()
    if page.samplesperpixel > 1 and data.shape[-1] != page.samplesperpixel:  # planes one after another
        data = np.moveaxis(data, 0, -1)
    data = data.reshape(tiff.height, tiff.width, -1)
    bits = page.bitspersample
    if int(page.photometric) == 3:  # PALETTE
        data = np.stack([table[data[..., 0]] for table in page.colormap], axis=-1)
        return np.ascontiguousarray(data.astype(np.uint16))
    kind = np.uint8 if bits <= 8 else np.uint16
    most = 2**bits - 1
    if most != np.iinfo(kind).max:
        data = (data.astype(np.float64) * (np.iinfo(kind).max / most)).round()
    data = data.astype(kind)
    if int(page.photometric) == 0:  # MINISWHITE
        data[..., 0] = np.iinfo(kind).max - data[..., 0]
    return np.ascontiguousarray(data[..., 0] if data.shape[-1] == 1 else data)


def significant_bits(tiff):
    """The bits of a pixel that OME-XML names (`SignificantBits` of Pixels), 0 where there is none."""
    found = re.search(r'SignificantBits="(\d{1,2})"', tiff.page.description or "")
    return int(found[1]) if found else 0


def _name(names, value):
    try:
        return names(value).name
    except ValueError:
        return str(value)


def _missing(tifffile):
    try:
        import imagecodecs  # noqa: F401
    except ImportError:
        return "needs the package imagecodecs"
    return "is not read"


def _said(error):
    return " ".join(str(error).split())[:120] or type(error).__name__
