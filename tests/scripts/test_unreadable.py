"""Images that cannot be read: all are reported before the first epoch, or left out with --skip-bad."""

import json
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, kit, refuse, stop_in_epoch, succeed, succeed_together, train_options, write_images

from utils.data.cache import open_and_check
from utils.data.dataset import Samples
from utils.data.image_files import find_files
from utils.data.images import parse_channels
from utils.data.loader import batches, make_loader
from utils.data.readable import find_undecodable
from utils.device import prefetch_to_device
from utils.opencv import cv2
from utils.parallel import closing

RGBY = parse_channels("rgby")


def flip(path):
    """Damage inside a PNG: its head and end are whole, only decoding fails."""
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 20] = bytes(255 - byte for byte in data[middle : middle + 20])
    path.write_bytes(data)
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) is None


def write(content):
    return lambda path: path.write_bytes(content)


DAMAGE = {
    "inside": flip,
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "no image": write(b"<html>404 Not Found</html>"),
    "empty": write(b""),
    "32 bits": lambda path: path.write_bytes(cv2.imencode(".tif", np.zeros((64, 64), np.float32))[1].tobytes()),
    "unequal": lambda path: cv2.imwrite(str(path), np.zeros((20, 30), np.uint8)),
}


@pytest.fixture
def damaged(own_atlas, folds):
    """An atlas whose training part has one sample of each damage, two of them among those fold 0 validates on: -> folder,
    {Id: what is wrong}, {damaged file: its former content}."""
    table = pd.read_csv(folds, dtype=str)
    ids = [*table["Id"][table["fold"] == "1"][:4], *table["Id"][table["fold"] == "0"][:2]]
    former = {}
    for id_, harm in zip(ids, DAMAGE.values(), strict=True):
        path = own_atlas / "train" / f"{id_}_green.png"
        former[path] = path.read_bytes()
        harm(path)
    return own_atlas, dict(zip(ids, DAMAGE, strict=True)), former


@pytest.fixture(params=["packed", "decoded", "no room to pack"])
def options(request, tmp_path, monkeypatch):
    """How the images are read."""
    if request.param == "no room to pack":
        monkeypatch.setattr("utils.data.cache.choose_codec", lambda *_: None)
    return ["--no-cache"] if request.param == "decoded" else ["--cache", tmp_path / "cache"]


def rows_of(run):
    return pd.read_csv(run / "rows.csv", dtype=str, keep_default_na=False)


def last_of(run):
    return torch.load(run / "last.pt", weights_only=True)


def same_weights(one, other):
    one, other = (torch.load(run / "last.pt", weights_only=True)["model"] for run in (one, other))
    return all(torch.equal(one[key], other[key]) for key in one)


def test_all_are_reported_before_the_first_epoch_or_left_out_and_listed(damaged, folds, tmp_path, options):
    atlas, bad, former = damaged
    words = [*train_options(atlas, folds, tmp_path), *options]
    message = refuse("train", *words, says=["6 unusable image files", "and 3 more", "--skip-bad"])
    assert sum(str(path) in message or path.name in message for path in former) == 3
    assert not (tmp_path / "mini").exists()
    out = succeed("train", *words, "--skip-bad").out
    run = tmp_path / "mini/fold0"
    assert "6 images left out: 6 unusable image files" in out
    skipped = pd.read_csv(run / "skipped.csv", dtype=str)
    assert list(skipped.columns) == ["Id", "part", "reason"] and set(skipped["Id"]) == set(bad)
    assert dict(zip(skipped["Id"], skipped["part"])) == dict(zip(bad, ["train"] * 4 + ["valid"] * 2))
    reasons = skipped.set_index("Id")["reason"]
    for id_, harm in bad.items():
        word = {"inside": "decoded", "no image": "readable", "empty": "readable"}.get(harm, harm)
        assert id_ in reasons[id_] and word.split()[0] in reasons[id_]
    table, rows = pd.read_csv(folds, dtype=str, keep_default_na=False).set_index("Id"), rows_of(run)
    assert rows.set_index("Id")["Target"].to_dict() == table["Target"].drop(list(bad)).to_dict()
    valid = rows["Id"][rows["part"] == "valid"].tolist()
    assert pd.read_csv(run / "oof.csv", dtype=str)["Id"].tolist() == valid
    config = json.loads((run / "config.json").read_text())
    assert set(config["skipped"]) == set(bad) and config["skip_bad"] is True
    succeed("threshold", run, "--repeats", 1, "-o", tmp_path / "t.json")
    for path in list(former)[1:]:
        path.write_bytes(former[path])
    only = refuse("train", *words, "--name", "other", says=["damaged and cannot be decoded", next(iter(bad))])
    assert "unusable" not in only


