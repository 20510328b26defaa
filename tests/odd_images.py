"""Odd but legal images with known truth: pixel type x container x compression x photometric x planes x orientation x bit depth.

`all_images()` yields (name, bytes, ending, truth, tolerance); truth: (H, W) float in [0, 1], what the channel shows; None for
a file that shows no single channel and must be refused.
"""

import io
import itertools

import numpy as np
import tifffile
from PIL import Image

from utils.opencv import cv2

H, W = 48, 64


def _truth():
    y, x = np.mgrid[:H, :W].astype(np.float64)
    return 0.5 + 0.5 * np.sin(x / 7 + y / 11) * np.cos(y / 5)


TRUTH = _truth()


def _as(bits, values=TRUTH):
    kind = np.uint8 if bits <= 8 else np.uint16
    return (values * (2**bits - 1)).round().astype(kind)


def _step(bits):
    """The error of rounding to `bits`, and then to 16."""
    return 0.5 / (2**bits - 1) + 0.5 / 65535


def _shown():
    """{name: red, green and blue planes} of colour images; two of them show no single channel."""
    zero = np.zeros_like(TRUTH)
    single = {
        "grey": (TRUTH,) * 3,
        "green": (zero, TRUTH, zero),
        "blue": (zero, zero, TRUTH),
        "yellow": (TRUTH, TRUTH, zero),
    }
    mixed = {"composite": (TRUTH, TRUTH[::-1], TRUTH[:, ::-1]), "two": (TRUTH, TRUTH[::-1], zero)}
    return single | mixed


def _saved(image, form, **options):
    """The bytes of a Pillow image's file."""
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def _tiff(data, **options):
    """The bytes of a file, None where tifffile does not write such a one."""
    stream = io.BytesIO()
    try:
        tifffile.imwrite(stream, data, **options)
    except Exception:  # whatever the encoder raises
        return None
    return stream.getvalue()


LOSSLESS = ("none", "zlib", "lzw", "lzma", "packbits", "zstd", "png")


LAYOUTS = ({}, {"tile": (16, 32)}, {"rowsperstrip": 7}, {"bigtiff": True})


def grey_tiffs():
    inverted = {"minisblack": TRUTH, "miniswhite": 1 - TRUTH}
    for bits, compression, photometric, layout, order in itertools.product((8, 16), LOSSLESS, inverted, LAYOUTS, "<>"):
        words = {} if compression == "none" else {"compression": compression}
        data = _tiff(_as(bits, inverted[photometric]), photometric=photometric, byteorder=order, **words, **layout)
        yield f"tiff {bits} {compression} {photometric} {layout} {order}", data, "tif", TRUTH, _step(bits)
    for bits, compression in itertools.product((8, 16), ("zlib", "lzw", "zstd")):
        data = _tiff(_as(bits), compression=compression, predictor=True)
        yield f"tiff {bits} {compression} predictor", data, "tif", TRUTH, _step(bits)
    for photometric, values in inverted.items():
        stored = (TRUTH > 0.5) == (photometric == "minisblack")
        yield f"tiff 1 bit {photometric}", _tiff(stored, photometric=photometric), "tif", (TRUTH > 0.5).astype(float), 0
        for bits in (2, 4, 10, 12, 14):
            data = _tiff(_as(bits, values), bitspersample=bits, photometric=photometric)
            yield f"tiff packed {bits} bits {photometric}", data, "tif", TRUTH, _step(bits)
    lossy = {"jpeg": 0.1, "jpeg2000": 0.01, "jpegxl": 0.1, "webp": 0.1, "lerc": 0.01}
    for (compression, tolerance), bits in itertools.product(lossy.items(), (8, 16)):
        yield f"tiff {bits} {compression}", _tiff(_as(bits), compression=compression), "tif", TRUTH, tolerance


