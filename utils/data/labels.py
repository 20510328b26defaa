"""Class lists and label tables: reading, checking, and turning `Target` strings into a 0/1 matrix and back."""

import csv
import os
import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from utils.data.tables import csv_rows
from utils.errors import InputError, first_line, listing, plural, refused_by_system
from utils.files import is_stem, nfc
from utils.safe_load import file_size

HPA_CLASSES = (
    "Nucleoplasm", "Nuclear membrane", "Nucleoli", "Nucleoli fibrillar center", "Nuclear speckles", "Nuclear bodies",
    "Endoplasmic reticulum", "Golgi apparatus", "Peroxisomes", "Endosomes", "Lysosomes", "Intermediate filaments",
    "Actin filaments", "Focal adhesion sites", "Microtubules", "Microtubule ends", "Cytokinetic bridge",
    "Mitotic spindle", "Microtubule organizing center", "Centrosome", "Lipid droplets", "Plasma membrane",
    "Cell junctions", "Mitochondria", "Aggresome", "Cytosol", "Cytoplasmic bodies", "Rods & rings",
)  # fmt: skip
CYTO_CLASSES = (
    "Actin filaments", "Centrosome", "Cytosol", "Endoplasmic reticulum", "Golgi apparatus", "Intermediate filaments",
    "Microtubules", "Mitochondria", "Nuclear membrane", "Nucleoli", "Nucleus", "Plasma membrane", "Vesicles",
)  # fmt: skip
# The Cyto class that each HPA class is or belongs to, by number: the Human Protein Atlas' hierarchy of compartments
# (proteinatlas.org, subcellular section; Thul et al. 2017), in which Aggresome, Cytoplasmic bodies and Rods & rings are
# in the cytosol and Lipid droplets are vesicles.
HPA_TO_CYTO = (
    "Nucleus", "Nuclear membrane", "Nucleoli", "Nucleoli", "Nucleus", "Nucleus",
    "Endoplasmic reticulum", "Golgi apparatus", "Vesicles", "Vesicles", "Vesicles", "Intermediate filaments",
    "Actin filaments", "Actin filaments", "Microtubules", "Microtubules", "Microtubules",
    "Microtubules", "Centrosome", "Centrosome", "Vesicles", "Plasma membrane",
    "Plasma membrane", "Mitochondria", "Cytosol", "Cytosol", "Cytosol", "Cytosol",
)  # fmt: skip
MOST_BYTES, MOST_CELLS = 2**30, 3 * 10**7  # of a table: a million rows of 28 classes
CLASS_LISTS = {"hpa": HPA_CLASSES, "cyto": CYTO_CLASSES}


def load_classes(spec):
    """Class names in order of their numbers.

    `spec` is ``hpa`` (28 classes of the Kaggle competition), ``cyto`` (13 of the Cyto Challenge 2017) or the path of a
    CSV with the columns ``class,name``, whose numbers run from 0 without gaps.
    """
    if spec in CLASS_LISTS:
        return list(CLASS_LISTS[spec])
    frame = read_table(spec, ["class", "name"], what=f"a class list (or one of {', '.join(CLASS_LISTS)})")
    numbers = [_class_number(text.strip(), len(frame)) for text in frame["class"]]
    if None in numbers or len(set(numbers)) < len(frame):
        raise InputError(f"{spec}: the column 'class' must hold the numbers 0 to {len(frame) - 1}, each once")
    names = [name.strip() for _, name in sorted(zip(numbers, frame["name"], strict=True))]
    if len(set(names)) < len(names) or not all(name.isprintable() and name not in ("", "Id") for name in names):
        raise InputError(f"{spec}: every class needs a printable name of its own, other than Id")
    return names


