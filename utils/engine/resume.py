"""Going on with a run that was stopped: what its result depends on, what is there already, starting anew."""

import contextlib
import errno
import hashlib
import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from utils.engine import checkpoint
from utils.engine.trainer import STATE
from utils.errors import InputError, first_line
from utils.files import destination
from utils.runs.config import IGNORED_ON_RESUME
from utils.runs.predictions import EPOCHS_FOLDER, epoch_files

FILES = ("last.pt", "best.pt", "oof.csv", "log.csv", "steps.csv", "rows.csv", "skipped.csv", "config.json")  # of a run


def provenance(train_rows, valid_rows):
    """What a run's result depends on beside its options, for config.json."""
    text = "\n".join(
        f"{part['Id'].str.cat(part['Target'], sep=',').str.cat(sep=';')}" for part in (train_rows, valid_rows)
    )
    packages = ["torch", "torchvision", "pretrainedmodels", "timm", "albumentations", "opencv-python-headless", "numpy",
                "pandas"]  # fmt: skip
    return {
        "rows_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in packages},
        "commit": _commit(Path(__file__).parent.parent.parent),
    }


def _commit(kit):
    """The kit's commit: of a copy that was uploaded (utils/kaggle/upload.py) what commit.txt in it says, else git's; or None."""
    try:
        return (kit / "commit.txt").read_text(encoding="utf-8").strip()[:100] or None
    except (OSError, UnicodeDecodeError):
        pass
    try:
        done = subprocess.run(
            ["git", "-C", str(kit), "rev-parse", "HEAD"], capture_output=True, errors="replace", timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _version(package):
    try:
        return version(package)
    except ImportError:
        return None


def find(run, config, overwrite):
    """The state to go on from, or None. A run of other options or other rows is not continued, nor overwritten unasked."""
    existing = [run / name for name in ("last.pt", "best.pt") if (run / name).is_file()]
    if not (overwrite or existing) and (run / "oof.csv").is_file():
        raise InputError(
            f"{run} holds the oof.csv of a run whose checkpoints are gone; choose another --name or give --overwrite"
        )
    if overwrite or not existing:
        return None
    try:
        saved = checkpoint.load(existing[0])
    except InputError as error:
        raise InputError(f"{error}; or start anew, with --overwrite or another --name") from None
    old, new = saved["config"].to_dict(), config.to_dict()
    changed = [key for key in new if key not in IGNORED_ON_RESUME and old[key] != new[key]]
    if not saved["config"].recipe:
        raise InputError(f"{existing[0]} was not made by train.py; choose another --name or give --overwrite")
    if changed:
        long = {"rows_sha256": "other rows in the folds file", "class_names": "other classes"}
        shown = [long.get(key, f"{key} {old[key]!r} -> {new[key]!r}") for key in changed]
        raise InputError(
            f"{run} was trained with other options ({'; '.join(shown)}); choose another --name or give --overwrite"
        )
    if existing[0].name == "best.pt":
        if saved["epoch"] == 1 and len(epoch_files(run)) <= 1:
            return None  # stopped in the last moments of the first epoch, which is trained again
        raise InputError(
            f"{run} holds a best.pt, but no last.pt to go on from; choose another --name or give --overwrite"
        )
    if saved.get("finished"):
        return saved
    if not set(STATE) <= set(saved):
        raise InputError(f"{existing[0]} is of another version of train.py; choose another --name or give --overwrite")
    # Stopped after writing best.pt, before last.pt: that epoch is to be trained again, whatever the time.
    repeat = not saved["position"] and len(existing) > 1 and checkpoint.load(existing[1])["epoch"] > saved["epoch"]
    return saved | {"repeat": repeat}


def restore(trainer, saved, path):
    """`trainer.restore`; raises InputError naming the `path` where what was saved does not fit."""
    try:
        _check_state(trainer, saved)
        trainer.restore(saved)
    except (KeyError, ValueError, IndexError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(
            f"{path} is damaged or of another network ({first_line(error)}); choose another --name or give --overwrite"
        ) from None


def _check_state(trainer, saved):
    """Raise ValueError (or what comes of wrong types) for what `Trainer.restore` would take over and training stumble over later."""
    if saved["position"] > trainer.steps_per_epoch or saved["stage"] >= len(trainer.loss.schedule):
        raise ValueError("a step that this training does not have")
    if not all("seconds" in row for row in saved["log"]):
        raise ValueError("a log without times")
    for number, kept in saved["parts"]["optimiser"]["state"].items():
        shapes = {value.shape for value in kept.values() if isinstance(value, torch.Tensor) and value.ndim}
        if not shapes <= {trainer.trained[number].shape}:
            raise ValueError("an optimiser of other weights")


@contextlib.contextmanager
def hold(run):
    """Be the only process that trains into the folder `run`. Raises InputError where another one does.

    The lock goes with the process, however that ends. Folders made for it that hold nothing then are removed.
    """
    path, place = run / ".lock", destination(run, folder=True)
    lock, made = (
        FileLock(path, fallback_to_soft=False),
        [folder for folder in (place, *place.parents) if not folder.exists()],
    )
    try:
        while not (lock.is_locked and path.is_file()):  # who held it before may have removed it meanwhile
            lock.release()
            place.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=1)  # a worker of a training just killed may have been about to let go of it
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
        remove_empty(made)


def remove_empty(folders):
    for folder in folders:
        with contextlib.suppress(OSError):  # others' files stay, and then their folder
            folder.rmdir()


def clear(run):
    """Remove what an earlier run of this name left, so that no file of it is taken for the new run's."""
    for name in FILES:
        (run / name).unlink(missing_ok=True)
    for name in ("tensorboard", EPOCHS_FOLDER, "figures"):
        shutil.rmtree(run / name, ignore_errors=True)
    remove_empty([run, run.parent])
