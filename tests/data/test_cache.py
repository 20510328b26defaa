"""Packed images: the very pixels of the files, whatever happens to packing, and nothing out of date."""

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import ROOT, refuse, succeed, train_options, write_images
from filelock import FileLock

from utils.data import augment, cache
from utils.data.cache import CODECS, KEPT, Images, Index
from utils.data.dataset import Samples
from utils.data.images import find_files, load_sample, parse_channels
from utils.data.loader import batches, make_loader
from utils.errors import InputError
from utils.opencv import cv2

RGBY = parse_channels("rgby")
IDS = [f"i{n:02}" for n in range(20)]


@pytest.fixture
def files(tmp_path):
    write_images(tmp_path / "images", IDS, size=40)
    return find_files([tmp_path / "images"], IDS, RGBY)


def opened(files, cache, size=32, fit="resize", channels=RGBY):
    return cache.open_images(files, channels.names, size, fit, str(cache))[0]


def packed_rows(images):
    return [] if images.table is None else np.flatnonzero(images.table["pack"] >= 0).tolist()


def force(monkeypatch, codec):
    monkeypatch.setattr(cache, "choose_codec", lambda raw, packed, free: codec)


def check_all(images, files, size=32):
    for row, paths in enumerate(files):
        expected = load_sample(paths, size)
        got = images.read(row)
        assert got.dtype == expected.dtype and got.shape == expected.shape and (got == expected).all()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("fit, channels, dtype", [("resize", "rgby", np.uint8), ("crop", "bgry", np.uint8), ("resize", "green", np.uint8),
                                                  ("crop", "rgb+y/3", np.uint16)])  # fmt: skip
def test_the_pixels_are_those_of_the_files(tmp_path, monkeypatch, codec, fit, channels, dtype):
    force(monkeypatch, codec)
    channels = parse_channels(channels)
    write_images(tmp_path / "a", IDS[:3], size=40, dtype=dtype, ending="tif")
    write_images(tmp_path / "b", IDS[3:6], size=56, seed=1)
    files = find_files([tmp_path / "a", tmp_path / "b"], IDS[:6], channels)
    size = 32 if fit == "resize" else None
    for _ in range(2):  # packed now, and found packed
        images = opened(files, tmp_path / "cache", 32, fit, channels)
        assert packed_rows(images) == list(range(6))
        check_all(images, files, size)
        check_all(images[2:5], files[2:5], size)
        check_all(pickle.loads(pickle.dumps(images)), files, size)


@pytest.mark.parametrize("fit, normalise", [("resize", "dataset"), ("crop", "image")])
def test_batches_are_the_same_to_the_bit_with_and_without_cache_and_for_any_workers(
    files, tmp_path, fit, normalise, monkeypatch
):
    """Training samples, augmented, shuffled, and validation samples, in order."""

    def epoch(images, workers, train):
        more = (
            dict(targets=np.ones((20, 3), np.uint8), augment=augment.build("chen", RGBY.names), random_crop=True)
            if train
            else {}
        )
        samples = Samples(images, RGBY, 32, fit, normalise, seed=5, **more)
        loader = make_loader(samples, 6, workers, torch.device("cpu"), shuffle=train)
        loader.order.epoch = 3
        return list(batches(loader))

    sources = [Images(files, 32 if fit == "resize" else None)]
    for codec in CODECS:
        force(monkeypatch, codec)
        sources.append(opened(files, tmp_path / codec, 32, fit))
        assert packed_rows(sources[-1]) == list(range(20))
    for train in (True, False):
        plain = epoch(sources[0], 0, train)
        assert len(plain) == 4
        for images in sources:
            for workers in (0, 1, 4):
                for batch, again in zip(plain, epoch(images, workers, train), strict=True):
                    assert batch.keys() == again.keys() and all(torch.equal(batch[key], again[key]) for key in batch)


def test_only_what_is_asked_for_is_packed_and_more_is_added(files, tmp_path, capsys):
    assert packed_rows(opened(files[:5], tmp_path / "cache")) == [0, 1, 2, 3, 4]
    assert "packing 5 images" in capsys.readouterr().out
    check_all(opened(files[3:], tmp_path / "cache"), files[3:])
    assert "packing 15 images" in capsys.readouterr().out
    check_all(opened(files, tmp_path / "cache"), files)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("keep_times", [False, True])
