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
    """What rounding to so many bits, and then to 16, may change."""
    return 0.5 / (2**bits - 1) + 0.5 / 65535


def _tiff(data, **options):
    """The bytes of a file, None where tifffile does not write such a one."""
    stream = io.BytesIO()
    try:
        tifffile.imwrite(stream, data, **options)
    except Exception:  # whatever the encoder raises
        return None
    return stream.getvalue()


LOSSLESS = ("none", "zlib", "lzw", "lzma", "packbits", "zstd", "png")


def grey_tiffs():
    for bits, compression, photometric, layout, order in itertools.product(
        (8, 16),
        LOSSLESS,
        ("minisblack", "miniswhite"),
        ({}, {"tile": (16, 32)}, {"rowsperstrip": 7}, {"bigtiff": True}),
        "<>",
    ):
        data = _as(bits, TRUTH if photometric == "minisblack" else 1 - TRUTH)
        words = {} if compression == "none" else {"compression": compression}
        yield (
            f"tiff {bits} {compression} {photometric} {layout} {order}",
            _tiff(data, photometric=photometric, byteorder=order, **words, **layout),
            "tif",
            TRUTH,
            _step(bits),
        )
    for bits, compression in itertools.product((8, 16), ("zlib", "lzw", "zstd")):
        yield (
            f"tiff {bits} {compression} predictor",
            _tiff(_as(bits), compression=compression, predictor=True),
            "tif",
            TRUTH,
            _step(bits),
        )
    for bits in (1, 2, 4, 10, 12, 14):
        for photometric in ("minisblack", "miniswhite"):
            if bits == 1:
                shown = (TRUTH > 0.5).astype(np.float64)
                stored = shown if photometric == "minisblack" else 1 - shown
                yield f"tiff 1 bit {photometric}", _tiff(stored.astype(bool), photometric=photometric), "tif", shown, 0
                continue
            data = _as(bits, TRUTH if photometric == "minisblack" else 1 - TRUTH)
            yield (
                f"tiff packed {bits} bits {photometric}",
                _tiff(data, bitspersample=bits, photometric=photometric),
                "tif",
                TRUTH,
                _step(bits),
            )
    for compression, tolerance in (("jpeg", 0.1), ("jpeg2000", 0.01), ("jpegxl", 0.1), ("webp", 0.1), ("lerc", 0.01)):
        for bits in (8, 16):
            yield f"tiff {bits} {compression}", _tiff(_as(bits), compression=compression), "tif", TRUTH, tolerance


def colour_tiffs():
    zero = np.zeros_like(TRUTH)
    shown = {
        "grey": (TRUTH,) * 3,
        "green": (zero, TRUTH, zero),
        "blue": (zero, zero, TRUTH),
        "yellow": (TRUTH, TRUTH, zero),
        "composite": (TRUTH, TRUTH[::-1], TRUTH[:, ::-1]),
        "two": (TRUTH, TRUTH[::-1], zero),
    }
    for bits, planar, compression, (name, planes) in itertools.product(
        (8, 16), ("contig", "separate"), ("none", "zlib", "lzw"), shown.items()
    ):
        data = np.stack([_as(bits, plane) for plane in planes], axis=-1 if planar == "contig" else 0)
        words = {} if compression == "none" else {"compression": compression}
        yield (
            f"tiff {bits} rgb {planar} {compression} {name}",
            _tiff(data, photometric="rgb", planarconfig=planar, **words),
            "tif",
            None if name in ("composite", "two") else TRUTH,
            _step(bits),
        )
        for alpha in ("opaque", "data"):
            if compression == "none":
                opacity = np.full(TRUTH.shape, 2**bits - 1, data.dtype) if alpha == "opaque" else _as(bits, TRUTH[::-1])
                both = np.concatenate(
                    [data, opacity[..., None] if planar == "contig" else opacity[None]],
                    axis=-1 if planar == "contig" else 0,
                )
                wanted = TRUTH if alpha == "opaque" and name not in ("composite", "two") else None
                yield (
                    f"tiff {bits} rgba {planar} {alpha} {name}",
                    _tiff(both, photometric="rgb", planarconfig=planar, extrasamples=["unassalpha"]),
                    "tif",
                    wanted,
                    _step(bits),
                )
    ramp = np.repeat(np.linspace(0, 65535, 256).astype(np.uint16)[None], 3, 0)
    fire = np.stack([np.minimum(ramp[0], 30000) * 2, ramp[0], ramp[0][::-1]]).astype(np.uint16)
    green = np.stack([0 * ramp[0], ramp[0], 0 * ramp[0]])
    for name, table, wanted in (("grey", ramp, TRUTH), ("green", green, TRUTH), ("fire", fire, None)):
        yield f"tiff palette {name}", _tiff(_as(8), photometric="palette", colormap=table), "tif", wanted, 0.51 / 255
    for samples, planar in itertools.product((2, 4, 5, 6), ("contig", "separate")):
        data = np.stack(
            [_as(16, np.roll(TRUTH, 9 * k, 1)) for k in range(samples)], axis=-1 if planar == "contig" else 0
        )
        yield (
            f"tiff {samples} samples {planar}",
            _tiff(data, photometric="minisblack", planarconfig=planar),
            "tif",
            None,
            0,
        )


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
    for name, options in {
        "imagej": {"imagej": True},
        "ome": {"ome": True},
        "described": {"description": "cells"},
    }.items():
        yield f"tiff one {name}", _tiff(_as(16), **options), "tif", TRUTH, 1e-4
    for bits in (10, 12, 14):
        metadata = {"axes": "YX", "SignificantBits": bits}
        yield (
            f"tiff ome {bits} significant bits",
            _tiff(_as(bits), ome=True, metadata=metadata),
            "tif",
            TRUTH,
            _step(bits),
        )
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
        stream = io.BytesIO()
        image.save(stream, "tiff")
        shown = np.asarray(image.convert("L")) / 255.0 if mode == "1" else TRUTH
        yield f"pillow tiff {mode}", stream.getvalue(), "tif", None if mode in ("CMYK", "LAB", "YCbCr") else shown, 0.01


