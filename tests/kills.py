"""Kill trainings with kill -9 at random moments, over and over, and compare what
they end with to one that was left alone.

    python tests/kills.py                 # 200 kills of each kind, 6 minutes
    python tests/kills.py --kills 40 --seed 1 ema

Weights, optimiser, logs, predictions have to be the same to the bit. Half of
the kills come after a random time, half just before or after a file is put in
its place or made safe on the disk. Each life of a training is a process forked
from this one, which has imported everything, so that it takes a second and not
ten. Exits with 1 where anything differs.
"""

import argparse
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
import torch._dynamo  # noqa: E402, F401 - else imported in every life anew, by its first optimiser
from tqdm import tqdm  # noqa: E402

import make_folds  # noqa: E402
import train  # noqa: E402
from utils.cli import run_script  # noqa: E402
from utils.data import readable
from utils.engine import checkpoint, inference, run_log
from utils.engine.trainer import Trainer  # noqa: E402
from utils.runs.config import IGNORED_ON_RESUME  # noqa: E402
from utils.simulator import __main__ as simulator  # noqa: E402

# tqdm's own lock is shared by forked processes, and stays locked if one is killed while it holds it.
tqdm.set_lock(threading.RLock())
COMMON = {"size": 32, "fit": "resize", "augment": "d4", "epochs": 12, "batch-size": 12, "lr": 0.001, "workers": 0, "amp": "off",
          "recipe": "gapnet_pl", "fold": 0}  # fmt: skip
