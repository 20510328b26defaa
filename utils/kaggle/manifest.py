"""The list of an uploaded data set's files, by which the kernel sees that all have arrived."""

from pathlib import Path

from utils.errors import InputError, listing, plural
from utils.safe_load import read_json

MANIFEST = "upload.json"  # {"files": {place: bytes}}


def sizes_below(folder):
    """{place: bytes} of all files below a folder, but for those of Kaggle's client and the manifest itself."""
    folder = Path(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    return {place: size for place, size in sizes.items() if place not in (MANIFEST, "dataset-metadata.json")}


def check_arrived(folder):
    """Raise InputError where a file of the data set in `folder` is missing or has another size than it had when it was uploaded."""
    path, mend = Path(folder) / MANIFEST, "upload the data set anew"
    content = read_json(path, "the list of an uploaded data set", mend)
    wanted = content.get("files") if isinstance(content, dict) else None
    if not isinstance(wanted, dict) or not all(isinstance(size, int) for size in wanted.values()):
        raise InputError(f"{path} is not the list of an uploaded data set; {mend}")
    have = sizes_below(folder)
    if missing := [place for place, size in wanted.items() if have.get(place) != size]:
        raise InputError(
            f"{plural(len(missing), 'file')} of the data set in {folder} missing or of another size: {listing(missing)}; {mend}"
        )
