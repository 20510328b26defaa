"""Pseudo-labels: images without labels are trained on with the probabilities that predict.py gave them as soft targets.

Where a whole number of positives is needed (rows.csv, class weights), a probability from 0.5 on is one. The network of the same fold
should predict them: other folds' networks were trained on this fold's validation images, and pass on what they learned from them.
"""

import numpy as np
import pandas as pd

from utils.data.labels import decode, encode
from utils.data.tables import read_table
from utils.errors import InputError, listing, plural
from utils.runs.predictions import check_classes, read_predictions


def read_pseudo_labels(path, folds, classes, limit=0):
    """Read a predictions CSV of images to train on: -> DataFrame of float64 indexed by Id, one column per class, at most `limit`
    rows (0: all). Raise InputError for an Id of the table `folds`, in any fold: its label is known, or is not to be trained on."""
    table = read_predictions(path, classes)
    check_classes(path, table, classes, "the folds", "predict with networks of these classes")
    known = set(read_table(folds, ["Id"])["Id"])
    if both := [id_ for id_ in table.index if id_ in known]:
        raise InputError(
            f"{path}: {plural(len(both), 'Id')} also in {folds}: {listing(both)}; leave these rows out of one"
        )
    return table.iloc[: limit or None]


def add_pseudo_labels(rows, soft):
    """Return the rows to train on (DataFrame with Id and Target) and after them those of `read_pseudo_labels`."""
    added = pd.DataFrame({"Id": soft.index, "Target": decode(soft >= 0.5)})
    return pd.concat([rows, added], ignore_index=True)


def soft_targets(rows, soft):
    """Encode the Target of rows (N,), or take the probabilities of those with pseudo-labels: -> (N, C) float32."""
    targets = encode(rows["Target"], soft.columns).astype(np.float32)
    pseudo = rows["Id"].isin(soft.index).to_numpy()
    targets[pseudo] = soft.loc[rows["Id"][pseudo]]
    return targets
