"""Prediction tables: `Id` and one column a class, named after it or its number, holding probabilities at full precision.

A run also keeps what every epoch said of its validation fold, compactly: `validation/epoch<number>.npy`, float16 (rows,
classes), rows in the order of its oof.csv.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from utils.safe_load import read_npy
from utils.errors import InputError, listing, plural
from utils.files import first_repeated, whole_file, write_csv
from utils.data.labels import as_number, check_ids, read_table

EPOCHS = "validation"  # the folder in a run


def write_predictions(path, ids, probabilities, classes):
    """Write (N, C) probabilities in the order of `ids`."""
    frame = pd.DataFrame(probabilities, columns=list(classes))
    frame.insert(0, "Id", list(ids))
    write_csv(path, frame)


def read_predictions(path, classes=None):
    """Read a predictions CSV: -> DataFrame of float64 indexed by Id (str), columns the class names. Columns that are the class
    numbers become `classes`, where these are given."""
    frame = read_table(path, ["Id"], what="a predictions CSV")
    check_ids(path, frame["Id"])
    names = [column for column in frame.columns if column != "Id"]
    if not names:
        raise InputError(f"{path} has no class columns beside Id")
    values = _numbers(frame[names].to_numpy(object))
    wrong = ~((values >= 0) & (values <= 1))  # NaN is wrong too
    if wrong.any():
        rows, columns = np.nonzero(wrong)
        cells = [
            f"row {r + 2}, {names[c]}: {frame[names[c]].iloc[r]!r}" for r, c in zip(rows[:3], columns[:3], strict=True)
        ]
        raise InputError(
            f"{path}: {plural(len(rows), 'value')} other than a probability from 0 to 1: {listing(cells, count=len(rows))}; mend the file"
        )
    table = pd.DataFrame(values, index=pd.Index(frame["Id"], name="Id"), columns=names)
    return table if classes is None else name_classes(table, classes)


def numbers_of(classes):
    """The numbers of classes as a table writes them: ``['0', '1', …]``."""
    return [str(number) for number in range(len(classes))]


def name_classes(table, classes):
    """A predictions table whose columns are the class numbers, in any order, with the names `classes`, in theirs; another table as
    it is."""
    numbers = numbers_of(classes)
    if set(table.columns) != set(numbers) or (set(classes) == set(numbers) and list(classes) != numbers):
        return table
    return table[numbers].set_axis(list(classes), axis=1)


def check_classes(path, table, classes):
    """Raise InputError unless the columns of a predictions table are `classes`, in their order."""
    if list(table.columns) != list(classes):
        differing = sorted(set(table.columns) ^ set(classes)) or ["their order"]
        raise InputError(
            f"{path} has other classes than expected: {listing(differing)}; name the class list with --classes"
        )


def _numbers(cells):
    """Strings to float64 exactly as written (pandas' own reader may be off in the last digit); NaN where there is none."""
    try:
        return cells.astype(np.float64)
    except ValueError:
        return np.array([[as_number(cell) for cell in row] for row in cells], np.float64)  # None becomes NaN


def read_all(paths, classes=None):
    """Read several prediction files: -> {path: DataFrame}. Columns that are the class numbers become `classes`, or where these are
    not given the names in the other files. Refuses a file given twice, and files of other classes."""
    if repeated := first_repeated(paths):
        raise InputError(f"{repeated} is given twice; name each file once")
    tables = {path: read_predictions(path) for path in paths}
    if classes is None:
        found = [list(table.columns) for table in tables.values()]
        classes = next((names for names in found if set(names) != set(numbers_of(names))), numbers_of(found[0]))
    tables = {path: name_classes(table, classes) for path, table in tables.items()}
    reference = tables[paths[0]]
    for path, table in tables.items():
        if list(table.columns) != list(reference.columns):
            differing = sorted(set(table.columns) ^ set(reference.columns)) or ["their order"]
            raise InputError(
                f"{path} has other classes than {paths[0]}: {listing(differing)}; give predictions of one class list"
            )
    return tables


def same_ids(path, ids, reference_path, reference):
    """Raise InputError unless `ids` and `reference` are the same set."""
    have, want = set(ids), set(reference)
    if have == want:
        return
    parts = [f"{plural(len(part), 'Id')} {what}: {listing(sorted(part))}"
             for part, what in ((want - have, "missing"), (have - want, "too many")) if part]  # fmt: skip
    raise InputError(f"{path} does not fit {reference_path}: {'; '.join(parts)}; predict the same Ids")


def write_epoch(run, epoch, probabilities):
    """Keep one epoch's (N, C) validation probabilities in half precision: 174 KB for 3,107 rows of 28 classes."""
    with whole_file(epoch_file(run, epoch), "wb") as file:
        np.save(file, probabilities.astype(np.float16))


def read_epochs(run, epochs, shape):
    """The validation probabilities of several epochs: (len(epochs), *shape) float64. Raises InputError where one is missing."""
    return np.stack([_read_epoch(epoch_file(run, epoch), shape) for epoch in epochs])


def epoch_file(run, epoch):
    return Path(run) / EPOCHS / f"epoch{epoch:03}.npy"


def epoch_files(run):
    """[(epoch, path)] of the epochs that are there."""
    found = [(path.stem.removeprefix("epoch"), path) for path in (Path(run) / EPOCHS).glob("epoch*.npy")]
    return [(int(number), path) for number, path in found if number.isdecimal()]


def _read_epoch(path, shape):
    values = read_npy(path, "train the fold anew")
    if values.shape != shape:
        raise InputError(f"{path} has the shape {values.shape}, the fold's oof.csv {shape}; train the fold anew")
    return values.astype(np.float64)
