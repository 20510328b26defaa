"""Class lists, label tables and folds; `Target` strings as a 0/1 matrix and back."""

import re

import numpy as np

from utils.data.tables import check_ids, read_table
from utils.errors import InputError, listing, plural

# The HPA classes in the order of their numbers, each with its Cyto class: the Human Protein Atlas' hierarchy of
# compartments (proteinatlas.org, subcellular section; Thul et al. 2017).
HIERARCHY = {
    "Nucleoplasm": "Nucleus",
    "Nuclear membrane": "Nuclear membrane",
    "Nucleoli": "Nucleoli",
    "Nucleoli fibrillar center": "Nucleoli",
    "Nuclear speckles": "Nucleus",
    "Nuclear bodies": "Nucleus",
    "Endoplasmic reticulum": "Endoplasmic reticulum",
    "Golgi apparatus": "Golgi apparatus",
    "Peroxisomes": "Vesicles",
    "Endosomes": "Vesicles",
    "Lysosomes": "Vesicles",
    "Intermediate filaments": "Intermediate filaments",
    "Actin filaments": "Actin filaments",
    "Focal adhesion sites": "Actin filaments",
    "Microtubules": "Microtubules",
    "Microtubule ends": "Microtubules",
    "Cytokinetic bridge": "Microtubules",
    "Mitotic spindle": "Microtubules",
    "Microtubule organizing center": "Centrosome",
    "Centrosome": "Centrosome",
    "Lipid droplets": "Vesicles",
    "Plasma membrane": "Plasma membrane",
    "Cell junctions": "Plasma membrane",
    "Mitochondria": "Mitochondria",
    "Aggresome": "Cytosol",
    "Cytosol": "Cytosol",
    "Cytoplasmic bodies": "Cytosol",
    "Rods & rings": "Cytosol",
}
HPA_CLASSES, HPA_TO_CYTO = tuple(HIERARCHY), tuple(HIERARCHY.values())
CYTO_CLASSES = tuple(sorted(set(HPA_TO_CYTO)))

# The single-cell competition of 2021, in the order of its numbers.
VESICLES, NEGATIVE = "Vesicles and punctate cytosolic patterns", "Negative"  # Negative: none of the others
HPA2021_CLASSES = (
    "Nucleoplasm",
    "Nuclear membrane",
    "Nucleoli",
    "Nucleoli fibrillar center",
    "Nuclear speckles",
    "Nuclear bodies",
    "Endoplasmic reticulum",
    "Golgi apparatus",
    "Intermediate filaments",
    "Actin filaments",
    "Microtubules",
    "Mitotic spindle",
    "Centrosome",
    "Plasma membrane",
    "Mitochondria",
    "Aggresome",
    "Cytosol",
    VESICLES,
    NEGATIVE,
)
# The HPA classes that it does not have. The first seven are merged as in the dictionary published with kaggle_2021.tsv,
# the atlas' labels for this competition. The last four are not in it.
MERGED_IN_2021 = {
    "Peroxisomes": VESICLES,
    "Endosomes": VESICLES,
    "Lysosomes": VESICLES,
    "Lipid droplets": VESICLES,
    "Cytoplasmic bodies": VESICLES,
    "Focal adhesion sites": "Actin filaments",
    "Cell junctions": "Plasma membrane",
    "Microtubule ends": "Microtubules",  # as in the hierarchy: they are seen on the same fibres
    "Cytokinetic bridge": "Microtubules",  # as in the hierarchy: a bundle of them between two cells
    "Microtubule organizing center": "Centrosome",  # as in the hierarchy: the region around it
    "Rods & rings": VESICLES,  # few bright bodies in the cytosol, as cytoplasmic bodies are; Cytosol is diffuse
}
HPA_TO_2021 = tuple(MERGED_IN_2021.get(name, name) for name in HPA_CLASSES)

CLASS_LISTS = {"hpa": HPA_CLASSES, "cyto": CYTO_CLASSES, "hpa2021": HPA2021_CLASSES}
MERGED = {"cyto": HPA_TO_CYTO, "hpa2021": HPA_TO_2021}  # the class in another list of each HPA class
USE_2021 = "name its 19 classes with --classes hpa2021"
TEST_FOLD = -2  # rows of an external test set, never used in training or validation; −1: always trained on


