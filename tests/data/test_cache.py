"""Packed images: the very pixels of the files, whatever happens to packing, and nothing out of date."""

import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
from conftest import ROOT, refuse, succeed, train_options, write_images
from filelock import FileLock

from utils.data import augment, cache
from utils.data.cache import CODECS, KEPT, MOST_FOLDERS, SPARE, Images, Index, choose_codec, open_images
from utils.data.crops import size_to_load
from utils.data.dataset import Samples
from utils.data.image_files import find_files
from utils.data.images import load_sample, parse_channels
from utils.data.loader import batches, make_loader
from utils.errors import InputError
from utils.opencv import cv2

RGBY = parse_channels("rgby")
IDS = [f"i{n:02}" for n in range(20)]


@pytest.fixture
def files(tmp_path):
    write_images(tmp_path / "images", IDS, size=40)
    return find_files([tmp_path / "images"], IDS, RGBY)


def opened(files, folder, size=32, fit="resize", channels=RGBY, codec=None):
    return open_images(files, channels.names, size, fit, str(folder), codec=codec)[0]


def packed_rows(images):
    return np.flatnonzero(images.table["pack"] >= 0).tolist()


def check_all(images, files, size=32, packed=True, enlarge=True):
    assert not packed or packed_rows(images) == list(range(len(files)))
    for row, paths in enumerate(files):
        expected, got = load_sample(paths, size, enlarge=enlarge), images.read(row)
        assert got.dtype == expected.dtype and got.shape == expected.shape and (got == expected).all()


FORMS = [
    ("resize", "rgby", np.uint8),
    ("crop", "bgry", np.uint8),
    ("resize", "green", np.uint8),
    ("crop", "rgb+y/3", np.uint16),
    ("zoom", "rgby", np.uint8),
]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("fit, channels, dtype", FORMS)
def test_the_pixels_are_those_of_the_files(tmp_path, codec, fit, channels, dtype):
    channels = parse_channels(channels)
    write_images(tmp_path / "a", IDS[:3], size=40, dtype=dtype, ending="tif")
    write_images(tmp_path / "b", IDS[3:6], size=56, seed=1)
    files = find_files([tmp_path / "a", tmp_path / "b"], IDS[:6], channels)
    loaded = size_to_load(32, fit)  # with zoom one folder's images are too large, the other's are not
    for _ in range(2):  # packed now, and found packed
        images = opened(files, tmp_path / "cache", 32, fit, channels, codec)
        check_all(images, files, **loaded)
        check_all(images[2:5], files[2:5], **loaded)
        check_all(pickle.loads(pickle.dumps(images)), files, **loaded)


@pytest.mark.parametrize("fit, normalise", [("resize", "dataset"), ("crop", "image"), ("zoom", "image")])
def test_batches_are_the_same_to_the_bit_with_and_without_cache_and_for_any_workers(files, tmp_path, fit, normalise):
    """Training samples, augmented, shuffled, and validation samples, in order."""

    def epoch(images, workers, train):
        samples = Samples(images, RGBY, 32, fit, normalise, seed=5)
        if train:
            samples.targets, samples.random_crop = np.ones((20, 3), np.uint8), True
            samples.augment = augment.build("chen", RGBY.names)
        loader = make_loader(samples, 6, workers, torch.device("cpu"), shuffle=train)
        loader.order.epoch = 3
        return list(batches(loader))

    packed = [opened(files, tmp_path / codec, 32, fit, codec=codec) for codec in CODECS]
    for train in (True, False):
        plain = epoch(Images(files, **size_to_load(32, fit)), 0, train)
        assert len(plain) == 4
        for images, workers in zip([*packed, *packed], (0, 3, 1, 0), strict=True):
            for batch, again in zip(plain, epoch(images, workers, train), strict=True):
                assert batch.keys() == again.keys() and all(torch.equal(batch[key], again[key]) for key in batch)


def test_only_missing_samples_are_packed(files, tmp_path, capsys):
    opened(files[:5], tmp_path / "cache")
    assert "packing 5 images" in capsys.readouterr().out
    check_all(opened(files[3:], tmp_path / "cache"), files[3:])
    assert "packing 15 images" in capsys.readouterr().out
    check_all(opened(files, tmp_path / "cache"), files)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("keep_times", [False, True])
