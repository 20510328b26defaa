"""DataLoader workers that die, raise, or are sent signals; the memory that they share."""

import argparse
import ctypes
import functools
import gc
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, call_forked, kit, refuse, stop_in_epoch, succeed, train_options
from threadpoolctl import threadpool_info, threadpool_limits

from utils.data import cache, loader
from utils.data.cache import Images
from utils.data.loader import IDLE, fit_workers, init_worker, shared_tensor
from utils.engine.trainer import Trainer


def die_by(signal_):
    return lambda: os.kill(os.getpid(), signal_)


def raise_(error):
    raise error


@pytest.fixture
def victim(folds):
    """An image that fold 0 trains on, in the middle of the table."""
    table = pd.read_csv(folds, dtype=str)
    return table["Id"][table["fold"] != "0"].iloc[20]


def harm(monkeypatch, victim, what):
    """Let DataLoader workers do `what` when they read the victim."""
    real, main = Images.read, os.getpid()

    def read(self, row):
        if os.getpid() != main and victim in self.files[row][0].name:
            what()
        return real(self, row)

    monkeypatch.setattr(Images, "read", read)


def same_weights(*runs):
    one, other = (torch.load(run / "fold0/last.pt", weights_only=True)["model"] for run in runs)
    return all(torch.equal(one[key], other[key]) for key in one)


def none_left():
    gc.collect()
    for process in multiprocessing.active_children():
        process.join(30)
    return not multiprocessing.active_children()


DEATHS = {
    "killed": (die_by(signal.SIGKILL), ["(Killed)", "memory may have run out", "fewer --workers"]),
    "crashed": (lambda: ctypes.string_at(0), ["(Segmentation fault)", "leave its row out"]),
    "bus error": (die_by(signal.SIGBUS), ["(Bus error)", "/dev/shm"]),
    "exited": (lambda: os._exit(0), ["(exit code 0)"]),
}


@pytest.mark.parametrize("way", DEATHS)
def test_the_file_of_a_crashed_worker_is_named(atlas, folds, tmp_path, monkeypatch, victim, way):
    what, says = DEATHS[way]
    harm(monkeypatch, victim, what)
    words = train_options(atlas, folds, tmp_path, workers=2)
    file = f"a DataLoader worker died while it read {atlas / 'train' / victim}"
    refuse("train", *words, says=[*says, file, "the same command starts again"])
    assert not (tmp_path / "mini").exists() and none_left()


def test_a_death_in_a_later_epoch_leaves_what_the_command_goes_on_from(
    atlas, folds, run, tmp_path, monkeypatch, victim
):
    words = train_options(atlas, folds, tmp_path, workers=2)
    stop_in_epoch(monkeypatch, 2, words)
    with monkeypatch.context() as patch:
        harm(patch, victim, die_by(signal.SIGKILL))
        refuse("train", *words, says=["(Killed)", victim, "resumes from"])
    succeed("train", *words)
    assert same_weights(tmp_path / "mini", run)


def test_workers_that_die_at_once_are_named_or_the_first_of_them(atlas, folds, tmp_path, monkeypatch, victim):
    harm(monkeypatch, "", lambda: os._exit(3))
    message = refuse("train", *train_options(atlas, folds, tmp_path, workers=2), says=["exit code 3"])
    assert 1 <= message.count("_blue.png") <= 2


def test_a_worker_between_two_images_is_reported_without_a_file(atlas, folds, tmp_path, monkeypatch):
    main = os.getpid()
    monkeypatch.setattr(loader, "concatenate", lambda *_: os.getpid() != main and die_by(signal.SIGKILL)())
    words = train_options(atlas, folds, tmp_path, workers=1, normalise="none")
    assert ".png" not in refuse("train", *words, says=["died while it read no image"])


@pytest.mark.parametrize("workers", [0, 2])
def test_out_of_memory_in_a_decoder_names_the_file(atlas, folds, tmp_path, monkeypatch, victim, workers):
    def load(files, *_):
        return raise_(MemoryError()) if victim in files[0].name else np.zeros((32, 32, 4), np.uint8)

    monkeypatch.setattr(cache, "load_sample", load)
    words = [*train_options(atlas, folds, tmp_path, workers=workers, normalise="none"), "--no-cache"]
    refuse("train", *words, says=["out of memory while reading", victim, "fewer --workers"])
    assert none_left()


