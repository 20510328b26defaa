"""Images made to harm: refused by their header, or decoded within bounds."""

import io
import os
import struct
import subprocess
import sys
import zlib

import mutators
import numpy as np
import pytest
import targets
from conftest import ROOT, refuse
from PIL import Image

from utils.data import images
from utils.data.image_files import scan_folder
from utils.data.images import image_size, read_plane
from utils.data.tables import read_table
from utils.engine import checkpoint
from utils.errors import InputError, one_line
from utils.opencv import cv2
from utils.runs.thresholds_file import read_rule
from utils.safe_load import read_json, read_npy, read_npz


def bomb(kind, side=40_000):
    """A small file whose header claims side x side pixels."""
    stream = io.BytesIO()
    if kind == "png":
        header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        parts = (b"IHDR", header), (b"IDAT", zlib.compress(bytes(10**6))), (b"IEND", b"")
        return b"\x89PNG\r\n\x1a\n" + b"".join(mutators.png_chunk(*part) for part in parts)
    options = {"compression": "tiff_adobe_deflate"} if kind == "tiff" else {}
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(stream, kind, **options)
    data = bytearray(stream.getvalue())
    if kind == "jpeg":
        place = data.index(b"\xff\xc0") + 5
        data[place : place + 4] = struct.pack(">HH", side, side)
    else:
        change_tags(data, {256: side, 257: side, 278: side})
    return bytes(data)


def change_tags(data, values):
    """Other values of a little-endian TIFF's tags."""
    start = struct.unpack("<I", data[4:8])[0]
    for entry in range(start + 2, start + 2 + 12 * struct.unpack("<H", data[start : start + 2])[0], 12):
        if (tag := struct.unpack("<H", data[entry : entry + 2])[0]) in values:
            data[entry + 2 : entry + 12] = struct.pack("<HII", 4, 1, values[tag])


@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff"])
def test_an_image_that_claims_too_many_pixels_is_not_decoded(tmp_path, kind):
    path = tmp_path / f"a_red.{kind}"
    path.write_bytes(bomb(kind))
    for read in (image_size, read_plane):
        with pytest.raises(InputError, match="claims .*more .*8192x8192"):
            read(path)
    path.write_bytes(bomb(kind, side=0))
    with pytest.raises(InputError, match="a_red"):
        image_size(path)


