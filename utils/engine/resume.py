"""Continue a run that was stopped: what its result depends on, where it stands, and starting anew."""

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
from utils.runs.config import IGNORED_ON_RESUME
from utils.runs.predictions import EPOCHS_FOLDER, epoch_files
from utils.runs.run_folder import ANY_WEIGHTS, first_file

LOGS = ("log.csv", "steps.csv", "rows.csv", "skipped.csv", "config.json")
FILES = ("last.pt", *ANY_WEIGHTS, "oof.csv", *LOGS)  # of a run
ANEW = "choose another --name or give --overwrite"
PACKAGES = "torch torchvision pretrainedmodels timm albumentations opencv-python-headless numpy pandas"


def provenance(train_rows, valid_rows):
    """What a run's result depends on beside its options, for config.json."""
    text = "\n".join(
        f"{part['Id'].str.cat(part['Target'], sep=',').str.cat(sep=';')}" for part in (train_rows, valid_rows)
    )
    return {
        "rows_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES.split()},
        "commit": _commit(Path(__file__).parents[2]),
    }


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit(kit):
    """The kit's commit, or None. A copy that utils/kaggle/upload.py made has it in commit.txt, else git knows it."""
    try:
        return (kit / "commit.txt").read_text(encoding="utf-8").strip()[:100] or None
    except (OSError, UnicodeDecodeError):
        pass
    command = ["git", "-C", str(kit), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, errors="replace", timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def find(run, config, overwrite):
    """The state to continue from, or None. Raises InputError for a run of other options or other rows, which is
    neither continued nor, unless asked for, overwritten."""
    last, best = run / "last.pt", first_file(run, *ANY_WEIGHTS)
    if overwrite:
        return None
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
            return None  # stopped in the last moments of the first epoch, which is trained again
        raise InputError(f"{run} holds a {best.name}, but no last.pt to go on from; {ANEW}")
    if saved.get("finished"):
        return saved
    if not set(STATE) <= set(saved):
        raise InputError(f"{path} is of another version of train.py; {ANEW}")
    # Stopped after writing the best weights, before last.pt: that epoch is to be trained again, whatever the time.
    repeat = not saved["position"] and best is not None and checkpoint.load(best)["epoch"] > saved["epoch"]
    return saved | {"repeat": repeat}


def _check_same_options(run, old, new):
    changed = [key for key in new if key not in IGNORED_ON_RESUME and old[key] != new[key]]
    if changed:
        long = {"rows_sha256": "other rows in the folds file", "class_names": "other classes"}
        shown = [long.get(key, f"{key} {old[key]!r} -> {new[key]!r}") for key in changed]
        raise InputError(f"{run} was trained with other options ({'; '.join(shown)}); {ANEW}")


def restore(trainer, saved, path):
    """`trainer.restore`; raises InputError naming the `path` if what was saved does not fit."""
    try:
        _check_state(trainer, saved)
        own, _ = checkpoint.snapshot(
            saved, torch.device("cpu")
        )  # not mapped: last.pt will be replaced and its room needed
        trainer.restore(own)
    except (KeyError, ValueError, IndexError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(f"{path} is damaged or of another network ({first_line(error)}); {ANEW}") from None


def _check_state(trainer, saved):
    """Raise ValueError (or what wrong types raise) for what `Trainer.restore` would accept and training would fail on
    later."""
    if not 0 <= saved["position"] <= trainer.steps_per_epoch or not 0 <= saved["stage"] < len(trainer.loss.schedule):
        raise ValueError("a step that this training does not have")
    for number, kept in saved["parts"]["optimiser"]["state"].items():
        shapes = {value.shape for value in kept.values() if isinstance(value, torch.Tensor) and value.ndim}
        if not shapes <= {trainer.trained[number].shape}:
            raise ValueError("an optimiser of other weights")


@contextlib.contextmanager
def lock_run(run):
    """Be the only process that trains into the folder `run`. Raises InputError if another one does.

    The lock ends with the process, however that ends. Folders made for it that are empty then are removed.
    """
    path, place = run / ".lock", destination(run, folder=True)
    made = [folder for folder in (place, *place.parents) if not folder.exists()]
    lock = FileLock(path, fallback_to_soft=False)
    try:
        while not (lock.is_locked and path.is_file()):  # the process before may have removed the file meanwhile
            lock.release()
            place.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=1)  # a worker of a training just killed may be about to release it
    except Timeout:
        raise InputError(
            f"another process is training into {run} at this moment; wait for its end, or choose another --name"
        ) from None
    except (OSError, NotImplementedError) as error:
        if getattr(error, "errno", errno.ENOSYS) not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
            raise InputError(f"cannot write {path} ({error.strerror}); free the place or choose another") from error
        print(f"{run} lies on a file system without locks; see to it that no other process trains into it")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()
        _remove_empty(made)


def _remove_empty(folders):
    for folder in folders:
        with contextlib.suppress(OSError):  # others' files stay, and then their folder
            folder.rmdir()


def clear(run):
    """Remove the files of an earlier run of this name, so that none is taken for the new run's."""
    for name in FILES:
        (run / name).unlink(missing_ok=True)
    for name in ("tensorboard", EPOCHS_FOLDER, "figures"):
        shutil.rmtree(run / name, ignore_errors=True)
    _remove_empty([run, run.parent])
