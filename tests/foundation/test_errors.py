"""What the system does not allow is one sentence: folders of others, too many open files, no shared memory."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
import warnings

import pytest
from conftest import ROOT, Result, call_forked, kit, refuse, submission_of, train_options

from utils.data import images
from utils.engine.trainer import Trainer
from utils.errors import data_size, explain_system_error

CALLING = """
import json, sys
sys.path.insert(0, "tests")
from conftest import kit
print(json.dumps([kit(*words) for words in json.loads(sys.argv[-1])]))
"""
FULL_SHM = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"none", b"/dev/shm", b"tmpfs", 0, b"size=4k"):
    raise SystemExit(77)
with open("/dev/shm/filler", "wb", buffering=0) as file:
    file.write(bytes(4096))
"""


def call(commands, before=(), program=CALLING):
    """Scripts called in a process of its own, which begins with the words `before`: -> a Result of each."""
    words = [*before, sys.executable, "-c", program, json.dumps([list(map(str, words)) for words in commands])]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip("no namespaces here")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, done.stderr
    return [Result(*found) for found in json.loads(done.stdout.splitlines()[-1])]


def check_refused(result, *says):
    message = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert result.code == 2 and len(message) == 1 and "Traceback" not in result.err, result
    for part in says:
        assert part in message[0], message


@pytest.fixture
def bound():
    """Words before a command that take root's right to pass over permissions from it."""
    if os.geteuid():
        return []
    if not shutil.which("setpriv"):
        pytest.skip("no setpriv here")
    return ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]


def test_folders_without_permission_are_named(own_atlas, folds, run, predictions, thresholds, tmp_path, bound):
    locked, closed = tmp_path / "locked", tmp_path / "closed"
    shutil.copytree(own_atlas, locked)
    shutil.copytree(run, locked / "run")
    shutil.copy(predictions, locked / "p.csv")
    closed.mkdir()
    (tmp_path / "t.csv").write_text("Id,Target\na,0\n")
    (tmp_path / "t.csv").chmod(0)
    out = tmp_path / "out"
    images, out_file = own_atlas / "test", out / "file"
    reading = [
        ["predict", run, "--images", locked / "test", "-o", out_file],
        ["predict", locked / "run", "--images", images, "-o", out_file],
        ["train", *train_options(locked, folds, out)],
        ["train", *train_options(own_atlas, locked / "train.csv", out)],
        ["make_folds", "--labels", locked / "train.csv", "-o", out_file],
        ["make_folds", "--labels", tmp_path / "t.csv", "-o", out_file],
        ["make_folds", "--labels", own_atlas / "train.csv", "--images", locked / "train", "-o", out_file],
        ["threshold", locked / "run", "-o", out_file],
        ["ensemble", *submission_of(locked / "p.csv", thresholds, own_atlas, out_file)],
        ["utils.tools.compare", locked / "run"],
        ["utils.simulator.__main__", "--out", locked / "run"],
        ["utils.kaggle.fetch", "--to", locked],
    ]
    writing = [
        [words, place]
        for place in (closed, locked)
        for words in (
            ["predict", run, "--images", images, "-o", place / "file"],
            ["train", *train_options(own_atlas, folds, place)],
            ["make_folds", "--labels", own_atlas / "train.csv", "-o", place / "file"],
            ["threshold", run, "-o", place / "deep/file"],
            ["ensemble", *submission_of(predictions, thresholds, own_atlas, place / "file")],
            ["utils.simulator.__main__", "--out", place / "new"],
        )
    ]
    try:
        locked.chmod(0)
        closed.chmod(0o555)
        found = call(reading + [words for words, _ in writing], bound)
    finally:
        locked.chmod(0o755)
    for result in found[: len(reading)]:
        check_refused(result, "Permission denied", str(tmp_path), "chmod")
    for result, (_, place) in zip(found[len(reading) :], writing, strict=True):
        check_refused(result, "Permission denied", str(place))
    assert not out.exists() and not list(closed.iterdir())