def test_a_changed_file_is_packed_again(files, tmp_path, keep_times, capsys):
    """Even one of the same size that got its old date back."""
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


def test_outdated_copies_are_replaced_and_do_not_pile_up(files, tmp_path):
    first = opened(files, tmp_path / "cache")
    size, before = first.maps[0].path.stat().st_size, first.read(0).copy()
    write_images(tmp_path / "images", IDS, size=40, seed=9)
    check_all(opened(files, tmp_path / "cache"), files)
    assert first.maps[0].path.stat().st_size == size, "the old pixels are gone"
    assert (first.read(0) == before).all(), "a training that still runs has them"
    with pytest.raises(InputError, match="replaced while it was in use"):
        pickle.loads(pickle.dumps(first))
    for seed in range(12):
        write_images(tmp_path / "images", IDS[:4], size=40, seed=seed)
        images = opened(files, tmp_path / "cache")
    check_all(images, files)
    assert images.maps[0].path.stat().st_size <= 20 * 32 * 32 * 4 / 0.75


def test_another_opencv_may_decode_differently(files, tmp_path, monkeypatch, capsys):
    opened(files, tmp_path / "cache")
    monkeypatch.setattr(cv2, "__version__", "9.9")
    check_all(opened(files, tmp_path / "cache"), files)
    assert capsys.readouterr().out.count("packing 20 images") == 2


def garble(field, value):
    def change(lines):
        record = json.loads(lines[5])
        record[["name", "stamps", "offset", "length", "shape", "kind", "codec", "source"].index(field)] = value
        return [*lines[:5], json.dumps(record).encode() + b"\n", *lines[6:]]

    return change


INDEX_DAMAGE = {
    "line cut": lambda lines: [*lines[:8], lines[8][:-20]],
    "line garbled": lambda lines: [*lines[:8], b'{"not": "a record"}\n', *lines[9:]],
    "header": lambda lines: [b'{"format": 0}\n', *lines[1:]],
    "codec": garble("codec", 7),
    "shape": garble("shape", [32, 32, 3]),
    "offset": garble("offset", 1.5),
    "length": garble("length", -1),
    "source": garble("source", ["a", "b"]),
}


@pytest.mark.parametrize("damage", [*INDEX_DAMAGE, "data cut", "data longer", "index gone", "data gone"])
def test_a_damaged_copy_is_packed_again(files, tmp_path, damage):
    index = opened(files, tmp_path / "cache").maps[0].path.with_suffix(".index")
    data = index.with_suffix(".bin")
    if change := INDEX_DAMAGE.get(damage):
        index.write_bytes(b"".join(change(index.read_bytes().splitlines(keepends=True))))
    elif damage == "data cut":
        os.truncate(data, data.stat().st_size // 2)
    elif damage == "data longer":
        data.write_bytes(data.read_bytes() + b"x" * 5000)
    else:
        (index if damage == "index gone" else data).unlink()
    for _ in range(2):
        check_all(opened(files, tmp_path / "cache"), files)


def test_damaged_compressed_pixels_are_reported(files, tmp_path):
    images = opened(files, tmp_path / "cache", codec="zstd")
    with open(images.maps[0].path, "r+b") as file:
        file.seek(int(images.table[4]["offset"]))
        file.write(b"\0" * 40)
    with pytest.raises(InputError, match="is damaged at i04"):
        images.read(4)


def test_on_a_short_disk_samples_are_compressed_or_not_packed(files, tmp_path, monkeypatch, capsys):
    need = 20 * 32 * 32 * 4
    assert choose_codec(need, 50_000, SPARE + need) == "raw"
    assert choose_codec(need + 1, 50_000, SPARE + need) == "zstd"
    assert choose_codec(10**6, 10**5, SPARE + need) is None
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=SPARE))
    images = opened(files, tmp_path / "cache")
    assert packed_rows(images) == [] and "not packed" in capsys.readouterr().out
    check_all(images, files, packed=False)


