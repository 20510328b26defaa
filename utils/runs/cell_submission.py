"""Submissions of the single-cell competition of 2021, and the tables of cells that they are made from.

A table of cells has a row per cell: Id of the image, cell, its number in the image's label image, and for each class, by
name, a number from 0 to 1; other columns are ignored. Classes are the 28 of the atlas or the 19 of the competition.

A submission has the columns ID,ImageWidth,ImageHeight,PredictionString; the last holds for each detection a class number, a
confidence and a mask (see utils/data/run_length.py), with spaces between.
"""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from utils.data.images import MOST_SIDE, image_size
from utils.data.labels import HPA2021_CLASSES, HPA_CLASSES, merge
from utils.data.masks import read_mask
from utils.data.run_length import decode_runs, encode_runs, runs_of_cells
from utils.data.tables import check_ids, read_table
from utils.errors import InputError, listing, plural
from utils.files import whole_file
from utils.runs.predictions import to_numbers

COLUMNS = ("ID", "ImageWidth", "ImageHeight", "PredictionString")


class Detections(NamedTuple):
    """What is detected in one image. shape: its height and width. masks: runs of M different masks. mask, classes,
    confidence: (N,) int, int, float64, of each detection the place of its mask, its class and how sure it is."""

    shape: tuple
    masks: list
    mask: np.ndarray
    classes: np.ndarray
    confidence: np.ndarray


def read_cells(path, **limits):
    """Read a table of cells: -> DataFrame of float64 indexed by Id and cell (int), one column per class. limits: of
    `to_numbers`, if the classes have no probabilities."""
    table = read_table(path, ["Id", "cell"], what="a table of cells", least=0)
    check_ids(path, table["Id"].drop_duplicates())
    numbers = table["cell"].str.fullmatch("0*[1-9][0-9]{0,8}")
    if bad := [f"row {row + 2} ({table['cell'][row]!r})" for row in np.flatnonzero(~numbers.to_numpy(bool))]:
        raise InputError(
            f"{path}: {plural(len(bad), 'row')} whose cell is not a number from 1: {listing(bad)}; fix them"
        )
    classes = next((list(names) for names in (HPA2021_CLASSES, HPA_CLASSES) if set(names) <= set(table.columns)), None)
    if classes is None:
        lacking = listing([name for name in HPA_CLASSES if name not in table.columns])
        raise InputError(
            f"{path} has a column neither for each of the 28 classes nor for each of the 19; it lacks {lacking}"
        )
    index = pd.MultiIndex.from_arrays([table["Id"], table["cell"].astype(int)], names=["Id", "cell"])
    if index.has_duplicates:
        repeated = [f"cell {cell} of {id_}" for id_, cell in index[index.duplicated()].unique()]
        raise InputError(f"{path} has {listing(repeated)} more than once; keep one row of each")
    return to_numbers(path, table[classes], **limits).set_axis(index)


def average_cells(paths):
    """Average tables of the same cells: -> DataFrame as of `read_cells`, of the 19 classes."""
    tables = [as_2021(read_cells(path)) for path in paths]
    for path, table in zip(paths[1:], tables[1:], strict=True):
        if len(other := table.index.symmetric_difference(tables[0].index)):
            names = listing([f"cell {cell} of {id_}" for id_, cell in other])
            raise InputError(f"{path} and {paths[0]} do not have the same cells: {names}; predict with the same masks")
    return sum(table.loc[tables[0].index] for table in tables) / len(tables)


def as_2021(table):
    """Merge the 28 classes of a table of cells into the 19; one that has these is returned as it is."""
    if set(table.columns) == set(HPA2021_CLASSES):
        return table[list(HPA2021_CLASSES)]
    return pd.DataFrame(merge(table[list(HPA_CLASSES)], "hpa2021"), index=table.index, columns=HPA2021_CLASSES)