def colour_tiffs():
    product = itertools.product((8, 16), ("contig", "separate"), ("none", "zlib", "lzw"), _shown().items())
    for bits, planar, compression, (name, planes) in product:
        axis, single = -1 if planar == "contig" else 0, name not in ("composite", "two")
        data = np.stack([_as(bits, plane) for plane in planes], axis)
        words = {"photometric": "rgb", "planarconfig": planar}
        if compression != "none":
            data = _tiff(data, compression=compression, **words)
            yield f"tiff {bits} rgb {planar} {compression} {name}", data, "tif", TRUTH if single else None, _step(bits)
            continue
        yield (
            f"tiff {bits} rgb {planar} none {name}",
            _tiff(data, **words),
            "tif",
            TRUTH if single else None,
            _step(bits),
        )
        opaque = np.full(TRUTH.shape, 2**bits - 1, data.dtype)
        for alpha, plane in (("opaque", opaque), ("data", _as(bits, TRUTH[::-1]))):
            both = np.concatenate([data, np.expand_dims(plane, axis)], axis)
            both = _tiff(both, extrasamples=["unassalpha"], **words)
            truth = TRUTH if alpha == "opaque" and single else None
            yield f"tiff {bits} rgba {planar} {alpha} {name}", both, "tif", truth, _step(bits)
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)
    fire = np.stack([np.minimum(ramp, 30000) * 2, ramp, ramp[::-1]]).astype(np.uint16)
    tables = {"grey": np.stack([ramp] * 3), "green": np.stack([0 * ramp, ramp, 0 * ramp]), "fire": fire}
    for name, table in tables.items():
        data = _tiff(_as(8), photometric="palette", colormap=table)
        yield f"tiff palette {name}", data, "tif", None if name == "fire" else TRUTH, 0.51 / 255
    for samples, planar in itertools.product((2, 4, 5, 6), ("contig", "separate")):
        data = np.stack([_as(16, np.roll(TRUTH, 9 * k, 1)) for k in range(samples)], -1 if planar == "contig" else 0)
        data = _tiff(data, photometric="minisblack", planarconfig=planar)
        yield f"tiff {samples} samples {planar}", data, "tif", None, 0


def odd_tiffs():
    for kind in ("int8", "int16", "uint32", "int32", "uint64", "float16", "float32", "float64", "complex64"):
        for compression in (None, "zlib"):
            data = (
                (TRUTH * (100 if kind == "int8" else 1)).astype(kind)
                if "int" not in kind or kind == "int8"
                else (TRUTH * 4000).astype(kind)
            )
            yield f"tiff {kind} {compression}", _tiff(data, compression=compression), "tif", None, 0
    stack = np.stack([_as(16, np.roll(TRUTH, 9 * k, 1)) for k in range(3)])
    for name, options in {
        "pages": {"photometric": "minisblack"},
        "imagej": {"imagej": True},
        "ome": {"ome": True, "photometric": "minisblack"},
        "one page contiguous": {"photometric": "minisblack", "truncate": True, "metadata": {"axes": "ZYX"}},
        "volume": {"photometric": "minisblack", "volumetric": True, "tile": (3, 16, 16)},
    }.items():
        yield f"tiff stack {name}", _tiff(stack, **options), "tif", None, 0
    for options in ({"imagej": True}, {"ome": True}, {"description": "cells"}):
        yield f"tiff one {options}", _tiff(_as(16), **options), "tif", TRUTH, 1e-4
    for bits in (10, 12, 14):
        data = _tiff(_as(bits), ome=True, metadata={"axes": "YX", "SignificantBits": bits})
        yield f"tiff ome {bits} significant bits", data, "tif", TRUTH, _step(bits)
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as file:
        file.write(_as(16), photometric="minisblack")
        file.write(_as(16)[::4, ::4], photometric="minisblack", subfiletype=1)
    yield "tiff with a thumbnail", stream.getvalue(), "tif", TRUTH, 1e-4
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream, ome=True) as file:
        file.write(_as(16), subifds=1, photometric="minisblack", tile=(16, 16))
        file.write(_as(16)[::2, ::2], subfiletype=1, photometric="minisblack", tile=(16, 16))
    yield "tiff pyramid", stream.getvalue(), "tif", TRUTH, 1e-4
    for orientation in range(1, 9):
        data = _tiff(_as(16), extratags=[(274, 3, 1, orientation, True)], photometric="minisblack")
        yield f"tiff orientation {orientation}", data, "tif", TRUTH if orientation == 1 else None, 1e-4
    for mode in ("CMYK", "LAB", "YCbCr", "1", "L", "LA", "I;16", "P", "RGBA"):
        image = Image.fromarray(_as(8)) if mode != "I;16" else Image.fromarray(_as(16))
        if mode == "LAB":
            image = Image.frombytes("LAB", (W, H), np.repeat(_as(8)[..., None], 3, 2).tobytes())
        elif mode not in ("L", "I;16"):
            image = (image.convert("RGB") if mode in ("CMYK", "YCbCr", "RGBA") else image).convert(mode)
        shown = np.asarray(image.convert("L")) / 255.0 if mode == "1" else TRUTH
        truth = None if mode in ("CMYK", "LAB", "YCbCr") else shown
        yield f"pillow tiff {mode}", _saved(image, "tiff"), "tif", truth, 0.01


