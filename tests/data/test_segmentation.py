"""Segmentation of cells drawn by hand, whose truth is known."""

import tracemalloc

import numpy as np
import pytest
from drawn_cells import CELLS, FIELD, RGBY, draw

from utils.data.segmentation import enlarge_labels, segment
from utils.errors import InputError
from utils.opencv import cv2
from utils.scoring.mask_iou import iou, match


def overlaps(truth, cells, least=0.6):
    overlap = iou(truth, cells)
    assert overlap.shape == (len(CELLS), len(CELLS))
    return overlap[match(overlap, least)]


@pytest.mark.parametrize("size", [128, 200, 512, 1024])
def test_cells_that_touch_are_found_at_every_size(size):
    image, truth = draw(size)
    cells, nuclei = segment(image, RGBY)
    found = overlaps(truth, cells)
    assert len(found) == len(CELLS) and found.min() > 0.75, found
    assert cells.dtype == nuclei.dtype == np.uint16 and cells.shape == nuclei.shape == truth.shape
    assert (cells[nuclei > 0] == nuclei[nuclei > 0]).mean() > 0.99, "a nucleus lies in the cell of its number"
    assert all(cv2.connectedComponents((cells == cell).astype(np.uint8))[0] == 2 for cell in range(1, 7)), (
        "of one piece"
    )


def test_the_pixel_size_tells_how_large_cells_are():
    """A quarter of the field, twice enlarged, is not taken for a field of fewer and larger cells."""
    image, truth = draw(256, field=FIELD / 2)
    cells, _ = segment(image, RGBY, pixel_size=FIELD / 2 / 256)
    found = iou(truth, cells)
    assert found.shape == (2, 2) and found.max(axis=1).min() > 0.75
    wide = np.pad(draw(256)[0], ((0, 0), (0, 128), (0, 0)))
    alone, whole = (segment(image, RGBY, FIELD / 256)[0] for image in (draw(256)[0], wide))
    assert whole.shape == (256, 384) and not whole[:, 256:].any()
    assert iou(alone, whole[:, :256]).max(axis=1).min() > 0.9


@pytest.mark.parametrize("channels", [("red", "blue"), ("blue", "yellow"), ("blue", "green", "yellow")])
def test_one_channel_of_the_cell_is_enough(channels):
    image, truth = draw(256)
    chosen = np.stack([image[..., RGBY.index(name)] for name in channels], axis=-1)
    assert overlaps(truth, segment(chosen, channels)[0]).min() > 0.75


def test_floats_and_other_exposures_give_the_same_cells():
    image, _ = draw(256)
    cells, _ = segment(image, RGBY)
    for same in (
        image.astype(np.float32) / 255,
        image.astype(np.float64) / 255 / 16,
        (image * 257.0).astype(np.uint16),
    ):
        assert iou(cells, segment(same, RGBY)[0]).max(axis=1).min() > 0.97
    faint = image * np.array([0.2, 1, 0.3, 0.4])
    assert iou(cells, segment(faint.astype(np.float32) / 255, RGBY)[0]).max(axis=1).min() > 0.9


@pytest.mark.parametrize("value", [0, 255])
def test_an_image_of_one_value_has_no_cells(value):
    assert not segment(np.full((64, 80, 4), value, np.uint8), RGBY)[0].any()


def test_noise_has_no_cells_and_adds_nothing_to_them():
    noise = np.random.default_rng(1).normal(20, 5, (256, 256, 4)).clip(0, 255).astype(np.uint8)
    assert not segment(noise, RGBY)[0].any()
    image, truth = draw(256)
    image[..., 3] = noise[..., 3]  # without yellow there is still red
    assert overlaps(truth, segment(image, RGBY)[0]).min() > 0.75
    image[..., 0] = noise[..., 0]  # without both, nuclei are all that is seen
    cells, nuclei = segment(image, RGBY)
    assert nuclei.max() == len(CELLS) and np.array_equal(cells, nuclei)


def test_saturated_cells_are_as_large():
    image, truth = draw(256)
    image = ((image.astype(int) - 10) * 8).clip(0, 255).astype(np.uint8)  # flat, without a gradient inside
    assert (image[truth > 0] == 255).mean() > 0.4
    assert overlaps(truth, segment(image, RGBY)[0]).min() > 0.6


def test_memory_at_2048():
    image = cv2.resize(draw(512)[0], (2048, 2048))
    tracemalloc.start()
    segment(image, RGBY)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6, f"{peak / 1e6:.0f} MB beside the image of 17 MB"


def test_enlarged_labels_cover_what_they_covered():
    labels = np.zeros((20, 30), np.int32)
    labels[3:9, 4:12], labels[9:20, 4:12], labels[0:6, 20:30] = 1, 7, 300
    enlarged = enlarge_labels(labels, (75, 113))
    assert set(np.unique(enlarged)) == {0, 1, 7, 300} and enlarged.dtype == np.uint16
    nearest = cv2.resize(labels.astype(np.uint16), (113, 75), interpolation=cv2.INTER_NEAREST_EXACT)
    assert (enlarged == nearest).mean() > 0.97 and enlarged[0, -1] == 300 and enlarged[-1, 25] == 7


@pytest.mark.parametrize(
    ("channels", "pixel_size", "says"),
    [
        (("red", "green", "yellow"), None, "blue"),
        (("green", "blue"), None, "red or yellow"),
        (("blue", "red"), 3.5, "too large to see a cell"),
    ],
)
def test_what_cannot_be_segmented(channels, pixel_size, says):
    with pytest.raises(InputError, match=says):
        segment(np.zeros((64, 64, len(channels)), np.uint8), channels, pixel_size)


def test_an_image_of_too_many_cells():
    flat = np.broadcast_to(np.uint8(0), (4096, 4096, 2))  # takes no memory
    with pytest.raises(InputError, match="cut the image into fields"):
        segment(flat, ("blue", "red"), 1.0)
