"""What labels and folds tell before training: imbalance, co-occurrence, an example of each class, the balance of folds."""

import numpy as np

from utils.data.images import scan_folder
from utils.data.labels import TEST_FOLD, encode, read_folds


def imbalance(counts):
    """How many times as many images the commonest class has as the rarest that has any: (C,) int -> float, NaN of none."""
    some = np.asarray(counts)[np.asarray(counts) > 0]
    return float(some.max() / some.min()) if len(some) else float("nan")


def co_occurrence(labels):
    """Percent of the images of each class (row) that have each class (column): (N, C) 0/1 -> (C, C), NaN in rows of classes
    without an image."""
    labels = np.asarray(labels, float)
    counts = labels.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return 100 * (labels.T @ labels) / counts[:, None]


def plainest_of_each(labels, ids, seed=0):
    """For each class the image with the fewest other classes: (N, C) 0/1 and N ids -> [(class, id, number of others)], common
    to rare; equally good ones by chance. Classes without an image are left out."""
    labels = np.asarray(labels)
    size = labels.sum(axis=1) + np.random.default_rng(seed).random(len(labels))
    order = [number for number in np.argsort(-labels.sum(axis=0), kind="stable") if labels[:, number].any()]
    rows = [int(np.where(labels[:, number] > 0, size, np.inf).argmin()) for number in order]
    return [(int(number), ids[row], int(labels[row].sum()) - 1) for number, row in zip(order, rows, strict=True)]


def split_of(path, classes):
    """A folds.csv as `plots.fold_split` takes it: -> labels (N, C) 0/1, fold (N,) int, dealt (N,) bool, {fold: share}.

    One fold 0 alone is the validation part of make_folds.py --split, whose shares then are those that were dealt.
    """
    table = read_folds(path, classes)
    fold = table["fold"].to_numpy()
    numbers = sorted(set(fold[fold >= 0].tolist()))
    if numbers == [0]:
        parts = {part: float((fold == part).mean()) for part in (-1, 0, TEST_FOLD) if (fold == part).any()}
        return encode(table["Target"], classes), fold, np.ones(len(fold), bool), parts
    return encode(table["Target"], classes), fold, fold >= 0, dict.fromkeys(numbers, 1 / max(1, len(numbers)))


def fold_options(data, out, folds=5, most=5000):
    """The options with which make_folds.py deals out the labels of the Data (utils.notebook.available_data) into the table `out`. Near-duplicates are
    looked for where there are at most `most` samples and the two channels that tell them are there of all."""
    options = ["--labels", data.folder / "train.csv", "--folds", folds, "--seed", 0, "-o", out]
    there = scan_folder(data.folder / "train")
    whole = all({"green", "blue"} <= set(there.get(id_, ())) for id_ in data.labels["Id"])
    if len(data.labels) > most or not whole:
        return [*options, "--hash-distance", -1]
    return [*options, "--images", data.folder / "train", "--allow-unlabelled"]
