"""The files of a trained fold other than its weights."""

from collections import namedtuple
from pathlib import Path

import numpy as np
import pandas as pd

from utils.data.labels import encode, read_labels
from utils.data.tables import read_table
from utils.errors import InputError
from utils.files import write_csv
from utils.runs.config import RunConfig
from utils.runs.predictions import read_predictions
from utils.safe_load import read_json

Fold = namedtuple("Fold", "folder config classes ids oof truth train")
RETRAIN = "train the fold again with --overwrite"
WEIGHTS = "best.safetensors"  # of the best epoch, or with --keep last of the last one
ANY_WEIGHTS = (WEIGHTS, "best.pt")  # the second: from older versions


def first_file(folder, *names):
    """Return the first existing file of `names` in a folder, or None."""
    return next((path for name in names if (path := Path(folder) / name).is_file()), None)


def fold_files(run, *names, itself=False):
    """Return the first existing file of `names` in each of a run's folders fold0, fold1, …, in numerical order. With
    `itself`, `run` may be a fold's folder, and the result is only the file in it."""
    if itself and (own := first_file(run, *names)):
        return [own]
    folders = [path for path in Path(run).glob("fold*") if path.name[4:].isdecimal()]
    found = [first_file(folder, *names) for folder in sorted(folders, key=lambda path: int(path.name[4:]))]
    return [path for path in found if path]


def write_rows(path, train, valid):
    """Write the images of a fold, their labels and whether it trains or validates on them."""
    rows = pd.concat([train.assign(part="train"), valid.assign(part="valid")])
    write_csv(path, rows[["Id", "Target", "part"]])


def read_config(folder, *names):
    """Read the RunConfig of a fold's config.json. Raise InputError unless it has the fields `names`."""
    path = Path(folder) / "config.json"
    content = read_json(path, "a run's config", RETRAIN)
    if not isinstance(content, dict) or "class_names" not in content:
        raise InputError(f"{path} is not a run's config (it lacks class_names); {RETRAIN}")
    config = RunConfig.from_dict(content, path)
    config.require(path, *names)
    return config


def read_fold(folder, *names):
    """Read a fold's validation: -> Fold with folder (Path), config (RunConfig that has the fields `names`), classes
    (names), ids (list, N), oof (N, C) float64, truth (N, C) uint8 and the training labels train (M, C) uint8."""
    folder = Path(folder)
    config = read_config(folder, *names)
    classes = config.class_names
    if not (folder / "rows.csv").is_file():
        raise InputError(f"{folder} has no rows.csv with the images of the fold, like older runs; {RETRAIN}")
    rows = read_labels(folder / "rows.csv", classes)
    if "part" not in rows.columns:
        raise InputError(f"{folder / 'rows.csv'} lacks the column part; {RETRAIN}")
    oof = read_predictions(folder / "oof.csv", classes)
    targets = rows.set_index("Id")["Target"]
    if list(oof.columns) != classes or not set(oof.index) <= set(targets.index):
        raise InputError(f"{folder / 'oof.csv'} does not fit config.json and rows.csv beside it; {RETRAIN}")
    truth = encode(targets.loc[oof.index], classes)
    if not truth.any():
        raise InputError(f"{folder / 'rows.csv'}: no validation image has a class to measure; validate on more")
    train = encode(rows["Target"][rows["part"] == "train"], classes)
    return Fold(folder, config, classes, oof.index.tolist(), oof.to_numpy(), truth, train)


def read_numbers(path, columns):
    """Read columns of steps.csv or log.csv as floats. Raise InputError for missing columns and non-finite numbers."""
    table = read_table(path, columns, what="a table of train.py")[columns]
    numbers = table.apply(pd.to_numeric, errors="coerce")
    if len(bad := np.argwhere(~np.isfinite(numbers.to_numpy(float)))):
        row, column = bad[0]
        cell = f"{columns[column]} ({table.iloc[row, column]!r})"
        raise InputError(f"{path}: row {row + 2} has no finite number in {cell}; {RETRAIN}")
    return numbers


def kept_epoch(folder):
    """Return the epoch whose weights and oof.csv a fold keeps: that of highest validation macro F1 in log.csv, or with --keep
    last the last one; None without a log."""
    path = Path(folder) / "log.csv"
    if not path.is_file():
        return None
    log = read_numbers(path, ["epoch", "macro_f1"])
    keep = read_config(folder).keep
    kept = float(log["epoch"][log.index[-1] if keep == "last" else log["macro_f1"].idxmax()])
    if not kept.is_integer() or not 0 < kept < 10**6:
        raise InputError(f"{path}: the {keep} epoch {kept:g} is not a valid epoch; {RETRAIN}")
    return int(kept)