@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff"])
def test_the_decoder_itself_takes_no_more_pixels(tmp_path, kind):
    """In a process of its own, where OpenCV is only imported by utils.opencv."""
    (tmp_path / "x").write_bytes(bomb(kind, side=9_000))
    code = """import numpy, sys
from utils.opencv import cv2
try:
    sys.exit(cv2.imdecode(numpy.fromfile("x", "u1"), -1) is not None)
except cv2.error as error:
    sys.exit(0 if "pixels" in str(error) else 3)"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, timeout=100).returncode == 0


def test_the_largest_image_is_accepted(tmp_path):
    assert images.MOST_PIXELS == images.MOST_SIDE**2
    (tmp_path / "a.png").write_bytes(bomb("png", side=8192))
    assert image_size(tmp_path / "a.png") == (8192, 8192)


def test_a_file_larger_than_any_image_or_table_is_not_read(tmp_path):
    readers = {"a_red.png": read_plane, "b_red.png": image_size, "c.csv": lambda path: read_table(path, ["Id"])}
    readers["d.json"] = lambda path: read_json(path, "a config", "fix it")
    for name, read in readers.items():
        with open(tmp_path / name, "wb") as file:
            file.truncate(2**41)  # a hole: nothing is on the disk
        with pytest.raises(InputError, match=f"{name} has 2,199,023,255,552 bytes, more than"):
            read(tmp_path / name)


def test_pipes_devices_and_folders_called_like_files_are_not_opened(files, tmp_path):
    for name in ("a_red.png", "t.csv", "t.json", "x.pt", "x.npy", "x.npz", "x.safetensors"):
        os.mkfifo(tmp_path / name)
    os.symlink("/dev/zero", tmp_path / "b_red.png")
    (tmp_path / "c_red.png").mkdir()
    readers = [(f"{name}_red.png", read) for name in "abc" for read in (image_size, read_plane)]
    readers += [("t.csv", lambda path: read_table(path, ["Id"])), ("t.json", lambda path: read_rule(str(path), ["a"]))]
    readers += [("x.npy", lambda path: read_npy(path, "fix it")), ("x.npz", lambda path: read_npz(path, ["a"], "it"))]
    readers += [("x.pt", read) for read in (checkpoint.load, checkpoint.load_network, checkpoint.read_file)]
    for name, read in readers:
        with pytest.raises(InputError, match=f"{name} is (not a regular file|a folder)"):
            read(tmp_path / name)


def test_a_pipe_among_the_images_of_a_command(own_files):
    path = own_files / "png/a_green.png"
    path.unlink()
    os.mkfifo(path)
    for command in (targets.PICTURES, targets.HASHED.replace("--drop-corrupt", "")):
        refuse(*targets.words(command, own_files, "png"), says=["a_green.png", "not a regular file"])


@pytest.mark.parametrize("pages", ["cyclic", "endless"])
def test_a_tiff_whose_pages_never_end(tmp_path, pages):
    stream = io.BytesIO()
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(stream, "tiff")
    data = bytearray(stream.getvalue())
    start = struct.unpack("<I", data[4:8])[0]
    count = struct.unpack("<H", data[start : start + 2])[0]
    body, place = bytes(data[start : start + 2 + 12 * count]), start + 2 + 12 * count
    if pages == "cyclic":
        data[place : place + 4] = struct.pack("<I", start)
    else:
        length = len(body) + 4
        data[place : place + 4] = struct.pack("<I", len(data))
        first = len(data)
        data += b"".join(body + struct.pack("<I", first + length * (page + 1)) for page in range(20_000))
    (tmp_path / "a_red.tif").write_bytes(data)
    if pages == "cyclic":
        assert image_size(tmp_path / "a_red.tif") == (16, 16) == read_plane(tmp_path / "a_red.tif").shape
    else:
        with pytest.raises(InputError, match="has 100 images"):
            image_size(tmp_path / "a_red.tif")


def test_absurd_tags_of_a_tiff(tmp_path):
    path = tmp_path / "a_red.tif"
    assert cv2.imwrite(str(path), np.zeros((16, 16), np.uint8))
    whole = path.read_bytes()
    large = 2**32 - 1
    for tag, value in (
        (277, 65535),
        (258, 64),
        (258, 65535),
        (259, 50000),
        (278, 0),
        (279, large),
        (273, large),
        (256, large),
    ):
        data = bytearray(whole)
        change_tags(data, {tag: value})
        path.write_bytes(data)
        with pytest.raises(InputError, match="a_red.tif"):
            image_size(path)
            read_plane(path)
            pytest.fail(f"tag {tag} of {value} was read")


def test_texts_that_unpack_to_gigabytes_do_not_stop_a_png(tmp_path):
    """libpng's own limit, which nothing may lift."""
    stream = io.BytesIO()
    Image.fromarray(np.full((16, 16), 7, np.uint8)).save(stream, "png")
    data, text = stream.getvalue(), mutators.png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8)))
    (tmp_path / "a_red.png").write_bytes(data[:33] + text * 5 + data[33:])
    code = """import resource, sys
from pathlib import Path
from utils.data.images import read_plane
path = Path(sys.argv[1])
read_plane(path.with_name("b_red.png"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert (read_plane(path) == 7).all() and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 80_000"""
    (tmp_path / "b_red.png").write_bytes(data)
    words = [sys.executable, "-c", code, tmp_path / "a_red.png"]
    assert subprocess.run(words, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=100).returncode == 0


def test_a_jpeg_of_endless_scans_is_not_decoded(tmp_path):
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (32, 32), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "jpeg", progressive=True)
    data = stream.getvalue()
    (tmp_path / "a_red.jpg").write_bytes(data)
    assert read_plane(tmp_path / "a_red.jpg").shape == (32, 32)
    last = data.rindex(b"\xff\xda")
    (tmp_path / "a_red.jpg").write_bytes(data[:last] + data[last:-2] * 1000 + data[-2:])
    with pytest.raises(InputError, match="damaged"):
        read_plane(tmp_path / "a_red.jpg")


@pytest.mark.parametrize("form", ["bmp", "gif", "webp", "ppm", "ico", "jpeg2000"])
def test_other_formats_under_the_name_of_a_png_are_not_decoded(tmp_path, form):
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "x", form)
    (tmp_path / "x").rename(tmp_path / "a_red.png")
    for read in (image_size, read_plane):
        with pytest.raises(InputError, match="not a readable PNG, JPEG or TIFF"):
            read(tmp_path / "a_red.png")


@pytest.mark.parametrize("name", [b"\xff\xfe", b"a\x1b[2J", b" a", "a\u202eb".encode(), ("x" * 241).encode()])
def test_names_of_images_that_no_table_could_have(tmp_path, name):
    with open(os.fsencode(tmp_path) + b"/" + name + b"_red.png", "wb"):
        pass
    with pytest.raises(InputError, match="1 Id not usable") as told:
        scan_folder(tmp_path)
    assert one_line(str(told.value)).isprintable()
