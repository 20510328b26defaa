"""Finding what is attached to a kernel: the competition's files, the uploaded data set, earlier kernels' output. Kaggle has put them
at /kaggle/input/<name>/ and at /kaggle/input/{competitions,datasets/<user>,notebooks/<user>}/<name>/, so they are known by what is in them.
"""

import itertools
import os
from pathlib import Path

from utils.errors import InputError, listing
from utils.kaggle import COMPETITION, TABLES
from utils.kaggle.manifest import MANIFEST

DEEPEST = 4  # folders below /kaggle/input
MOST = 500  # entries of a folder that are looked at; train/ and test/, of 120,000, are never opened


def look(top):
    """Walk the folders below `top`, those nearest first: yields (folder, {names in it}). Folders of images, and what lies in a
    folder that is known by its content, are not opened."""
    waiting = [(Path(top), 0)]
    for folder, depth in waiting:
        try:
            with os.scandir(folder) as entries:
                entries = {entry.name: entry.is_dir() for entry in itertools.islice(entries, MOST)}
        except OSError:
            continue
        yield folder, set(entries)
        if depth < DEEPEST and not known(entries):
            waiting += [
                (folder / name, depth + 1)
                for name in sorted(entries)
                if entries[name] and name not in ("train", "test")
            ]


def known(names):
    """Is a folder that holds `names` one of those looked for?"""
    return MANIFEST in names or "runs" in names or set(TABLES) <= set(names)


def find_competition(top):
    """The folder with the competition's files. Raises InputError where there is none, or more than one."""
    found = [folder for folder, names in look(top) if {*TABLES, "test"} <= names]
    return _only(found, top, f"the files of the competition ({', '.join(TABLES)}, train/, test/)",
                 f"attach the competition {COMPETITION} (Add Input) and accept its rules")  # fmt: skip


def find_dataset(top):
    """The folder of the uploaded data set."""
    found = [folder for folder, names in look(top) if {MANIFEST, "kit"} <= names]
    return _only(found, top, "the kit", "attach the data set that utils.kaggle.upload made")


def find_outputs(top):
    """The folders that have a runs/ in them: earlier kernels' outputs, the data set."""
    return [folder for folder, names in look(top) if "runs" in names]


def _only(found, top, what, mend):
    if not found:
        raise InputError(
            f"{what} are not below {top}; {mend}" if what.endswith(")") else f"{what} is not below {top}; {mend}"
        )
    if len(found) > 1:
        raise InputError(f"{what}: found more than once, in {listing(found)}; detach all but one")
    return found[0]