def test_the_training_is_that_of_the_rows_that_are_left(damaged, folds, tmp_path):
    """Pixels and labels stay together: a table without the bad rows gives the same weights."""
    atlas, bad, _ = damaged
    succeed("train", *train_options(atlas, folds, tmp_path), "--skip-bad")
    table = pd.read_csv(folds, dtype=str, keep_default_na=False)
    table[~table["Id"].isin(bad)].to_csv(tmp_path / "left.csv", index=False)
    succeed("train", *train_options(atlas, tmp_path / "left.csv", tmp_path, "left"))
    one, other = tmp_path / "mini/fold0", tmp_path / "left/fold0"
    assert same_weights(one, other)
    assert last_of(one)["config"]["rows_sha256"] != last_of(other)["config"]["rows_sha256"], (
        "it is that of the rows asked for"
    )


def test_without_bad_images_the_option_changes_nothing(atlas, folds, run, tmp_path):
    """Nor does it keep a run from going on."""
    words = train_options(atlas, folds, tmp_path)
    succeed("train", *words, "--skip-bad")
    assert not (tmp_path / "mini/fold0/skipped.csv").exists()
    assert same_weights(tmp_path / "mini/fold0", run / "fold0")
    assert (
        last_of(tmp_path / "mini/fold0")["config"]["skipped"] == []
        and "trained already" in succeed("train", *words).out
    )


def test_a_resumed_run_leaves_out_the_same_even_if_files_were_repaired(damaged, folds, tmp_path, monkeypatch, options):
    atlas, bad, former = damaged
    how = ["--skip-bad"] * ("--no-cache" in options)  # may be left out
    words = [*train_options(atlas, folds, tmp_path), *options]
    succeed("train", *train_options(atlas, folds, tmp_path, "whole"), "--skip-bad", *options)
    stop_in_epoch(monkeypatch, 2, [*words, "--skip-bad"])
    run = tmp_path / "mini/fold0"
    listed = (run / "skipped.csv").read_bytes()
    for path in list(former)[:4]:
        path.write_bytes(former[path])
    list(former)[5].unlink()
    victim = atlas / "train" / f"{rows_of(run)['Id'].iloc[0]}_red.png"
    content = victim.read_bytes()
    flip(victim)
    refuse("train", *words, *how, says=[victim.name, "the run began with it"])
    victim.write_bytes(content)
    assert "6 images left out, as at the start of the run" in succeed("train", *words, *how).out
    assert (run / "skipped.csv").read_bytes() == listed and set(last_of(run)["config"]["skipped"]) == set(bad)
    assert same_weights(run, tmp_path / "whole/fold0")


def test_a_run_that_starts_anew_looks_anew(damaged, folds, tmp_path):
    atlas, _, former = damaged
    words = train_options(atlas, folds, tmp_path, epochs=1)
    succeed("train", *words, "--skip-bad")
    for path, content in former.items():
        path.write_bytes(content)
    assert "left out" not in succeed("train", *words, "--skip-bad", "--overwrite").out
    assert not (tmp_path / "mini/fold0/skipped.csv").exists() and len(rows_of(tmp_path / "mini/fold0")) == 48


def test_a_first_epoch_that_fails_leaves_no_list(damaged, folds, tmp_path, monkeypatch):
    import train

    def fails(*_):
        raise train.InputError("for the test")

    monkeypatch.setattr(train, "train_epoch", fails)
    refuse("train", *train_options(damaged[0], folds, tmp_path), "--skip-bad", says="for the test")
    assert not (tmp_path / "mini").exists()


@pytest.mark.parametrize("fold, purpose", [("0", "validate"), ("12", "train")])
def test_a_part_without_usable_images_is_refused(own_atlas, folds, tmp_path, fold, purpose):
    table = pd.read_csv(folds, dtype=str)
    for id_ in table["Id"][table["fold"].isin(list(fold))]:
        flip(own_atlas / "train" / f"{id_}_red.png")
    words = [*train_options(own_atlas, folds, tmp_path), "--skip-bad", "--no-cache"]
    refuse("train", *words, says=[f"no image is left to {purpose} on", "unusable"])
    assert not (tmp_path / "mini").exists()


def test_missing_and_small_files_are_not_left_out(damaged, folds, tmp_path):
    """The folder may be the wrong one. 43: one damaged file is whole except for its pixels."""
    atlas = damaged[0]
    words = [*train_options(atlas, folds, tmp_path), "--skip-bad", "--no-cache"]
    refuse("train", *words, "--fit", "crop", "--size", 80, says=["43 images smaller than the crop of 80", "64x64"])
    path = next((atlas / "train").glob("*_blue.png"))
    path.unlink()
    refuse("train", *words, says=path.stem)
    path.symlink_to(tmp_path / "nowhere")
    refuse("train", *words, says=[path.name, "cannot be read (No such file or directory)"])