@pytest.mark.parametrize("already", [0, 6])
def test_a_full_disk_gets_its_room_back_and_images_are_decoded(files, tmp_path, monkeypatch, capsys, already):
    """Whoever has mapped what was packed before keeps it."""
    other = opened(files[:already], tmp_path / "cache") if already else None
    real, calls = cache._write_all, []

    def full(file, content):
        calls.append(1)
        if len(calls) == 9:
            file.write(bytes(content)[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file, content)

    with monkeypatch.context() as patch:
        patch.setattr(cache, "_write_all", full)
        images = opened(files, tmp_path / "cache")
    assert "the disk is full" in capsys.readouterr().out
    assert packed_rows(images) == [] and not list((tmp_path / "cache").glob("*.bin"))
    check_all(images, files, packed=False)
    if already:
        check_all(other, files[:already])
    check_all(opened(files, tmp_path / "cache"), files)


def test_a_copy_that_cannot_be_written_or_locked_is_no_error(files, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    images = opened(files, tmp_path / "file")
    assert packed_rows(images) == [] and "cannot be written" in capsys.readouterr().out
    check_all(images, files, packed=False)
    opened(files[:12], tmp_path / "cache")
    capsys.readouterr()

    def refuse_lock(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(cache, "FileLock", refuse_lock)
    assert packed_rows(opened(files[:12], tmp_path / "cache")) == list(range(12)) and capsys.readouterr().out == ""
    images = opened(files, tmp_path / "cache")
    assert packed_rows(images) == list(range(12)) and "Read-only file system" in capsys.readouterr().out
    check_all(images, files, packed=False)


def test_missing_files_and_folders_without_a_name_are_refused(files, tmp_path):
    opened(files, tmp_path / "cache")
    files[3][2].unlink()
    files[3][2].symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="cannot be read"):
        opened(files, tmp_path / "cache")
    with pytest.raises(InputError, match="--no-cache"):
        opened(files[:2], "")


SCRIPT = """
import sys
from utils.data import cache
from utils.data.image_files import find_files, scan_folder
from utils.data.images import parse_channels
cache.COMMIT = int(sys.argv[3])
channels = parse_channels("rgby")
files = find_files([sys.argv[1]], sorted(scan_folder(sys.argv[1])), channels)
cache.open_images(files, channels.names, 32, "resize", sys.argv[2])
print("ready", flush=True)
"""


def pack_beside(folder, cache, commit=1):
    command = [sys.executable, "-c", SCRIPT, str(folder), str(cache), str(commit)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def test_killed_at_any_moment_packing_goes_on(tmp_path):
    ids = [f"i{n:03}" for n in range(400)]
    write_images(tmp_path / "images", ids, size=40)
    files = find_files([tmp_path / "images"], ids, RGBY)
    folder, done = tmp_path / "cache", []
    for wait in (0.0, 0.2):
        process = pack_beside(tmp_path / "images", folder)
        while process.poll() is None and "packing" not in (process.stdout.readline() or "packing"):
            pass
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        indexes = list(folder.glob("*.index"))
        done.append(len(indexes[0].read_bytes().splitlines()) - 1 if indexes else 0)
    assert done == sorted(done) and done[-1] > 0
    check_all(opened(files, folder), files)


def test_two_processes_pack_once_and_the_second_reports_that_it_waits(files, tmp_path):
    both = [pack_beside(tmp_path / "images", tmp_path / "cache") for _ in range(2)]
    output = [process.communicate()[0] for process in both]
    assert all(process.returncode == 0 for process in both) and "".join(output).count("packing 20 images") == 1
    check_all(opened(files, tmp_path / "cache"), files)
    with FileLock(next((tmp_path / "cache").glob("*.bin")).with_suffix(".lock")):
        process = pack_beside(tmp_path / "images", tmp_path / "cache")
        assert "waiting for it" in process.stdout.readline() and process.poll() is None
    assert process.communicate()[0] == "ready\n"


def test_pages_that_were_read_are_dropped(tmp_path):
    """Or the whole packed file would in time count as this process's memory."""
    write_images(tmp_path / "images", ["a"], size=16)
    images = opened(find_files([tmp_path / "images"], ["a"], RGBY), tmp_path / "cache", 16)
    calls = []
    images.maps[0].let_go = lambda: calls.append(1)
    for _ in range(2 * KEPT // 1024 + 4):
        images.read(0)
    assert len(calls) == 2


def test_another_plane_of_the_same_file_is_packed_again(tmp_path, capsys):
    """The table has changed, no file has."""
    stack = np.random.default_rng(0).integers(0, 256, (4, 40, 40), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack")
    for pages in ([1, 2, 3, 4], [1, 2, 4, 3], [4, 3, 2, 1]):
        files = [tuple(tmp_path / f"a.tif#page={page}" for page in pages)]
        images = opened(files, tmp_path / "cache", 40)
        assert "packing 1 image " in capsys.readouterr().out
        assert (images.read(0) == np.moveaxis(stack[[page - 1 for page in pages]], 0, -1)).all()
        check_all(opened(files, tmp_path / "cache", 40), files, 40)
        assert "packing" not in capsys.readouterr().out


def test_samples_that_share_a_channel_and_channels_in_other_folders_are_told_apart(tmp_path, capsys):
    write_images(tmp_path / "stain", ["x"], size=40)
    for place in ("a", "b"):
        write_images(tmp_path / place, ["x"], size=40, seed=ord(place))
    files = [
        tuple(tmp_path / place / f"x_{name}.png" for place, name in (("stain", "red"), (one, "green"))) for one in "ab"
    ]
    red_green = parse_channels("rg")
    for _ in range(2):
        check_all(opened(files, tmp_path / "cache", 40, channels=red_green), files, 40)
    assert capsys.readouterr().out.count("packing") == 1
    write_images(tmp_path / "b", ["x"], size=40, seed=5)
    check_all(opened(files, tmp_path / "cache", 40, channels=red_green), files, 40)
    assert "packing" in capsys.readouterr().out


def test_many_folders_share_one_packed_file(tmp_path, capsys):
    for number in range(MOST_FOLDERS + 1):
        write_images(tmp_path / f"plate{number}", ["x"], size=40, seed=number)
    names = [f"x_{name}.png" for name in RGBY.names]
    files = [tuple(tmp_path / f"plate{number}" / name for name in names) for number in range(MOST_FOLDERS + 1)]
    for _ in range(2):
        images = opened(files, tmp_path / "cache", 40)
        check_all(images, files, 40)
        assert len(images.maps) == 1
    assert capsys.readouterr().out.count("packing") == 1


def test_the_index_is_what_the_readme_describes(files, tmp_path):
    index = opened(files, tmp_path / "cache").maps[0].path.with_suffix(".index")
    lines = [json.loads(line) for line in index.read_text().splitlines()]
    assert lines[0] == {"format": 3, "opencv": cv2.__version__, "channels": list(RGBY.names), "size": 32, "bits": 0}
    assert [line[0] for line in lines[1:]] == [[path.name for path in paths] for paths in files]
    assert Index(index.with_suffix(""), RGBY.names, 32).end == index.with_suffix(".bin").stat().st_size


def test_a_training_packs_and_the_next_fold_and_prediction_find_it(atlas, folds, tmp_path):
    packed = ["--cache", tmp_path / "cache"]
    assert "packing 48 images" in succeed("train", *train_options(atlas, folds, tmp_path), *packed).out
    assert "packing" not in succeed("train", *train_options(atlas, folds, tmp_path, fold=1), *packed).out
    predict = ["predict", tmp_path / "mini", "--images", atlas / "test", "--workers", 0, *packed]
    assert "packing 16 images" in succeed(*predict, "-o", tmp_path / "a.csv").out
    assert "packing" not in succeed(*predict, "-o", tmp_path / "b.csv").out
    assert "packing" not in succeed(*predict, "-o", tmp_path / "c.csv", "--no-cache").out
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes() == (tmp_path / "c.csv").read_bytes()
    plain = train_options(atlas, folds, tmp_path, "plain")
    assert "packing" not in succeed("train", *plain, "--no-cache").out
    assert "trained already" in succeed("train", *plain, *packed).out, "how images are read is not the result"
    weights = [torch.load(tmp_path / name / "fold0/last.pt", weights_only=True)["model"] for name in ("mini", "plain")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_nothing_is_packed_if_an_image_is_too_small(own_atlas, folds, tmp_path):
    """Every file is checked before the long work."""
    for path in sorted((own_atlas / "train").glob("*.png"))[-4:]:
        cv2.imwrite(str(path), np.zeros((20, 20), np.uint8))
    words = [*train_options(own_atlas, folds, tmp_path, fit="crop"), "--cache", tmp_path / "cache"]
    refuse("train", *words, says="1 image smaller than the crop of 32")
    assert not (tmp_path / "cache").exists()