@pytest.fixture
def parallel(atlas, folds, tmp_path):
    """Command lines that start processes, by script."""
    baseline = ["--folds", folds, "--fold", 0, "--images", atlas / "train", "--runs", tmp_path / "runs"]
    simulator = ["--out", tmp_path / "a", "--train", 6, "--test", 2, "--size", 64]
    return {
        "train": ["train", *train_options(atlas, folds, tmp_path / "runs", workers=8)],
        "simulator": ["utils.simulator.__main__", *simulator, "--workers", 6],
        "baseline": ["utils.tools.baseline", *baseline, "--workers", 6],
    }


@pytest.mark.parametrize("limit, script", [(40, "train"), (24, "train"), (12, "baseline")])
def test_processes_that_would_open_too_many_files_are_one_sentence(parallel, limit, script):
    def limited():
        warnings.simplefilter("ignore")  # torch has one if there are more workers than cores
        os.closerange(3, 1000)  # of the process that this one was forked from
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    result = call_forked(*parallel[script], before=limited)
    check_refused(result, "cannot be started", f"ulimit -n allows {limit} here", "raise it", "--workers")
    assert result.err.count("\n") == 1


def test_processes_without_room_for_semaphores_are_one_sentence(parallel):
    before = ["unshare", "--user", "--map-root-user", "--mount"]
    alone = [*parallel["baseline"][:-1], 1]
    *found, last = call([*parallel.values(), alone], before, FULL_SHM + CALLING)
    for result, instead in zip(found, ("--workers 0", "--workers 1", "--workers 1"), strict=True):
        check_refused(result, "cannot be started", "/dev/shm", instead)
    assert last.code == 0, last.err


def test_a_training_that_opens_too_many_files_later_is_one_sentence(atlas, folds, tmp_path, monkeypatch):
    """It receives each batch of its DataLoader workers as a file."""
    real, (soft, hard) = Trainer.train_step, resource.getrlimit(resource.RLIMIT_NOFILE)

    def step(self, *arguments):
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        return real(self, *arguments)

    monkeypatch.setattr(Trainer, "train_step", step)
    try:
        result = kit("train", *train_options(atlas, folds, tmp_path, **{"workers": 2, "batch-size": 2}))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    check_refused(result, "oo many", "ulimit -n", "--workers")


@pytest.mark.parametrize(
    "workers, more", [(0, ["--no-cache", "--skip-bad"]), (2, ["--no-cache", "--skip-bad"]), (0, [])]
)
def test_sound_images_are_not_left_out_if_too_many_files_are_open(atlas, folds, tmp_path, monkeypatch, workers, more):
    def full(path, *_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))

    monkeypatch.setattr(images, "open", full, raising=False)
    words = [*train_options(atlas, folds, tmp_path / "runs", workers=workers, cache=tmp_path / "cache"), *more]
    refuse("train", *words, says=["too many files are open at once", "ulimit -n allows "])
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "error, says",
    [
        (OSError(errno.EMFILE, "Too many open files", "x.png"), "ulimit -n"),
        (OSError("Caught OSError in DataLoader worker process 0.\n[Errno 24] Too many open files"), "ulimit -n"),
        (RuntimeError("unable to open shared memory object: Too many open files (24)"), "ulimit -n"),
        (RuntimeError("received 0 items of ancdata"), "ulimit -n"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "x cannot be used (Permission denied)"),
        (OSError(errno.EROFS, "Read-only file system", "x"), "x cannot be used (Read-only file system)"),
        (FileNotFoundError(2, "No such file", "x"), None),
        (PermissionError(), None),
        (RuntimeError("other"), None),
        (OSError(errno.EIO, "Input/output error", "x"), None),
    ],
)
def test_what_the_system_refuses_is_explained_and_other_exceptions_are_not(error, says):
    message = explain_system_error(error)
    assert message is None if says is None else says in message


@pytest.mark.parametrize(
    "count, words",
    [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (4096, "4.1 KB"), (33e6, "33 MB"), (1.054e9, "1.05 GB")],
)
def test_sizes_are_written_for_readers(count, words):
    assert data_size(count) == words
