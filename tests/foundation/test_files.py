"""A full disk: what was there stays, nothing half-written is left, and one sentence says how much room is wanting."""

import json
import os
import resource
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import kit, refuse, stop_in_epoch, submission_of, succeed, train_options
from hypothesis import example, given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from utils import files
from utils.engine import checkpoint
from utils.engine.run_log import RunLog
from utils.engine.tensorboard_log import TensorBoardLog
from utils.errors import InputError, data_size
from utils.files import whole_file, write_csv, write_json
from utils.opencv import cv2
from utils.partial_file import Part
from utils.plots.style import save

OLD = b"what was there before"


@contextmanager
def at_most(size):
    """No file of this process may become larger than `size` bytes: the system refuses the rest with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def cramp(monkeypatch, name, size):
    """`at_most`, but only for the file of that name."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Cramped(Part):
        def create(self):
            if self.path.name == f".{name}.part":
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
            super().create()

        def remove(self):
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            super().remove()

    monkeypatch.setattr(files, "Part", Cramped)


@pytest.fixture
def small_disk(tmp_path):
    """Makes a disk of some bytes and fills all of it but some others."""
    place = tmp_path / "disk"

    def make(size, free=None):
        place.mkdir()
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True
        ).returncode:
            pytest.skip("no right to mount")
        if free is not None:
            (place / "filler").write_bytes(bytes(shutil.disk_usage(place).free - free))
        return place

    yield make
    subprocess.run(["umount", place], capture_output=True)


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def parts_in(folder):
    return list(folder.rglob("*.part"))


@given(
    st.lists(st.one_of(st.binary(max_size=60), st.integers(1, 30_000).map(bytes), st.none()), max_size=12),
    st.integers(0, 40_000),
    st.booleans(),
)
@example([b"x" * 999], 998, True)
@example([b"x" * 10, None, b"y" * 10], 15, False)
@example([], 0, True)
def test_a_file_is_whole_or_the_error_tells_its_whole_size(tmp_path_factory, chunks, limit, there):
    """Whatever the pieces (None: a flush between them) and wherever the room ends."""
    folder = tmp_path_factory.mktemp("whole")
    path, expected = folder / "file", b"".join(chunk for chunk in chunks if chunk)
    if there:
        path.write_bytes(OLD)
    told = None
    try:
        with at_most(limit), whole_file(path, "wb") as file:
            for chunk in chunks:
                file.flush() if chunk is None else file.write(chunk)
    except InputError as error:
        told = str(error)
    if len(expected) <= limit:
        assert told is None and content(folder) == {path.relative_to(folder): expected}
    else:
        assert f"cannot write {path}: it needs {data_size(len(expected))}, " in told
        assert content(folder) == ({path.relative_to(folder): OLD} if there else {})


@pytest.mark.parametrize("count, said", [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (4096, "4.1 KB"),
                                         (33e6, "33 MB"), (1.054e9, "1.05 GB")])  # fmt: skip
def test_sizes_are_written_for_readers(count, said):
    assert data_size(count) == said


def drawing(path):
    figure = Figure()
    figure.subplots().plot(range(50))
    save(figure, path)


WRITERS = {
    "torch.pt": lambda path: checkpoint.save(path, {"model": [torch.arange(20_000), {"a": 1.5}]}),
    "pandas.csv": lambda path: write_csv(path, pd.DataFrame({"Id": ["ä", "b"] * 4000, "x": np.linspace(0, 1, 8000)})),
    "json.json": lambda path: write_json(path, {"names": ["é" * 50] * 500}),
    "figure.png": drawing,
    "figure.jpg": drawing,
    "numpy.npy": lambda path: _write(path, lambda file: np.save(file, np.arange(9000.0).reshape(90, 100))),
    "fortran.npy": lambda path: _write(path, lambda file: np.save(file, np.arange(9000.0).reshape(90, 100).T)),
    "cv2.png": lambda path: _write(path, lambda file: file.write(cv2.imencode(".png", np.eye(200, dtype=np.uint8))[1])),
}


def _write(path, function):
    with whole_file(path, "wb") as file:
        function(file)


