"""Scores of the cells of an image, from networks trained on labels of whole images.

The map of a class (see `utils.models.class_maps`) is laid over the image and averaged over the pixels of each cell, which
gives the cell's own logit. The mean over all pixels is the image's logit, so the cells of an image, and what lies between
them, share it. Two scores, both in [0, 1]:

    logit    the sigmoid (or softmax) of the cell's logit
    map      the image's probability times the cell's logit's sigmoid, over that of the field
"""

import numpy as np

from utils.data.crops import tile_starts
from utils.data.masks import cell_table, read_mask


def axis_weights(length, starts, size, positions):
    """What share each position of a map has in each pixel along one axis: (length, len(starts) * positions) float32, rows sum to 1.

    length: pixels of the image. starts: of the tiles, each of `size` pixels and `positions` positions. Pixels between the
    middles of two positions are interpolated, and those in several tiles averaged.
    """
    places = np.clip((np.arange(size) + 0.5) * positions / size - 0.5, 0, positions - 1)
    of_tile = np.clip(1 - np.abs(places[:, None] - np.arange(positions)), 0, None)
    weights = np.zeros((length, len(starts), positions), np.float32)
    for number, start in enumerate(starts):
        weights[start : start + size, number] = of_tile
    return (weights / weights.sum((1, 2), keepdims=True)).reshape(length, -1)


def cell_means(maps, labels, cells, tile=None):
    """Average class maps over the pixels of cells: -> (cells, C) float32.

    maps: (T, C, h, w) of the tiles of one image, T 1 if `tile` is None, else of `utils.data.crops.tiles` of this size in
    pixels. labels: (H, W) of the image. cells: their DataFrame of `cell_table`.
    """
    (height, width), (_, classes, *grid) = labels.shape, maps.shape
    starts = [[0], [0]] if tile is None else [tile_starts(length, tile) for length in (height, width)]
    down, across = (
        axis_weights(length, own, length if tile is None else tile, positions)
        for length, own, positions in zip((height, width), starts, grid, strict=True)
    )
    joined = maps.reshape(len(starts[0]), len(starts[1]), classes, *grid).transpose(2, 0, 3, 1, 4)
    joined = joined.reshape(classes, down.shape[1] * across.shape[1])
    shares = np.zeros((len(cells), down.shape[1] * across.shape[1]), np.float32)
    for row, (cell, left, top, wide, high, area) in enumerate(cells.iloc[:, :6].itertuples(index=False)):
        box = np.s_[top : top + high], np.s_[left : left + wide]
        shares[row] = (down[box[0]].T @ (labels[box] == cell).astype(np.float32) @ across[box[1]]).ravel() / area
    return shares @ joined.T
