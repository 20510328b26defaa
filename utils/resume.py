"""Going on with a run that was stopped: what its result depends on, what is there already, starting anew."""

import contextlib
import hashlib
import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

from utils import checkpoint
from utils.errors import InputError
from utils.predictions import EPOCHS
from utils.runs import NOT_THE_RESULT, UNSAID
from utils.trainer import REMEMBERED


def provenance(train_rows, valid_rows):
    """What a run's result depends on beside its options, for config.json."""
    text = "\n".join(
        f"{part['Id'].str.cat(part['Target'], sep=',').str.cat(sep=';')}" for part in (train_rows, valid_rows)
    )
    try:
        commit = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10
        )
        commit = commit.stdout.strip() or None
    except (OSError, subprocess.TimeoutExpired):
        commit = None
    packages = ["torch", "torchvision", "pretrainedmodels", "timm", "albumentations", "opencv-python-headless", "numpy",
                "pandas"]  # fmt: skip
    return {
        "rows_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in packages},
        "commit": commit,
    }


def _version(package):
    try:
        return version(package)
    except ImportError:
        return None


def find(run, config, overwrite):
    """The state to go on from, or None. A run of other options or other rows is not continued, nor overwritten unasked."""
    existing = [run / name for name in ("last.pt", "best.pt") if (run / name).is_file()]
    if overwrite or not existing:
        return None
    saved = checkpoint.load(existing[0])
    old = UNSAID | saved["config"]
    changed = [key for key in config if key not in NOT_THE_RESULT and old.get(key) != config[key]]
    if "recipe" not in saved["config"] or (existing[0].name == "last.pt" and not set(REMEMBERED) <= set(saved)):
        raise InputError(f"{existing[0]} was not made by train.py; choose another --name or give --overwrite")
    if changed:
        long = {"rows_sha256": "other rows in the folds file", "class_names": "other classes"}
        shown = [long.get(key, f"{key} {old.get(key)!r} -> {config[key]!r}") for key in changed]
        raise InputError(
            f"{run} was trained with other options ({'; '.join(shown)}); choose another --name or give --overwrite"
        )
    if existing[0].name == "best.pt":
        return None  # stopped in the last moments of the first epoch, which is trained again
    # Stopped after writing best.pt, before last.pt: that epoch is to be trained again, whatever the time.
    repeat = len(existing) > 1 and checkpoint.load(existing[1])["epoch"] > saved["epoch"]
    return saved | {"repeat": repeat}


def clear(run):
    """Remove what an earlier run of this name left, so that no file of it is taken for the new run's."""
    for name in ("last.pt", "best.pt", "oof.csv", "log.csv", "steps.csv", "rows.csv", "config.json"):
        (run / name).unlink(missing_ok=True)
    for name in ("tensorboard", EPOCHS, "figures"):
        shutil.rmtree(run / name, ignore_errors=True)
    for folder in (run, run.parent):
        with contextlib.suppress(OSError):  # others' files stay, and then their folder
            folder.rmdir()
