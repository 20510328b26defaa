"""Scores of the cells of an image, from networks trained on labels of whole images.

    green    the image's probability for cells that show the protein: the mean of green in a cell, above the darkest 5 % of the
             image and relative to its brightest cell, is `BRIGHT` or more; below, the probability falls to 0 in proportion
    image    the image's probability in every cell, for comparison
    logit    the activation of the cell's own logit
    map      the image's probability times the activation of the cell's logit, relative to the image's highest

The last two need networks that have class maps (see `utils.models.class_maps`). A map is laid over the image and averaged over
the pixels of each cell: the cell's logit. Averaged over all pixels it is the logit of the image, of which each cell's logit is
thus its own part. Logits are means over TTA views, tiles and networks.
"""

import numpy as np
from scipy.special import expit, softmax

from utils import models
from utils.data.crops import tile_starts
from utils.data.images import resize
from utils.data.masks import cell_table

SCORES = ("green", "image", "map", "logit")  # the first one is the default
OF_MAPS = ("map", "logit")
BRIGHT = 0.1


class CellScorer:
    """Scores the cells of the images that `inference.predict` predicts, which calls it after every batch.

    images, fit, size: the Images that the networks see, and how, as of `Samples`. find_labels: row -> (H, W) integers, the label
    image of this row's image. score: one of SCORES. green: the place of this channel among those of `images`. activation: as of
    `inference.tta_probabilities`. grids: (h, w) of each network's class maps, none for scores that are not among OF_MAPS. Assign
    `watching` to `Samples.watch`, so that cells are found by the threads that read the images.
    """

    def __init__(self, images, fit, size, find_labels, score, green=0, activation="sigmoid", grids=()):
        self.images, self.tiled, self.size, self.grids = images, fit in ("crop", "tiles"), size, grids
        self.find_labels, self.score, self.green, self.activation = find_labels, score, green, activation
        self.weighed, self.found = {}, {}

    def watching(self, watch=None):
        """The function for `Samples.watch`, which also calls `watch`."""

        def look(row, image):
            labels, place = self.find_labels(row), self._place(row)
            cells = cell_table(labels)
            if self.score == "green":
                weights = brightness(self.images.inside(image, row)[..., self.green], labels, cells)
            elif self.score == "image":
                weights = np.ones(len(cells), np.float32)
            else:
                weights = [cell_weights(labels, cells, self.size, *place, grid) for grid in self.grids]
            self.weighed[row] = cells, weights
            if watch:
                watch(row, image)

        return look

    def _place(self, row):
        """-> whole, inside of `cell_weights`."""
        if not self.tiled:
            return (self.size, self.size), ((0, self.size), (0, self.size))
        whole = self.images.shape(row)
        down, across = (np.broadcast_to(axis, whole) for axis in np.ogrid[: whole[0], : whole[1]])
        down, across = self.images.inside(down, row)[:, 0], self.images.inside(across, row)[0]
        return whole, ((down[0], len(down)), (across[0], len(across)))

    def __call__(self, rows, tiles, probabilities, maps):
        """rows, tiles: (B,), as of a batch. probabilities: (B, C). maps: of each network, (sum of tiles, C, h, w)."""
        ends = np.cumsum(tiles.numpy())
        batch = zip(rows.tolist(), ends, tiles.tolist(), probabilities.numpy(), strict=True)
        for row, last, count, probability in batch:
            cells, weights = self.weighed.pop(row)
            if self.score not in OF_MAPS:
                scores = weights[:, None] * probability
            else:
                own = (each[last - count : last].movedim(1, 3).flatten(0, 2).numpy() for each in maps)
                logits = np.mean([weight @ each for weight, each in zip(weights, own, strict=True)], axis=0)
                scores = map_scores(logits, probability, self.score, self.activation)
            self.found[row] = cells, scores

    def cells(self, context):
        """The cells of all images, by ascending row: -> list of (DataFrame of `cell_table`, scores (cells, C) float32)."""
        return list(context.merge_dicts(self.found).values())


def with_maps(networks, configs):
    """The networks as `utils.models.class_maps.ClassMaps`. Raises InputError for one that has no class maps."""
    pairs = zip(networks, configs, strict=True)
    return [models.with_class_maps(network, config.model, config.planes, config.size) for network, config in pairs]


def brightness(plane, labels, cells):
    """How far cells show the protein: -> (cells,) float32 in [0, 1]; 1 for all if none is above the background.

    plane: (h, w), the green channel in any unit. labels: (H, W) of the same image. cells: their DataFrame of `cell_table`.
    """
    plane = resize(np.ascontiguousarray(plane), *labels.shape)
    sums = np.bincount(labels.ravel(), plane.ravel())
    means = sums[cells["cell"]] / cells["area"].to_numpy() - np.quantile(plane, 0.05)
    highest = means.max(initial=0)
    return (np.clip(means / (BRIGHT * highest), 0, 1) if highest > 0 else np.ones(len(cells))).astype(np.float32)


def map_scores(logits, probability, score, activation):
    """The scores ``map`` and ``logit``: -> (cells, C) float32. logits (cells, C), probability (C,): of the cells and their image."""
    values = softmax(logits, axis=1) if activation == "softmax" else expit(logits)
    if score == "map":
        values = probability * values / values.max(axis=0, initial=np.finfo(np.float32).tiny)
    return values


def cell_weights(labels, cells, size, whole, inside, grid):
    """The share of each position of class maps in the mean over each cell's pixels: -> (cells, T h w) float32, rows sum to 1.

    labels: (H, W) of an image. cells: their DataFrame of `cell_table`. The maps, of a `grid` (h, w), are those of the T tiles of
    size² pixels that cover a network's image of `whole` (height, width), as `utils.data.crops.tiles` cuts it. inside: (first,
    count) of its rows and of its columns, those that show the image.
    """
    axes = zip(labels.shape, whole, inside, grid, strict=True)
    down, across = (axis_weights(length, size, every, shown, positions) for length, every, shown, positions in axes)
    weights = np.zeros((len(cells), down.shape[1], across.shape[1]), np.float32)
    for row, (cell, left, top, width, height, area) in enumerate(cells.iloc[:, :6].itertuples(index=False)):
        box = np.s_[top : top + height], np.s_[left : left + width]
        weights[row] = down[box[0]].T @ (labels[box] == cell).astype(np.float32) @ across[box[1]] / area
    tiles = down.shape[1] // grid[0], across.shape[1] // grid[1]
    of_tiles = weights.reshape(len(cells), tiles[0], grid[0], tiles[1], grid[1]).transpose(0, 1, 3, 2, 4)
    return of_tiles.reshape(len(cells), down.shape[1] * across.shape[1])


def axis_weights(length, size, whole, inside, positions):
    """The share of each position of the tiles' maps in each pixel, along one axis: -> (length, tiles * positions) float32, rows
    sum to 1.

    Pixels between the middles of two positions are interpolated, those in several tiles averaged. length: pixels of the label
    image. positions: of a map. The others as of `cell_weights`, for this axis.
    """
    first, count = inside
    places, starts = first + (np.arange(length) + 0.5) * count / length, tile_starts(whole, size)
    weights = np.zeros((length, len(starts), positions), np.float32)
    for number, start in enumerate(starts):
        own = (places >= start) & (places < start + size)
        at = np.clip((places[own, None] - start) * positions / size - 0.5, 0, positions - 1)
        weights[own, number] = np.clip(1 - np.abs(at - np.arange(positions)), 0, None)
    return (weights / weights.sum((1, 2), keepdims=True)).reshape(length, -1)
