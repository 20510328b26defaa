"""TIFF images by tifffile: the only image of a file or the page named, of which `utils.data.images` takes one plane."""

import logging
import math
import operator
import re
from contextlib import contextmanager

import numpy as np

from utils.data.image_table import split_plane
from utils.errors import TOO_MANY_FILES, InputError, plural

logging.getLogger("tifffile").addHandler(logging.NullHandler())
logging.getLogger("tifffile").propagate = False
MOST_PAGES = 100  # to count: a file may chain pages endlessly
LOSSY = ["JPEG", "OJPEG", "WEBP", "JPEG2000", "JPEG_LOSSY", "JPEGXR", "JPEGXL"]
LOSSY += ["APERIO_JP2000_YCBC", "APERIO_JP2000_RGB"]
MOST_BYTES = 2**30  # of a page, compressed
FIX = "save it as grey of 8 or 16 bits, one image per file, without compression or with LZW or deflate"


@contextmanager
def opened(path, source, length):
    """Yield the tifffile page of `source`, a binary file of `length` bytes: the one that `path` names, or the only one.
    Raise InputError for damage, also if the block finds it, and for anything but unsigned integers of 1 to 16 bits in a
    supported compression, in one channel or colour if `path` names none."""
    import tifffile  # here, since only TIFFs need it

    _, number, channel = split_plane(path)
    try:
        # is_ome=False: do not look for planes in other files.
        with tifffile.TiffFile(source, is_ome=False) as file:
            page = _page(file, number or 1)
            if page is None:
                pages = plural(max(len(file.pages), _count_images(file)), "page")
                raise InputError(f"{path} has {pages}; name another page")
            if problem := _problem(tifffile, file, page, number, channel, length):
                raise InputError(f"{path} {problem}")
            yield page
    except InputError:
        raise
    except Exception as error:  # a damaged file may make tifffile raise anything
        if getattr(error, "errno", None) in TOO_MANY_FILES:
            raise
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"{path} is damaged and cannot be decoded ({reason}); fetch it again") from None


def _page(file, number):
    """Return a page of the file, from 1; also one of the stacks that ImageJ and tifffile describe on a single page, whose
    pixels follow one another. None if the file lacks it."""
    try:
        return file.pages[number - 1]
    except IndexError:
        page = file.pages[0]
        if len(file.pages) > 1 or number > _count_images(file) or not page.is_contiguous or page.imagedepth > 1:
            return None
        start = page.dataoffsets[0] + (number - 1) * page.nbytes
        page.dataoffsets, page.databytecounts = (start,), (page.nbytes,)
        return page


