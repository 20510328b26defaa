"""Scores of the cells of an image, from networks trained on labels of whole images.

The map of a class (see `utils.models.class_maps`) is laid over the image and averaged over the pixels of each cell: the cell's
logit. Averaged over all pixels it is the logit of the field, the whole image, so that each cell's logit is its own part of
that. Logits are means over TTA views, tiles and networks. Two scores of a cell, both in [0, 1]:

    logit    the activation of the cell's logit, as if the cell were an image
    map      the probability of the image, times the activation of the cell's logit relative to the largest of the image's cells
"""

import numpy as np
from scipy.special import expit, softmax

from utils.data.crops import tile_starts
from utils.data.masks import cell_table

SCORES = ("map", "logit")  # the first one is the default


class CellScorer:
    """Scores the cells of the images that `utils.engine.inference.predict` predicts, which calls it after every batch.

    read_labels: row -> (H, W) integers, the label image of this row's image. score: ``logit`` or ``map``. activation: as of
    `inference.tta_probabilities`. tile: pixels of the tiles that cover an image, None if the networks see it whole.
    """

    def __init__(self, read_labels, score, activation, tile=None):
        self.read_labels, self.score, self.activation, self.tile = read_labels, score, activation, tile
        self.found = {}

    def __call__(self, rows, tiles, probabilities, maps):
        ends = np.cumsum(tiles.numpy())
        for row, last, count, probability in zip(
            rows.tolist(), ends, tiles.tolist(), probabilities.numpy(), strict=True
        ):
            labels = self.read_labels(row)
            cells = cell_table(labels)
            own = [each[last - count : last].numpy() for each in maps]
            logits = np.mean([cell_means(each, labels, cells, self.tile) for each in own], axis=0)
            self.found[row] = cells, cell_scores(logits, probability, self.score, self.activation)

    def cells(self, context):
        """The cells of all images, by ascending row: -> list of (DataFrame of `cell_table`, scores (cells, C) float32)."""
        return list(context.merge_dicts(self.found).values())


def cell_scores(logits, probability, score, activation):
    """-> (cells, C) float32 in [0, 1]. logits (cells, C), probability (C,): of the cells and of their image."""
    values = softmax(logits, axis=1) if activation == "softmax" else expit(logits)
    if score == "map":
        values = probability * values / values.max(axis=0, initial=np.finfo(np.float32).tiny)
    return values


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
