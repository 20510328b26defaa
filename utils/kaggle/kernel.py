"""The steps of the kernel notebook, one function per cell: open, install, prepare folds, train, submit, close.

Before `install`, only the standard library, packaging, OpenCV and modules of utils/ that need no more may be imported.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from utils.cli import clock, parse_span
from utils.errors import InputError, data_size
from utils.files import check_name
from utils.kaggle import attached, wheels
from utils.notebook.display import run

BEFORE = 180  # seconds between the session's start and the first cell, at most
LEAST = 60  # seconds of training below which it does not start
SCRATCH = "hpa-kit-scratch"  # folder for temporary files


@dataclass(frozen=True)
class Session:
    """Folders, and when training has to end (seconds of time.time())."""

    competition: Path
    dataset: Path
    outputs: tuple  # folders that contain runs/: earlier kernels' output, the data set
    working: Path
    scratch: Path
    ends: float

    @property
    def runs(self):
        return self.working / "runs"


def tell_errors_in_one_line():
    """Make a failing cell of the notebook show one line instead of a traceback; the cell still fails."""
    from IPython import get_ipython

    def show(shell, kind, value, traceback, tb_offset=None):
        text = f"error: {value}" if kind is InputError else f"error: exit code {value.returncode}, see above"
        print(text, file=sys.stderr)
        return [text]

    get_ipython().set_custom_exc((InputError, subprocess.CalledProcessError), show)


def check_settings(mode, name, options):
    """Raise InputError for bad settings in the first cell, before hours of training."""
    if mode not in ("train", "predict"):
        raise InputError(f"MODE {mode!r} is neither 'train' nor 'predict'; give one of them")
    names = name.split()
    if not names or mode == "train" and len(names) > 1:
        raise InputError(f"NAME {name!r} names {len(names)} runs; give one, or several with MODE 'predict'")
    for one in names:
        check_name(one)
    try:
        shlex.split(options)
    except ValueError as error:
        raise InputError(f"OPTIONS {options!r} cannot be read ({error}); fix the quotation marks") from None


def open_session(kaggle, started, session, reserve):
    """Find the inputs below `kaggle`/input, copy the kit to the scratch folder and change into the copy: -> Session.

    started: time.time() of the first cell. session, reserve: spans such as 9h: the kernel's time limit, and the part of
    it reserved for prediction."""
    kaggle = Path(kaggle)
    length, kept = parse_span("SESSION", session), parse_span("RESERVE", reserve)
    if kept >= length:
        raise InputError(f"RESERVE {reserve!r} leaves nothing of SESSION {session!r}; give less")
    competition, dataset, outputs = attached.find(kaggle / "input")
    attached.check_arrived(dataset)
    working, scratch = kaggle / "working", pick_scratch(kaggle)
    working.mkdir(exist_ok=True)
    shutil.rmtree(scratch, ignore_errors=True)
    for name in ("tmp", "home"):
        (scratch / name).mkdir(parents=True)
    kit, home = scratch / "kit", str(scratch / "home")
    attached.copy_folder(dataset / "kit", kit)
    (kit / "input").mkdir()
    if (dataset / "weights").is_dir():
        (kit / "input/weights").symlink_to(dataset / "weights", target_is_directory=True)
    os.chdir(kit)
    os.environ |= {"TMPDIR": str(scratch / "tmp"), "HF_HUB_OFFLINE": "1"}
    os.environ |= dict.fromkeys(("MPLCONFIGDIR", "TORCH_HOME", "HF_HOME"), home)
    tempfile.tempdir = None  # makes tempfile read TMPDIR again
    found = Session(competition, dataset, outputs, working, scratch, started - BEFORE + length - kept)
    for what, folder in {"competition": competition, "kit": dataset, "output": working, "scratch": scratch}.items():
        print(f"{what:12}{folder}")
    for folder in outputs:
        folds = sorted(path.relative_to(folder / "runs").as_posix() for path in (folder / "runs").glob("*/fold*"))
        print(f"{'runs':12}{folder}: {', '.join(folds) or 'none'}")
    room = data_size(shutil.disk_usage(scratch).free)
    print(f"{'to train':12}{clock(max(0, found.ends - time.time()))}, {room} for packed images")
    return found


def pick_scratch(kaggle):
    """-> a folder for temporary files; the working folder, limited to 20 GB on Kaggle, only if no other is writable."""
    places = [kaggle / "temp"]
    if kaggle == Path("/kaggle"):  # an imitation stays in its folder
        places.append(Path(tempfile.gettempdir()))
    for place in places:
        try:
            place.mkdir(exist_ok=True)
            tempfile.TemporaryFile(dir=place).close()
            return place / SCRATCH
        except OSError:
            continue
    return kaggle / "working" / f".{SCRATCH}"


def install(session):
    """Install packages that the image lacks from the data set's wheels, into the scratch folder."""
    wheels.install(session.dataset / "kit/requirements.txt", session.dataset / "wheels", session.scratch / "packages")


