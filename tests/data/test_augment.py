"""Chen's augmentation: what each operation does, which are chosen, and that all of it follows from (seed, epoch, row)."""

import albumentations as A
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import refuse, succeed, train_options, write_images
from scipy import ndimage

from utils.data import augment, mixing, transforms
from utils.data.dataset import Samples
from utils.data.image_files import find_files
from utils.data.images import parse_channels
from utils.data.loader import begin_epoch, make_loader
from utils.errors import InputError
from utils.opencv import cv2
from utils.runs.predictions import read_predictions

RGBY = ["red", "green", "blue", "yellow"]
GREEN = 1


def run(transform, image, seed=0):
    augment.seed_transform(transform, seed)
    return transform(image=image)["image"]


def noise(size=32, channels=4, dtype=np.uint8):
    image = np.random.default_rng(0).integers(0, 256, (size, size, channels))
    return image.astype(np.uint8) if dtype == np.uint8 else (image / 255).astype(np.float32)


def flat(value=100, size=32):
    return np.full((size, size, 4), value, np.uint8)


@pytest.fixture
def loaders(tmp_path):
    """A function (workers, epoch, seed) -> the batch of twelve augmented samples."""
    ids = [f"i{n:02}" for n in range(12)]
    write_images(tmp_path, ids, size=24)
    channels = parse_channels("rgby")
    files = find_files([tmp_path], ids, channels)

    def load(workers, epoch, seed=0):
        chain = augment.build("1:chen 21:chen_strong", channels.names)
        samples = Samples(files, channels, 24, "resize", "none", np.ones((12, 3)), chain, seed=seed)
        loader = make_loader(samples, 4, workers, torch.device("cpu"))
        found = list(begin_epoch(loader, epoch))
        images = torch.cat([batch["images"] for batch in found])
        labels = torch.cat([batch["targets"] for batch in found])
        return torch.cat([images.flatten(1).float(), labels], dim=1)  # a label must follow its picture

    return load


def test_the_same_for_any_number_of_workers_and_new_every_epoch(loaders):
    first = loaders(0, 3)
    assert torch.equal(first, loaders(1, 3)) and torch.equal(first, loaders(2, 3))
    for other in (loaders(0, 4), loaders(0, 3, seed=1)):
        changed = (first != other).flatten(1).any(dim=1)
        assert changed.all(), "every sample, not only some"


def test_a_stage_by_step_begins_within_an_epoch_and_so_after_an_interruption(tmp_path):
    ids = [f"i{n:02}" for n in range(12)]
    write_images(tmp_path, ids, size=24)
    files = find_files([tmp_path], ids, parse_channels("rgby"))
    chain = augment.build("1:none step5:chen", RGBY, steps_per_epoch=3)  # from the third batch of epoch 2
    seen = ("resize", "none", np.ones((12, 3)))

    def changed(epoch, workers=0, skip=0):
        samples = [Samples(files, parse_channels("rgby"), 24, *seen, made) for made in (chain, None)]
        both = [make_loader(each, 4, workers, torch.device("cpu"), shuffle=True) for each in samples]
        pairs = zip(*(begin_epoch(loader, epoch, skip) for loader in both), strict=True)
        return [[not torch.equal(*images) for images in zip(one["images"], other["images"])] for one, other in pairs]

    none, all_ = [False] * 4, [True] * 4
    assert changed(1) == [none] * 3 and changed(2) == changed(2, workers=2) == [none, none, all_]
    assert changed(2, skip=4) == [none, all_] and changed(3) == [all_] * 3


