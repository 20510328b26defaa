"""The competition's files are checked, fetched and unpacked."""

import os
import shutil
import stat
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import refuse, succeed

from utils.kaggle import COMPETITION, TABLES, fetch
from utils.opencv import cv2

CLIENT = f"""#!{sys.executable}
import pathlib, shutil, sys
assert sys.argv[1:5] == ["competitions", "download", "-c", "{COMPETITION}"], sys.argv
name, folder = sys.argv[sys.argv.index("-f") + 1], sys.argv[sys.argv.index("-p") + 1]
server = pathlib.Path(__file__).parent
for made in (name, name + ".zip"):
    if (server / made).exists():
        shutil.copy(server / made, folder)
        if (server / "cut").exists():
            pathlib.Path(folder, made).write_bytes((server / made).read_bytes()[:50])
            sys.exit("IncompleteRead(50 bytes read)")
"""


def pack(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, Path(content).read_bytes() if isinstance(content, Path) else content)


@pytest.fixture
def server(tmp_path, atlas, monkeypatch):
    """Kaggle's files as they are published, and a client that fetches them."""
    server = tmp_path / "server"
    server.mkdir()
    for name in ("train", "test"):
        shutil.make_archive(server / name, "zip", atlas / name)
    shutil.copy(atlas / "sample_submission.csv", server)
    pack(server / "train.csv.zip", {"train.csv": atlas / "train.csv"})  # the client packs some tables
    client = server / "kaggle"
    client.write_text(CLIENT)
    client.chmod(client.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{server}:{os.environ['PATH']}")
    monkeypatch.setattr(fetch, "ARCHIVES", dict.fromkeys(fetch.ARCHIVES, 1))
    return server


def everything(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def whole_competition(atlas):
    images = {f"{part}/{path.name}": path for part in ("train", "test") for path in (atlas / part).iterdir()}
    return {name: atlas / name for name in TABLES} | images


def test_missing_files_are_fetched_and_unpacked(server, atlas, tmp_path):
    folder = tmp_path / "input"
    result = succeed("utils.kaggle.fetch", "--to", folder)
    train, test = len(pd.read_csv(atlas / "train.csv")), len(pd.read_csv(atlas / "sample_submission.csv"))
    assert f"{train} labelled samples in train, {test} in test" in result.out
    for name in ("train", "test"):
        assert everything(folder / name) == everything(atlas / name)
    assert (folder / "train.csv").read_bytes() == (atlas / "train.csv").read_bytes()
    assert not list(folder.rglob(".*"))
    (server / "kaggle").unlink()  # nothing is missing: no client is needed
    assert "unpacked" not in succeed("utils.kaggle.fetch", "--to", folder).out


@pytest.mark.parametrize("nested", [True, False])
def test_the_whole_competition_in_one_archive_is_unpacked(server, atlas, tmp_path, nested):
    folder = tmp_path / "input"
    folder.mkdir()
    archives = {name: server / name for name in ("train.zip", "test.zip")}
    members = whole_competition(atlas)
    pack(folder / f"{COMPETITION}.zip", {name: members[name] for name in TABLES} | archives if nested else members)
    (server / "kaggle").unlink()
    succeed("utils.kaggle.fetch", "--to", folder)
    assert everything(folder / "test") == everything(atlas / "test")


def test_what_exists_is_not_replaced(server, atlas, tmp_path):
    folder = tmp_path / "input"
    shutil.copytree(atlas / "train", folder / "train")
    own = [folder / "train.csv", next((folder / "train").iterdir())]
    table = (atlas / "train.csv").read_text().replace(",0\n", ",0 1\n")
    own[0].write_text(table)
    own[1].write_bytes(b"an image of one's own")
    (folder / ".train.unpacking").mkdir()  # of an unpacking that was stopped
    pack(folder / f"{COMPETITION}.zip", whole_competition(atlas))
    succeed("utils.kaggle.fetch", "--to", folder)
    assert own[0].read_text() == table and own[1].read_bytes() == b"an image of one's own"
    assert everything(folder / "test") == everything(atlas / "test")


def test_unpacking_goes_on_where_it_was_stopped(server, atlas, tmp_path, monkeypatch):
    folder = tmp_path / "input"
    extract, calls = fetch._extract, []

    def stop_after_five(packed, member, target):
        if len(calls) == 5:
            raise KeyboardInterrupt
        calls.append(target)
        extract(packed, member, target)

    folder.mkdir()
    shutil.copy(server / "train.zip", folder)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fetch, "_extract", stop_after_five)
        fetch.unpack(folder / "train.zip", folder)
    assert not (folder / "train").exists()  # half a folder would be taken for a whole one
    shutil.copy(server / "test.zip", folder)
    fetch.unpack(folder / "test.zip", folder)
    assert not (folder / "train").exists() and (folder / "test").exists()
    times = {path: path.stat().st_mtime_ns for path in calls}
    fetch.unpack(folder / "train.zip", folder)
    assert everything(folder / "train") == everything(atlas / "train")
    assert all((folder / "train" / path.name).stat().st_mtime_ns == time for path, time in times.items())


def test_names_in_an_archive_lead_nowhere_else(tmp_path):
    folder = tmp_path / "input"
    folder.mkdir()
    names = ["../../a_red.png", "/etc/b_green.tiff", "..\\c_blue.jpeg", "x/../d_yellow.tif", "../train.csv"]
    pack(folder / "train.zip", dict.fromkeys([*names, "run.sh", ".e_red.png"], b"x"))
    fetch.unpack(folder / "train.zip", folder)
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    images = [f"input/train/{name}" for name in ("a_red.png", "b_green.tiff", "c_blue.jpeg", "d_yellow.tif")]
    assert found == sorted(["input/train.csv", "input/train.zip", *images])


def test_what_is_wrong_is_reported_with_its_fix(server, atlas, tmp_path, monkeypatch):
    folder = tmp_path / "input"
    call = ["utils.kaggle.fetch", "--to", folder]
    refuse(*call, "--check", says=["lacks train.csv", "train/", "utils.kaggle.fetch"])
    (server / "cut").touch()  # a download that breaks off: the next one goes on with it
    refuse(*call, says=["did not fetch train.csv", "accept", "/rules", "try again", "input/README.md"])
    assert not (folder / "train.csv.zip").exists() and list((folder / fetch.FETCHING).iterdir())
    (server / "cut").unlink()
    (server / "kaggle").rename(server / "other")
    refuse(*call, says=["lacks train.csv", "no kaggle client", "pip install kaggle"])
    (server / "other").rename(server / "kaggle")
    with monkeypatch.context() as patch:
        patch.setitem(fetch.ARCHIVES, "train.zip", 10**18)
        refuse(*call, says=["train.zip", "free", "make room"])
    whole = (server / "train.zip").read_bytes()
    broken = bytearray(whole)
    broken[len(whole) // 2] ^= 255  # one byte of an image: the checksum in the archive differs
    for damaged in (broken, whole[: len(whole) // 2]):
        (folder / "train.zip").write_bytes(damaged)
        refuse(*call, says=["train.zip is damaged", "fetch it again"])
        assert not (folder / "train").exists()
        (folder / "train.zip").unlink()
    succeed(*call)
    one = next((folder / "test").iterdir())
    one.unlink()
    refuse(*call, says=["1 channel file missing", one.stem, "test.zip"])


def test_crops_larger_than_the_images_are_refused_before_anything_is_fetched(tmp_path):
    folder = tmp_path / "input"
    call = ["utils.kaggle.fetch", "--to", folder, "--check", "--crop"]
    fixes = ["--size 512", "--fit resize", "train_full_size.7z", f"{folder}/train"]
    refuse(*call, 1024, says=["crops of 1024", "images of 512 in train", *fixes])
    refuse(*call, 512, says="lacks train.csv")
    for name, side in (("train", 1024), ("test", 512)):
        (folder / name).mkdir(parents=True)
        cv2.imwrite(str(folder / name / "a_red.png"), np.zeros((side + 1, side), np.uint8))
        refuse(*call, 1024, says="images of 512 in test")  # which are not there, and then of Kaggle's usual size
    cv2.imwrite(str(folder / "test/a_red.png"), np.zeros((1024, 1100), np.uint8))
    refuse(*call, 1024, says="lacks train.csv")
