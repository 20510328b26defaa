"""Finding and checking the image files of samples: `<Id>_<red|green|blue|yellow>.<ending>` in folders, or what a table names
(see image_table.py)."""

import os
import re
from pathlib import Path

import numpy as np
from tqdm import tqdm

from utils.data.image_table import read_image_table, split_plane
from utils.data.images import CHANNELS, ENDINGS, LEAST_SIDE, describe_unequal, image_size
from utils.errors import InputError, listing, plural
from utils.files import is_stem, nfc

HIDDEN = "._"  # macOS writes "._x_red.png" beside x_red.png
_COLOURS = "|".join(CHANNELS.values())
_NAME = re.compile(rf"(.+)_({_COLOURS})\.({'|'.join(ENDINGS)})", re.IGNORECASE)
# Several channels in one colour image, X_blue_red_green.jpg, as the Human Protein Atlas also publishes.
_COMPOSITE = re.compile(rf".+_({_COLOURS})_(?!\1\.)({_COLOURS})\.\w+", re.IGNORECASE)


def scan_folder(folder):
    """List the images of a folder, without composites, or of a table: -> {Id in composed Unicode: {channel: path}}."""
    folder = Path(folder)
    if folder.is_file():
        return read_image_table(folder, list(CHANNELS.values()))
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder of <Id>_<red|green|blue|yellow>.png files, nor a table of images")
    found, twice = {}, []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            match = _NAME.fullmatch(entry.name)
            if match and not entry.name.startswith(HIDDEN) and not _COMPOSITE.fullmatch(entry.name):
                sample, channel = found.setdefault(nfc(match[1]), {}), match[2].lower()
                if channel in sample:
                    names = (sample[channel].name, entry.name)  # escaped, since é can be one character or two
                    twice.append(" and ".join(name if name.isascii() else ascii(name) for name in names))
                sample[channel] = Path(entry.path)
    if odd := [name for name in found if not is_stem(name)]:
        names = listing(map(repr, odd))
        raise InputError(f"{folder}: {plural(len(odd), 'Id')} not usable: {names}; rename these images")
    if twice:
        raise InputError(f"{folder}: {plural(len(twice), 'channel')} in two files: {listing(twice)}; keep one of each")
    return found


def scan_folders(folders):
    """Call `scan_folder` on several folders and tables and merge the results. Raise InputError for an Id in two of them."""
    merged = {}
    for folder in folders:
        found = scan_folder(folder)
        if both := sorted(set(found) & set(merged)):
            raise InputError(f"{folder}: {plural(len(both), 'Id')} also in another image folder: {listing(both)}")
        merged.update(found)
    return merged


def find_files(folders, ids, channels, found=None, missable=()):
    """Find each id's channels, in the order of `channels.names`: -> a list of tuples of paths, one per id.

    found: the result of `scan_folders(folders)`, if known. missable: channels that the caller's --without can leave out.
    Raise InputError for ids without an image or channel.
    """
    found = scan_folders(folders) if found is None else found
    where = listing(folders)
    ids = [nfc(id_) for id_ in ids]
    if absent := [id_ for id_ in ids if id_ not in found]:
        hidden = any(id_.startswith(HIDDEN) for id_ in absent)
        note = f"; files named {HIDDEN}… are skipped as macOS's own, rename the images" if hidden else ""
        what = f"{plural(len(absent), 'Id')} of {len(ids):,} without an image in {where}: {listing(absent)}"
        raise InputError(what + note)
    if lacking := [f"{id_}_{name}" for id_ in ids for name in channels.names if name not in found[id_]]:
        names = [name for name in channels.names if any(name not in found[id_] for id_ in ids)]
        fix = f"; predict without: --without {','.join(names)}" if set(names) <= set(missable) else ""
        raise InputError(f"{plural(len(lacking), 'channel file')} missing in {where}: {listing(lacking)}{fix}")
    return [tuple(found[id_][name] for name in channels.names) for id_ in ids]


def check_files(files, crop=0):
    """Check `files`, a list of tuples of paths: -> sizes (N, 2) of height, width. Raise InputError for unusable samples
    and for those smaller than `crop`."""
    sizes, bad = look_at_files(files)
    if bad:
        raise InputError(describe_problems(bad))
    check_crop(files, sizes, crop)
    return sizes


def look_at_files(files, known=None):
    """Check header and end of every file: -> sizes (N, 2) of height, width, {row: [problem]} of unusable samples.

    A sample is unusable if a file cannot be read, is truncated or has an unsupported format, or if its channels differ
    in size; only decoding finds damage inside a file. known: {row: (height, width)} of samples to skip. Raise
    InputError for a missing file: the folder may be wrong.
    """
    sizes, bad = dict(known or {}), {}
    rows = [row for row in range(len(files)) if row not in sizes]
    disable = None if len(rows) > 2000 else True  # None: unless on a terminal
    for row in tqdm(rows, desc="checking images", unit="img", disable=disable, leave=False):
        shapes, problems = {}, []
        for path in files[row]:
            try:
                shapes[path] = image_size(path)
            except InputError as error:
                if not os.path.exists(split_plane(path)[0]):
                    raise
                problems.append(str(error))
        if len(set(shapes.values())) > 1:
            problems.append(describe_unequal(shapes.keys(), shapes.values()))
        if problems:
            bad[row] = problems
        sizes[row] = next(iter(shapes.values()), (0, 0))
    return np.array([sizes[row] for row in range(len(files))]).reshape(-1, 2), bad


def describe_problems(bad):
    """Describe the problems of unusable samples, {row: [problem]}, in one sentence."""
    problems = [problem for row in bad.values() for problem in row]
    if len(problems) == 1:
        return problems[0]
    return f"{plural(len(problems), 'unusable image file')}: {listing(problems, sep='; ')}"


def check_crop(files, sizes, crop):
    """Raise InputError if any of the `sizes` (N, 2) is smaller than `crop` pixels."""
    if len(small := np.flatnonzero(sizes.min(axis=1) < crop)):
        height, width = sizes[small[0]]
        smaller = f"--size {sizes.min()} or less, or " if sizes.min() >= LEAST_SIDE else ""
        what = (
            f"{plural(len(small), 'image')} smaller than the crop of {crop}: {files[small[0]][0]} is {width}x{height}"
        )
        raise InputError(f"{what}; give larger images, or train with {smaller}--fit resize")
