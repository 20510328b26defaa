"""Lists of images of other programs: SubCellPortable's path_list.csv, CellProfiler's for LoadData.

Rows are (Id, stain, path, folder, columns), as find_images.py takes them.
"""

import re
from pathlib import Path, PureWindowsPath
from urllib.parse import unquote, urlsplit

from utils.data.images import ENDINGS
from utils.data.tables import read_table
from utils.errors import InputError, listing, plural
from utils.files import is_stem

# The columns of SubCellPortable (github.com/CellProfiling/SubCellPortable, README.md).
SUBCELL = {"r_image": "red", "g_image": "green", "b_image": "blue", "y_image": "yellow"}
# The columns of CellProfiler (LoadData's help); Frame counts the pages of a file from 0.
LOAD_DATA = re.compile(r"(?:Image_)?(FileName|PathName|URL|Frame)_(.+)")
METADATA = "Metadata_"
IDS = (("plate",), ("well",), ("site", "field", "fieldid"))  # of CellProfiler's metadata, one of each


def read_list(path):
    """Read a list: -> [(Id, stain, path, folder, columns)]. Raise InputError for one of neither program, files that are
    missing, and rows without a column for their Ids."""
    table, missing = read_table(path, [], "a list of images"), []
    if set(SUBCELL) & set(table):
        rows = list(_read_path_list(path, table, missing))
    elif any(LOAD_DATA.fullmatch(name) for name in table):
        rows = list(_read_load_data(path, table, missing))
    else:
        lists = "path_list.csv (r_image, g_image, …) nor LoadData's (FileName_DAPI, …)"
        raise InputError(f"{path} is neither SubCellPortable's {lists}; it has the columns {listing(table, show=6)}")
    if missing:
        raise InputError(
            f"{path}: {plural(len(missing), 'file')} missing: {listing(missing)}; move the list beside them"
        )
    return rows


def _read_path_list(path, table, missing):
    names = [name for name in SUBCELL if name in table]
    if "output_prefix" not in table:
        raise InputError(f"{path} lacks the column output_prefix, which names the images (it has: {listing(table, 6)})")
    for number, row in enumerate(table.to_dict("records"), 2):
        if next(iter(row.values())).startswith("#"):
            continue
        id_ = row["output_prefix"].strip().replace("/", "_").strip("_")
        for name in names:
            if row[name].strip():
                file = _existing(path, "", row[name].strip(), f"row {number}, {name}", missing)
                yield id_, SUBCELL[name], file, ".", {}


def _read_load_data(path, table, missing):
    stains = {}
    for name in table:
        if match := LOAD_DATA.fullmatch(name):
            stains.setdefault(match[2], {})[match[1]] = name
    metadata = {name.removeprefix(METADATA).lower(): name for name in table if name.startswith(METADATA)}
    records = table.to_dict("records")
    ids = _load_data_ids(path, table, metadata, stains)
    for number, (id_, row) in enumerate(zip(ids, records, strict=True), 2):
        columns = {short: row[name] for short, name in metadata.items() if short != "id"}
        for stain, names in stains.items():
            folder, file, url, frame = (
                row.get(names.get(what), "").strip() for what in ("PathName", "FileName", "URL", "Frame")
            )
            if url and not file:
                folder, file = "", unquote(urlsplit(url).path if url.startswith("file:") else url)
            if file.lower().endswith(ENDINGS):  # not an illumination function
                found = _existing(path, folder, file, f"row {number}, {stain}", missing)
                yield id_, stain, Path(f"{found}#page={int(frame) + 1}") if frame.isdecimal() else found, ".", columns


def _load_data_ids(path, table, metadata, stains):
    """Return the first that is different in every row: Metadata_Id; plate, well and site; ImageNumber; a file's name."""
    parts = [next((metadata[name] for name in names if name in metadata), None) for names in IDS]
    files = [names["FileName"] for names in stains.values() if "FileName" in names]
    for names in ([metadata.get("id")], list(filter(None, parts)), ["ImageNumber"], files[:1]):
        if names and set(names) <= set(table):
            ids = ["_".join(str(text).strip() for text in row) for row in table[names].to_numpy()]
            ids = [re.sub(rf"\.({'|'.join(ENDINGS)})$", "", text, flags=re.IGNORECASE) for text in ids]
            if len(set(ids)) == len(ids) and all(map(is_stem, ids)):
                return ids
    raise InputError(f"{path} has no column of different values as Ids; add one named Metadata_Id")


def _existing(table, folder, file, cell, missing):
    """Return the path of a file, counted from the table's folder, from here, or beside the table; if there is none, add it
    to `missing`."""
    folder, file = (PureWindowsPath(text).as_posix() if "\\" in text else text for text in (folder, file))
    beside = Path(table).parent
    places = [beside / folder / file, Path(folder) / file, beside / Path(file).name]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        missing.append(f"{cell} ({Path(folder) / file})")
    return found or places[0]
