"""Odd but legal images (odd_images.py): each is read right, or refused with a reason that names what is odd."""

import io
import struct
import zlib
from collections import Counter

import numpy as np
import pytest
import tifffile
from odd_images import TRUTH, all_images
from PIL import Image

from utils.data.image_files import scan_folder
from utils.data.images import image_size, read_plane
from utils.errors import InputError
from utils.opencv import cv2


def tiff_of(pixels, **options):
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, **options)
    return stream.getvalue()


def test_none_is_silently_wrong(tmp_path):
    counts, wrong = Counter(), []
    for name, data, ending, truth, tolerance in all_images():
        path = tmp_path / f"a_red.{ending}"
        path.write_bytes(data)
        try:
            size, plane = image_size(path), read_plane(path)
        except InputError as error:
            counts["refused"] += 1
            if truth is not None or "fetch it again" in str(error):
                wrong.append(f"{name}: {error}")
            continue
        counts["read"] += 1
        if truth is None or plane.shape != truth.shape or size != truth.shape:
            wrong.append(f"{name} was read")
        elif (off := np.abs(plane / np.iinfo(plane.dtype).max - truth).max()) > tolerance + 1e-9:
            wrong.append(f"{name} is off by {off:.4f}")
    assert not wrong
    assert counts["read"] >= 300 and counts["refused"] >= 100, counts


ZEROS = np.zeros((8, 8), np.uint8)
REFUSED = {
    "32-bit pixels .floating-point.; save it as grey of 8 or 16": tiff_of(ZEROS.astype(np.float32)),
    "16-bit pixels .signed.": tiff_of(ZEROS.astype(np.int16)),
    "has 3 images": tiff_of(np.stack([ZEROS] * 3), imagej=True),
    "has 4 (channels in one image|images)": tiff_of(
        np.stack([ZEROS] * 4), photometric="minisblack", planarconfig="separate"
    ),
    "orientation 6": tiff_of(ZEROS, extratags=[(274, 3, 1, 6, True)]),
    "has 5 images": tiff_of(ZEROS, description="ImageJ=1.53\nimages=5\nslices=5\n", metadata=None),
    r"image \(but WebP\)": cv2.imencode(".webp", ZEROS)[1].tobytes(),
    r"image \(but BMP\)": b"BM" + bytes(100),
}


@pytest.mark.parametrize("says", REFUSED)
def test_what_is_refused_is_named(tmp_path, says):
    path = tmp_path / "a_red.tif"
    path.write_bytes(REFUSED[says])
    for read in (image_size, read_plane):
        with pytest.raises(InputError, match=f"a_red.tif .*{says}"):
            read(path)


def test_a_compression_without_a_decoder_is_named(tmp_path, monkeypatch):
    path = tmp_path / "a_red.tif"
    tifffile.imwrite(path, ZEROS, compression="zstd")
    monkeypatch.setattr(tifffile.TIFF, "DECOMPRESSORS", {})
    with pytest.raises(InputError, match="compressed by ZSTD, which is not supported .*imagecodecs.; save it"):
        image_size(path)


def test_a_strip_that_unpacks_to_gigabytes_is_not_unpacked_whole(tmp_path):
    data = tiff_of(np.zeros((16, 16), np.uint8), compression="zlib", metadata=None)
    page, packed = tifffile.TiffFile(io.BytesIO(data)).pages[0], zlib.compress(bytes(2**28))
    data = bytearray(data)
    for tag, value in ((273, len(data)), (279, len(packed))):
        place = page.tags[tag].offset
        data[place + 2 : place + 12] = struct.pack("<HII", 4, 1, value)
    path = tmp_path / "a_red.tif"
    path.write_bytes(bytes(data) + packed)
    try:
        assert read_plane(path).shape == (16, 16)
    except InputError as error:
        assert "a_red.tif is damaged" in str(error)


@pytest.mark.parametrize("quality", [50, 75, 95])
def test_a_dim_spotted_channel_in_one_colour_is_told_from_two_channels(tmp_path, quality):
    """JPEG blurs colour, so that single pixels of a black plane are bright."""
    random, path = np.random.default_rng(0), tmp_path / "a_red.jpg"

    def channel():
        spots = cv2.GaussianBlur((random.random((256, 256)) < 0.01) * 255.0, (0, 0), 2)
        return np.clip(spots * 6 + random.random((256, 256)) * 8, 0, 255).astype(np.uint8)

    spots, others = channel(), channel()
    zero = np.zeros_like(spots)
    shown = {
        "red": (spots, zero, zero),
        "green": (zero, spots, zero),
        "blue": (zero, zero, spots),
        "yellow": (spots, spots, zero),
        "grey": (spots,) * 3,
        "two": (spots, others, zero),
        "dim second": (zero, spots, others // 3),
        "three": (spots, others, spots.T),
    }
    for name, planes in shown.items():
        for sampling in (0, 2):
            Image.fromarray(np.dstack(planes)).save(path, quality=quality, subsampling=sampling)
            if name in ("two", "dim second", "three"):
                with pytest.raises(InputError, match="a_red.jpg is a colour image"):
                    read_plane(path)
            else:
                assert np.corrcoef(read_plane(path).ravel(), spots.ravel())[0, 1] > 0.8


def test_composites_of_several_channels_are_no_channel(tmp_path):
    """The Human Protein Atlas publishes X_blue_red_green.jpg beside; an Id may still end with a colour of its own."""
    names = "X_blue_red_green.jpg Y_red_green.png Z_green.png W_red_red.png Z_blue_red_green_yellow.tif"
    for name in names.split():
        (tmp_path / name).write_bytes(b"")
    assert {id_: set(found) for id_, found in scan_folder(tmp_path).items()} == {"Z": {"green"}, "W_red": {"red"}}


def test_twelve_bits_that_a_png_names_fill_the_range(tmp_path):
    whole = cv2.imencode(".png", (TRUTH * 4095).round().astype(np.uint16))[1].tobytes()
    chunk = b"sBIT" + bytes([12])
    path = tmp_path / "a_red.png"
    path.write_bytes(whole[:33] + (1).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") + whole[33:])
    assert np.abs(read_plane(path) / 65535 - TRUTH).max() <= 0.51 / 4095 + 0.5 / 65535


def test_a_missing_end_is_still_found_behind_zeros(tmp_path):
    for ending in ("png", "jpg"):
        data = cv2.imencode(f".{ending}", np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8))[1].tobytes()
        path = tmp_path / f"a_red.{ending}"
        path.write_bytes(data[:-20] + bytes(200_000))
        with pytest.raises(InputError, match="cut short"):
            image_size(path)
        path.write_bytes(data + bytes(200_000))
        assert image_size(path) == read_plane(path).shape
