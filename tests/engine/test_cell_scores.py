"""Scores of cells: class maps averaged over the pixels of cells, of whole images and of tiles, through test-time augmentation."""

import numpy as np
import pytest
import torch
from conftest import write_images
from scipy.special import expit, logit, softmax
from torch.nn import functional

from utils.data.dataset import Normaliser, Samples
from utils.data.image_files import find_files
from utils.data.images import parse_channels
from utils.data.loader import make_loader
from utils.data.masks import cell_table
from utils.distributed import SINGLE_PROCESS
from utils.engine import cell_scores, inference
from utils.opencv import cv2

CPU = torch.device("cpu")


def random_labels(shape, cells, rng):
    """A partition of an image into cells of any number of parts, and some background (0)."""
    coarse = rng.integers(0, cells + 1, (7, 9)).astype(np.uint8)
    return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_NEAREST).astype(np.int32)


def enlarged(maps, shape):
    return functional.interpolate(torch.from_numpy(maps)[None], shape, mode="bilinear")[0].numpy()


def cell_means(maps, labels, cells, size=32, whole=None, inside=None):
    """Means of maps (T, C, h, w) over cells; of one network's image of size² unless its `whole` shape is given."""
    whole = whole or (size, size)
    inside = inside or ((0, whole[0]), (0, whole[1]))
    weights = cell_scores.cell_weights(labels, cells, size, whole, inside, maps.shape[2:])
    assert weights.sum(axis=1) == pytest.approx(1, abs=1e-5)
    return weights @ np.moveaxis(maps, 1, 3).reshape(-1, maps.shape[1])


@pytest.mark.parametrize("shape", [(40, 64), (63, 50), (5, 6)])
def test_maps_are_interpolated_and_averaged_over_pixels(shape):
    """As torch interpolates; also maps that are larger than the image."""
    rng = np.random.default_rng(0)
    labels, maps = random_labels(shape, 6, rng), rng.normal(size=(1, 3, 8, 8)).astype(np.float32)
    cells = cell_table(labels)
    found = cell_means(maps, labels, cells)
    whole = enlarged(maps[0], shape)
    expected = [whole[:, labels == cell].mean(axis=1) for cell in cells["cell"]]
    assert len(cells) > 3 and found == pytest.approx(np.array(expected), abs=1e-5)


@pytest.mark.parametrize("shape", [(24, 24), (40, 30)])
def test_maps_of_tiles_are_joined_and_averaged_where_they_overlap(shape):
    rng, tile = np.random.default_rng(1), 24
    starts = [[0], [0]] if shape == (24, 24) else [[0, 16], [0, 6]]
    places = [(y, x) for y in starts[0] for x in starts[1]]
    labels, maps = random_labels(shape, 5, rng), rng.normal(size=(len(places), 2, 3, 3)).astype(np.float32)
    total, count = np.zeros((2, *shape)), np.zeros(shape)
    for one, (y, x) in zip(maps, places, strict=True):
        total[:, y : y + tile, x : x + tile] += enlarged(one, (tile, tile))
        count[y : y + tile, x : x + tile] += 1
    cells = cell_table(labels)
    expected = [(total / count)[:, labels == cell].mean(axis=1) for cell in cells["cell"]]
    assert cell_means(maps, labels, cells, tile, shape) == pytest.approx(np.array(expected), abs=1e-5)


def test_of_a_rescaled_image_with_borders_only_the_inside_counts():
    """A network's image of 32 rows and 48 columns, of which 20 and 40 show the image; that was rescaled by .5 and .8."""
    rng, whole = np.random.default_rng(4), (32, 48)
    labels, maps = random_labels((40, 50), 5, rng), rng.normal(size=(2, 2, 4, 4)).astype(np.float32)
    network = np.zeros((2, *whole))
    count = np.zeros(whole)
    for one, x in zip(maps, (0, 16), strict=True):
        network[:, :, x : x + 32] += enlarged(one, (32, 32))
        count[:, x : x + 32] += 1
    inside = (network / count)[:, 6:26, 4:44]
    resized = enlarged(inside.astype(np.float32), (40, 50))
    cells = cell_table(labels)
    expected = [resized[:, labels == cell].mean(axis=1) for cell in cells["cell"]]
    found = cell_means(maps, labels, cells, 32, whole, ((6, 20), (4, 40)))
    assert found == pytest.approx(np.array(expected), abs=0.03)


@pytest.mark.parametrize("tile", [None, 16])
def test_cells_that_cover_the_image_share_its_logit(tile):
    """The mean over cells, weighted by area, is the mean of the map: the logit of the image, or the mean of its tiles."""
    rng = np.random.default_rng(2)
    labels, maps = random_labels((32, 48), 8, rng) + 1, rng.normal(size=(6 if tile else 1, 4, 4, 8)).astype(np.float32)
    cells = cell_table(labels)
    found = cell_means(maps, labels, cells, tile or 32, tile and labels.shape)
    assert cells["area"].sum() == labels.size
    assert np.average(found, axis=0, weights=cells["area"]) == pytest.approx(maps.mean((0, 2, 3)), abs=1e-5)


