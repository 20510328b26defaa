"""Find the inputs of a kernel: the competition's files, the uploaded data set, and earlier kernels' output.

Kaggle mounts them at /kaggle/input/<name>/ or at /kaggle/input/{competitions,datasets/<user>,notebooks/<user>}/<name>/,
so folders are recognised by their content.
"""

import itertools
import os
import shutil
from pathlib import Path

from utils.errors import InputError, listing, plural
from utils.files import whole_folder
from utils.kaggle import COMPETITION, TABLES
from utils.safe_load import read_json

MANIFEST = "upload.json"  # {"files": {path: bytes}}: the files of an uploaded data set
MAX_DEPTH = 4  # folders below /kaggle/input
MAX_ENTRIES = 500  # read per folder; train/ and test/, with 120,000 entries, are never listed


def find(top):
    """-> the folders of the competition and of the data set below `top`, and a tuple of folders that contain runs/."""
    found = list(look(top))
    competition = [folder for folder, names in found if names >= {*TABLES, "test"}]
    dataset = [folder for folder, names in found if names >= {MANIFEST, "kit"}]
    files = f"the files of the competition ({', '.join(TABLES)}, train/, test/) are"
    fix = f"attach the competition {COMPETITION} (Add Input) and accept its rules"
    competition = _only(competition, top, files, fix)
    dataset = _only(dataset, top, "the kit is", "attach the data set that utils.kaggle.upload made")
    return competition, dataset, tuple(folder for folder, names in found if "runs" in names)


def look(top):
    """Yield (folder, names in it) below `top`, breadth first. Image folders and recognised inputs are not entered."""
    waiting = [(Path(top), 0)]
    for folder, depth in waiting:
        try:
            with os.scandir(folder) as entries:
                is_folder = {entry.name: entry.is_dir() for entry in itertools.islice(entries, MAX_ENTRIES)}
        except OSError:
            continue
        names = set(is_folder)
        yield folder, names
        if depth < MAX_DEPTH and not (names & {MANIFEST, "runs"} or names >= set(TABLES)):
            below = [name for name in sorted(names) if is_folder[name] and name not in ("train", "test")]
            waiting += [(folder / name, depth + 1) for name in below]


def _only(found, top, what, fix):
    if not found:
        raise InputError(f"{what} not below {top}; {fix}")
    if len(found) > 1:
        raise InputError(f"{what} attached more than once, in {listing(found)}; detach all but one")
    return found[0]


def sizes_below(folder):
    """-> {path: bytes} of all files of a data set, except for the manifest and the metadata file of Kaggle's client."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    return {place: size for place, size in sizes.items() if place not in (MANIFEST, "dataset-metadata.json")}


def check_arrived(folder):
    """Raise InputError if a file of the data set in `folder` is missing or differs in size from the uploaded one."""
    path, fix = Path(folder) / MANIFEST, "upload the data set again"
    content = read_json(path, "the list of an uploaded data set", fix)
    wanted = content.get("files") if isinstance(content, dict) else None
    if not isinstance(wanted, dict):
        raise InputError(f"{path} is not the list of an uploaded data set; {fix}")
    found = sizes_below(folder)
    if bad := [place for place, size in wanted.items() if found.get(place) != size]:
        raise InputError(f"{plural(len(bad), 'file')} in {folder} missing or different in size: {listing(bad)}; {fix}")


def copy_folder(source, place):
    """Copy a read-only folder to `place` as a writable one; the complete copy replaces an existing folder."""
    try:
        with whole_folder(place) as part:
            for path in sorted(path for path in Path(source).rglob("*") if path.is_file()):
                copy = part / path.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
    except OSError as error:
        raise InputError(f"cannot copy {source} to {place} ({error.strerror or error}); free disk space") from error
