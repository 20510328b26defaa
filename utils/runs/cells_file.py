"""Tables of cells, `cells.csv`: which classes each cell of an image shows, by networks that know labels of images only.

    Id                        of the image
    cell                      the cell's number in the image's label image
    left, top, width, height  its box in pixels of the image
    area                      in pixels
    edge                      1 if it touches the image's border, else 0
    one column per class      the cell's score in [0, 1], at full precision

Images are in the order of the predictions, cells in that of their numbers; an image without a cell has no row.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from utils.data.images import image_size, load_sample
from utils.data.masks import read_mask, write_mask
from utils.data.segmentation import STAINS, segment
from utils.errors import InputError, listing, plural
from utils.files import write_csv

COLUMNS = ("Id", "cell", "left", "top", "width", "height", "area", "edge")


def check_names(classes):
    """Raise InputError for a class whose column would have the name of another."""
    if taken := [name for name in classes if name in COLUMNS]:
        raise InputError(f"--cells would give two columns the name {taken[0]}; rename this class in --classes")


def masks_folder(path):
    """Where the label images of segmented cells are written, beside their table."""
    return Path(path).with_name(f"{Path(path).stem}_masks")


def masks_reader(folder, ids, files):
    """-> the function from a row of `ids` to the label image of its cells, `<Id>.png` in a folder: (H, W) integers.

    files: of the images, tuples of paths. Raise InputError if a label image is missing or has another size than its image.
    """
    paths = [Path(folder) / f"{id_}.png" for id_ in ids]
    if missing := [path.name for path in paths if not path.is_file()]:
        raise InputError(
            f"{folder} lacks the label images of {plural(len(missing), 'image')}: {listing(missing)}; add them"
        )
    sizes = [image_size(image) for image, *_ in files]
    for path, size in zip(paths, sizes, strict=True):
        if (found := image_size(path)) != size:
            own, other = (f"{width}x{height}" for height, width in (found, size))
            raise InputError(f"{path} has {own} pixels, its image {other}; give a label image of the same size")
    return lambda row: read_mask(paths[row], sizes[row])


def segmenter(folder, ids, channels, pixel_sizes):
    """-> the function from a row of `ids` to the label image of its cells, which it finds without a network and writes to the folder.

    channels: of each image, {name: path}. pixel_sizes: in µm; 0 or NaN: that of the Human Protein Atlas. Raise InputError if an image
    lacks the channels that show cells.
    """
    names = [[name for name in STAINS if name in found] for found in channels]
    if lacking := [id_ for id_, own in zip(ids, names, strict=True) if "blue" not in own or len(own) < 2]:
        what = f"cells are found in blue and in red or yellow, which {plural(len(lacking), 'image')} lack"
        raise InputError(f"{what}: {listing(lacking)}; add them, or name label images with --masks")

    def labels(row):
        image = load_sample([channels[row][name] for name in names[row]])
        found, _ = segment(image, names[row], None if np.isnan(pixel_sizes[row]) else pixel_sizes[row])
        write_mask(folder / f"{ids[row]}.png", found)
        return found

    return labels


def write_cells(path, ids, cells, scores, classes):
    """Write a table of cells: -> number of cells in it. ids: N. cells: N DataFrames of `utils.data.masks.cell_table`. scores: N arrays
    (cells, C) in [0, 1]."""
    tables = [
        pd.concat([table.reset_index(drop=True), pd.DataFrame(values, columns=list(classes))], axis=1).assign(Id=id_)
        for id_, table, values in zip(ids, cells, scores, strict=True)
    ]
    table = pd.concat(tables, ignore_index=True)[[*COLUMNS, *classes]]
    write_csv(path, table)
    return len(table)
