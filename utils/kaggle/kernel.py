"""The steps of the kernel notebook, one function a cell: open, install, prepare folds, train, submit, close.

Until `install` nothing is imported but the standard library and what of utils/ needs no more (and OpenCV, which utils asks for).
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
from utils.kaggle.manifest import check_arrived
from utils.notebook.display import run

BEFORE = 180  # seconds that a session may be older than the first cell's clock
LEAST = 60  # seconds of training that are worth a start
SCRATCH = "hpa-kit-scratch"  # the folder for what no output needs


@dataclass(frozen=True)
class Session:
    """Where things are, and until when (seconds of time.time()) training may go on."""

    competition: Path
    dataset: Path
    earlier_runs: tuple
    working: Path
    scratch: Path
    ends: float

    @property
    def runs(self):
        return self.working / "runs"


def check_settings(mode, name, options):
    """Raise InputError on settings of the first cell that would only show hours later."""
    if mode not in ("train", "predict"):
        raise InputError(f"MODE {mode!r} is neither 'train' nor 'predict'; give one of these")
    names = name.split()
    if not names or mode == "train" and len(names) > 1:
        raise InputError(
            f"NAME {name!r} names {len(names)} runs, and one is trained; only with MODE 'predict' give several"
        )
    for one in names:
        check_name(one)
    try:
        shlex.split(options)
    except ValueError as error:
        raise InputError(f"OPTIONS {options!r} cannot be read ({error}); mend the quotation marks") from None


def open_session(kaggle, started, session, reserve):
    """Find what is attached below `kaggle`/input, and make a place for what is not to be kept: -> Session. The kit is copied there,
    with the weights that were uploaded where it looks for them, and becomes the working directory.

    started: when the first cell ran, seconds of time.time(). session, reserve: texts such as 9h: how long a kernel may run, and how
    much of it is kept for predicting.
    """
    kaggle = Path(kaggle)
    length, kept = parse_span("SESSION", session), parse_span("RESERVE", reserve)
    if kept >= length:
        raise InputError(f"RESERVE {reserve!r} leaves nothing of SESSION {session!r}; give less")
    top, working = kaggle / "input", kaggle / "working"
    competition, dataset = attached.find_competition(top), attached.find_dataset(top)
    check_arrived(dataset)
    working.mkdir(exist_ok=True)
    scratch = pick_scratch(kaggle)
    shutil.rmtree(scratch, ignore_errors=True)
    for name in ("tmp", "home"):
        (scratch / name).mkdir(parents=True)
    shutil.copytree(dataset / "kit", scratch / "kit", copy_function=shutil.copyfile)
    for folder in [scratch / "kit", *(scratch / "kit").rglob("*")]:
        if folder.is_dir():
            folder.chmod(0o755)  # a read-only input's mode comes along
    (scratch / "kit/input").mkdir(exist_ok=True)
    if (dataset / "weights").is_dir():
        (scratch / "kit/input/weights").symlink_to(dataset / "weights", target_is_directory=True)
    os.chdir(scratch / "kit")
    os.environ |= {"TMPDIR": str(scratch / "tmp"), "MPLCONFIGDIR": str(scratch / "home"), "TORCH_HOME": str(scratch / "home"),
                   "HF_HOME": str(scratch / "home"), "HF_HUB_OFFLINE": "1"}  # fmt: skip
    tempfile.tempdir = None  # to be found anew, from TMPDIR
    found = Session(
        competition, dataset, tuple(attached.find_outputs(top)), working, scratch, started - BEFORE + length - kept
    )
    _describe(found)
    return found


def _describe(session):
    content = {
        "competition": session.competition,
        "kit": session.dataset,
        "output": session.working,
        "scratch": session.scratch,
    }
    for what, folder in content.items():
        print(f"{what:12}{folder}")
    for folder in session.outputs:
        runs = sorted(path.relative_to(folder / "runs").as_posix() for path in (folder / "runs").glob("*/fold*"))
        print(f"{'runs':12}{folder}: {', '.join(runs) or 'none'}")
    room = data_size(shutil.disk_usage(session.scratch).free)
    print(f"{'to train':12}{clock(max(0, session.ends - time.time()))}, {room} for packed images")


def pick_scratch(kaggle):
    """A folder for what no output needs: of the places that can be written the one with most room, the working folder (20 GB on
    Kaggle, all of which would become output) only where there is no other."""
    candidates = [kaggle / "temp"]
    if kaggle == Path("/kaggle"):  # an imitation stays in its own folder
        candidates.append(Path(tempfile.gettempdir()))
    usable = []
    for place in candidates:
        try:
            place.mkdir(exist_ok=True)
            tempfile.TemporaryFile(dir=place).close()
            usable.append(place)
        except OSError:
            continue
    if not usable:
        return kaggle / "working" / f".{SCRATCH}"
    return max(usable, key=lambda place: shutil.disk_usage(place).free) / SCRATCH


def install(session):
    """Install the packages that the image lacks from the data set's wheels, into the scratch folder."""
    wheels.install(session.dataset / "kit/requirements.txt", session.dataset / "wheels", session.scratch / "packages")