def read_table(path, columns, what="a table", least=1):
    """Read a CSV as text, Ids in composed Unicode. Raises InputError unless it is a well-formed CSV that has `columns` and at least
    so many rows."""
    path = Path(path)
    if not os.path.isfile(path):  # pathlib's raises where the name is too long
        try:
            os.stat(path)
        except PermissionError as error:
            raise InputError(refused_by_system(error)) from None
        except (OSError, ValueError):
            pass
        state = (
            "is a folder" if os.path.isdir(path) else "is no regular file" if os.path.exists(path) else "does not exist"
        )
        raise InputError(f"{path} {state}; it should be {what} with the columns {','.join(columns)}")
    header, rows = _read_rows(path, columns)
    if not header and not rows:
        raise InputError(f"{path} is empty; it should have the columns {','.join(columns)}")
    if missing := [column for column in columns if column not in header]:
        if len(columns) > 1 and {"ID", "Label"} <= set(header):
            raise InputError(
                f"{path} has the columns ID,Label of the single-cell competition of 2021; name them {','.join(columns)}, put spaces "
                f"in place of the bars between class numbers, and name its 19 classes with --classes"
            )
        raise InputError(
            f"{path} lacks the column {' and '.join(missing)} (it has: {listing(header, show=6)}); "
            f"name its columns {','.join(columns)}{', with commas between' if len(header) == 1 < len(columns) else ''}"
        )
    if len(set(header)) < len(header):
        raise InputError(f"{path} has two columns of the same name ({listing(header, show=6)}); rename one")
    if ragged := [number for number, row in enumerate(rows, 2) if len(row) != len(header)]:
        shown = listing([f"row {number} ({len(rows[number - 2])})" for number in ragged])
        raise InputError(
            f"{path} has {plural(len(header), 'column')}, but {plural(len(ragged), 'row')} with more or fewer: {shown}"
        )
    if len(rows) < least:
        raise InputError(f"{path} has a header but no rows")
    frame = pd.DataFrame(rows, columns=header, dtype=object)
    return frame.assign(
        **{name: [nfc(text.strip(" ")) for text in frame[name]] for name in ("Id", "twin") if name in header}
    )


def _read_rows(path, columns):
    """The header and the rows of a CSV that should have `columns`: lists of str, without blank lines at the end."""
    file_size(path, MOST_BYTES)
    rows, cells = [], 0
    try:
        with csv_rows(path, columns, MOST_BYTES) as lines:
            for row in lines:
                cells += len(row)
                if cells > MOST_CELLS:
                    raise InputError(f"{path} has more than {MOST_CELLS:,} cells; give a smaller table")
                rows.append(row)
    except UnicodeError as error:
        name = getattr(error, "encoding", "utf-8").upper()
        raise InputError(f"{path} is not text in {name} ({first_line(error)}); save it in UTF-8") from None
    except (csv.Error, OSError, EOFError, zlib.error) as error:
        raise InputError(
            refused_by_system(error) or f"{path} is not a CSV file ({first_line(error)}); mend it, or save it as CSV"
        ) from None
    while len(rows) > 1 and not rows[-1]:
        rows.pop()
    return ([name.strip() for name in rows[0]], rows[1:]) if rows else ([], [])


def as_number(text):
    """The number that a cell of a table holds, with a decimal point or comma; None where it holds none."""
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return None


def check_ids(path, ids):
    """Raise InputError unless every id is a usable, unique file-name stem. `ids` is a Series in row order."""
    bad = [row for row, text in zip(ids.index, ids, strict=True) if not is_stem(text)]
    if bad:
        rows = listing([f"row {row + 2} ({ids[row]!r})" for row in bad])
        raise InputError(
            f"{path}: {plural(len(bad), 'Id')} empty or not usable as a file name: {rows}; mend the column Id"
        )
    repeated = ids[ids.duplicated()].unique()
    if len(repeated):
        raise InputError(
            f"{path}: {plural(len(repeated), 'Id')} more than once: {listing(repeated)}; keep one row of each"
        )


def read_labels(path, classes, column="Target"):
    """Read `Id,Target` rows and check them against `classes`.

    Returns a DataFrame with `Id` (str), `Target` (str, class numbers ascending, may be empty) and any other columns
    of the file. Raises InputError naming the file and the first bad rows.
    """
    frame = read_table(path, ["Id", column], what="a label table")
    check_ids(path, frame["Id"])
    targets, bad = [], []
    for row, text in enumerate(frame[column]):
        words = text.split()
        numbers = sorted({_class_number(word, len(classes)) for word in words} - {None})
        if len(numbers) < len(words):
            bad.append(f"row {row + 2} ({text!r})")
        targets.append(" ".join(map(str, numbers)))
    if bad:
        raise InputError(
            f"{path}: {plural(len(bad), 'row')} with something other than different class numbers 0 to "
            f"{len(classes) - 1} in {column}: {listing(bad)}; write them with spaces between, as 0 2"
        )
    return frame.assign(**{column: targets})


