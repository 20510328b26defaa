"""Out-of-fold predictions and their labels, from runs or from files."""

from pathlib import Path

import numpy as np
import pandas as pd

from utils.data.labels import load_classes, read_truth
from utils.errors import InputError, listing, plural
from utils.files import first_repeated
from utils.runs.predictions import EPOCHS_FOLDER, check_classes, epoch_file, read_all_predictions, read_epochs
from utils.runs.run_folder import best_epoch, fold_files, read_config

LAST_EPOCHS = 5  # that Chen's smoothing uses; the paper says "a few"


def find_predictions(paths, labels=None):
    """-> (prediction files, file of labels, class names of a run or None).

    paths: run folders, fold folders, prediction files. labels: the file of labels; if None, that of a run.
    """
    files, of_run, classes = [], None, None
    for path in map(Path, paths):
        if not path.exists():
            raise InputError(f"{path} does not exist; name a run's folder or a file of predictions")
        if not path.is_dir():
            files.append(path)
            continue
        found = fold_files(path, "oof.csv", itself=True)
        if not found:
            raise InputError(f"{path} holds no oof.csv and no fold<k>/oof.csv; train a fold first")
        files += found
        config = read_config(found[0].parent, "folds")
        of_run, classes = of_run or config.folds, classes or config.class_names
    if not (labels or of_run):
        raise InputError("prediction files alone hold no labels; add --labels CSV")
    return files, labels or of_run, classes


def read_oof(files, labels_file, classes):
    """-> pooled probabilities (N, C) float64, their labels (N, C) uint8, and the last epochs' probabilities of the same
    rows (K, N, C) float64, or None unless all files are oof.csv of runs that kept them."""
    tables = read_all_predictions(files, classes)
    oof = _pool(tables, classes)
    if len(oof) < 2:
        raise InputError(f"{files[0]} has one row; thresholds need two or more")
    values, truth = oof.to_numpy(), _read_labels(labels_file, classes, oof.index)
    if not all(Path(path).name == "oof.csv" for path in tables):
        return values, truth, None
    epochs = [read_last_epochs(Path(path).parent, table.to_numpy()) for path, table in tables.items()]
    if any(part is None for part in epochs):
        return values, truth, None
    count = min(map(len, epochs))  # that every fold has
    return values, truth, np.concatenate([part[-count:] for part in epochs], axis=1)


def _read_labels(path, classes, ids):
    """Labels of the rows (N, C). Raises InputError if none has a class."""
    truth = read_truth(path, classes, ids, "the predictions")
    if not truth.any():
        raise InputError(
            f"{path}: none of the {len(truth):,} rows has a class, so there is nothing to fit; give their labels"
        )
    return truth


def _pool(tables, classes):
    """The rows of all files {path: DataFrame} as one table; each Id may be in one file only."""
    oof = pd.concat(tables.values())
    check_classes(next(iter(tables)), oof, classes)
    if repeated := oof.index[oof.index.duplicated()].unique().tolist():
        raise InputError(
            f"{plural(len(repeated), 'Id')} in more than one prediction file: {listing(repeated)}; "
            "give each row once, or combine networks with ensemble.py --oof"
        )
    return oof


def read_last_epochs(fold, oof):
    """A fold's validation probabilities of the `LAST_EPOCHS` up to its best one: (K, N, C) float64; None if it did not
    keep them.

    fold: its folder. oof: its oof.csv (N, C). The best epoch is the one whose weights are kept: thresholds of a later
    epoch, which the paper used, would belong to other weights. Raises InputError if the kept epochs do not end at
    oof.csv.
    """
    best = best_epoch(fold) or 0
    last = range(max(1, best - LAST_EPOCHS + 1), best + 1)
    if not best or not all(epoch_file(fold, epoch).is_file() for epoch in last):
        return None
    epochs = read_epochs(fold, last, oof.shape)
    if not np.allclose(epochs[-1], oof, rtol=1e-3, atol=1e-6):
        raise InputError(
            f"{fold / EPOCHS_FOLDER}: epoch {best} is not that of oof.csv; "
            "let the training end first, or name oof.csv elsewhere"
        )
    return epochs


def read_members(paths, labels, classes=None):
    """Several networks' out-of-fold predictions of the same images, for an ensemble.

    paths: for each network its run folder (the oof.csv of all folds) or prediction file. labels: the file of labels.
    classes: names; if None, those of the first run, else hpa. -> members (M, N, C) float64, truth (N, C) uint8,
    classes, and a sentence if not all have all rows, or None.
    """
    found = [find_predictions([path], labels) for path in paths]
    if repeated := first_repeated([file for files, *_ in found for file in files]):
        raise InputError(f"{repeated} is named for two networks; give each network once")
    classes = classes or next((names for *_, names in found if names), None) or load_classes("hpa")
    tables = [_pool(read_all_predictions(files, classes), classes) for files, *_ in found]
    shared = tables[0].index
    for table in tables[1:]:
        shared = shared[shared.isin(table.index)]
    if len(shared) < 2:
        raise InputError(
            f"{plural(len(shared), 'Id')} in all of {listing(paths)}; "
            "two or more are needed, so predict the same images with each"
        )
    most = max(map(len, tables))
    note = f"{len(shared):,} rows that all have, of {most:,}" if len(shared) < most else None
    members = np.stack([table.loc[shared].to_numpy() for table in tables])
    return members, _read_labels(labels, classes, shared), classes, note