def count_gpus(options=""):
    """How many GPUs there are to train on, 0 where the options ask for the CPU. Raises InputError on one that torch cannot use."""
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
    """What train.py's `options`, a text, say of the device."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--device", default="auto")
    return parser.parse_known_args(shlex.split(options))[0].device


def python(gpus, *words):
    """Run a script of the kit in view, with a process for each GPU where there are several."""
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", gpus] if gpus > 1 else []
    run(*several, *words)


def take_over(session, names):
    """Take over the folds of the runs `names`, and folds.csv, from earlier outputs and the data set."""
    from utils.kaggle import earlier_runs

    used = earlier_runs.take_over(session.outputs, session.runs, names)
    table = session.working / "folds.csv"
    tables = [folder / "folds.csv" for folder in dict.fromkeys((*used, *session.outputs, session.dataset))]
    tables = [path for path in tables if path.is_file()]
    if tables and not table.exists():
        shutil.copyfile(tables[0], table)
        print(f"folds.csv taken over from {tables[0].parent}")


def make_folds(session):
    """folds.csv in the output, made where none was taken over."""
    table = session.working / "folds.csv"
    if not table.exists():
        run(
            "make_folds.py",
            "--labels",
            session.competition / "train.csv",
            "--images",
            session.competition / "train",
            "-o",
            table,
        )


def train(session, recipe, fold, name, options="", gpus=0):
    """Train one fold, or go on with it, until the session's time for training is over."""
    from utils.kaggle.earlier_runs import progress

    place = session.runs / name / f"fold{fold}"
    so_far, left = progress(place), session.ends - time.time()
    if so_far and so_far.finished:
        print(f"{name}/fold{fold} is trained already, best macro F1 {so_far.score:.4f}")
        return
    if left < LEAST:
        print(f"{clock(max(0, left))} is left for training, too little: this kernel only predicts")
        return
    python(gpus, "train.py", "--recipe", recipe, "--fold", fold, "--name", name, "--folds", session.working / "folds.csv",
           "--images", session.competition / "train", "--runs", session.runs, "--cache", session.scratch / "packed",
           "--time-limit", f"{left:.0f}s", *shlex.split(options))  # fmt: skip


def submit(session, names, options="", gpus=0):
    """Predict the test set with all trained folds of the runs `names`, fit thresholds on their out-of-fold predictions, and write
    submission.csv: -> its path, or None where no epoch is finished yet."""
    from utils.kaggle import earlier_runs
    from utils.runs.run_folder import ANY_WEIGHTS, fold_files

    runs = [session.runs / name for name in names]
    if untrained := [run.name for run in runs if not fold_files(run, *ANY_WEIGHTS)]:
        print(f"no epoch of {', '.join(untrained)} is finished yet: no submission.csv")
        return None
    labels, submission = session.working / "labels.csv", session.working / "submission.csv"
    earlier_runs.validation_labels(session.runs, names, labels)
    sample = session.competition / "sample_submission.csv"
    predicted = [run / "test.csv" for run in runs]
    for folder, path in zip(runs, predicted, strict=True):
        python(gpus, "predict.py", folder, "--images", session.competition / "test", "--ids", sample, "-o", path,
               "--cache", session.scratch / "packed", "--device", device_of(options))  # fmt: skip
    if len(runs) > 1:
        run("ensemble.py", *predicted, "--oof", *runs, "--labels", labels, "--sample", sample, "-o", submission)
    else:
        run("threshold.py", *runs, "--labels", labels)
        run(
            "ensemble.py", *predicted, "--thresholds", runs[0] / "thresholds.json", "--sample", sample, "-o", submission
        )
    return submission


def close(session, names):
    """Remove what is no output, list the rest, and say what to do where a fold is not finished."""
    from utils.kaggle.earlier_runs import progress

    folders = [folder for name in names for folder in sorted((session.runs / name).glob("fold*"))]
    reached = {
        folder: progress(folder) for folder in folders
    }  # first, since networks are built of packages in the scratch folder
    os.chdir(session.working)
    shutil.rmtree(session.scratch, ignore_errors=True)
    for path in sorted(session.working.rglob("*")):
        if path.is_file() and path.suffix in (".csv", ".pt"):
            print(f"{data_size(path.stat().st_size):>10}  {path.relative_to(session.working)}")
    for folder, so_far in reached.items():
        if so_far and not so_far.finished:
            print(
                f"{folder.parent.name}/{folder.name} is not finished (epoch {so_far.epoch}, step {so_far.step:,}): attach this kernel's "
                "output (Add Input, Your Work) and run the notebook again with the same settings; it goes on from here"
            )


def tell_errors_in_one_line():
    """A notebook's cell that fails shows what went wrong instead of a traceback; it fails all the same."""
    try:
        from IPython import get_ipython
    except ImportError:
        return
    shell = get_ipython()

    def tell(shell, kind, value, traceback, tb_offset=None):
        told = f"error: {value}" if kind is InputError else f"error: exit code {value.returncode}, for the reason above"
        print(told, file=sys.stderr)
        return [told]

    if shell is not None:
        shell.set_custom_exc((InputError, subprocess.CalledProcessError), tell)


def names_of(predicted, classes, most=3):
    """A submission's "16 0" as lines of class names, at most so many and how many more."""
    names = [classes[int(number)] for number in predicted.split()]
    return "\n".join(names if len(names) <= most else [*names[: most - 1], f"and {len(names) - most + 1} more"])
