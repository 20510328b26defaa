"""What the maps of Grad-CAM are worth: logits of images with a part blanked."""

from dataclasses import replace

import numpy as np
import pytest
from spots import CONFIG, PLACES, Spots, draw_spots

from utils.notebook import blanking


def test_black_in_the_right_place_costs_what_the_spot_is_worth(tmp_path):
    """16 of 1024 pixels, each 0.5 above the threshold, times 100: 0.78. The brightest protein is the other class's spot, whose
    loss lifts this one by 30 for each 100."""
    files = draw_spots(tmp_path, (32, 32), PLACES)
    falls = blanking.measure_blanking(Spots(), CONFIG, files, [0, 0], fraction=16 / 1024, draws=50)
    assert falls["marked"] == pytest.approx([0.78125, 0.78125], rel=1e-4)
    assert falls["brightest"] == pytest.approx([-0.3 * 0.78125, -0.3 * 0.78125], rel=1e-4)
    assert np.abs(falls["random"]).max() < 0.2
    everything = blanking.measure_blanking(Spots(), CONFIG, files, [0, 0], fraction=1.0, draws=1)
    assert everything["random"] == pytest.approx([0.7 * 0.78125] * 2, rel=1e-4)
    # Black is black before it is normalised: nothing of the spot, not the mean of all images.
    shifted = replace(CONFIG, normalise="dataset", mean=[-1.0, 0.0], std=[1.0, 1.0])
    falls = blanking.measure_blanking(Spots(), shifted, files, [0, 0], fraction=1.0, draws=1)
    assert falls["marked"] == pytest.approx([0.78125 * 2 - 0.3 * 0.78125] * 2, rel=1e-4)
    line = blanking.describe_blanking({"marked": np.array([1, 3, np.nan]), "random": np.array([0, 4, np.nan])})
    assert blanking.describe_blanking({"marked": np.full(3, np.nan)}).startswith("all 3 maps are empty")
    assert "by 2.00 ± 1.41 by the map, 2.00 ± 2.83 elsewhere" in line and "1 of 2; 1 maps are empty" in line


def test_the_random_area_is_as_large_and_seldom_in_the_same_place():
    rng = np.random.default_rng(0)
    mask = np.zeros((1, 32, 32), bool)
    mask[0, 2:6, 3:13] = True
    moved = [blanking._move(mask, rng)[0] for _ in range(200)]
    assert all(one.sum() == 40 for one in moved)
    assert np.mean([(one & mask[0]).sum() for one in moved]) == pytest.approx(40 * 40 / 1024, rel=0.5)
    assert {one.any(axis=1).sum() for one in moved} >= {4, 10}, "turned too"
