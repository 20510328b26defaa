"""The table of images, images.csv: `Id`, a column per channel, and any others.

    Id,red,green,blue
    cell1,cell1_w2.tif,stacks/cell1.tif#page=3,/data/cell1.png#blue

A cell holds the path of a file, absolute or counted from the table's folder. After it may follow which plane of the
file is meant: `#page=2`, an image of a TIFF, `#channel=2`, a channel of an image with several, or `#page=2#channel=3`,
all counted from 1; `#red`, `#green` and `#blue` are the first three channels.
"""

import os
import re
from pathlib import Path

from utils.data.tables import check_ids, read_table
from utils.errors import InputError, listing, plural

_PLANE = re.compile(r"(.*?)(?:#page=([1-9]\d{0,6}))?(?:#channel=([1-9]\d{0,3})|#(red|green|blue))?", re.DOTALL)
_RGB = {"red": 1, "green": 2, "blue": 3}


def split_plane(path):
    """Split a path: -> file (str), page, channel, numbers from 1, or None if the path does not name one."""
    path = str(path)
    if "#" not in path:
        return path, None, None
    file, page, channel, colour = _PLANE.fullmatch(path).groups()
    return file, page and int(page), int(channel) if channel else _RGB.get(colour)


def read_image_table(path, channels):
    """Read a table of images: -> {Id in composed Unicode: {channel: path}}, without empty cells.

    channels: names of the columns to read, of which the table must have one. Raise InputError also for Ids that occur
    twice, files that do not exist, and a file, or a plane of one, in two cells.
    """
    table, folder = read_table(path, ["Id"], "a table of images"), Path(path).parent
    names = [name for name in channels if name in table]
    if not names:
        columns = f"{', '.join(channels[:-1])} or {channels[-1]}"
        raise InputError(f"{path} has no column {columns}, which name the images (it has: {listing(table, show=6)})")
    check_ids(path, table["Id"])
    found, cells, missing, twice = {}, {}, [], []
    for row, (id_, *texts) in enumerate(zip(table["Id"], *(table[name] for name in names), strict=True), 2):
        found[id_] = {name: folder / text.strip() for name, text in zip(names, texts, strict=True) if text.strip()}
        for name, plane in found[id_].items():
            file, page, channel = split_plane(plane)
            if not os.path.isfile(file):
                missing.append(f"row {row}, {name} ({file})")
            first = cells.setdefault((os.path.normpath(file), page or 1, channel), f"row {row}, {name}")
            if first != f"row {row}, {name}":
                twice.append(f"{plane.name} ({first}; row {row}, {name})")
    if missing:
        fix = "paths count from the table's folder"
        if any("#" in text for text in missing):
            fix += ", and after a # comes page=2, channel=2, red, green or blue"
        raise InputError(f"{path}: {plural(len(missing), 'file')} missing: {listing(missing)}; {fix}")
    if twice:
        what = f"{plural(len(twice), 'image')} in two cells: {listing(twice)}"
        raise InputError(f"{path}: {what}; name another file, or a plane as #page=2 or #channel=2")
    return found