def pngs_and_jpegs():
    for bits, level in itertools.product((8, 16), (0, 1, 9)):
        yield (
            f"png {bits} level {level}",
            cv2.imencode(".png", _as(bits), [cv2.IMWRITE_PNG_COMPRESSION, level])[1].tobytes(),
            "png",
            TRUTH,
            _step(bits),
        )
    whole = cv2.imencode(".png", _as(16))[1].tobytes()
    yield "png with zeros behind", whole + bytes(100_000), "png", TRUTH, 1e-4
    zero = np.zeros_like(TRUTH)
    for bits, (name, planes) in itertools.product(
        (8, 16),
        {
            "grey": (TRUTH,) * 3,
            "red": (zero, zero, TRUTH),
            "yellow": (zero, TRUTH, TRUTH),
            "composite": (TRUTH, TRUTH[::-1], TRUTH[:, ::-1]),
            "two": (zero, TRUTH, TRUTH[::-1]),
        }.items(),
    ):
        data = np.stack([_as(bits, plane) for plane in planes], axis=-1)
        wanted = None if name in ("composite", "two") else TRUTH
        yield f"png {bits} bgr {name}", cv2.imencode(".png", data)[1].tobytes(), "png", wanted, _step(bits)
        for alpha in ("opaque", "data"):
            opacity = np.full(TRUTH.shape, 2**bits - 1, data.dtype) if alpha == "opaque" else _as(bits, TRUTH[::-1])
            both = np.concatenate([data, opacity[..., None]], axis=-1)
            yield (
                f"png {bits} bgra {name} {alpha}",
                cv2.imencode(".png", both)[1].tobytes(),
                "png",
                wanted if alpha == "opaque" else None,
                _step(bits),
            )
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        image = Image.fromarray(_as(16)) if mode == "I;16" else Image.fromarray(_as(8)).convert(mode)
        shown = np.asarray(image.convert("L")) / 255.0 if mode == "1" else TRUTH
        stream = io.BytesIO()
        image.save(stream, "png")
        yield f"pillow png {mode}", stream.getvalue(), "png", shown, 0.01
    for bits in (2, 4):
        stream = io.BytesIO()
        grey = Image.fromarray(_as(bits))
        grey.putpalette([value for level in range(2**bits) for value in [round(255 * level / (2**bits - 1))] * 3])
        grey.save(stream, "png", bits=bits)
        yield f"pillow png palette of {bits} bits", stream.getvalue(), "png", TRUTH, _step(bits)
    for quality, sampling, progressive, (name, planes) in itertools.product(
        (60, 80, 95),
        (0, 2),
        (False, True),
        {
            "grey": (TRUTH,) * 3,
            "green": (zero, TRUTH, zero),
            "blue": (zero, zero, TRUTH),
            "yellow": (TRUTH, TRUTH, zero),
            "composite": (TRUTH, TRUTH[::-1], TRUTH[:, ::-1]),
            "two": (TRUTH, TRUTH[::-1], zero),
        }.items(),
    ):
        image = Image.fromarray(np.stack([_as(8, plane) for plane in planes], axis=-1))
        stream = io.BytesIO()
        image.save(stream, "jpeg", quality=quality, subsampling=sampling, progressive=progressive)
        wanted = None if name in ("composite", "two") else TRUTH
        yield (
            f"jpeg {quality} {sampling} {progressive} {name}",
            stream.getvalue(),
            "jpg",
            wanted,
            0.2 if name == "blue" else 0.1,
        )
    for mode in ("L", "CMYK"):
        stream = io.BytesIO()
        image = Image.fromarray(_as(8))
        (image if mode == "L" else image.convert("RGB").convert("CMYK")).save(stream, "jpeg", quality=95)
        yield f"jpeg {mode}", stream.getvalue(), "jpg", TRUTH, 0.05
        if mode == "L":
            yield "jpeg with zeros behind", stream.getvalue() + bytes(500), "jpg", TRUTH, 0.05
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[274] = orientation
        stream = io.BytesIO()
        Image.fromarray(_as(8)).save(stream, "jpeg", quality=95, exif=exif)
        yield f"jpeg orientation {orientation}", stream.getvalue(), "jpg", TRUTH if orientation == 1 else None, 0.05


def all_images():
    every = itertools.chain(grey_tiffs(), colour_tiffs(), odd_tiffs(), pngs_and_jpegs())
    return [image for image in every if image[1] is not None]
