"""Tiles, zoomed parts and crops: where they lie, and which pixels they have."""

import numpy as np
import pytest
from conftest import write_images
from hypothesis import given
from hypothesis import strategies as st

from utils.data.crops import random_zoom, tile_starts, tiles
from utils.data.dataset import Samples
from utils.data.image_files import find_files
from utils.data.images import load_sample, parse_channels, resize


@given(st.integers(1, 500), st.integers(1, 200))
def test_tiles_cover_every_pixel_with_the_fewest(length, size):
    if length < size:
        length += size
    starts = tile_starts(length, size)
    covered = np.zeros(length, bool)
    for start in starts:
        assert 0 <= start <= length - size
        covered[start : start + size] = True
    assert covered.all() and len(starts) == int(np.ceil(length / size))


def test_four_corners_of_a_2048_image():
    image = np.arange(2048 * 2048, dtype=np.uint32).reshape(2048, 2048, 1)
    assert [int(tile[0, 0, 0]) for tile in tiles(image, 1024)] == [0, 1024, 1024 * 2048, 1024 * 2048 + 1024]


def test_zoom_shows_a_part_of_two_thirds_or_more_anywhere():
    """On an image of coordinates, which stay linear when it is resized."""
    image = np.stack(np.meshgrid(np.arange(0.5, 90), np.arange(0.5, 60)), axis=2).astype(np.float32)
    sides, starts, ends = [], [], []
    for seed in range(300):
        out = random_zoom(image, 30, np.random.default_rng(seed))
        assert out.shape == (30, 30, 2)
        first, last = out[0, 0] / (90, 60), out[-1, -1] / (90, 60)
        side = (last - first) * 30 / 29
        sides.append(side)
        starts.append(first - side / 60)
        ends.append(last + side / 60)
    sides, starts, ends = map(np.array, (sides, starts, ends))
    assert np.abs(sides[:, 0] - sides[:, 1]).max() < 0.02, "as tall as wide, in sides of the image"
    assert 0.65 < sides.min() < 0.68 and 0.98 < sides.max() < 1.01
    assert sides.mean() == pytest.approx(5 / 6, abs=0.02)
    assert starts.min() == pytest.approx(0, abs=0.02) and ends.max() == pytest.approx(1, abs=0.02)
    assert starts.max() > 0.28 and ends.min() < 0.72, "every corner is left out at times"


def test_zoom_has_the_files_resolution_and_validation_sees_the_whole(tmp_path):
    """No file is enlarged: 48² pixels are enough for a part of two thirds at 32²."""
    for name, size in (("small", 40), ("large", 96)):
        write_images(tmp_path, [name], size=size)
    channels = parse_channels("rgby")
    files = find_files([tmp_path], ["small", "large"], channels)
    samples, resized = (Samples(files, channels, 32, fit, "none") for fit in ("zoom", "resize"))
    assert [samples.images.read(row).shape for row in (0, 1)] == [(40, 40, 4), (48, 48, 4)]
    assert np.array_equal(samples[0, 0, 0]["images"], resized[0, 0, 0]["images"]), "to the bit"
    assert np.array_equal(samples[0, 1, 0]["images"][0], resize(load_sample(samples.files[1], 48), 32, 32))
    samples.crops = 5
    large = load_sample(samples.files[1], 48)
    for crop, (y, x) in zip(samples[0, 1, 0]["images"], [(0, 0), (0, 16), (16, 0), (16, 16), (8, 8)], strict=True):
        assert np.array_equal(crop, large[y : y + 32, x : x + 32])
    flat = [load_sample([tmp_path / "large_red.png"], size, enlarge=False).shape for size in (50, 96, 200)]
    assert flat == [(50, 50, 1), (96, 96, 1), (96, 96, 1)]