def count_gpus(options=""):
    """-> the number of GPUs to train on (0: the CPU). Raises InputError for a GPU that torch does not support."""
    import torch

    from utils.device import check_built_for

    device = device_of(options)
    if device not in ("auto", "cuda") or not torch.cuda.is_available():
        print("no GPU: everything runs on the CPU" if device == "auto" else f"--device {device}")
        return 0
    for number in range(torch.cuda.device_count()):
        check_built_for(torch.device("cuda", number))
        print(f"GPU {number}: {torch.cuda.get_device_name(number)}")
    return torch.cuda.device_count()


def device_of(options):
    """-> the --device in train.py's `options` (str)."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--device", default="auto")
    return parser.parse_known_args(shlex.split(options))[0].device


def python(gpus, *words):
    """Run a script of the kit and show its output; with several GPUs, start one process per GPU."""
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", gpus] if gpus > 1 else []
    run(*several, *words)


def take_over(session, names):
    """Copy the folds of the runs `names`, and folds.csv, from earlier outputs and the data set."""
    from utils.kaggle import earlier_runs

    used = earlier_runs.take_over(session.outputs, session.runs, names)
    table = session.working / "folds.csv"
    for folder in (*used, *session.outputs, session.dataset):
        if (folder / "folds.csv").is_file() and not table.exists():
            shutil.copyfile(folder / "folds.csv", table)
            print(f"folds.csv copied from {folder}")


def make_folds(session):
    """Make folds.csv in the output unless one was copied."""
    table, data = session.working / "folds.csv", session.competition
    if not table.exists():
        run("make_folds.py", "--labels", data / "train.csv", "--images", data / "train", "-o", table)


def train(session, recipe, fold, name, options="", gpus=0):
    """Train one fold, or resume it, until the session's time for training ends."""
    from utils.kaggle.earlier_runs import progress

    so_far, left = progress(session.runs / name / f"fold{fold}"), session.ends - time.time()
    if so_far and so_far.finished:
        print(f"{name}/fold{fold} is trained already, macro F1 {so_far.score:.4f}")
        return
    if left < LEAST:
        print(f"{clock(max(0, left))} is left for training, too little: this kernel only predicts")
        return
    words = ["--recipe", recipe, "--fold", fold, "--name", name, "--folds", session.working / "folds.csv"]
    words += ["--images", session.competition / "train", "--runs", session.runs, "--cache", session.scratch / "packed"]
    python(gpus, "train.py", *words, "--time-limit", f"{left:.0f}s", *shlex.split(options))


def submit(session, names, options="", gpus=0):
    """Predict the test set with all trained folds of the runs `names`, fit thresholds on their out-of-fold predictions
    and write submission.csv: -> its path, or None if a run has no finished epoch."""
    from utils.kaggle.earlier_runs import write_validation_labels
    from utils.runs.run_folder import ANY_WEIGHTS, fold_files

    runs = [session.runs / name for name in names]
    if untrained := [run.name for run in runs if not fold_files(run, *ANY_WEIGHTS)]:
        print(f"no epoch of {', '.join(untrained)} is finished yet: no submission.csv")
        return None
    labels, submission = session.working / "labels.csv", session.working / "submission.csv"
    write_validation_labels(session.runs, names, labels)
    sample, packed = session.competition / "sample_submission.csv", session.scratch / "packed"
    predicted = [run / "test.csv" for run in runs]
    for folder, path in zip(runs, predicted):
        words = ["--images", session.competition / "test", "--ids", sample, "-o", path, "--cache", packed]
        python(gpus, "predict.py", folder, *words, "--device", device_of(options))
    if len(runs) > 1:
        fitting = ["--oof", *runs, "--labels", labels]
    else:
        run("threshold.py", *runs, "--labels", labels)
        fitting = ["--thresholds", runs[0] / "thresholds.json"]
    run("ensemble.py", *predicted, *fitting, "--sample", sample, "-o", submission)
    return submission


def close(session, names):
    """Remove the scratch folder, list the output, and print how to resume unfinished folds."""
    from utils.kaggle.earlier_runs import progress

    folders = [folder for name in names for folder in sorted((session.runs / name).glob("fold*"))]
    # read before the scratch folder is removed, which contains packages that the networks need
    unfinished = {folder: found for folder in folders if (found := progress(folder)) and not found.finished}
    os.chdir(session.working)
    shutil.rmtree(session.scratch, ignore_errors=True)
    for path in sorted(session.working.rglob("*")):
        if path.is_file() and path.suffix in (".csv", ".pt", ".safetensors"):
            print(f"{data_size(path.stat().st_size):>10}  {path.relative_to(session.working)}")
    for folder, so_far in unfinished.items():
        state = f"{folder.parent.name}/{folder.name} is not finished (epoch {so_far.epoch}, step {so_far.step:,})"
        fix = "attach this kernel's output (Add Input, Your Work) and run the notebook again with the same settings"
        print(f"{state}: {fix}; training resumes from here")


def names_of(predicted, classes, most=3):
    """A submission's "16 0" as at most `most` lines: class names, or the number of further ones in the last line."""
    names = [classes[int(number)] for number in predicted.split()]
    return "\n".join(names if len(names) <= most else [*names[: most - 1], f"and {len(names) - most + 1} more"])
