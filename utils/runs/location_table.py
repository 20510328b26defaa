"""Tables of names: where each protein is predicted to be, and how far that is to be trusted.

    Id             of the image; or the column by which images are combined, such as a well or a protein
    location       a class by name, one row per class predicted positive; empty if there is none
    probability    of the class; if thresholds.json holds a stack, the stack's
    threshold      which the probability reaches
    held_out_f1    cross-fitted F1 of the class at this threshold; empty if it was not measured
    fields         number of images combined, if they are
    unlike_training, reason    of `unlike_training.judge`, if the run has an image_statistics.json; combined: the mean alone
    without        channels that the networks were not shown, if any

Locations of an image are ordered by how far the probability is above its threshold, in log odds.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from utils.data.tables import check_ids, read_table
from utils.errors import InputError, listing, plural
from utils.files import write_csv
from utils.scoring.calibration import logit

FLOOR = 1e-12  # lower scores are as far from a threshold
COLUMNS = ("location", "probability", "threshold", "held_out_f1")


class Calls(NamedTuple):
    """What is predicted for N images. classes: C names. scores (N, C) in [0, 1]. thresholds (C,). f1 (C,): of each class
    held out, NaN if unknown. decisions (N, C) bool."""

    classes: tuple
    scores: np.ndarray
    thresholds: np.ndarray
    f1: np.ndarray
    decisions: np.ndarray

    def order(self):
        """(N, C) class numbers, of each image the class furthest above its threshold first."""
        return np.argsort(-log_odds_above(self.scores, self.thresholds), axis=1, kind="stable")

    def table(self, images):
        """The rows of a table of names. images: DataFrame, a row per image; the first column names it, the others follow
        the locations."""
        order = self.order()
        rows, places = np.nonzero(np.take_along_axis(self.decisions, order, axis=1))
        numbers = order[rows, places]
        columns = (
            np.array(self.classes)[numbers],
            self.scores[rows, numbers],
            self.thresholds[numbers],
            self.f1[numbers],
        )
        found = pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)), index=rows)
        table = images.reset_index(drop=True).join(found)
        return table[[images.columns[0], *COLUMNS, *images.columns[1:]]]


def call(classes, scores, thresholds, f1):
    """-> the Calls of scores (N, C) at thresholds."""
    return Calls(tuple(classes), scores, thresholds, f1, scores >= thresholds)


def log_odds_above(scores, thresholds):
    """(N, C): how far scores are above thresholds, as the logarithm of the ratio of their odds."""
    return logit(scores, FLOOR) - logit(thresholds, FLOOR)


def combine(calls, images, groups):
    """Average the scores of images of the same group: -> Calls of the groups, in the order of their first image, and
    their DataFrame for `Calls.table`.

    images: as there; its further columns, of numbers, are averaged too. groups: Series (N,) of str, whose name becomes
    that of the first column."""
    places, values = pd.factorize(groups)
    scores, more = (table.groupby(places).mean() for table in (pd.DataFrame(calls.scores), images.iloc[:, 1:]))
    table = pd.DataFrame({groups.name: values, "fields": np.bincount(places)}).join(more)
    return call(calls.classes, scores.to_numpy(), calls.thresholds, calls.f1), table


def read_groups(path, column, ids):
    """The value of a column in a table of images for each of `ids`: -> Series named `column`. Raises InputError for an Id
    that is missing or without a value, and for a column that a table of names has itself."""
    if column in ("Id", "fields", "unlike_training", "without", *COLUMNS):
        raise InputError(f"--combine {column} would give two columns of this name; rename it in {path}")
    table = read_table(path, ["Id", column], what="a table of images")
    check_ids(path, table["Id"])
    values = table.set_index("Id")[column].str.strip()
    if missing := [id_ for id_ in ids if id_ not in values.index]:
        raise InputError(f"{path} lacks {plural(len(missing), 'Id')} of the images: {listing(missing)}; add their rows")
    values = values.loc[list(ids)]
    if empty := list(values.index[values == ""]):
        raise InputError(f"{path}: {plural(len(empty), 'Id')} without a {column}: {listing(empty)}; fill in the column")
    return values


def write(path, calls, ids, groups=None, without="", **columns):
    """Write a table of names: -> number of locations in it. ids: of the N images. groups: of `read_groups`, to combine
    them. without: what the column of this name says. columns: further ones, (N,) each."""
    images = pd.DataFrame({"Id": ids, **columns})
    if groups is not None:
        calls, images = combine(calls, images, groups)
    write_csv(path, calls.table(images.assign(without=without) if without else images))
    return int(calls.decisions.sum())
