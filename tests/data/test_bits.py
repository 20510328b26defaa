"""Cameras of fewer bits than their files have."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import refuse, succeed

from utils import models
from utils.data.images import load_sample, read_plane
from utils.engine import grad_cam
from utils.errors import InputError
from utils.opencv import cv2
from utils.runs.config import RunConfig

COLOURS = ("red", "green", "blue", "yellow")


@pytest.fixture
def twelve(tmp_path):
    """Images of 12 bits in files of 16, their table of folds, and the same images with 8 bits."""
    random = np.random.default_rng(0)
    for number in range(12):
        for colour in COLOURS:
            plane = cv2.GaussianBlur(random.integers(0, 4096, (32, 32)).astype(np.uint16), (5, 5), 0)
            plane[0, 0] = 4095
            for folder, pixels in (("twelve", plane), ("eight", (plane / 4095 * 255).round().astype(np.uint8))):
                (tmp_path / folder).mkdir(exist_ok=True)
                cv2.imwrite(str(tmp_path / folder / f"i{number}_{colour}.png"), pixels)
    rows = [(f"i{number}", "0 25" if number % 2 else "0", number % 3) for number in range(12)]
    pd.DataFrame(rows, columns=["Id", "Target", "fold"]).to_csv(tmp_path / "folds.csv", index=False)
    return tmp_path


def train_words(folder, name, *more):
    options = {"recipe": "chen", "model": "liimatainen_fcn", "weights": "none", "folds": folder / "folds.csv"}
    options |= {"images": folder / "twelve", "runs": folder / "runs", "name": name, "fold": 0, "size": 32, "epochs": 1}
    options |= {"batch-size": 4, "workers": 0, "amp": "off", "cache": folder / "packed"}
    return ["train", *[word for key, value in options.items() for word in (f"--{key}", value)], *more]


def test_the_range_that_the_camera_uses_is_the_whole(twelve):
    path = twelve / "twelve/i0_red.png"
    stored = cv2.imread(str(path), -1)
    assert np.abs(read_plane(path, 12) / 65535 - stored / 4095).max() <= 0.51 / 65535
    assert (read_plane(path) == stored).all() and (read_plane(path, 16) == stored).all()
    assert np.abs(load_sample([path], None, 12)[..., 0] - stored / 4095).max() <= 1e-5
    with pytest.raises(InputError, match="i0_red.png has pixels up to 4,095, above 1,023 .10 bits.; train with more"):
        read_plane(path, 10)


def test_a_run_remembers_its_bits_and_predicts_8_bit_images_alike(twelve):
    out = " ".join(succeed(*train_words(twelve, "as_stored")).out.split())
    assert "12 16-bit images is brighter than 4,095 of 65,535; if the camera has 12 bits, give --bits 12" in out
    assert "warning" not in succeed(*train_words(twelve, "bits", "--bits", 12)).out
    run, out = twelve / "runs/bits", ["-o", twelve / "out.csv", "--workers", 0]
    tables = []
    for images, cache in (
        ("twelve", ["--cache", twelve / "packed"]),
        ("twelve", ["--no-cache"]),
        ("eight", ["--no-cache"]),
    ):
        succeed("predict", run, "--images", twelve / images, *out, *cache)
        tables.append(pd.read_csv(twelve / "out.csv", index_col="Id"))
    assert (tables[0] == tables[1]).all(axis=None)
    assert (tables[0] - tables[2]).abs().to_numpy().max() < 0.02
    cv2.imwrite(str(twelve / "twelve/i0_red.png"), np.full((32, 32), 5000, np.uint16))
    words = [*out, "--no-cache", "--images", twelve / "twelve"]
    refuse("predict", run, *words, says=["i0_red.png has pixels up to 5,000", "12 bits"])
    succeed("predict", twelve / "runs/as_stored", *words)
    refuse("predict", run, twelve / "runs/as_stored", *words, says=["another bits"])
    for bits in (7, 17, -1):
        refuse(*train_words(twelve, "x", "--bits", bits), says=[f"--bits {bits} is out of range; give 8 to 16"])


def test_maps_are_made_of_the_same_pixels(twelve):
    """Of 12 bits as of 8."""
    moments = {"normalise": "dataset", "mean": [0.5] * 4, "std": [0.2] * 4}
    config = RunConfig(["a", "b", "c"], channels="rgby", size=32, fit="resize", **moments)
    network = models.build("liimatainen_fcn", 3, 4, 32).eval()
    found = []
    for folder, bits in (("twelve", 12), ("eight", 0)):
        files = [[twelve / f"{folder}/i0_{colour}.png" for colour in COLOURS]]
        found.append(grad_cam.sample_maps(network, replace(config, bits=bits), files, [0])[0][0])
    assert np.abs(found[0] - found[1]).max() <= 0.05 * np.abs(found[1]).max() + 1e-4