def test_a_changed_file_is_packed_again(files, tmp_path, keep_times, capsys):
    """Even one of the same size that was given the old one's date."""
    opened(files, tmp_path / "cache")
    capsys.readouterr()
    path, stored = files[7][1], [cv2.IMWRITE_PNG_COMPRESSION, 0]  # so that other pixels take as many bytes
    pixels = cv2.imread(str(path), -1)
    cv2.imwrite(str(path), pixels, stored)
    opened(files, tmp_path / "cache")
    before = os.stat(path)
    capsys.readouterr()
    cv2.imwrite(str(path), pixels[::-1], stored)
    assert os.stat(path).st_size == before.st_size
    if keep_times:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    images = opened(files, tmp_path / "cache")
    assert "packing 1 image " in capsys.readouterr().out
    check_all(images, files)


def test_a_copy_that_is_mostly_out_of_date_is_begun_anew(files, tmp_path):
    first = opened(files, tmp_path / "cache")
    held = first.maps[0].path.stat().st_size
    before = first.read(0).copy()
    write_images(tmp_path / "images", IDS, size=40, seed=9)
    check_all(opened(files, tmp_path / "cache"), files)
    assert first.maps[0].path.stat().st_size == held, "the old pixels are gone"
    assert (first.read(0) == before).all(), "a training that goes on still has them"
    with pytest.raises(Exception, match="replaced while it was in use"):
        pickle.loads(pickle.dumps(first))


def test_another_opencv_may_decode_otherwise(files, tmp_path, monkeypatch, capsys):
    opened(files, tmp_path / "cache")
    monkeypatch.setattr(cv2, "__version__", "9.9")
    check_all(opened(files, tmp_path / "cache"), files)
    assert capsys.readouterr().out.count("packing 20 images") == 2


@pytest.mark.parametrize(
    "damage", ["line cut", "line garbled", "data cut", "data longer", "index gone", "data gone", "header"]
)
def test_a_damaged_copy_is_mended(files, tmp_path, damage):
    index = opened(files, tmp_path / "cache").maps[0].path.with_suffix(".index")
    data, lines = index.with_suffix(".bin"), index.read_bytes().splitlines(keepends=True)
    if damage == "line cut":
        index.write_bytes(b"".join(lines[:8]) + lines[8][:-20])
    elif damage == "line garbled":
        index.write_bytes(b"".join([*lines[:8], b'{"not": "a record"}\n', *lines[9:]]))
    elif damage == "data cut":
        os.truncate(data, data.stat().st_size // 2)
    elif damage == "data longer":
        data.write_bytes(data.read_bytes() + b"x" * 5000)
    elif damage == "header":
        index.write_bytes(b"".join([b'{"format": 0}\n', *lines[1:]]))
    else:
        (index if damage == "index gone" else data).unlink()
    images = opened(files, tmp_path / "cache")
    assert packed_rows(images) == list(range(20))
    check_all(images, files)
    check_all(opened(files, tmp_path / "cache"), files)


def test_where_the_disk_is_short_it_is_compressed_and_then_left_out(files, tmp_path, monkeypatch, capsys):
    free = cache.SPARE + 20 * 32 * 32 * 4
    assert cache.choose_codec(20 * 32 * 32 * 4, 50_000, free) == "raw"
    assert cache.choose_codec(20 * 32 * 32 * 4 + 1, 50_000, free) == "zstd"
    assert cache.choose_codec(10**6, 10**5, free) is None
    usage = type("Usage", (), {"free": cache.SPARE})
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: usage)
    images = opened(files, tmp_path / "cache")
    assert packed_rows(images) == [] and "not packed" in capsys.readouterr().out
    check_all(images, files)


