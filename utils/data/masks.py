"""Label images of cells, as Cellpose, StarDist and HPA-Cell-Segmentation write them: grey, 0 background, each other
number the pixels of one cell."""

import numpy as np
import pandas as pd
from scipy.ndimage import find_objects

from utils.data.images import read_pixels
from utils.errors import InputError
from utils.files import whole_file
from utils.opencv import cv2


def read_mask(path, shape):
    """Read the label image of an image of `shape` (height, width): -> (H, W) int32, 0 background, n cell n.

    Accepts grey PNG and TIFF of 8 or 16 bits. Raise InputError for everything else, and for another size.
    """
    image = read_pixels(path)
    labels = image.pixels
    if image.lossy:
        raise InputError(f"{path} is compressed with loss, which changes the numbers of cells; save it as PNG")
    if labels.ndim == 3:
        raise InputError(f"{path} is a colour image; save the numbers of its cells as a grey PNG of 16 bits")
    if labels.shape != tuple(shape):
        sizes = f"{labels.shape[1]}x{labels.shape[0]} pixels, its image {shape[1]}x{shape[0]}"
        raise InputError(f"{path} has {sizes}; give a mask of the same size")
    return labels.astype(np.int32)


def write_mask(path, labels):
    """Write `labels`, (H, W) integers 0..65535, as a PNG of 16 bits. Raise ValueError for other numbers."""
    if labels.min() < 0 or labels.max() > 65535:
        raise ValueError(f"{path}: cells numbered {labels.min()} to {labels.max()} do not fit 16 bits")
    with whole_file(path, "wb") as file:
        file.write(cv2.imencode(".png", labels.astype(np.uint16))[1].tobytes())


def cell_table(labels):
    """Measure the cells of `labels`, (H, W) integers: -> DataFrame, a row per cell in the order of their numbers.

    Columns: cell, its number; left, top, width, height, its box in pixels; area in pixels; edge, 1 if it touches the
    image's border, else 0.
    """
    areas = np.bincount(labels.ravel())
    rows = []
    for cell, box in enumerate(find_objects(labels), start=1):
        if box is not None:
            (top, bottom), (left, right) = ((side.start, side.stop) for side in box)
            edge = 0 in (top, left) or bottom == labels.shape[0] or right == labels.shape[1]
            rows.append((cell, left, top, right - left, bottom - top, areas[cell], int(edge)))
    return pd.DataFrame(rows, columns=["cell", "left", "top", "width", "height", "area", "edge"], dtype=int)
