"""Continue a stopped run, or start anew: provenance of its result, compatibility of its options, the lock, clean-up."""

import contextlib
import errno
import hashlib
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from utils.engine import checkpoint
from utils.engine.trainer import STATE
from utils.errors import InputError, first_line
from utils.files import destination
from utils.runs import unlike_training
from utils.runs.config import IGNORED_ON_RESUME
from utils.runs.predictions import EPOCHS_FOLDER, epoch_files
from utils.runs.run_folder import ANY_WEIGHTS, first_file

LOGS = ("log.csv", "steps.csv", "rows.csv", "skipped.csv", "config.json")
FILES = ("last.pt", *ANY_WEIGHTS, "oof.csv", unlike_training.FILE, *LOGS)  # of a fold
ANEW = "choose another --name or give --overwrite"
PACKAGES = "torch torchvision pretrainedmodels timm albumentations opencv-python-headless numpy pandas"


def provenance(train_rows, valid_rows, soft=None):
    """Describe, for config.json, what a run's result depends on apart from its options. soft: of `read_pseudo_labels`."""
    parts = (train_rows, valid_rows)
    text = "\n".join(part["Id"].str.cat(part["Target"], sep=",").str.cat(sep=";") for part in parts)
    probabilities = b"" if soft is None else soft.to_numpy().tobytes()
    return {
        "rows_sha256": hashlib.sha256(text.encode() + probabilities).hexdigest(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES.split()},
        "commit": _commit(Path(__file__).parents[2]),
    }


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit(kit):
    """Return the kit's commit, from commit.txt (written by utils/kaggle/upload.py) or from git, or None."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return (kit / "commit.txt").read_text(encoding="utf-8").strip()[:100] or None
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        command = ["git", "-C", str(kit), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, errors="replace", timeout=10).stdout.strip() or None


def find(run, config, overwrite):
    """Return the state to continue from, or None. Raises InputError for a run with other options or rows, unless
    `overwrite`."""
    if overwrite:
        return None
    last, best = run / "last.pt", first_file(run, *ANY_WEIGHTS)
    if not (last.is_file() or best):
        if (run / "oof.csv").is_file():
            raise InputError(f"{run} holds the oof.csv of a run whose checkpoints are gone; {ANEW}")
        return None
    path = last if last.is_file() else best
    try:
        saved = checkpoint.load(path)
    except InputError as error:
        raise InputError(f"{error}; or start anew, with --overwrite or another --name") from None
    if not saved["config"].recipe:
        raise InputError(f"{path} was not made by train.py; {ANEW}")
    _check_same_options(run, saved["config"].to_dict(), config.to_dict())
    if path == best:
        if saved["epoch"] == 1 and len(epoch_files(run)) <= 1:
            return None  # stopped at the end of the first epoch: it is trained again
        raise InputError(f"{run} holds a {best.name}, but no last.pt to continue from; {ANEW}")
    if saved.get("finished"):
        return saved
    if not set(STATE) <= set(saved):
        raise InputError(f"{path} is of another version of train.py; {ANEW}")
    # Stopped after writing the best weights, before last.pt: that epoch is trained again, even past --max-minutes.
    repeat = not saved["position"] and best is not None and checkpoint.load(best)["epoch"] > saved["epoch"]
    return saved | {"repeat": repeat}


def _check_same_options(run, old, new):
    if changed := [key for key in new if key not in IGNORED_ON_RESUME and old[key] != new[key]]:
        long = {"rows_sha256": "other rows in the folds file or --pseudo", "class_names": "other classes"}
        shown = [long.get(key, f"{key} {old[key]!r} -> {new[key]!r}") for key in changed]
        raise InputError(f"{run} was trained with other options ({'; '.join(shown)}); {ANEW}")


def restore(trainer, saved, path):
    """Restore the trainer's state. Raises InputError that names `path` if the state does not fit."""
    try:
        _check_state(trainer, saved)
        # A copy that is not mapped, since last.pt will be replaced.
        trainer.restore(checkpoint.snapshot(saved, torch.device("cpu"))[0])
    except (KeyError, ValueError, IndexError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(f"{path} is damaged or of another network ({first_line(error)}); {ANEW}") from None


def _check_state(trainer, saved):
    """Raise an exception for a state that `Trainer.restore` accepts but that makes training fail later."""
    if not 0 <= saved["position"] <= trainer.steps_per_epoch or not 0 <= saved["stage"] < len(trainer.loss.schedule):
        raise ValueError("a step that this training does not have")
    weights = [weight for group in trainer.optimiser.param_groups for weight in group["params"]]
    for number, kept in saved["parts"]["optimiser"]["state"].items():
        shapes = {value.shape for value in kept.values() if isinstance(value, torch.Tensor) and value.ndim}
        if not shapes <= {weights[number].shape}:
            raise ValueError("an optimiser of other weights")


@contextlib.contextmanager
def lock_run(run):
    """Lock the folder `run` for training. Raises InputError if another process holds the lock.

    The lock ends with the process, even if that is killed. Folders created for it are removed if they stay empty.
    """
    path, place = run / ".lock", destination(run, folder=True)
    made = [folder for folder in (place, *place.parents) if not folder.exists()]
    lock = FileLock(path, fallback_to_soft=False)
    try:
        while not (lock.is_locked and path.is_file()):  # its last holder may have removed the file
            lock.release()
            place.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=1)  # a worker of a killed training may hold it a little longer
    except Timeout:
        fix = "wait for its end, or choose another --name"
        raise InputError(f"another process is training into {run}; {fix}") from None
    except (OSError, NotImplementedError) as error:
        if getattr(error, "errno", errno.ENOSYS) not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
            raise InputError(f"cannot write {path} ({error.strerror}); free the place or choose another") from error
        print(f"{run} is on a file system without locks; make sure that no other process trains into it")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()
        _remove_empty(made)


def _remove_empty(folders):
    for folder in folders:
        with contextlib.suppress(OSError):  # a folder that is not empty stays
            folder.rmdir()


def clear(run):
    """Remove the files of an earlier run of this name."""
    for name in FILES:
        (run / name).unlink(missing_ok=True)
    for name in ("tensorboard", EPOCHS_FOLDER, "figures"):
        shutil.rmtree(run / name, ignore_errors=True)
    _remove_empty([run, run.parent])