@pytest.mark.parametrize("already", [0, 6])
def test_a_disk_that_becomes_full_is_given_back_and_training_goes_on(files, tmp_path, monkeypatch, capsys, already):
    """Who has mapped what was packed before keeps it."""
    if already:
        other = opened(files[:already], tmp_path / "cache")
    real, calls = cache._write_all, []

    def full(file, content):
        calls.append(1)
        if len(calls) == 9:
            file.write(bytes(content)[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file, content)

    monkeypatch.setattr(cache, "_write_all", full)
    images = opened(files, tmp_path / "cache")
    assert "the disk became full" in capsys.readouterr().out
    assert packed_rows(images) == [] and not list((tmp_path / "cache").glob("*.bin"))
    check_all(images, files)
    if already:
        assert packed_rows(other) == list(range(already))
        check_all(other, files[:already])
    monkeypatch.setattr(cache, "_write_all", real)
    assert packed_rows(opened(files, tmp_path / "cache")) == list(range(20))


def test_a_place_that_cannot_be_written_is_no_error(files, tmp_path, capsys):
    (tmp_path / "cache").write_text("a file")
    images = opened(files, tmp_path / "cache")
    assert packed_rows(images) == [] and "cannot be written" in capsys.readouterr().out
    check_all(images, files)


def test_what_can_be_read_but_not_locked_is_used(files, tmp_path, monkeypatch, capsys):
    """A packed copy on a read-only disk; rows that it lacks are decoded."""
    opened(files[:12], tmp_path / "cache")
    capsys.readouterr()

    def refuse_lock(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(cache, "FileLock", refuse_lock)
    assert packed_rows(opened(files[:12], tmp_path / "cache")) == list(range(12)) and capsys.readouterr().out == ""
    images = opened(files, tmp_path / "cache")
    assert packed_rows(images) == list(range(12)) and "Read-only file system" in capsys.readouterr().out
    check_all(images, files)


def test_what_is_out_of_date_does_not_pile_up(files, tmp_path):
    for seed in range(12):
        write_images(tmp_path / "images", IDS[:4], size=40, seed=seed)
        images = opened(files, tmp_path / "cache")
        check_all(images, files)
    assert images.maps[0].path.stat().st_size <= 20 * 32 * 32 * 4 / 0.75


def test_a_disk_that_fills_up_beside_packing_keeps_what_is_spare(files, tmp_path, monkeypatch, capsys):
    free = iter([cache.SPARE * 2, cache.SPARE, cache.SPARE - 1])
    monkeypatch.setattr(cache, "COMMIT", 4 * 32 * 32 * 4)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: type("Usage", (), {"free": next(free)}))
    images = opened(files, tmp_path / "cache")
    assert packed_rows(images) == list(range(8)) and "12 of its images are decoded" in capsys.readouterr().out
    check_all(images, files)


def test_a_file_that_is_gone_is_told_in_one_sentence(files, tmp_path):
    opened(files, tmp_path / "cache")
    files[3][2].unlink()
    files[3][2].symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="cannot be read"):
        opened(files, tmp_path / "cache")
    with pytest.raises(InputError, match="--no-cache"):
        opened(files[:2], "")


@pytest.mark.parametrize(
    "wrong",
    [["codec", 7], ["kind", 9], ["shape", [32, 32, 3]], ["offset", 1.5], ["length", -1], ["source", ["a", "b"]]],
)
def test_an_index_that_cannot_be_true_is_made_anew(files, tmp_path, wrong):
    path = opened(files, tmp_path / "cache").maps[0].path.with_suffix(".index")
    lines = path.read_text().splitlines()
    record = json.loads(lines[5])
    record[["name", "stamps", "offset", "length", "shape", "kind", "codec", "source"].index(wrong[0])] = wrong[1]
    path.write_text("\n".join([*lines[:5], json.dumps(record), *lines[6:], ""]))
    images = opened(files, tmp_path / "cache")
    assert packed_rows(images) == list(range(20))
    check_all(images, files)


def test_damaged_compressed_pixels_are_no_pixels(files, tmp_path, monkeypatch):
    force(monkeypatch, "zstd")
    images = opened(files, tmp_path / "cache")
    with open(images.maps[0].path, "r+b") as file:
        file.seek(int(images.table[4]["offset"]))
        file.write(b"\0" * 40)
    with pytest.raises(InputError, match="is damaged where i04"):
        images.read(4)


