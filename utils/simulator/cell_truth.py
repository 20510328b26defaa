"""The truth of single cells: masks/<Id>.png, the cell of each pixel, and cells_truth.csv, what each cell shows.

How strongly a cell shows a class is the compartment's weight times the brightness of the protein in this cell; of a
cytokinetic bridge and a mitotic spindle, which are as bright in all cells, the weight. It is 0 if the cell lacks the
compartment or none of it is in view.
"""

import struct
import zlib

import numpy as np
from PIL import Image

from utils.data.images import UNREADABLE
from utils.data.labels import CYTO_CLASSES, HPA_CLASSES, HPA_TO_CYTO
from utils.data.masks import cell_table
from utils.errors import InputError
from utils.files import whole_file
from utils.opencv import cv2
from utils.simulator.scene import FIELD

MASKS, CELL_TABLE = "masks", "cells_truth.csv"
COLUMNS = ("Id", "cell", "left", "top", "width", "height", "area", "edge", "mitotic")  # then the classes
HEADER = 33  # bytes before which a PNG may have no text
LEAST_AREA = 25  # square micrometres in view: a smaller part of a cell is left out


class Cells:
    """The cells of one image, layer by layer.

    A pixel belongs to the cell whose drawn body covers at least half of it. Where cells of two layers overlap, it
    belongs to the one in which it lies nearer to the nucleus, relative to the cell's edge: that one is thicker and
    brighter there, and no nucleus is cut. Where arms pass over a neighbour, it belongs to the arm. So a cell may
    consist of several parts.
    """

    def __init__(self, size):
        self.labels, self.depth = np.zeros((size, size), np.uint16), np.full((size, size), np.inf, np.float32)
        self.mitotic, self.strengths = [], []

    def add(self, view, strengths):
        """Add the cells of a Field. strengths: (cells, 28), how strongly each shows each class."""
        labels, depth = self.labels[view.window], self.depth[view.window]
        here = (view.edge >= 0) & (view.depth <= depth)
        np.copyto(labels, (view.owner + len(self.mitotic) + 1).astype(np.uint16), where=here)
        np.copyto(depth, view.depth, where=here)
        self.mitotic.extend(view.dividing.astype(int))
        self.strengths.extend(strengths)

    def at(self, size):
        """-> (size, size) uint16 labels of the cells with at least LEAST_AREA in view, numbered from 1; their `cell_table`
        with a column mitotic; (cells, 28) float32, how strongly each shows each class."""
        labels = cv2.resize(self.labels, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)
        table = cell_table(labels)
        table = table[table["area"] * (FIELD / size) ** 2 >= LEAST_AREA]
        kept = table["cell"].to_numpy()
        numbers = np.zeros(len(self.mitotic) + 1, np.uint16)
        numbers[kept] = np.arange(1, len(kept) + 1)
        table = table.assign(cell=numbers[kept], mitotic=np.take(self.mitotic, kept - 1))
        return numbers[labels], table, np.array(self.strengths)[kept - 1]


def class_names(form):
    return CYTO_CLASSES if form == "cyto" else HPA_CLASSES


def _written(strengths, form):
    """(cells, 28) -> (cells, classes) of the form: the strongest of the compartments that it merges."""
    if form == "cyto":
        parts = [[place for place, merged in enumerate(HPA_TO_CYTO) if merged == name] for name in CYTO_CLASSES]
        return np.stack([strengths[:, part].max(axis=1) for part in parts], axis=1)
    return strengths


def write_cells(path, cells, size, form):
    """Write the mask of one image, with its rows of the table as text in the PNG: so a mask is never without them."""
    labels, table, strengths = cells.at(size)
    rows = zip(table.to_numpy().tolist(), _written(strengths, form).tolist())
    rows = [",".join([*map(str, numbers), *(f"{value:.3g}" for value in values)]) for numbers, values in rows]
    text = b"zTXtcells\0\0" + zlib.compress("\n".join(rows).encode())  # PNG specification, 11.3.4.4
    image = cv2.imencode(".png", labels)[1].tobytes()
    with whole_file(path, "wb") as file:
        file.write(image[:HEADER] + struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text)))
        file.write(image[HEADER:])


def write_cell_table(out, ids, form):
    """Write cells_truth.csv from the masks of these `ids`. Raise InputError for a mask that `write_cells` did not write."""
    with whole_file(out / CELL_TABLE) as file:
        file.write(",".join((*COLUMNS, *class_names(form))) + "\n")
        for id_ in sorted(ids):
            path = out / MASKS / f"{id_}.png"
            try:
                with Image.open(path, formats=("PNG",)) as image:
                    rows = image.info["cells"].splitlines()
            except UNREADABLE:
                raise InputError(f"{path} is not a mask that utils.simulator wrote; delete it and call again") from None
            file.writelines(f"{id_},{row}\n" for row in rows)