def read_truth(path, classes, ids, of):
    """Labels of `ids` in their order: (N, C) uint8. Raises InputError where the table lacks one; `of`: the file they are from."""
    targets = read_labels(path, classes).set_index("Id")["Target"]
    known = set(targets.index)
    if unknown := [id_ for id_ in ids if id_ not in known]:
        raise InputError(
            f"{path} lacks {plural(len(unknown), 'Id')} of {of}: {listing(unknown)}; give the labels they belong to"
        )
    return encode(targets.loc[list(ids)], classes)


def _class_number(word, count):
    """The class number that `word` writes, None where it is none below `count`."""
    return int(word) if word.isascii() and word.isdecimal() and len(word) < 6 and int(word) < count else None


TEST = -2  # the fold of rows that are never trained nor validated on


def part_name(fold, parts):
    """How a fold is called in tables: f0, f1, …, or in a split into three: train, valid, test."""
    return {-1: "train", 0: "valid", TEST: "test"}[fold] if -1 in parts else f"f{fold}"


def split_fold(path, classes, fold, limit=0, seed=0, train_limit=0, single=False):
    """Rows of a folds file to train on (all other folds, and −1) and to validate on: two DataFrames. Rows of fold −2, an
    external test set, are in neither.

    At most `limit` of each, and at most `train_limit` to train on (0: all), the first of one random order, so that the
    rows of a smaller limit are among those of a larger one; with `single` only rows of exactly one class. Raises InputError
    when there is no such fold, or only it, or when a row has a near-duplicate in the external test set.
    """
    rows = read_folds(path, classes)
    check_apart(path, rows)
    rows = rows[rows["fold"] != TEST].reset_index(drop=True)
    existing = sorted(set(rows["fold"]) - {-1})
    if fold not in existing:
        raise InputError(f"{path} has no fold {fold}; it has {', '.join(map(str, existing)) or 'none but -1'}")
    parts = rows[rows["fold"] != fold], rows[rows["fold"] == fold]
    if not len(parts[0]):
        raise InputError(f"{path} has no rows outside fold {fold} to train on; make two folds or more")
    if single:
        parts = tuple(part[part["Target"].str.fullmatch(r"\d+")] for part in parts)
        if not all(map(len, parts)):
            raise InputError(
                f"{path} has no image of exactly one class in fold {fold}, or none outside it; take another --fold"
            )
    order = np.random.default_rng(seed).permutation(len(rows))
    most = min(limit or len(rows), train_limit or len(rows)), limit or len(rows)
    return tuple(
        part.iloc[np.argsort(order[part.index], kind="stable")[:count]].sort_index().reset_index(drop=True)
        for part, count in zip(parts, most)
    )


def check_apart(path, rows):
    """Raise InputError where a row to train or validate on is in one group of near-duplicates with a test row."""
    if "group" not in rows.columns:
        return
    test = rows["fold"] == TEST
    shared = rows[~test & rows["group"].isin(set(rows["group"][test]))]
    if len(shared):
        named = listing([f"row {row + 2} ({id_})" for row, id_ in shared["Id"].items()])
        raise InputError(
            f"{path}: {plural(len(shared), 'row')} to train on with a twin in the external test set (fold {TEST}): {named}; "
            f"make the folds with make_folds.py --test"
        )


def encode(targets, classes):
    """`Target` strings to a matrix: (N,) strings and C class names -> (N, C) uint8 of 0 and 1."""
    matrix = np.zeros((len(targets), len(classes)), np.uint8)
    for row, text in enumerate(targets):
        matrix[row, [int(word) for word in text.split()]] = 1
    return matrix


def decode(matrix):
    """The inverse of `encode`: (N, C) 0/1 -> list of N strings, class numbers ascending."""
    return [" ".join(map(str, np.flatnonzero(row))) for row in np.asarray(matrix)]


def read_folds(path, classes):
    """Read a `folds.csv`: what `read_labels` checks, and `fold` as int (−1 = always train, −2 = external test, never
    trained on). `source`, `group` as found."""
    frame = read_labels(path, classes)
    if "fold" not in frame.columns:
        raise InputError(f"{path} lacks the column fold; make it with make_folds.py")
    bad = [f"row {row + 2} ({text!r})" for row, text in enumerate(frame["fold"]) if not _is_fold(text)]
    if bad:
        raise InputError(
            f"{path}: {plural(len(bad), 'row')} whose fold is no whole number from -2 to 99999: {listing(bad)}; mend them"
        )
    return frame.assign(fold=frame["fold"].astype(int))


def _is_fold(text):
    return text in ("-1", "-2") or (text.isascii() and text.isdecimal() and len(text) < 6)
