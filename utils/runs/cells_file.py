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

import pandas as pd

from utils.data.images import image_size
from utils.errors import InputError, listing, plural
from utils.files import write_csv

COLUMNS = ("Id", "cell", "left", "top", "width", "height", "area", "edge")


def check_names(classes):
    """Raise InputError for a class whose column would have the name of another."""
    if taken := [name for name in classes if name in COLUMNS]:
        raise InputError(f"--cells would give two columns the name {taken[0]}; rename this class in --classes")


def find_masks(folder, ids, sizes):
    """The label images of `ids`, `<Id>.png` in a folder: -> list of paths.

    sizes: (N, 2) height and width of the images. Raise InputError if one is missing or has another size.
    """
    paths = [Path(folder) / f"{id_}.png" for id_ in ids]
    if missing := [path.name for path in paths if not path.is_file()]:
        raise InputError(
            f"{folder} lacks the label images of {plural(len(missing), 'image')}: {listing(missing)}; add them"
        )
    for path, size in zip(paths, sizes.tolist(), strict=True):
        if (found := image_size(path)) != tuple(size):
            own, other = (f"{width}x{height}" for height, width in (found, size))
            raise InputError(f"{path} has {own} pixels, its image {other}; give a label image of the same size")
    return paths


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