def test_what_was_packed_beside_bad_images_stays(damaged, folds, tmp_path):
    atlas, bad, former = damaged
    words = [*train_options(atlas, folds, tmp_path), "--cache", tmp_path / "cache"]
    refuse("train", *words, says="6 unusable")
    index = next((tmp_path / "cache").glob("*.index"))
    assert len(index.read_bytes().splitlines()) == 1 + 48 - 6
    for path, content in former.items():
        path.write_bytes(content)
    assert "packing 6 images" in succeed("train", *words).out


def test_a_prediction_reports_all_when_it_packs(own_atlas, run, tmp_path):
    paths = sorted((own_atlas / "test").glob("*_green.png"))[:5]
    for path in paths:
        flip(path)
    words = [run, "--images", own_atlas / "test", "--workers", 0, "-o", tmp_path / "p.csv", "--cache", tmp_path / "c"]
    refuse("predict", *words, says=["5 unusable image files", paths[0].name, "and 2 more"])
    assert not (tmp_path / "p.csv").exists()
    assert kit("predict", *words, "--no-cache").code == 2


COLLECTING = """
import gc, sys, threading, time
import predict
from utils.cli import run_script
from utils.data.cache import Images

real, lock = Images.read, threading.Lock()

def read(self, row):
    try:
        return real(self, row)
    finally:
        if not lock.acquire(blocking=False):  # except the first, whose sentence ends the script meanwhile
            time.sleep(1)
            gc.collect()

Images.read = read
run_script(predict.main)
"""


@pytest.mark.parametrize("workers, collecting", [(1, False), (4, True)])
def test_a_prediction_from_damaged_files_ends(own_atlas, run, tmp_path, workers, collecting):
    """Also where garbage is collected in one of the threads that read, while the script ends."""
    for path in (own_atlas / "test").glob("*.png"):
        flip(path)
    words = [run, "--images", own_atlas / "test", "--no-cache", "--batch-size", 1, "--workers", workers]
    words += ["-o", tmp_path / "p.csv"]
    start = ["-c", COLLECTING] if collecting else ["predict.py"]
    command = [sys.executable, *start, *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    said = [line for line in done.stderr.splitlines() if not line.startswith("libpng")]
    assert done.returncode == 2 and len(said) == 1 and said[0].startswith("error: "), done.stderr
    assert "is damaged and cannot be decoded" in said[0] and not (tmp_path / "p.csv").exists()


@pytest.mark.parametrize("victims", [range(0, 12, 3), range(12)])
def test_packing_goes_on_past_the_samples_that_estimate_its_size(tmp_path, victims):
    ids = [f"i{number:02}" for number in range(12)]
    write_images(tmp_path / "images", ids, size=40)
    files = find_files([tmp_path / "images"], ids, RGBY)
    for row in victims:
        flip(files[row][1])
    images, _, bad = open_and_check(files, RGBY.names, 32, "resize", str(tmp_path / "cache"))
    assert sorted(bad) == list(victims) == images.decoded().tolist()
    assert find_undecodable(files, list(range(12))).keys() == set(victims)


@pytest.mark.parametrize("cache", ["--no-cache", None])
def test_two_processes_leave_out_the_same(damaged, folds, tmp_path, cache):
    """Whether the first packs for both, or each decodes its shard."""
    atlas, bad, _ = damaged
    how = [cache] if cache else ["--cache", tmp_path / "cache"]
    words = [*train_options(atlas, folds, tmp_path, epochs=1), "--skip-bad", *how, "--device", "cpu"]
    out = succeed_together("train", *words)
    run = tmp_path / "mini/fold0"
    assert set(pd.read_csv(run / "skipped.csv", dtype=str)["Id"]) == set(bad) and len(rows_of(run)) == 42
    assert (rows_of(run)["part"] == "valid").sum() == len(pd.read_csv(run / "oof.csv"))
    assert out.count("left out") == 1


@pytest.mark.parametrize("workers", [0, 3])
def test_an_iterator_that_is_closed_early_leaves_no_thread(atlas, workers):
    files = find_files([atlas / "test"], sorted(path.name[:-8] for path in (atlas / "test").glob("*_red.png")), RGBY)
    samples, cpu, before = Samples(files, RGBY, 32, "resize", "none"), torch.device("cpu"), set(threading.enumerate())
    with closing(prefetch_to_device(batches(make_loader(samples, 2, workers, cpu)), cpu)) as source:
        assert len(next(source)["rows"]) == 2
    assert set(threading.enumerate()) == before