def load_classes(spec):
    """Return class names in the order of their numbers.

    spec: ``hpa`` (28 classes of the Kaggle competition), ``cyto`` (13 of the Cyto Challenge 2017), ``hpa2021`` (19 of
    the single-cell competition) or the path of a CSV with the columns ``class,name``, numbered from 0 without gaps.
    """
    if spec in CLASS_LISTS:
        return list(CLASS_LISTS[spec])
    table = read_table(spec, ["class", "name"], what=f"a class list (or one of {', '.join(CLASS_LISTS)})")
    numbers = [_class_number(text.strip(), len(table)) for text in table["class"]]
    if None in numbers or len(set(numbers)) < len(table):
        raise InputError(f"{spec}: the column 'class' must contain the numbers 0 to {len(table) - 1}, each once")
    names = [name.strip() for _, name in sorted(zip(numbers, table["name"], strict=True))]
    if len(set(names)) < len(names) or not all(name.isprintable() and name not in ("", "Id") for name in names):
        raise InputError(f"{spec}: every class needs a unique printable name other than Id")
    return names


def _class_number(text, num_classes):
    """Parse a class number below `num_classes`; return None for anything else."""
    plain = text.isascii() and text.isdecimal() and len(text) < 6
    return int(text) if plain and int(text) < num_classes else None


def read_labels(path, classes, column="Target"):
    """Read an `Id,Target` table, or the `ID,Label` of the single-cell competition: -> DataFrame with `Id`, `Target` (class
    numbers ascending, may be empty) and any other columns, all str. Numbers are separated by spaces or bars. Raise
    InputError with the first bad rows."""
    table = read_table(path, ["Id", column], what="a label table", other_names={"Target": "Label"})
    if column not in table.columns:
        if tuple(classes) == HPA_CLASSES:
            raise InputError(f"{path} has the columns ID,Label of the single-cell competition of 2021; {USE_2021}")
        table = table.rename(columns={"Label": column})
    check_ids(path, table["Id"])
    targets, bad = [], []
    for row, text in enumerate(table[column], 2):
        words = text.replace("|", " ").split()
        numbers = {_class_number(word, len(classes)) for word in words} - {None}
        if len(numbers) < len(words):
            bad.append(f"row {row} ({text!r})")
        targets.append(" ".join(map(str, sorted(numbers))))
    if bad:
        allowed = f"distinct class numbers 0 to {len(classes) - 1}"
        what = f"{plural(len(bad), 'row')} whose {column} is not {allowed}: {listing(bad)}"
        raise InputError(f"{path}: {what}; separate the numbers by spaces, as in 0 2")
    return table.assign(**{column: targets})


def read_truth(path, classes, ids, of):
    """Read the labels of `ids`, in their order: -> (N, C) uint8. Raise InputError for a missing Id. of: the name of
    what has these Ids, for the message."""
    targets = read_labels(path, classes).set_index("Id")["Target"]
    known = set(targets.index)
    if unknown := [id_ for id_ in ids if id_ not in known]:
        missing = f"{plural(len(unknown), 'Id')} of {of}: {listing(unknown)}"
        raise InputError(f"{path} lacks {missing}; give the labels of these images")
    return encode(targets.loc[list(ids)], classes)


def encode(targets, classes):
    """Encode `Target` strings (N,) as (N, C) uint8 of 0 and 1."""
    matrix = np.zeros((len(targets), len(classes)), np.uint8)
    for row, text in enumerate(targets):
        matrix[row, [int(word) for word in text.split()]] = 1
    return matrix


def decode(matrix):
    """Invert `encode`: (N, C) of 0 and 1 -> list of N strings, class numbers ascending."""
    return [" ".join(map(str, np.flatnonzero(row))) for row in np.asarray(matrix)]


def merge(values, to):
    """Merge the 28 HPA classes into those of another list: (N, 28) labels of 0 and 1, or probabilities -> (N, C) float64.

    to: a key of `MERGED`. A class made of several has 1 - Π(1 - p), the probability of any of them if they are independent.
    Negative has 1 minus the largest of the 28.
    """
    values = np.asarray(values, np.float64)
    with np.errstate(divide="ignore"):  # log of 0
        absent = np.log1p(-values)
    columns = {name: -np.expm1(absent[:, np.equal(MERGED[to], name)].sum(axis=1)) for name in CLASS_LISTS[to]}
    if NEGATIVE in columns:
        columns[NEGATIVE] = 1 - values.max(axis=1)
    return np.column_stack(list(columns.values()))