@pytest.mark.parametrize("name", WRITERS)
def test_every_library_that_writes_can_be_counted(tmp_path, name):
    """None goes past the file object, by its descriptor say, or stops at the first byte that has no room."""
    path = tmp_path / name
    WRITERS[name](path)
    size = path.stat().st_size
    for limit in (0, size // 2, size - 1):
        path.write_bytes(OLD)
        with pytest.raises(InputError, match=f"needs {data_size(size)}, "), at_most(limit):
            WRITERS[name](path)
        assert content(tmp_path) == {path.relative_to(tmp_path): OLD}
    with at_most(size):
        WRITERS[name](path)
    assert path.stat().st_size == size


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_room_that_is_wanting_only_in_the_end(tmp_path, monkeypatch, call):
    """Some file systems allot it no sooner."""
    path = tmp_path / "file"
    path.write_bytes(OLD)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(InputError, match="needs 700 bytes, .* free on the disk"), whole_file(path, "wb") as file:
        file.write(bytes(700))
    assert content(tmp_path) == {path.relative_to(tmp_path): OLD}


def test_an_error_of_the_writer_is_its_own(tmp_path):
    with pytest.raises(ZeroDivisionError), at_most(10), whole_file(tmp_path / "file") as file:
        file.write("x" * 20_000)
        raise ZeroDivisionError
    assert not content(tmp_path)


@pytest.fixture(scope="module")
def stopped(atlas, folds, tmp_path_factory):
    """The runs' folder of a training that was stopped in its second epoch."""
    runs = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        stop_in_epoch(patch, 2, train_options(atlas, folds, runs))
    return runs


@pytest.mark.parametrize("name", ["best.safetensors", "oof.csv", "steps.csv", "log.csv", "last.pt"])
def test_a_training_keeps_what_it_has_and_goes_on_when_there_is_room(
    atlas, folds, stopped, tmp_path, monkeypatch, name
):
    runs = shutil.copytree(stopped, tmp_path / "runs")
    fold, command = runs / "mini/fold0", train_options(atlas, folds, runs)
    real, before = RunLog.epoch, (fold / name).read_bytes()
    monkeypatch.setattr(RunLog, "epoch", lambda self, found, best, *more: real(self, found, True, *more))
    for limit in (0, len(before) // 2, len(before) - 1):
        with monkeypatch.context() as patch:
            cramp(patch, name, limit)
            refuse("train", *command, says=[f"cannot write {fold / name}: it needs ", "free the place"])
        assert (fold / name).read_bytes() == before and not parts_in(runs)
    succeed("train", *command)
    assert (fold / name).read_bytes() != before


@pytest.mark.parametrize("name", ["rows.csv", "epoch001.npy", "best.safetensors", "last.pt"])
def test_a_training_without_room_for_its_first_epoch_leaves_its_weights_or_nothing(
    atlas, folds, tmp_path, monkeypatch, name
):
    with monkeypatch.context() as patch:
        cramp(patch, name, 50)
        refuse("train", *train_options(atlas, folds, tmp_path), says=[name, "it needs"])
    if name == "last.pt":
        assert {"best.safetensors", "oof.csv"} <= {path.name for path in content(tmp_path)}
        succeed("train", *train_options(atlas, folds, tmp_path))
    else:
        assert not content(tmp_path)


@pytest.mark.parametrize("script", ["predict", "threshold", "ensemble", "make_folds"])
def test_a_result_without_room_leaves_the_old_one(atlas, run, predictions, thresholds, tmp_path, script):
    out = tmp_path / "out"
    words = {
        "predict": [run, "--images", atlas / "test", "--workers", 0, "-o", out],
        "threshold": [run, "-o", out],
        "ensemble": submission_of(predictions, thresholds, atlas, out),
        "make_folds": ["--labels", atlas / "train.csv", "--folds", 3, "-o", out],
    }[script]
    succeed(script, *words)
    size = out.stat().st_size
    for limit in (0, size // 3, size - 1):
        out.write_bytes(OLD)
        with at_most(limit):
            refuse(script, *words, says=f"cannot write {out}: it needs {data_size(size)}, ")
        assert content(tmp_path) == {out.relative_to(tmp_path): OLD}


@pytest.mark.parametrize("limit", [0, 500, 3000])
def test_an_atlas_without_room_can_be_drawn_on(tmp_path, limit):
    words = ["--out", tmp_path / "a", "--train", 3, "--test", 2, "--size", 64, "--workers", 1]
    with at_most(limit):
        refuse("utils.simulator.__main__", *words, says=["cannot write", "it needs"])
    assert not parts_in(tmp_path)
    succeed("utils.simulator.__main__", *words)
    succeed("utils.simulator.__main__", "--out", tmp_path / "b", *words[2:])
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_a_full_disk_says_what_is_free_and_is_given_its_room_back(atlas, run, folds, small_disk):
    disk = small_disk(2**21, free=40_000)
    out = disk / "out.csv"
    out.write_bytes(OLD)
    free = shutil.disk_usage(disk).free
    with pytest.raises(InputError, match=f"needs 100 KB, {data_size(free)} are free on the disk; free the place"):
        _write(out, lambda file: file.write(bytes(100_000)))
    assert content(disk)[out.relative_to(disk)] == OLD and shutil.disk_usage(disk).free == free
    (disk / "filler2").write_bytes(bytes(free))
    words = [run, "--images", atlas / "test", "--workers", 0, "-o", out]
    refuse("predict", *words, says=[f"cannot write {out}: it needs ", ", 0 bytes are free on the disk"])
    assert out.read_bytes() == OLD and not parts_in(disk)
    refuse("train", *train_options(atlas, folds, disk), says=["it needs", "0 bytes are free"])
    assert not parts_in(disk) and not (disk / "mini").exists()


def test_a_disk_that_takes_no_more_files_says_so(small_disk):
    disk = small_disk("1m,nr_inodes=2")
    (disk / "only").write_bytes(b"")
    with pytest.raises(InputError, match=r"needs 9 bytes, 1.05 MB are free on the disk, but not for one more file"):
        _write(disk / "new" / "file", lambda file: file.write(b"nine byte"))


def test_a_training_goes_on_without_tensorboard(atlas, folds, tmp_path, small_disk):
    disk = small_disk(2**20, free=0)
    fold = tmp_path / "mini/fold0"
    fold.mkdir(parents=True)
    (fold / "tensorboard").symlink_to(disk)
    result = kit("train", *train_options(atlas, folds, tmp_path))
    assert result.code == 0 and result.out.count("TensorBoard's events are no longer written") == 1
    assert result.err == "" and "No space left on device" in result.out


def test_events_end_where_the_room_does(tmp_path, capsys):
    with at_most(2000):
        board = TensorBoardLog(tmp_path / "events", 1)
        for step in range(300):
            board.add_scalars([("a", step / 2, step)])
        board.add_scalars([("a", 1, 301)])
        board.close()
    said = capsys.readouterr()
    assert said.out.count("\n") == 1 and "File too large" in said.out and said.err == ""
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    kept = [(point.step, point.value) for point in events.Scalars("a")]
    assert 10 < len(kept) < 300 and kept == [(step, step / 2) for step in range(len(kept))]


def test_a_board_that_cannot_be_opened_is_told_once(tmp_path, capsys):
    (tmp_path / "events").write_text(json.dumps("a file"))
    board = TensorBoardLog(tmp_path / "events", 1)
    board.add_scalars([("a", 1.0, 1)])
    board.close()
    assert capsys.readouterr().out.count("no longer written") == 1


def test_two_processes_do_not_write_one_file_at_once(tmp_path):
    path = tmp_path / "x.csv"
    with whole_file(path) as file:
        file.write("first\n")
        with pytest.raises(InputError, match="x.csv .another process is writing it."), whole_file(path) as other:
            other.write("second\n")
        file.write("first again\n")
    assert path.read_text() == "first\nfirst again\n" and content(tmp_path).keys() == {Path("x.csv")}
    (tmp_path / ".x.csv.part").write_text("what a killed process left")
    with whole_file(path) as file:
        file.write("third\n")
    assert path.read_text() == "third\n" and content(tmp_path).keys() == {Path("x.csv")}


@pytest.mark.parametrize("fails", ["the body", "the last step"])
def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(tmp_path, monkeypatch, fails):
    place = tmp_path / "run"
    place.mkdir()
    (place / "old").write_text("old")
    real = Path.rename
    with monkeypatch.context() as patch, pytest.raises(OSError, match="no room"), files.whole_folder(place) as part:
        (part / "new").write_text("new")
        if fails == "the body":
            raise OSError("no room")

        def rename(path, target):
            if path == part:
                raise OSError("no room")
            return real(path, target)

        patch.setattr(Path, "rename", rename)
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "old"]
    with files.whole_folder(place) as part:
        (part / "new").write_text("new")
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "new"]