def test_both_scores_as_formulas():
    logits, probability = np.array([[2.0, -1.0], [0.5, -3.0]], np.float32), np.array([0.9, 0.2], np.float32)
    for activation, values in (("sigmoid", expit(logits)), ("softmax", softmax(logits, axis=1))):
        assert cell_scores.map_scores(logits, probability, "logit", activation) == pytest.approx(values)
        found = cell_scores.map_scores(logits, probability, "map", activation)
        assert found == pytest.approx(probability * values / values.max(axis=0))
    assert cell_scores.map_scores(np.zeros((0, 2), np.float32), probability, "map", "sigmoid").shape == (0, 2)
    hopeless = cell_scores.map_scores(np.full((2, 2), -1e4, np.float32), probability, "map", "sigmoid")
    assert np.isfinite(hopeless).all()


@pytest.mark.parametrize("scale", [1, 2])
def test_cells_that_show_the_protein(scale):
    """Of a background of 10, cells of 110, 60, 15 and 10: 100, 50, 5 and 0 above it, and the brightest's tenth is enough."""
    values = np.full((40, 40), 10, np.uint8)
    labels = np.zeros((40, 40), np.int32)
    for cell, value in zip((3, 5, 8, 9), (110, 60, 15, 10), strict=True):
        labels[4 * cell : 4 * cell + 4, 8:16], values[4 * cell : 4 * cell + 4, 8:16] = cell, value
    labels = np.kron(labels, np.ones((scale, scale), np.int32))
    for plane in (values, values / np.float32(255)):
        found = cell_scores.brightness(plane, labels, cell_table(labels))
        assert found == pytest.approx([1, 1, 0.5, 0], abs=1e-4 if scale == 1 else 0.2)
    assert cell_scores.brightness(np.zeros((40, 40), np.uint8), labels, cell_table(labels)).tolist() == [1] * 4
    assert cell_scores.brightness(values, np.zeros((40, 40), int), cell_table(np.zeros((40, 40), int))).shape == (0,)


class Pixels(torch.nn.Module):
    """Its maps are logits of the pixels, times a factor."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = factor

    def forward(self, images):
        return self.factor * torch.logit(images)


def score(folder, ids, masks, networks, fit="resize", size=12, tta=1, batch=2, chunk=3):
    channels = parse_channels("rgby")
    samples = Samples(find_files([folder], ids, channels), channels, size, fit, "none")
    loader = make_loader(samples, batch, 0, CPU)
    grids = [(size, size)] * len(networks)
    images, labels = samples.images, lambda row: masks[ids[row]]
    scorer = cell_scores.CellScorer(images, fit, size, labels, "logit", grids=grids)
    samples.watch = scorer.watching()
    normalisers = [Normaliser(None, "none", None, None, CPU)] * len(networks)
    options = {"tta": tta, "chunk": chunk, "cells": scorer}
    probabilities = inference.predict(networks, normalisers, loader, CPU, **options)[1]
    return probabilities, scorer.cells(SINGLE_PROCESS)


@pytest.mark.parametrize("fit, pixels", [("resize", 12), ("crop", 12), ("crop", 24)])
def test_cells_of_a_map_of_pixels(fit, pixels, tmp_path):
    """The mean over each cell's own pixels, whatever the TTA views, the batch and the number of networks; an image without a cell
    has none."""
    rng, ids = np.random.default_rng(3), ["a", "b", "c"]
    values = {id_: rng.integers(10, 246, (4, pixels, pixels)).astype(np.uint8) for id_ in ids}
    for id_, planes in values.items():
        for channel, plane in zip(("red", "green", "blue", "yellow"), planes, strict=True):
            cv2.imwrite(str(tmp_path / f"{id_}_{channel}.png"), plane)
    masks = {id_: random_labels((pixels, pixels), 4, rng) for id_ in ids} | {"b": np.zeros((pixels, pixels), np.int32)}
    for tta, batch, chunk, networks in (
        (1, 2, 3, [Pixels()]),
        (8, 1, 1, [Pixels(1.5), Pixels(0.5)]),
        (4, 3, 64, [Pixels()]),
    ):
        probabilities, found = score(tmp_path, ids, masks, networks, fit, 12, tta, batch, chunk)
        assert len(found) == 3 and found[1][1].shape == (0, 4)
        for id_, (cells, scores) in zip(ids, found, strict=True):
            logits = logit(values[id_] / 255)
            assert cells["cell"].tolist() == sorted(set(masks[id_].ravel().tolist()) - {0})
            for cell, own in zip(cells["cell"], scores, strict=True):
                assert own == pytest.approx(expit(logits[:, masks[id_] == cell].mean(axis=1)), abs=1e-5)
        if len(networks) == 1 and pixels == 12:
            expected = [expit(logit(values[id_] / 255).mean((1, 2))) for id_ in ids]
            assert probabilities == pytest.approx(np.array(expected), abs=1e-5)


def test_without_cells_the_predictions_are_as_ever(tmp_path):
    """A network that gives maps predicts the same as one that gives their means."""

    class Means(Pixels):
        def forward(self, images):
            return super().forward(images).mean((2, 3))

    write_images(tmp_path, ["a", "b", "c"], size=12)
    masks = dict.fromkeys("abc", np.ones((12, 12), np.int32))
    channels = parse_channels("rgby")
    samples = Samples(find_files([tmp_path], list("abc"), channels), channels, 12, "resize", "none")
    normaliser = Normaliser(None, "none", None, None, CPU)
    plain = inference.predict([Means()], [normaliser], make_loader(samples, 2, 0, CPU), CPU, tta=4)[1]
    assert np.array_equal(score(tmp_path, list("abc"), masks, [Pixels()], tta=4)[0], plain)