KINDS = {  # each with dropout and batch norm
    "ema": {"optimiser": "adam", "ema": 0.9, "loss": "1:bce 3:soft_f1+bce", "plateau": "step", "patience": 0.1, "clip": 1},
    "workers": {"optimiser": "sgd", "workers": 2, "accumulate": 2, "loss": "1:bce 2:soft_f1", "plateau": "none", "fit": "zoom",
                "warmup": 1.5, "lr-schedule": "cosine", "keep": "last", "augment": "gain", "mix": "cutmix", "sampler": "balanced"},
    "early-stop": {"optimiser": "adadelta", "lr": 0.5, "augment": "1:d4 3:chen", "epochs": 40, "early-stop": 6, "fit": "crop",
                   "max-minutes": 90, "limit": 70, "normalise": "image", "l1": 1e-5, "amp": "auto"},
}  # fmt: skip
PHASES = ("start", "packing", "step", "between", "checkpoint", "other files", "validation")
BY_THE_CLOCK = ["seconds", "images_per_second", "peak_gb"]  # columns of log.csv
CHANGING = {"spent", "spent_in_epoch"}  # of last.pt


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "kinds",
        nargs="*",
        metavar="KIND",
        choices=[*KINDS, []],
        help=f"of training: {', '.join(KINDS)}; all if none is given",
    )
    parser.add_argument("--kills", type=int, default=200, help="of each kind (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="start of everything random (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        data = make_data(Path(folder))
        for kind in args.kinds or KINDS:
            faults += attack(kind, args.kills, random.Random(args.seed), Path(folder), data)
    sys.exit(faults > 0)


def make_data(folder):
    """A small atlas with folds: -> options of train.py that name them."""
    atlas, folds = folder / "atlas", folder / "folds.csv"
    quiet(simulator.main, ["--out", atlas, "--train", 90, "--test", 2, "--size", 40])
    quiet(make_folds.main, ["--labels", atlas / "train.csv", "--images", atlas / "train", "--folds", 3, "-o", folds])
    return {"folds": folds, "images": atlas / "train"}


def attack(kind, kills, rng, folder, data):
    """Runs of one kind, killed over and over until as many kills are done, each compared with the one left alone: -> differences."""
    options, undisturbed = COMMON | KINDS[kind] | data, folder / f"{kind}-alone"
    life(options | {"runs": undisturbed, "cache": folder / "cache-alone"})
    met, runs, faults = Counter(), 0, 0
    with tqdm(total=kills, desc=kind, unit="kill", disable=None, leave=False) as bar:
        while sum(met.values()) < kills:
            tried = folder / f"{kind}-{runs}"
            killed = options | {"runs": tried, "cache": folder / f"cache-{kind}", "save-every": "0.05s"}
            while phase := life(killed, rng if sum(met.values()) < kills else None):
                met[phase] += 1
                bar.update()
                if rng.random() < 0.3:
                    shutil.rmtree(folder / f"cache-{kind}", ignore_errors=True)
            differing = differences(undisturbed / "gapnet_pl/fold0", tried / "gapnet_pl/fold0")
            print(
                *(f"{kind}, run {runs}: {what} differs" for what in differing), sep="\n", end="\n" if differing else ""
            )
            runs, faults = runs + 1, faults + len(differing)
            shutil.rmtree(tried)
    where = ", ".join(f"{phase} {met[phase]}" for phase in PHASES if met[phase])
    print(f"{kind}: {sum(met.values())} kills ({where}) in {runs} runs, {faults} differences", flush=True)
    return faults


def life(options, rng=None):
    """Train in a process of its own: -> None when it has ended well, or the phase it was killed in. rng: None lets it live."""
    phase = mmap.mmap(-1, 2)  # of the training, and of the thread that writes its files
    at_file = rng.randrange(1, rng.choice([10, 80])) if rng and rng.random() < 0.5 else None
    seconds = rng.uniform(0.05, 0.8) if rng and not at_file else None
    sys.stdout.flush()
    if not (pid := os.fork()):
        os.setsid()  # a group of its own, with its loading processes
        try:
            watch(phase, at_file)
            quiet(train.main, [word for key, value in options.items() for word in (f"--{key}", value)])
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    status = wait(pid, seconds)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return PHASES[phase[1] or phase[0]]
    if status:
        raise SystemExit(f"a training ended by itself with {os.waitstatus_to_exitcode(status)}")
    return None


def wait(pid, seconds):
    """The status of a process, killed after so many seconds if it still lives then."""
    ends = time.monotonic() + (seconds or 600)
    while time.monotonic() < ends:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        time.sleep(0.002)
    os.killpg(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def watch(phase, at_file):
    """In the process to be killed: keep in `phase` what it is at, and kill it at the operation on files of that number."""

    def during(name, function):
        def told(*args, **kwargs):
            place = int(threading.current_thread() is not threading.main_thread())
            before, phase[place] = phase[place], PHASES.index(name)
            try:
                return function(*args, **kwargs)
            finally:
                phase[place] = before

        return told

    def counted(function):
        def deadly(*args, **kwargs):
            nonlocal at_file
            at_file -= 1
            if at_file == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*args, **kwargs)
            if at_file == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return deadly

    readable.open_and_check = during("packing", readable.open_and_check)
    train.fit = during("between", train.fit)
    Trainer.train_step = during("step", Trainer.train_step)
    checkpoint.save = during("checkpoint", checkpoint.save)
    checkpoint.save_weights = during("checkpoint", checkpoint.save_weights)
    inference.predict = during("validation", inference.predict)
    for name in ("write_csv", "write_epoch", "write_predictions"):
        setattr(run_log, name, during("other files", getattr(run_log, name)))
    if at_file:
        for name in ("replace", "fsync", "unlink"):
            setattr(os, name, counted(getattr(os, name)))


def quiet(main, words):
    """Call a script's main with a command line, its output thrown away."""
    sys.argv = [main.__module__, *map(str, words)]
    stdout, sys.stdout = sys.stdout, open(os.devnull, "w")  # noqa: SIM115
    try:
        main()
    finally:
        sys.stdout.close()
        sys.stdout = stdout


def differences(one, other):
    """What differs between two run directories: a list of names."""
    names = [
        {path.relative_to(run).as_posix() for path in run.rglob("*") if "tensorboard" not in path.parts}
        for run in (one, other)
    ]
    differing = sorted(names[0] ^ names[1])
    for name in sorted(names[0] & names[1]):
        if name.endswith((".pt", ".safetensors")):
            states = [checkpoint.read_file(run / name) for run in (one, other)]
            differing += [f"{name} {where}" for where in unequal(*map(comparable, states))]
        elif name == "log.csv":
            logs = [pd.read_csv(run / name).drop(columns=BY_THE_CLOCK) for run in (one, other)]
            differing += [] if logs[0].equals(logs[1]) else [name]
        elif name.endswith((".csv", ".npy")):
            differing += [] if (one / name).read_bytes() == (other / name).read_bytes() else [name]
    return differing


def comparable(state):
    """A checkpoint without what the clock or the places of files decide."""
    state = {key: value for key, value in state.items() if key not in CHANGING}
    state["config"] = {
        key: value for key, value in state["config"].items() if key not in IGNORED_ON_RESUME - {"mean", "std"}
    }
    if "log" in state:
        state["log"] = [{key: value for key, value in row.items() if key not in BY_THE_CLOCK} for row in state["log"]]
    return state


def unequal(one, other, where=""):
    """Where two nested structures of tensors and plain values differ: a list of paths."""
    if type(one) is not type(other):
        return [where]
    if isinstance(one, torch.Tensor):
        return [] if np.array_equal(one.numpy(), other.numpy(), equal_nan=one.is_floating_point()) else [where]
    if isinstance(one, dict) and set(one) == set(other):
        return [path for key in one for path in unequal(one[key], other[key], f"{where}/{key}")]
    if isinstance(one, (list, tuple)) and len(one) == len(other):
        return [path for n, pair in enumerate(zip(one, other, strict=True)) for path in unequal(*pair, f"{where}/{n}")]
    return [] if one == other else [where]


if __name__ == "__main__":
    run_script(main)
