"""What a trained fold leaves beside its weights: writing its rows, reading the rest."""

from collections import namedtuple
from pathlib import Path

import numpy as np
import pandas as pd

from utils.data.labels import encode, read_labels, read_table
from utils.errors import InputError
from utils.files import write_csv
from utils.runs.config import check_config
from utils.runs.predictions import read_predictions
from utils.safe_load import read_json

Fold = namedtuple("Fold", "folder config classes ids oof truth train")
UNSAID = {  # what a config without these options means
    "layers": "all", "single_label": False, "max_minutes": 0.0, "accumulate": 1, "ema": 0.0, "checkpointing": False, "compile": False,
    "skip_nan": 0,
    "skip_bad": False, "skipped": [], "bits": 0,
}  # fmt: skip
# What may differ between the folds of one run, or where one goes on: it is compared itself, or does not matter.
NOT_THE_RESULT = {
    "name", "runs", "images", "folds", "classes", "workers", "device", "overwrite", "max_minutes", "versions", "commit", "mean", "std",
    "parameters", "checkpointing", "compile", "cache", "no_cache", "save_every", "time_limit", "skip_nan",
    "skip_bad", "skipped",
}  # fmt: skip
WEIGHTS = "best.safetensors"  # of the best epoch
ANY_WEIGHTS = (WEIGHTS, "best.pt")  # runs of older versions hold the second
ANEW = "train the fold anew, with --overwrite"


def first_file(folder, *names):
    """The first of the files `names` in a folder, or None."""
    return next((path for name in names if (path := Path(folder) / name).is_file()), None)


def fold_files(run, *names, itself=False):
    """The first of the files `names` in each of a run's folders fold0, fold1, …, in the order of their numbers; with
    `itself` only the one in the folder given, if that is a fold's folder already."""
    if itself and (own := first_file(run, *names)):
        return [own]
    folders = [path for path in Path(run).glob("fold*") if path.name[4:].isdecimal()]
    found = [first_file(folder, *names) for folder in sorted(folders, key=lambda path: int(path.name[4:]))]
    return [path for path in found if path]


def write_rows(path, train, valid):
    """Keep which images a fold was trained and validated on, and their labels."""
    rows = pd.concat([train.assign(part="train"), valid.assign(part="valid")])
    write_csv(path, rows[["Id", "Target", "part"]])


def read_config(folder, *keys):
    """A fold's config.json as a dict that has at least `class_names` and `keys`."""
    path = Path(folder) / "config.json"
    config = read_json(path, "a run's config", ANEW)
    if missing := [key for key in ("class_names", *keys) if not isinstance(config, dict) or key not in config]:
        raise InputError(f"{path} is not a run's config (it lacks {', '.join(missing)}); {ANEW}")
    check_config(path, config)
    return config


def read_fold(folder, *keys):
    """A fold's validation: namedtuple of folder (Path), config (dict), classes (list), ids (list, N), oof (N, C) float64,
    truth (N, C) uint8, and train (M, C) uint8, the labels it was trained on. keys: what else config must have."""
    folder = Path(folder)
    config = read_config(folder, *keys)
    if not (folder / "rows.csv").is_file():
        raise InputError(f"{folder} has no rows.csv with the images of the fold, as older runs; {ANEW}")
    rows = read_labels(folder / "rows.csv", config["class_names"])
    if "part" not in rows.columns:
        raise InputError(f"{folder / 'rows.csv'} lacks the column part; {ANEW}")
    oof = read_predictions(folder / "oof.csv", config["class_names"])
    targets = rows.set_index("Id")["Target"]
    if list(oof.columns) != config["class_names"] or not set(oof.index) <= set(targets.index):
        raise InputError(f"{folder / 'oof.csv'} does not fit config.json and rows.csv beside it; {ANEW}")
    truth = encode(targets.loc[oof.index], config["class_names"])
    if not truth.any():
        raise InputError(
            f"{folder / 'rows.csv'}: no validation image has a class, so there is nothing to measure; validate on more"
        )
    train = encode(rows["Target"][rows["part"] == "train"], config["class_names"])
    return Fold(folder, config, config["class_names"], oof.index.tolist(), oof.to_numpy(), truth, train)


def read_numbers(path, columns):
    """Columns of steps.csv or log.csv as floats. Raises InputError where one is missing or holds no finite number."""
    table = read_table(path, columns, what="a table of train.py")[columns]
    numbers = table.apply(pd.to_numeric, errors="coerce")
    if len(bad := np.argwhere(~np.isfinite(numbers.to_numpy(float)))):
        row, column = bad[0]
        raise InputError(
            f"{path}: row {row + 2} has no finite number in {columns[column]} ({table.iloc[row, column]!r}); {ANEW}"
        )
    return numbers


def best_epoch(folder):
    """The epoch of highest validation macro F1 in log.csv, whose weights and predictions a fold keeps; None without a log."""
    path = Path(folder) / "log.csv"
    if not path.is_file():
        return None
    log = read_numbers(path, ["epoch", "macro_f1"])
    best = float(log["epoch"][log["macro_f1"].idxmax()])
    if not best.is_integer() or not 0 < best < 10**6:
        raise InputError(f"{path}: the best epoch {best:g} is no number of an epoch; {ANEW}")
    return int(best)
