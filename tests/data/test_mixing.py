"""CutMix and mixup: pixels and labels of two samples."""

import numpy as np
import pytest
from conftest import refuse, train_options
from example_labels import COLOURS

from utils.data.dataset import Samples
from utils.data.images import parse_channels
from utils.data.mixing import MIXES, Mix
from utils.opencv import cv2

ONE, OTHER = np.array([1, 0, 1, 0], np.float32), np.array([0, 0, 1, 1], np.float32)


def mixed(name, image, other, seed=0):
    return Mix(name, 1.0)((image, ONE), (other, OTHER), np.random.default_rng(seed))


def test_cutmix_copies_a_rectangle_of_a_quarter_to_three_quarters_anywhere():
    black, white = np.zeros((40, 60, 3), np.uint8), np.full((40, 60, 3), 255, np.uint8)
    masks = np.stack([mixed("cutmix", black, white, seed)[0] == 255 for seed in range(400)])
    assert not black.any(), "what was handed in stays as it was"
    for mask in masks[:50]:
        rows, columns = mask[..., 0].any(axis=1), mask[..., 0].any(axis=0)
        assert (mask == (rows[:, None] & columns)[..., None]).all(), "a rectangle, in all channels"
        assert rows.sum() / columns.sum() == pytest.approx(40 / 60, abs=0.03)
    shares = masks[..., 0].mean(axis=(1, 2))
    assert 0.24 < shares.min() < 0.26 and 0.74 < shares.max() < 0.77
    assert np.mean(shares) == pytest.approx(0.5, abs=0.03) and np.std(shares) == pytest.approx(0.5 / 12**0.5, abs=0.02)
    for edge in (masks[:, 0], masks[:, -1], masks[:, :, 0], masks[:, :, -1]):
        assert 0.03 < edge.any(axis=(1, 2)).mean() < 0.3


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_mixup_is_the_weighted_mean(dtype):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (20, 20, 1)).astype(dtype) for _ in range(2)]
    out, _ = mixed("mixup", *images)
    share = np.random.default_rng(0).uniform(0.25, 0.75)
    expected = (1 - share) * images[0].astype(float) + share * images[1]
    assert (
        out.shape == (20, 20, 1)
        and out.dtype == dtype
        and np.abs(out - expected).max() <= 0.51 * (dtype == np.uint8) + 1e-4
    )


@pytest.mark.parametrize("name", MIXES)
def test_labels_are_those_of_both_or_weighted_by_the_area(name):
    black, white = np.zeros((40, 60, 3), np.uint8), np.full((40, 60, 3), 255, np.uint8)
    for seed in range(20):
        image, labels = mixed(name, black, white, seed)
        share = (image == 255).mean()
        expected = [1 - share, 0, 1, share] if name == "cutmix_area" else [1, 0, 1, 1]
        assert labels.dtype == np.float32 and labels == pytest.approx(expected, abs=1e-6)


def test_eight_and_sixteen_bits_mix():
    image, _ = mixed("cutmix", np.full((8, 8, 1), 255, np.uint8), np.full((8, 8, 1), 0.5, np.float32))
    assert image.dtype == np.float32 and set(np.unique(image)) == {0.5, 1.0}


def grey_samples(folder, fit="resize", normalise="none"):
    """Sample i has grey value 20 i everywhere and only class i."""
    for number in range(10):
        for colour in COLOURS:
            cv2.imwrite(str(folder / f"{number}_{colour}.png"), np.full((24, 24), 20 * number, np.uint8))
    files = [tuple(folder / f"{number}_{colour}.png" for colour in COLOURS) for number in range(10)]
    return Samples(
        files, parse_channels("rgby"), 16, fit, normalise, np.eye(10), random_crop=True, mix=Mix("cutmix", 0.5)
    )


@pytest.mark.parametrize("fit", ["resize", "zoom", "crop"])
def test_the_classes_are_those_of_the_two_samples_whose_pixels_are_seen(tmp_path, fit):
    samples, partners, single = grey_samples(tmp_path, fit, "image"), set(), 0
    for epoch in range(1, 121):
        sample = samples[epoch, 3, 0]
        image, classes = sample["images"][0], np.flatnonzero(sample["targets"])
        assert image.shape == (16, 16, 4) and 3 in classes
        assert np.unique(image).tolist() == (20 * classes).tolist()
        assert sample["mean"] == pytest.approx(image.mean(axis=(0, 1)) / 255, abs=1e-6), "of what the network sees"
        partners |= set(classes.tolist())
        single += len(classes) == 1
    assert len(partners) == 10 and 40 < single < 90, "any of the training set, for half of the samples"


def test_labels_that_a_loss_cannot_take_are_refused(atlas, folds, tmp_path):
    def refused(*says, **options):
        words = [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
        refuse("train", *train_options(atlas, folds, tmp_path), *words, says=says)

    refused(
        "--mix cutmix_area gives labels between 0 and 1, which focal, soft_f1",
        mix="cutmix_area",
        loss="1:bce 2:focal+soft_f1",
    )
    exclusive = {"loss": "1:cross_entropy", "mix": "mixup"}
    words = [*train_options(atlas, folds, tmp_path, **exclusive), "--single-label"]
    refuse("train", *words, says=["--mix mixup gives an image several classes", "cutmix_area"])
    for probability in (0, 1.5, "nan"):
        refused("--mix-probability", "out of range", mix="cutmix", mix_probability=probability)
    assert not any(tmp_path.iterdir())
