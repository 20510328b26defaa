"""What is attached to a kernel: the competition's files, the uploaded data set, earlier kernels' output.

Kaggle has mounted them at /kaggle/input/<name>/ and at /kaggle/input/{competitions,datasets/<user>,notebooks/<user>}/<name>/,
so they are found by what is in them.
"""

import itertools
import os
import shutil
from pathlib import Path

from utils.errors import InputError, listing, plural
from utils.files import whole_folder
from utils.kaggle import COMPETITION, TABLES
from utils.safe_load import read_json

MANIFEST = "upload.json"  # {"files": {place: bytes}} of an uploaded data set: what must have arrived
DEEPEST = 4  # folders below /kaggle/input
MOST = 500  # entries of a folder that are looked at; train/ and test/, of 120,000, are never opened


def find(top):
    """The folders of the competition and of the data set, and a tuple of those with a runs/ in them, below `top`."""
    found = list(look(top))
    competition = [folder for folder, names in found if names >= {*TABLES, "test"}]
    dataset = [folder for folder, names in found if names >= {MANIFEST, "kit"}]
    files = f"the files of the competition ({', '.join(TABLES)}, train/, test/) are"
    accept = f"attach the competition {COMPETITION} (Add Input) and accept its rules"
    return (
        _only(competition, top, files, accept),
        _only(dataset, top, "the kit is", "attach the data set that utils.kaggle.upload made"),
        tuple(folder for folder, names in found if "runs" in names),
    )


def look(top):
    """Yield (folder, names in it) below `top`, the nearest first. Images are not listed, known folders not entered."""
    waiting = [(Path(top), 0)]
    for folder, depth in waiting:
        try:
            with os.scandir(folder) as entries:
                is_folder = {entry.name: entry.is_dir() for entry in itertools.islice(entries, MOST)}
        except OSError:
            continue
        names = set(is_folder)
        yield folder, names
        if depth < DEEPEST and not (names & {MANIFEST, "runs"} or names >= set(TABLES)):
            below = [name for name in sorted(names) if is_folder[name] and name not in ("train", "test")]
            waiting += [(folder / name, depth + 1) for name in below]


def _only(found, top, what, fix):
    if not found:
        raise InputError(f"{what} not below {top}; {fix}")
    if len(found) > 1:
        raise InputError(f"{what} attached more than once, in {listing(found)}; detach all but one")
    return found[0]


def sizes_below(folder):
    """{place: bytes} of all files of a data set, except those of Kaggle's client and the manifest itself."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    return {place: size for place, size in sizes.items() if place not in (MANIFEST, "dataset-metadata.json")}


def check_arrived(folder):
    """Raise InputError if a file of the data set in `folder` is missing or has another size than when it was uploaded."""
    path, fix = Path(folder) / MANIFEST, "upload the data set anew"
    content = read_json(path, "the list of an uploaded data set", fix)
    wanted = content.get("files") if isinstance(content, dict) else None
    if not isinstance(wanted, dict):
        raise InputError(f"{path} is not the list of an uploaded data set; {fix}")
    found = sizes_below(folder)
    if bad := [place for place, size in wanted.items() if found.get(place) != size]:
        raise InputError(f"{plural(len(bad), 'file')} in {folder} missing or of another size: {listing(bad)}; {fix}")


def copy_folder(source, place):
    """Copy a read-only folder to `place`, where it appears whole and writable and replaces what was there."""
    try:
        with whole_folder(place) as part:
            for path in sorted(path for path in Path(source).rglob("*") if path.is_file()):
                copy = part / path.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
    except OSError as error:
        raise InputError(f"cannot copy {source} to {place} ({error.strerror or error}); free the place") from error