def read_cell_masks(path, shape, cells):
    """Read the runs of these cells (ints) from a label image of `shape`: -> list."""
    runs = runs_of_cells(read_mask(path, shape))
    if lacking := [cell for cell in cells if cell not in runs]:
        raise InputError(f"{path} lacks cell {listing(lacking)} of the table of cells; name the masks it was made with")
    return [runs[cell] for cell in cells]


def write_submission(path, cells, folder, sample, least):
    """Write a submission, rows as in the sample submission: -> number of detections, and Ids without any.

    cells: of `average_cells`. folder: of label images `<Id>.png`. least: detections have a confidence above it.
    """
    rows = read_table(sample, ["Id"], what="the sample submission")
    check_ids(sample, rows["Id"])
    if unknown := sorted(set(cells.index.unique("Id")) - set(rows["Id"])):
        raise InputError(f"{sample} lacks {plural(len(unknown), 'Id')} of the table of cells: {listing(unknown)}")
    sizes = set(COLUMNS[1:3]) <= set(rows.columns)
    count, empty, of_image = 0, [], dict(list(cells.groupby(level="Id")))
    with whole_file(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for number, row in enumerate(tqdm(rows.to_dict("records"), unit="img", disable=None), start=2):
            mask = Path(folder) / f"{row['Id']}.png"
            shape = _shape(sample, number, row) if sizes else image_size(mask)[:2]
            words = _describe(mask, shape, of_image[row["Id"]], least) if row["Id"] in of_image else []
            writer.writerow((row["Id"], shape[1], shape[0], " ".join(words)))
            count += len(words)
            if not words:
                empty.append(row["Id"])
    return count, empty


def _describe(mask, shape, cells, least):
    """-> the detections of one image as text."""
    scores = cells.to_numpy()
    masks = read_cell_masks(mask, shape, cells.index.get_level_values("cell"))
    texts = [encode_runs(runs, shape[0] * shape[1]) for runs in masks]
    return [
        f"{number} {scores[row, number]!s} {texts[row]}"
        for row, number in zip(*np.nonzero(scores > least), strict=True)
    ]


def _shape(path, number, row):
    """-> height and width in a row of a submission."""
    sides = [row[name] for name in COLUMNS[2:0:-1]]
    if not all(text.isascii() and text.isdecimal() and len(text) < 6 and 0 < int(text) <= MOST_SIDE for text in sides):
        raise InputError(
            f"{path}, row {number}: ImageWidth and ImageHeight are not numbers from 1 to {MOST_SIDE}; fix them"
        )
    return tuple(map(int, sides))


def read_submission(path):
    """Read a submission: -> {Id: Detections}."""
    table = read_table(path, ["Id", *COLUMNS[1:]], what="a submission of the single-cell competition")
    check_ids(path, table["Id"])
    found = {}
    for number, row in enumerate(table.to_dict("records"), start=2):
        shape = _shape(path, number, row)
        try:
            found[row["Id"]] = _parse(row["PredictionString"], shape)
        except InputError as error:
            raise InputError(
                f"{path}, row {number} ({row['Id']}): {error}; write it as class, confidence, mask"
            ) from None
    return found


def _parse(text, shape):
    words = text.split()
    if len(words) % 3:
        raise InputError(f"PredictionString has {plural(len(words), 'word')}, which is no multiple of three")
    places = {word: place for place, word in enumerate(dict.fromkeys(words[2::3]))}
    masks = [decode_runs(word, shape[0] * shape[1]) for word in places]
    classes = np.array([_class_number(word) for word in words[::3]], int)
    confidence = np.array([_confidence(word) for word in words[1::3]], float)
    return Detections(shape, masks, np.array([places[word] for word in words[2::3]], int), classes, confidence)


def _class_number(word):
    if word.isascii() and word.isdecimal() and len(word) < 6 and int(word) < len(HPA2021_CLASSES):
        return int(word)
    raise InputError(f"the class {word!r} is not a number from 0 to {len(HPA2021_CLASSES) - 1}")


def _confidence(word):
    try:
        value = float(word)
    except ValueError:
        value = np.nan
    if np.isfinite(value):
        return value
    raise InputError(f"the confidence {word!r} is not a number")