@pytest.mark.parametrize("text, mix", [("none", None), ("d4", None), ("chen", mixing.Mix("cutmix", 0.5))])
def test_red_and_yellow_are_dropped_each_by_itself_after_all_else(tmp_path, text, mix):
    """For any workers, after an interruption too, and the rest of the image and its labels stay as they were."""
    ids, channels = [f"i{n:02}" for n in range(12)], parse_channels("rgby")
    write_images(tmp_path, ids, size=24)
    files = find_files([tmp_path], ids, channels)

    def load(drop, workers=0, skip=0, epochs=range(1, 26)):
        chain = augment.build(text, channels.names, 3, drop)
        samples = Samples(files, channels, 24, "resize", "image", np.eye(12), chain, random_crop=True, mix=mix)
        loader = make_loader(samples, 4, workers, torch.device("cpu"), shuffle=True)
        found = [batch for epoch in epochs for batch in begin_epoch(loader, epoch, skip)]
        return [torch.cat([batch[name] for batch in found]) for name in ("images", "targets", "mean", "std")]

    (images, labels, *_), (plain, same, *_) = dropped, _ = load(0.25), load(0.0)
    black, before = ((part == 0).flatten(2).all(2) for part in (images, plain))
    lost = black & ~before
    assert torch.equal(labels, same) and torch.equal(images, plain * ~lost[:, :, None, None])
    assert not lost[:, 1:3].any(), "green and blue stay"
    both = lost[:, 0] & lost[:, 3]
    assert lost[:, [0, 3]].float().mean(0).tolist() == pytest.approx([0.25, 0.25], abs=0.08) and 6 < both.sum() < 35
    assert not any(part[lost].any() for part in dropped[2:]), "of what the network sees"
    for one, other in zip(load(0.25, 2, epochs=[1, 2]), load(0.25, epochs=[1, 2]), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(load(0.25, skip=4, epochs=[2])[0], load(0.25, epochs=[2])[0][4:])


@pytest.mark.parametrize(
    "words, says", [([1], "out of range"), (["nan"], "out of range"), ([0.5, "--channels", "gb"], "lack")]
)
def test_drops_that_cannot_be_are_refused(words, says, atlas, folds, tmp_path):
    refuse("train", *train_options(atlas, folds, tmp_path), "--drop-channels", *words, says=says)


class Chosen(A.ImageOnlyTransform):
    """Replaces an operation and logs that it was chosen."""

    def __init__(self, log, name):
        super().__init__(p=1)
        self.log, self.name = log, name

    def apply(self, img, **_):
        self.log.append(self.name)
        return img


class ChosenOfChannels(transforms.ChannelTransform):
    """The same for an operation of some channels."""

    def __init__(self, log, name):
        super().__init__([0], (0, 0))
        self.log, self.name = log, name

    def change(self, plane, _):
        self.log.append(self.name)
        return plane


def test_one_operation_of_each_group_and_every_combination_of_them():
    """The choices of the groups are independent: seeded alike, the first operation would always meet the first."""
    log, groups = [], augment.chen(RGBY)
    logging = {
        group: {
            name: (ChosenOfChannels if isinstance(one, transforms.ChannelTransform) else Chosen)(log, (group, name))
            for name, one in part.items()
        }
        for group, part in groups.items()
    }
    chain = augment.Augmentation(["d4"], [0], RGBY)
    chain.transforms = [augment.pipeline(logging)]
    image, seen = flat(), []
    for seed in range(1500):
        log.clear()
        chain(image, np.ones(1), 1, seed)
        assert [group for group, _ in log] == list(groups), "in this sequence"
        seen.append(tuple(log))
    combinations = np.prod([len(part) for part in groups.values()])
    assert len(set(seen)) == combinations == 48
    for group, part in groups.items():
        for name in part:
            share = np.mean([(group, name) in choice for choice in seen])
            assert share == pytest.approx(1 / len(part), abs=0.06)


def test_groups_are_those_of_the_authors_code():
    """In this sequence; padding, the second piecewise affine map, holes, sharpening and a flip or turn for every image."""
    groups = {name: set(part) for name, part in augment.chen(RGBY).items()}
    assert list(groups.items()) == [
        ("pad", {"pad"}),
        ("move", {"none", "rotate", "shear", "piecewise affine"}),
        ("distort", {"distort"}),
        ("contrast", {"contrast"}),
        ("change references", {"none", "multiply", "contrast", "edges"}),
        ("holes", {"holes"}),
        ("sharpen references", {"sharpen references"}),
        ("change protein", {"none", "multiply", "contrast"}),
        ("sharpen protein", {"sharpen protein"}),
        ("flip or turn", {"flip or turn"}),
    ]
    assert not {"change references", "holes", "sharpen references"} & set(augment.chen(["green"]))
    assert not {"change protein", "sharpen protein"} & set(augment.chen(["red", "blue"]))


@pytest.mark.parametrize("group", ["move", "change references", "change protein"])
def test_none_leaves_the_image_as_it_is(group):
    assert (run(augment.chen(RGBY)[group]["none"], noise()) == noise()).all()


def test_padding_never_crops_and_adds_up_to_a_tenth_on_each_side():
    """The outermost pixels stay, and move inwards by up to 10 of 100 pixels, a separate number on each side."""
    pad = augment.chen(RGBY)["pad"]["pad"]
    frame = np.pad(np.zeros((98, 98, 4), np.uint8), ((1, 1), (1, 1), (0, 0)), constant_values=255)
    added = []
    for seed in range(300):
        out = run(pad, frame, seed)[..., 0]
        for lines in (out[:, 30:70], out[::-1, 30:70], out[30:70].T, out[30:70, ::-1].T):
            strength = lines[:20].mean(axis=1)
            assert strength.max() > 90, "the frame's line is still there"
            added.append(strength.argmax())
    added = np.reshape(added, (300, 4))
    assert added.min() == 0 and 8 <= added.max() <= 10
    assert np.corrcoef(added.T)[0, 1:] == pytest.approx([0, 0, 0], abs=0.2), "separately"
    black = np.mean([run(pad, flat(size=100), seed).min() < 50 for seed in range(300)])
    assert black == pytest.approx(0.5, abs=0.1), "else mirrored"


def test_every_image_is_flipped_or_turned_all_eight_ways_equally_likely():
    image = noise(8)
    turned = [np.rot90(flipped, quarters) for flipped in (image, image[:, ::-1]) for quarters in range(4)]
    transform = augment.chen(RGBY)["flip or turn"]["flip or turn"]
    found = [run(transform, image, seed) for seed in range(1600)]
    counts = [sum(np.array_equal(out, one) for out in found) for one in turned]
    assert sum(counts) == 1600 and min(counts) > 150 and max(counts) < 250
    assert all(np.array_equal(out, run(A.D4(p=1), image, seed)) for seed, out in enumerate(found[:100]))


def test_one_strength_for_all_references_but_one_each_for_brightness():
    image = np.repeat(noise(16, 1), 4, axis=2)
    for group, name, alike in (
        ("change references", "contrast", True),
        ("change references", "edges", True),
        ("sharpen references", "sharpen references", True),
        ("change references", "multiply", False),
    ):
        out = run(augment.chen(RGBY)[group][name], image)
        assert (out[..., GREEN] == image[..., GREEN]).all() and (out[..., 0] != image[..., 0]).any()
        assert np.array_equal(out[..., 0], out[..., 2]) == alike and np.array_equal(out[..., 0], out[..., 3]) == alike


def test_the_protein_is_changed_gently_and_separately():
    groups = augment.chen(RGBY)

    def factors(group):
        return np.array([run(groups[group]["multiply"], flat(), seed)[0, 0] / 100 for seed in range(300)])

    references, protein = factors("change references"), factors("change protein")
    low, high = references[:, [0, 2, 3]].min(0), references[:, [0, 2, 3]].max(0)
    assert (low >= 0.79).all() and (low < 0.83).all() and (high > 1.27).all() and (high <= 1.31).all()
    assert (references[:, GREEN] == 1).all() and (protein[:, [0, 2, 3]] == 1).all()
    assert 1 <= protein[:, GREEN].min() < 1.02 and 1.13 < protein[:, GREEN].max() <= 1.15


def test_after_epoch_20_the_references_get_darker():
    chain = augment.build("1:chen 21:chen_strong", RGBY, steps_per_epoch=10)
    image = flat(120)

    def darkest(step):
        """Least brightness of the middle of a reference channel; at most three quarters of it are a hole."""
        middles = (chain(image, np.ones(1), step, seed)[0][12:20, 12:20] for seed in range(400))
        return min(middle[..., c].max() for middle in middles for c in (0, 2, 3)) / 120

    # Sharpening also darkens, to 1 - 0.25 of it at most.
    assert 0.6 < darkest(199) < 0.75 and 0.14 < darkest(200) < 0.3


def test_a_negative_sample_loses_the_protein_channel_and_its_label():
    """The whole green plane and every label, not one row of pixels; and only in 3.5 % of samples."""
    chain = augment.build("chen", RGBY)
    image, label, negatives = flat(100, 16), np.array([1, 0, 1], np.float32), 0
    for seed in range(2000):
        out, target = chain(image, label, 1, seed)
        if target.any():
            assert target.tolist() == [1, 0, 1] and out[..., GREEN].any()
        else:
            negatives += 1
            assert not out[..., GREEN].any() and out[..., [0, 2, 3]].any(axis=(0, 1)).all()
    assert negatives / 2000 == pytest.approx(0.035, abs=4 * np.sqrt(0.035 * 0.965 / 2000))
    assert label.tolist() == [1, 0, 1] and (image == 100).all(), "what was handed in stays as it was"


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("names", [RGBY, ["green"], ["red", "green", "blue"], ["red", "blue"]])
def test_any_channels_and_both_pixel_formats(names, dtype):
    image = noise(40, len(names), dtype)
    before = image.copy()
    for seed in range(60):
        out, _ = augment.build("chen", names)(image, np.ones(2), 1, seed)
        assert out.shape == image.shape and out.dtype == dtype
        assert out.min() >= 0 and out.max() <= (255 if dtype == np.uint8 else 1) and np.isfinite(out).all()
    assert (image == before).all()


def test_multiply_and_contrast_by_hand():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    assert np.abs(run(transforms.Multiply([0], (1.3, 1.3)), image) - np.clip(image * 1.3, 0, 255)).max() <= 0.5
    expected = np.clip((image - 128.0) * 1.05 + 128, 0, 255)
    assert np.abs(run(transforms.Contrast([0], (1.05, 1.05)), image) - expected).max() <= 0.51


KERNELS = {
    transforms.Sharpen([0], (0.2, 0.2), lightness=(0.4, 0.4)): [[-1, -1, -1], [-1, 8.4, -1], [-1, -1, -1]],
    transforms.Edges([0], (0.2, 0.2)): [[0, 1, 0], [1, -4, 1], [0, 1, 0]],
}


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("transform, kernel", KERNELS.items())
def test_filters_are_scipys_convolution_blended_in(transform, kernel, dtype):
    image = noise(24, 2, dtype)
    top = 255 if dtype == np.uint8 else 1
    out = run(transform, image)
    plane = image[..., 0].astype(float)
    expected = 0.8 * plane + 0.2 * ndimage.convolve(plane, np.array(kernel), mode="mirror")
    assert np.abs(out[..., 0] - np.clip(expected, 0, top)).max() <= top / 255 * 0.51
    assert (out[..., 1] == image[..., 1]).all()


def test_holes_cover_their_fraction_differently_in_each_channel():
    image = np.full((64, 64, 3), 9, np.uint8)
    masks = np.stack([run(transforms.Holes([0, 2], (0, 0.4)), image, seed) == 0 for seed in range(400)])
    means = masks.mean(axis=(0, 1, 2))
    assert means[[0, 2]] == pytest.approx([0.2, 0.2], abs=0.03) and means[1] == 0
    assert (masks[..., 0] != masks[..., 2]).any(axis=(1, 2)).mean() > 0.8
    blocks = masks[..., 0].reshape(400, 4, 16, 4, 16)
    assert (blocks.all(axis=(2, 4)) == blocks.any(axis=(2, 4))).all(), "whole squares"


def test_piecewise_affine_moves_pixels_where_its_nodes_go():
    image = ndimage.gaussian_filter(noise(64, 1).astype(float), (4, 4, 0)).astype(np.uint8)
    transform = transforms.PiecewiseAffine((0, 0.05))
    still = np.zeros((2, 4, 4))
    assert (transform.apply(image, moves=still) == image).all()
    shifted = transform.apply(image, moves=still + np.array([3 / 63, -2 / 63])[:, None, None])
    assert (shifted[22:, :40] == image[20:62, 3:43]).all(), "output x reads input x + 3, y reads y - 2"
    ramp = np.arange(0, 256, 4, dtype=np.uint8)[None, :, None].repeat(64, axis=0)  # grey value: 4 x column
    columns = transform.apply(ramp, moves=still + 3 / 63)[32, :, 0] / 4
    assert columns == pytest.approx(np.interp(range(64), [0, 21, 42, 63], [3, 24, 45, 63]), abs=0.15), "not out of it"
    augment.seed_transform(transform, 0)
    drawn = [transform.get_params()["moves"] for _ in range(300)]
    assert np.std(drawn) == pytest.approx(0.05 / np.sqrt(3), rel=0.1)


def test_impossible_augmentations_are_refused(atlas, folds, tmp_path):
    for text in ("", "chenn", "2:chen", "1:chen 1:d4", "1:chen 20:", "1:chen,20:d4"):
        with pytest.raises(InputError):
            augment.parse(text)
        refuse("train", *train_options(atlas, folds, tmp_path, augment=text), says="augmentation")
    assert not any(tmp_path.iterdir())


def test_training_sees_negative_samples_and_validation_does_not(atlas, folds, tmp_path, monkeypatch):
    monkeypatch.setitem(augment.AUGMENTATIONS, "chen", (augment.AUGMENTATIONS["chen"][0], 1.0))
    succeed("train", *train_options(atlas, folds, tmp_path, augment="chen", epochs=1))
    fold = tmp_path / "mini/fold0"
    assert (pd.read_csv(fold / "steps.csv")["recall"] == 0).all(), "no label is left to be found in training"
    oof = read_predictions(fold / "oof.csv")
    oof.reset_index()[["Id"]].to_csv(tmp_path / "ids.csv", index=False)
    words = ["--images", atlas / "train", "--ids", tmp_path / "ids.csv", "--tta", 1, "--workers", 0]
    succeed("predict", fold, *words, "-o", tmp_path / "p.csv")
    found = read_predictions(tmp_path / "p.csv").to_numpy()
    assert found == pytest.approx(oof.to_numpy(), abs=1e-6), "green was not emptied"


def test_an_emptied_channel_is_normalised_as_an_empty_one_at_test_time(tmp_path):
    """Per-image normalisation uses the image that the network gets, not the one on disk."""
    write_images(tmp_path, ["a"], size=24)
    channels = parse_channels("rgby")
    files = find_files([tmp_path], ["a"], channels)
    chain = augment.build("chen", channels.names)
    chain.negative = [1.0]
    sample = Samples(files, channels, 24, "resize", "image", np.ones((1, 3)), chain)[1, 0, 0]
    assert sample["mean"][GREEN] == 0 and sample["std"][GREEN] == 0 and not sample["targets"].any()
    crop = Samples(files, channels, 16, "crop", "image", np.ones((1, 3)), chain, random_crop=True)[1, 0, 0]
    assert crop["mean"][GREEN] == 0 and crop["std"][GREEN] == 0
    whole = Samples(files, channels, 16, "crop", "image")[1, 0, 0]
    assert np.array_equal(crop["mean"][[0, 2, 3]], whole["mean"][[0, 2, 3]]), "the others keep the whole image's"
    dark = np.full((24, 24), 90, np.uint8)
    dark[:, :20] = 0
    for name in ("red", "green", "blue", "yellow"):
        assert cv2.imwrite(str(tmp_path / f"a_{name}.png"), dark)
    chain = augment.build("d4", channels.names)
    corner = Samples(files, channels, 16, "crop", "image", np.ones((1, 3)), chain, random_crop=True)
    crops = [corner[epoch, 0, 0] for epoch in range(1, 30)]
    assert any(not crop["images"].any() for crop in crops), "dark before augmentation"
    assert all(crop["mean"].tolist() == pytest.approx([dark.mean() / 255] * 4) for crop in crops)
    pixels = sample["images"][0] / 255
    assert sample["mean"] == pytest.approx(pixels.mean(axis=(0, 1)), abs=1e-6)
    assert sample["std"] == pytest.approx(pixels.std(axis=(0, 1)), abs=1e-6)


def test_the_sheet_shows_every_operation(atlas, tmp_path):
    words = ["utils.tools.augment_sheet", "--images", atlas / "train", "--size", 64, "-o", tmp_path / "a.png"]
    out = succeed(*words).out
    for name in (
        "pad",
        "rotate",
        "shear",
        "piecewise affine",
        "distort",
        "edges",
        "holes",
        "sharpen",
        "whole pipeline",
    ):
        assert name in out
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    succeed(*words, "--channels", "green")
    refuse(*words, "--id", "nobody", says="nobody")
