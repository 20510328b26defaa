"""Reading out-of-fold predictions and their labels from runs or files."""

from pathlib import Path

import numpy as np
import pandas as pd

from utils.data.labels import load_classes, read_truth
from utils.errors import InputError, listing, plural
from utils.files import first_repeated
from utils.runs.predictions import EPOCHS_FOLDER, check_classes, epoch_file, read_all_predictions, read_epochs
from utils.runs.run_folder import fold_files, kept_epoch, read_config

LAST = 5  # epochs that Chen's smoothing uses; the paper says "a few"


def add_oof_options(parser):
    """Add the options for out-of-fold predictions and their labels."""
    arg = parser.add_argument
    arg("predictions", nargs="+", metavar="RUN|CSV", help="a run's folder (all its folds' oof.csv) or prediction files")
    arg("--labels", metavar="CSV", help="Id,Target table (default: the folds.csv that a run was trained on)")
    arg("--classes", help="hpa, cyto, hpa2021 or a CSV class,name (default: the run's, or hpa)")


def find_predictions(paths, labels=None):
    """Return prediction files, the file of labels, and the class list of a run, None if there is no run.

    paths: run folders, fold folders, prediction files. labels: the file of labels; None: that of a run.
    """
    files, classes = [], None
    for path in map(Path, paths):
        if not path.exists():
            raise InputError(f"{path} does not exist; name a run's folder or a file of predictions")
        if not path.is_dir():
            files.append(path)
            continue
        found = fold_files(path, "oof.csv", itself=True)
        if not found:
            raise InputError(f"{path} has no oof.csv and no fold<k>/oof.csv; train a fold first")
        files += found
        config = read_config(found[0].parent, "folds")
        labels, classes = labels or config.folds, classes or config.class_names
    if not labels:
        raise InputError("prediction files have no labels; add --labels CSV")
    return files, labels, classes


def read_oof(files, labels_file, classes):
    """Read the predictions of all files, their labels by Id, and the last epochs' predictions of the same rows: ->
    (N, C) float64, (N, C) uint8, (K, N, C) float64 or None."""
    tables = read_all_predictions(files, classes)
    oof = pool(tables, classes)
    if len(oof) < 2:
        raise InputError(f"{files[0]} has one row; thresholds need two or more")
    return oof.to_numpy(), truth_of(labels_file, classes, oof.index), _gather_epochs(tables)


def truth_of(labels_file, classes, ids):
    """Read the labels of the rows: -> (N, C) uint8. Raise InputError if none has a class."""
    truth = read_truth(labels_file, classes, ids, "the predictions")
    if not truth.any():
        raise InputError(f"{labels_file}: none of the {len(truth):,} rows has a class to fit; give their labels")
    return truth


def pool(tables, classes):
    """Concatenate {path: DataFrame}. Raise InputError for an Id in two files or other classes than `classes`."""
    oof = pd.concat(tables.values())
    check_classes(next(iter(tables)), oof, classes)
    if twice := oof.index[oof.index.duplicated()].unique().tolist():
        fix = "give each row once, or combine networks with ensemble.py --oof"
        raise InputError(f"{plural(len(twice), 'Id')} in more than one prediction file: {listing(twice)}; {fix}")
    return oof


def _gather_epochs(tables):
    """Return the last epochs that all folds have, (K, N, C); None unless all files are a run's oof.csv with epochs."""
    if not all(Path(path).name == "oof.csv" for path in tables):
        return None
    parts = [read_last_epochs(Path(path).parent, table.to_numpy()) for path, table in tables.items()]
    if any(part is None for part in parts):
        return None
    shared = min(len(part) for part in parts)
    return np.concatenate([part[-shared:] for part in parts], axis=1)


def read_last_epochs(fold, oof):
    """Read a fold's validation probabilities of the `LAST` epochs up to the one it keeps: -> (K, N, C), None without
    them.

    fold: Path of its folder. oof: (N, C), its oof.csv. Thresholds of epochs later than the weights, as in the paper, would
    not fit. Raise InputError if oof.csv is of another epoch.
    """
    kept = kept_epoch(fold)
    if kept is None:
        return None
    last = range(max(1, kept - LAST + 1), kept + 1)
    if not all(epoch_file(fold, epoch).is_file() for epoch in last):
        return None
    epochs = read_epochs(fold, last, oof.shape)
    if not np.allclose(epochs[-1], oof, rtol=1e-3, atol=1e-6):
        fix = "let the training end first, or name oof.csv elsewhere"
        raise InputError(f"{fold / EPOCHS_FOLDER}: epoch {kept} is not that of oof.csv; {fix}")
    return epochs


def read_members(paths, labels, classes=None):
    """Read several networks' out-of-fold predictions of the same images.

    paths: per network a run's folder (the oof.csv of all folds) or a prediction file. labels: the file of labels.
    classes: names; None: those of the first run, else hpa. -> members (M, N, C) float64, truth (N, C) uint8, classes, a
    message about rows that some networks lack, or None.
    """
    found = [find_predictions([path], labels) for path in paths]
    if repeated := first_repeated([file for files, *_ in found for file in files]):
        raise InputError(f"{repeated} is given for two networks; give each network once")
    classes = classes or next((names for *_, names in found if names), None) or load_classes("hpa")
    tables = [pool(read_all_predictions(files, classes), classes) for files, *_ in found]
    shared = tables[0].index
    for table in tables[1:]:
        shared = shared[shared.isin(table.index)]
    if len(shared) < 2:
        fix = "predict two or more of the same images with each"
        raise InputError(f"{plural(len(shared), 'Id')} in all of {listing(paths)}; {fix}")
    most = max(map(len, tables))
    note = f"{len(shared):,} rows that all networks have, of {most:,}" if len(shared) < most else None
    members = np.stack([table.loc[shared].to_numpy() for table in tables])
    return members, truth_of(labels, classes, shared), classes, note