def test_a_fault_of_the_kit_names_the_file_too(atlas, folds, tmp_path, monkeypatch, victim):
    harm(monkeypatch, victim, lambda: raise_(ZeroDivisionError("for the test")))
    with pytest.raises(RuntimeError, match=f"(?s)for the test.*{victim}_blue.png could not be read"):
        kit("train", *train_options(atlas, folds, tmp_path, workers=2))
    assert none_left()


def test_signals_to_the_processes_do_not_disturb_a_training(atlas, folds, run, tmp_path, monkeypatch):
    """As Ctrl+C in a terminal, or a batch system, send them to all at once."""
    real, sent = Trainer.train_step, set()

    def step(self, batch, *more):
        for process in multiprocessing.active_children():
            os.kill(process.pid, signal.SIGINT)
            subprocess.run(["kill", "-TERM", str(process.pid)], check=True)
            sent.add(process.pid)
        return real(self, batch, *more)

    monkeypatch.setattr(Trainer, "train_step", step)
    succeed("train", *train_options(atlas, folds, tmp_path, workers=2))
    assert len(sent) == 2 and same_weights(tmp_path / "mini", run) and none_left()


def test_signals_while_the_processes_start_do_not_either(atlas, folds, tmp_path, monkeypatch):
    def start(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        init_worker(*arguments)

    monkeypatch.setattr(loader, "init_worker", start)
    succeed("train", *train_options(atlas, folds, tmp_path, workers=2))
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set(), "the main process reacts to them again"


def test_a_process_that_is_stuck_ends_with_the_training(atlas, folds, tmp_path, monkeypatch):
    """Each process gives a batch of 8; none gives its next."""
    read = []
    harm(monkeypatch, "", lambda: time.sleep(10_000) if len(read) == 8 else read.append(1))
    monkeypatch.setattr(Trainer, "train_step", lambda *_: raise_(KeyboardInterrupt()))
    assert kit("train", *train_options(atlas, folds, tmp_path, workers=2, **{"batch-size": 8})).code == 130
    assert none_left()


def test_a_death_is_one_sentence_on_the_screen(atlas, folds, tmp_path, victim):
    words = train_options(atlas, folds, tmp_path, workers=2)
    done = call_forked("train", *words, before=lambda: harm(pytest.MonkeyPatch(), victim, die_by(signal.SIGKILL)))
    said = [line for line in done.err.splitlines() if not line.startswith(("libpng", "\r"))]
    assert done.code == 2 and len(said) == 1 and said[0].startswith("error: ") and victim in said[0], done.err


def test_a_process_whose_training_is_gone_before_it_starts_ends_too(monkeypatch):
    """Killed within the milliseconds between a fork and the worker's first line, it would wait for ever."""
    monkeypatch.setattr(loader, "get_worker_info", lambda: argparse.Namespace(dataset=argparse.Namespace()))
    ours, its = os.pipe()
    training = os.fork()
    if not training:
        parent = os.getpid()
        if not os.fork():
            time.sleep(0.3)
            init_worker(shared_tensor((1, 2), torch.int64).fill_(IDLE), parent, 0)
            time.sleep(10_000)
        os._exit(0)
    os.close(its)
    os.waitpid(training, 0)
    assert select.select([ours], [], [], 20)[0] and os.read(ours, 1) == b"", "the worker, and the pipe with it, is gone"
    os.close(ours)


@pytest.mark.parametrize(
    "workers, free, found",
    [(15, 40, (15, 2)), (15, 20, (15, 1)), (15, 9, (8, 1)), (15, 2, (1, 1)), (15, 1, (0, 1)), (0, 1, (0, 2))],
)
def test_fewer_workers_if_their_batches_do_not_fit(monkeypatch, capsys, workers, free, found):
    """`free` batches fit into the half of the free memory that may be used."""
    batch = 64 * 4 * 512**2
    monkeypatch.setattr(loader, "free_memory", lambda: 2 * free * batch / 1e9)
    assert fit_workers(workers, batch) == found and fit_workers(workers, batch // 2, trainings=2) == found
    assert ("67.1 MB" in capsys.readouterr().out) == (found not in ((15, 2), (0, 2)))


@pytest.mark.parametrize("memfd", [True, False])
def test_processes_see_the_same_shared_tensor(monkeypatch, memfd):
    if not memfd:
        monkeypatch.delattr(os, "memfd_create")
    tensor = shared_tensor((3, 1000), torch.float32).fill_(1)
    if not (child := os.fork()):
        tensor[2, 999] = 7
        os._exit(0)
    os.waitpid(child, 0)
    assert tensor[2, 999] == 7 and float(tensor.sum()) == 3006 and shared_tensor((0, 2), torch.int64).shape == (0, 2)


SMALL_SHM = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"none", b"/dev/shm", b"tmpfs", 0, b"size=64k"):
    sys.exit(77)
import train
from utils.cli import run_script
sys.argv = ["train.py", *sys.argv[1:]]
run_script(train.main)
"""


def test_a_training_in_a_container_with_little_shared_memory(atlas, folds, run, tmp_path):
    """A batch of 16 takes 65 KB, all of /dev/shm. The weights are those of any other number of workers."""
    words = train_options(atlas, folds, tmp_path, workers=2, cache=tmp_path / "cache")
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", SMALL_SHM, *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip("no namespaces here")
    assert done.returncode == 0, done.stderr
    assert same_weights(tmp_path / "mini", run)


def test_shared_memory_that_runs_out_is_one_sentence(atlas, folds, tmp_path, monkeypatch):
    monkeypatch.setattr(loader, "concatenate", lambda *_: raise_(OSError("No space left on device")))
    says = ["no shared memory is left", "No space left", "--workers", "--batch-size", "--shm-size"]
    refuse("train", *train_options(atlas, folds, tmp_path, workers=2), says=says)
    assert none_left() and not (tmp_path / "mini").exists()


def test_processes_that_cannot_be_started_are_one_sentence(atlas, folds, tmp_path, monkeypatch):
    """As on a system without semaphores in /dev/shm."""
    refused = OSError(38, "Function not implemented")
    monkeypatch.setattr(torch.utils.data.DataLoader, "__iter__", lambda _: raise_(refused))
    words = train_options(atlas, folds, tmp_path, workers=2)
    refuse("train", *words, says=["DataLoader workers cannot be started", "Function not implemented", "--workers 0"])


def running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_stuck_workers_end_if_the_training_is_killed(atlas, folds, tmp_path):
    def stick():
        read, patch = [], pytest.MonkeyPatch()
        harm(patch, "", lambda: time.sleep(10_000) if len(read) == 8 else read.append(1))
        patch.setattr(Trainer, "train_step", killed)

    def killed(*_):
        print("pids", *[process.pid for process in multiprocessing.active_children()], flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    words = train_options(atlas, folds, tmp_path, workers=2, **{"batch-size": 8})
    done = call_forked("train", *words, before=stick)
    pids = [int(word) for line in done.out.splitlines() if line.startswith("pids") for word in line.split()[1:]]
    assert done.code == -signal.SIGKILL and len(pids) == 2, done.err
    for _ in range(300):
        if not any(map(running, pids)):
            return
        time.sleep(0.2)
    raise AssertionError(f"still there: {pids}")


class BlasThreads(torch.utils.data.Dataset):
    """The most threads that a matrix product may start."""

    def __len__(self):
        return 2

    def __getitem__(self, row):
        return max(library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas")


def test_a_worker_multiplies_matrices_in_one_thread():
    """Two workers whose products started two threads each were four times as slow as one alone."""
    start = functools.partial(init_worker, shared_tensor((1, 2), torch.int64), os.getpid())
    with threadpool_limits(2, user_api="blas"):
        assert BlasThreads()[0] == 2
        found = list(torch.utils.data.DataLoader(BlasThreads(), num_workers=1, worker_init_fn=start))
    assert torch.cat(found).tolist() == [1, 1]