def _png(data, *options):
    return cv2.imencode(".png", data, options)[1].tobytes()


def pngs():
    for bits, level in itertools.product((8, 16), (0, 1, 9)):
        data = _png(_as(bits), cv2.IMWRITE_PNG_COMPRESSION, level)
        yield f"png {bits} level {level}", data, "png", TRUTH, _step(bits)
    yield "png with zeros behind", _png(_as(16)) + bytes(100_000), "png", TRUTH, 1e-4
    for bits, (name, planes) in itertools.product((8, 16), _shown().items()):
        data = np.stack([_as(bits, plane) for plane in planes[::-1]], axis=-1)  # OpenCV writes BGR
        wanted = None if name in ("composite", "two") else TRUTH
        yield f"png {bits} bgr {name}", _png(data), "png", wanted, _step(bits)
        opaque = np.full(TRUTH.shape, 2**bits - 1, data.dtype)
        for alpha, plane, truth in (("opaque", opaque, wanted), ("data", _as(bits, TRUTH[::-1]), None)):
            yield f"png {bits} bgra {name} {alpha}", _png(np.dstack([data, plane])), "png", truth, _step(bits)
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        image = Image.fromarray(_as(16)) if mode == "I;16" else Image.fromarray(_as(8)).convert(mode)
        shown = np.asarray(image.convert("L")) / 255.0 if mode == "1" else TRUTH
        yield f"pillow png {mode}", _saved(image, "png"), "png", shown, 0.01
    for bits in (2, 4):
        grey = Image.fromarray(_as(bits))
        grey.putpalette([value for level in range(2**bits) for value in [round(255 * level / (2**bits - 1))] * 3])
        yield f"pillow png palette of {bits} bits", _saved(grey, "png", bits=bits), "png", TRUTH, _step(bits)


def jpegs():
    product = itertools.product((60, 80, 95), (0, 2), (False, True), _shown().items())
    for quality, sampling, progressive, (name, planes) in product:
        image = Image.fromarray(np.stack([_as(8, plane) for plane in planes], axis=-1))
        data = _saved(image, "jpeg", quality=quality, subsampling=sampling, progressive=progressive)
        truth = None if name in ("composite", "two") else TRUTH
        yield f"jpeg {quality} {sampling} {progressive} {name}", data, "jpg", truth, 0.2 if name == "blue" else 0.1
    grey = Image.fromarray(_as(8))
    yield "jpeg with zeros behind", _saved(grey, "jpeg", quality=95) + bytes(500), "jpg", TRUTH, 0.05
    yield "jpeg CMYK", _saved(grey.convert("RGB").convert("CMYK"), "jpeg", quality=95), "jpg", TRUTH, 0.05
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[274] = orientation
        data, truth = _saved(grey, "jpeg", quality=95, exif=exif), TRUTH if orientation == 1 else None
        yield f"jpeg orientation {orientation}", data, "jpg", truth, 0.05


def all_images():
    every = itertools.chain(grey_tiffs(), colour_tiffs(), odd_tiffs(), pngs(), jpegs())
    return [image for image in every if image[1] is not None]