def test_a_damaged_image_stops_it_and_the_others_stay_packed(files, tmp_path, capsys):
    content = bytearray(files[12][0].read_bytes())
    content[len(content) // 2] ^= 255
    files[12][0].write_bytes(content)
    with pytest.raises(Exception, match="damaged"):
        opened(files, tmp_path / "cache")
    write_images(tmp_path / "images", [IDS[12]], size=40)
    capsys.readouterr()
    check_all(opened(files, tmp_path / "cache"), files)
    assert "packing 20 images" not in capsys.readouterr().out


SCRIPT = """
import sys
from utils.data import cache
from utils.data.images import find_files, parse_channels, scan_folder
cache.COMMIT = int(sys.argv[3])
channels = parse_channels("rgby")
files = find_files([sys.argv[1]], sorted(scan_folder(sys.argv[1])), channels)
cache.open_images(files, channels.names, 32, "resize", sys.argv[2])
print("ready", flush=True)
"""


def pack_beside(folder, cache, commit=1):
    command = [sys.executable, "-c", SCRIPT, str(folder), str(cache), str(commit)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def test_killed_at_any_moment_it_goes_on(tmp_path):
    ids = [f"i{n:03}" for n in range(400)]
    write_images(tmp_path / "images", ids, size=40)
    files = find_files([tmp_path / "images"], ids, RGBY)
    cache, done = tmp_path / "cache", []
    for wait in (0.0, 0.05, 0.2):
        process = pack_beside(tmp_path / "images", cache)
        while process.poll() is None and "packing" not in (process.stdout.readline() or "packing"):
            pass
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        indexes = list(cache.glob("*.index"))
        done.append(len(indexes[0].read_bytes().splitlines()) - 1 if indexes else 0)
    assert done == sorted(done) and done[-1] > 0
    images = opened(files, cache)
    assert packed_rows(images) == list(range(400))
    check_all(images, files)


def test_two_that_start_together_pack_once(files, tmp_path):
    both = [pack_beside(tmp_path / "images", tmp_path / "cache") for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert all(process.returncode == 0 for process in both) and sum("packing 20 images" in text for text in said) == 1
    check_all(opened(files, tmp_path / "cache"), files)


def test_who_comes_while_another_packs_waits_and_says_so(files, tmp_path):
    opened(files, tmp_path / "cache")
    lock = next((tmp_path / "cache").glob("*.bin")).with_suffix(".lock")
    with FileLock(lock):
        process = pack_beside(tmp_path / "images", tmp_path / "cache")
        assert "waiting for it" in process.stdout.readline() and process.poll() is None
    assert process.communicate()[0] == "ready\n"


def test_pages_that_were_read_are_let_go(tmp_path):
    """Or the whole packed file would in time count as this process's memory."""
    write_images(tmp_path / "images", ["a"], size=16)
    files = find_files([tmp_path / "images"], ["a"], RGBY)
    images = opened(files, tmp_path / "cache", 16)
    calls = []
    images.maps[0].let_go = lambda: calls.append(1)
    for _ in range(2 * KEPT // 1024 + 4):
        images.read(0)
    assert len(calls) == 2


def test_the_index_says_what_the_readme_says(files, tmp_path):
    index = opened(files, tmp_path / "cache").maps[0].path.with_suffix(".index")
    lines = [json.loads(line) for line in index.read_text().splitlines()]
    assert lines[0] == {"format": 2, "opencv": cv2.__version__, "channels": list(RGBY.names), "size": 32, "bits": 0}
    assert [line[0] for line in lines[1:]] == [paths[0].name for paths in files]
    assert Index(index.with_suffix(""), RGBY.names, 32).end == index.with_suffix(".bin").stat().st_size


def test_a_training_packs_and_the_next_fold_and_prediction_find_it(atlas, folds, tmp_path):
    cache = ["--cache", tmp_path / "cache"]
    options = [*train_options(atlas, folds, tmp_path), *cache]
    assert "packing 48 images" in succeed("train", *options).out
    assert "packing" not in succeed("train", *[*train_options(atlas, folds, tmp_path, fold=1), *cache]).out
    predict = ["predict", tmp_path / "mini", "--images", atlas / "test", "--workers", 0, *cache]
    assert "packing 16 images" in succeed(*predict, "-o", tmp_path / "a.csv").out
    assert "packing" not in succeed(*predict, "-o", tmp_path / "b.csv").out
    assert "packing" not in succeed(*predict, "-o", tmp_path / "c.csv", "--no-cache").out
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes() == (tmp_path / "c.csv").read_bytes()
    plain = train_options(atlas, folds, tmp_path, "plain")
    assert "packing" not in succeed("train", *plain, "--no-cache").out
    assert "trained already" in succeed("train", *plain, *cache).out, "how images are read is not the result"
    weights = [torch.load(tmp_path / name / "fold0/last.pt", weights_only=True)["model"] for name in ("mini", "plain")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_nothing_is_packed_where_an_image_is_too_small(own_atlas, folds, tmp_path):
    """Every file is looked at before the long work."""
    for path in sorted((own_atlas / "train").glob("*.png"))[-4:]:
        cv2.imwrite(str(path), np.zeros((20, 20), np.uint8))
    words = [*train_options(own_atlas, folds, tmp_path, fit="crop"), "--cache", tmp_path / "cache"]
    refuse("train", *words, says="1 image smaller than the crop of 32")
    assert not (tmp_path / "cache").exists()