def _problem(tifffile, file, page, number, channel, length):
    """Return why the page is unusable, or "". number, channel: None if not named."""
    images = 1 if number else _count_images(file)
    if images > 1:
        return f"has {images} images; save each channel as one image, or name each as #page=1 in a table of images"
    if number and page.is_reduced:
        return "is a smaller copy of another page; name that one"
    bits, kind = page.bitspersample, _name(page.sampleformat, tifffile.SAMPLEFORMAT)
    if isinstance(bits, tuple):
        return f"has pixels of {' and '.join(map(str, bits))} bits; {FIX}"
    if kind not in ("UINT", "VOID") or not 1 <= bits <= 16:
        kind = {"IEEEFP": "floating-point", "INT": "signed", "UINT": "unsigned"}.get(kind, "complex")
        return f"has {bits}-bit pixels ({kind}); {FIX}"
    compression = _name(page.compression, tifffile.COMPRESSION)
    try:
        tifffile.TIFF.DECOMPRESSORS[page.compression]
    except (KeyError, ValueError, ImportError):
        return f"is compressed by {compression}, which is not supported (without the package imagecodecs); {FIX}"
    photometric = _name(page.photometric, tifffile.PHOTOMETRIC)
    colour = photometric in ("RGB", "PALETTE") or (photometric == "YCBCR" and compression in LOSSY)
    if not colour and photometric not in ("MINISBLACK", "MINISWHITE"):
        return f"stores its pixels as {photometric}; {FIX}"
    alpha = any(int(kind) in (1, 2) for kind in page.extrasamples)  # premultiplied or not
    if page.samplesperpixel > (4 if colour else 1 + alpha) and not channel:
        count = f"has {page.samplesperpixel} channels in one image"
        return f"{count}; save each channel as one image, or name each as #channel=1 in a table of images"
    orientation = page.tags.get("Orientation")
    if orientation is not None and orientation.value not in (0, 1):
        return f"is stored rotated or mirrored (orientation {orientation.value}); save it upright"
    ends = [start + size for start, size in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if sum(page.databytecounts) > MOST_BYTES:
        return f"has more than {MOST_BYTES:,} bytes in one page; save it smaller"
    return "is cut short; fetch it again" if max(ends, default=math.inf) > length else ""


def _count_images(file):
    """Count full-size images: pages that are neither a reduced copy nor a mask, or the images of a stack in one page."""
    page = file.pages[0]
    full, seen = 0, set()
    for number in range(MOST_PAGES):
        try:
            other = file.pages[number]
        except IndexError:
            break
        if other.offset in seen:  # a cyclic chain
            break
        seen.add(other.offset)
        full += number == 0 or not int(other.subfiletype) & 5  # 1: reduced, 4: a mask
    stacked = [1, page.imagedepth]
    if file.is_imagej:
        stacked.append(int((file.imagej_metadata or {}).get("images", 1)))
    if file.is_shaped:
        shapes = [tuple(part["shape"]) for part in file.shaped_metadata or () if part.get("shape")]
        stacked += [math.prod(shape) // max(page.size, 1) for shape in shapes[:1]]
    return max(full, *stacked)


def _name(value, names):
    try:
        return names(value).name
    except ValueError:
        return str(value)


def size(page):
    """Return (height, width) of a page."""
    return operator.index(page.imagelength), operator.index(page.imagewidth)


def channels(page):
    """Return how many channels a page has to choose from."""
    return 3 if int(page.photometric) == 3 else page.samplesperpixel  # PALETTE


def is_lossy(page):
    """Return whether the compression is lossy."""
    import tifffile

    return _name(page.compression, tifffile.COMPRESSION) in LOSSY


def significant_bits(page):
    """Return the SignificantBits of OME-XML's Pixels, on the file's first page, 0 without them."""
    found = re.search(r'SignificantBits="(\d{1,2})"', page.parent.pages[0].description or "")
    return int(found[1]) if found else 0


def pixels(page):
    """Read (H, W) grey or (H, W, S), RGB and alpha or any channels, uint8 or uint16 scaled to the whole range; 0 is black."""
    data = page.asarray()
    if page.samplesperpixel > 1 and data.shape[-1] != page.samplesperpixel:  # planar
        data = np.moveaxis(data, 0, -1)
    data = data.reshape(*size(page), -1)
    if int(page.photometric) == 3:  # PALETTE
        data = np.stack([table[data[..., 0]] for table in page.colormap], axis=-1)
        return np.ascontiguousarray(data.astype(np.uint16))
    dtype, most = np.uint8 if page.bitspersample <= 8 else np.uint16, 2**page.bitspersample - 1
    if most != np.iinfo(dtype).max:
        data = (data.astype(np.float64) * (np.iinfo(dtype).max / most)).round()
    data = data.astype(dtype)
    if int(page.photometric) == 0:  # MINISWHITE
        alpha = sum(int(kind) in (1, 2) for kind in page.extrasamples)
        grey = data[..., : data.shape[-1] - alpha]
        np.subtract(np.iinfo(dtype).max, grey, out=grey)
    return np.ascontiguousarray(data[..., 0] if data.shape[-1] == 1 else data)
