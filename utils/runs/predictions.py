"""Prediction tables: `Id` and one column of probabilities per class, its name or number.

A run also keeps the validation probabilities of every epoch: `validation/epoch<number>.npy`, float16 (rows, classes),
rows in the order of its oof.csv.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from utils.data.tables import as_number, check_ids, read_table
from utils.errors import InputError, listing, plural
from utils.files import first_repeated, whole_file, write_csv
from utils.safe_load import read_npy

EPOCHS_FOLDER = "validation"  # in a run


def write_predictions(path, ids, probabilities, classes):
    """Write (N, C) probabilities at full precision, in the order of `ids`."""
    table = pd.DataFrame(probabilities, columns=list(classes))
    table.insert(0, "Id", list(ids))
    write_csv(path, table)


def read_predictions(path, classes=None):
    """Read a predictions CSV: -> DataFrame of float64 indexed by Id, one column per class. Class numbers as columns are
    replaced by the names `classes`, if given."""
    cells = read_table(path, ["Id"], what="a predictions CSV")
    check_ids(path, cells["Id"])
    table = cells.drop(columns="Id").set_axis(pd.Index(cells["Id"], name="Id"))
    if not len(table.columns):
        raise InputError(f"{path} has no class columns beside Id")
    table = to_numbers(path, table)
    return table if classes is None else name_classes(table, classes)


def to_numbers(path, table, most=1.0, what="a probability from 0 to 1"):
    """Convert the text of a DataFrame to float64. Raise InputError for anything but a number from 0 to `most`, which is
    `what` the message asks for."""
    values = _to_floats(table.to_numpy(object))
    wrong = ~((values >= 0) & (values <= most))  # NaN is wrong too
    if wrong.any():
        places = list(zip(*np.nonzero(wrong), strict=True))
        shown = [f"row {row + 2}, {table.columns[c]}: {table.iloc[row, c]!r}" for row, c in places[:3]]
        found = f"{plural(len(places), 'value')} other than {what}"
        raise InputError(f"{path}: {found}: {listing(shown, count=len(places))}; fix the file")
    return pd.DataFrame(values, index=table.index, columns=table.columns)


def _to_floats(cells):
    """Convert strings to float64, exactly (pandas' reader may round the last digit); NaN for anything but a number."""
    try:
        return cells.astype(np.float64)
    except ValueError:
        return np.array([[as_number(cell) for cell in row] for row in cells], np.float64)


def numbers_of(classes):
    """Return the class numbers as text: ``['0', '1', …]``."""
    return [str(number) for number in range(len(classes))]


def name_classes(table, classes):
    """Return the table with its class numbers replaced by `classes`, in their order; unchanged if it has names."""
    numbers = numbers_of(classes)
    if set(table.columns) != set(numbers) or (set(classes) == set(numbers) and list(classes) != numbers):
        return table
    return table[numbers].set_axis(list(classes), axis=1)


def check_classes(path, table, classes, expected="expected", fix="name the class list with --classes"):
    """Raise InputError unless the columns of a predictions table are `classes`, in their order."""
    if list(table.columns) != list(classes):
        differing = sorted(set(table.columns) ^ set(classes)) or ["their order"]
        raise InputError(f"{path} has other classes than {expected}: {listing(differing)}; {fix}")


def read_all_predictions(paths, classes=None):
    """Read prediction files with the same classes: -> {path: DataFrame}. Class numbers as columns are replaced by
    `classes` or the names in another file. Raise InputError for a file given twice."""
    if repeated := first_repeated(paths):
        raise InputError(f"{repeated} is given twice; name each file once")
    tables = {path: read_predictions(path) for path in paths}
    if classes is None:
        found = [list(table.columns) for table in tables.values()]
        classes = next((names for names in found if set(names) != set(numbers_of(names))), numbers_of(found[0]))
    tables = {path: name_classes(table, classes) for path, table in tables.items()}
    for path, table in tables.items():
        check_classes(path, table, tables[paths[0]].columns, paths[0], "give predictions of one class list")
    return tables


def check_same_ids(path, ids, reference_path, reference):
    """Raise InputError unless `ids` and `reference` are the same set."""
    parts = {"missing": set(reference) - set(ids), "too many": set(ids) - set(reference)}
    found = [f"{plural(len(part), 'Id')} {what}: {listing(sorted(part))}" for what, part in parts.items() if part]
    if found:
        raise InputError(f"{path} does not fit {reference_path}: {'; '.join(found)}; predict the same Ids")


def epoch_file(run, epoch):
    return Path(run) / EPOCHS_FOLDER / f"epoch{epoch:03}.npy"


def epoch_files(run):
    """Return [(epoch, path)] of the epochs kept."""
    found = [(path.stem.removeprefix("epoch"), path) for path in (Path(run) / EPOCHS_FOLDER).glob("epoch*.npy")]
    return [(int(number), path) for number, path in found if number.isdecimal()]


def write_epoch(run, epoch, probabilities):
    """Keep one epoch's (N, C) validation probabilities: 174 KB for 3,107 rows of 28 classes."""
    with whole_file(epoch_file(run, epoch), "wb") as file:
        np.save(file, probabilities.astype(np.float16))


def read_epochs(run, epochs, shape):
    """Read the validation probabilities of `epochs`: -> (len(epochs), *shape) float64."""
    values = []
    for path in (epoch_file(run, epoch) for epoch in epochs):
        values.append(read_npy(path, "train the fold again"))
        if (found := values[-1].shape) != shape:
            raise InputError(f"{path} has the shape {found}, the fold's oof.csv {shape}; train the fold again")
    return np.stack(values).astype(np.float64)