def part_name(fold, parts):
    """Return a fold's name in tables: f0, f1, …, or for a three-way split train, valid, test."""
    return {-1: "train", 0: "valid", TEST_FOLD: "test"}[fold] if -1 in parts else f"f{fold}"


def read_folds(path, classes):
    """Read a folds.csv like `read_labels`, with `fold` as int (−1: always trained on, `TEST_FOLD`: never)."""
    rows = read_labels(path, classes)
    if "fold" not in rows.columns:
        raise InputError(f"{path} lacks the column fold; make it with make_folds.py")
    valid = re.compile("-1|-2|[0-9]{1,5}")
    if bad := [f"row {row + 2} ({text!r})" for row, text in rows["fold"].items() if not valid.fullmatch(text)]:
        what = f"{plural(len(bad), 'row')} whose fold is not an integer from -2 to 99999"
        raise InputError(f"{path}: {what}: {listing(bad)}; fix them")
    return rows.assign(fold=rows["fold"].astype(int))


def split_fold(path, classes, fold, limit=0, seed=0, train_limit=0, single=False, valid_source="all"):
    """Split the rows of a folds file: -> two DataFrames, to train on (all other folds, and −1) and to validate on.

    limit: the most rows of each; train_limit: the most rows to train on (0: all). They are the first in one
    random order, so that a smaller limit selects a subset. single: only rows of exactly one class. valid_source: validate
    only on rows of this `source`. The fold's other rows are then left out and still trained on in other folds: some may be
    near-duplicates of validation rows. Thresholds and scores, which read the out-of-fold predictions of the validation
    rows, are so those of one source. Raise InputError if the fold or another one is missing, if the fold has no row of the
    source, or if a row has a near-duplicate in the external test set.
    """
    rows = read_folds(path, classes)
    _check_apart_from_test(path, rows)
    rows = rows[rows["fold"] != TEST_FOLD].reset_index(drop=True)
    existing = sorted(set(rows["fold"]) - {-1})
    if fold not in existing:
        raise InputError(f"{path} has no fold {fold}; it has {', '.join(map(str, existing)) or 'only -1'}")
    own = rows["fold"] == fold
    parts = rows[~own], _of_source(path, rows[own], valid_source)
    if not len(parts[0]):
        raise InputError(f"{path} has no rows outside fold {fold} to train on; make at least two folds")
    if single:
        parts = tuple(part[part["Target"].str.fullmatch(r"\d+")] for part in parts)
        if not all(map(len, parts)):
            lacks = f"has no image of exactly one class in fold {fold}, or none outside it"
            raise InputError(f"{path} {lacks}; give another --fold")
    order = np.random.default_rng(seed).permutation(len(rows))
    most = min(limit or len(rows), train_limit or len(rows)), limit or len(rows)
    return tuple(
        part.iloc[np.argsort(order[part.index], kind="stable")[:count]].sort_index().reset_index(drop=True)
        for part, count in zip(parts, most, strict=True)
    )


def _of_source(path, rows, source):
    """Return the rows of a validation fold that are of one source; "all": of any."""
    if source == "all":
        return rows
    if "source" not in rows.columns:
        raise InputError(f"{path} lacks the column source; make it with make_folds.py, or give --valid-source all")
    if not (rows["source"] == source).any():
        found = listing(sorted(set(rows["source"])))
        raise InputError(f"{path} has no row of the source {source} to validate on, only of {found}; give one of these")
    return rows[rows["source"] == source]


def _check_apart_from_test(path, rows):
    """Raise InputError if a row to train or validate on shares a group of near-duplicates with a test row."""
    if "group" not in rows.columns:
        return
    test = rows["fold"] == TEST_FOLD
    shared = rows[~test & rows["group"].isin(set(rows["group"][test]))]
    if len(shared):
        names = listing([f"row {row + 2} ({id_})" for row, id_ in shared["Id"].items()])
        what = f"{plural(len(shared), 'row')} to train on with a near-duplicate in the external test set"
        raise InputError(f"{path}: {what} (fold {TEST_FOLD}): {names}; make the folds with make_folds.py --test")
