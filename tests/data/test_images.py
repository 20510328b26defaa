"""Reading images and making batches: channel order, file formats, normalisation, tiles, randomness."""

import numpy as np
import pytest
import torch
from conftest import write_images

from utils.data import augment
from utils.data.dataset import Normaliser, Samples, dataset_moments
from utils.data.image_files import find_files, scan_folder
from utils.data.images import ENDINGS, image_size, load_sample, parse_channels, read_plane
from utils.data.loader import batches, make_loader
from utils.errors import InputError
from utils.opencv import cv2

VALUES = {"red": 10, "green": 20, "blue": 30, "yellow": 90}


@pytest.fixture
def known(tmp_path):
    """A sample whose channels are known: red 10, green 20, blue 30, yellow 90."""
    for channel, value in VALUES.items():
        cv2.imwrite(str(tmp_path / f"a_{channel}.png"), np.full((8, 8), value, np.uint8))
    return tmp_path


def batch_of(folder, ids, spec, size=8, fit="resize", normalise="none", workers=0, **more):
    channels = parse_channels(spec)
    samples = Samples(find_files([folder], ids, channels), channels, size, fit, normalise, **more)
    return samples, make_loader(samples, 4, workers, torch.device("cpu"))


SETS = {"rgby": [10, 20, 30, 90], "bgry": [30, 20, 10, 90], "rgb": [10, 20, 30], "green": [20], "g": [20]}
SETS |= {"yb": [90, 30], "rgb+y/3": [40, 50, 60]}
SETS |= {"bgry-y": [30, 20, 10, 0], "rgby-r-y": [0, 20, 30, 0], "rgb+y/3-y": [10, 20, 30], "rgb+y/3-r": [30, 50, 60]}


@pytest.mark.parametrize("spec, values", SETS.items())
def test_channel_sets_reach_the_network_in_their_order(known, spec, values):
    samples, loader = batch_of(known, ["a"], spec)
    planes = Normaliser(samples.channels.mix, "none", None, None, torch.device("cpu"))(next(batches(loader)))
    assert planes.shape == (1, len(values), 8, 8) == (1, samples.channels.planes, 8, 8)
    assert (planes[0, :, 0, 0] * 255).tolist() == pytest.approx(values, abs=1e-3)


@pytest.mark.parametrize(
    "spec", ["", "rgbx", "rr", "rgb+r/3", "rgb+y/0", "rgby/3", "Green ", "cyan", "rgb-y", "rg-rg", "rgby-x", "rgby-"]
)
def test_impossible_channel_sets_are_refused(spec):
    with pytest.raises(InputError):
        parse_channels(spec)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("form", ["grey", "grey in rgb", "one plane of rgb"])
def test_formats_and_grey_in_rgb(tmp_path, ending, form):
    pixels = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (40, 30), dtype=np.uint8), (0, 0), 4)
    zero = np.zeros_like(pixels)
    planes = {"grey": [pixels], "grey in rgb": [pixels] * 3, "one plane of rgb": [zero, pixels, zero]}
    path = tmp_path / f"x_green.{ending}"
    cv2.imwrite(str(path), np.dstack(planes[form]), [cv2.IMWRITE_JPEG_QUALITY, 100])
    tolerance = 0 if ending in ("png", "tif", "tiff") else 12
    read = read_plane(path)
    assert read.dtype == np.uint8 and image_size(path) == (40, 30) == read.shape
    assert np.abs(read.astype(int) - pixels).max() <= tolerance


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits_keep_their_precision(tmp_path, ending):
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8) + 1000
    cv2.imwrite(str(tmp_path / f"x_green.{ending}"), pixels)
    image = load_sample([tmp_path / f"x_green.{ending}"])
    assert image.dtype == np.float32 and image[..., 0] == pytest.approx(pixels / 65535, abs=1e-7)


def test_eight_and_sixteen_bits_share_a_batch(tmp_path):
    write_images(tmp_path, ["a"], ["green"], 8)
    write_images(tmp_path, ["b"], ["green"], 8, dtype=np.uint16, ending="tif")
    _, loader = batch_of(tmp_path, ["a", "b"], "green")
    images = next(batches(loader))["images"]
    assert images.dtype == torch.float32 and images.amax() <= 1
    assert images[0, 0].numpy() == pytest.approx(load_sample([tmp_path / "a_green.png"])[..., 0] / 255)


def test_resize_keeps_the_mean_and_takes_any_shape(tmp_path):
    write_images(tmp_path, ["a"], ["green"], 64)
    cv2.imwrite(str(tmp_path / "b_green.png"), np.full((20, 50), 77, np.uint8))
    whole = load_sample([tmp_path / "a_green.png"])
    assert load_sample([tmp_path / "a_green.png"], 16).mean() == pytest.approx(whole.mean(), abs=1)
    assert (load_sample([tmp_path / "b_green.png"], 32) == 77).all()


def test_image_normalisation_uses_the_whole_image_before_the_crop(tmp_path):
    write_images(tmp_path, ["a", "b"], size=48)
    samples, loader = batch_of(tmp_path, ["a", "b"], "rgby", size=32, fit="crop", normalise="image")
    batch = next(batches(loader))
    planes = Normaliser(None, "image", None, None, torch.device("cpu"))(batch)
    assert batch["tiles"].tolist() == [4, 4] and planes.shape == (8, 4, 32, 32)
    for row, id_ in enumerate("ab"):
        image = np.dstack([cv2.imread(str(tmp_path / f"{id_}_{c}.png"), -1) for c in VALUES]).astype(np.float64)
        expected = ((image - image.mean((0, 1))) / image.std((0, 1)))[:32, :32].transpose(2, 0, 1)
        assert planes[4 * row].numpy() == pytest.approx(expected, abs=1e-4)


def test_mixed_channels_are_normalised_after_mixing(tmp_path):
    write_images(tmp_path, ["a"], size=16)
    samples, loader = batch_of(tmp_path, ["a"], "rgb+y/3", size=16, normalise="image")
    planes = Normaliser(samples.channels.mix, "image", None, None, torch.device("cpu"))(next(batches(loader)))
    assert planes.mean((2, 3)).numpy() == pytest.approx(0, abs=1e-4)
    assert planes.std((2, 3), correction=0).numpy() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("normalise", ["image", "dataset", "none"])
def test_a_channel_that_is_not_read_is_a_black_one(tmp_path, normalise):
    """Of whose file nothing is needed; the others' planes are what they were."""
    ids, planes = ["a", "b"], []
    write_images(tmp_path, ids, size=24)
    mean, std = [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]
    for spec in ("bgry", "bgry-y", "bgry"):
        samples, loader = batch_of(tmp_path, ids, spec, 16, "crop", normalise)
        normaliser = Normaliser(samples.channels.mix, normalise, mean, std, torch.device("cpu"))
        planes.append(normaliser(next(batches(loader))))
        for id_ in ids:
            cv2.imwrite(str(tmp_path / f"{id_}_yellow.png"), np.zeros((24, 24), np.uint8))
    whole, without, black = planes
    torch.testing.assert_close(without, black, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(without[:, :3], whole[:, :3], rtol=1e-5, atol=1e-5)
    assert without.shape == (8, 4, 16, 16) and not torch.equal(whole, black)


def test_dataset_moments_are_those_of_all_pixels(tmp_path):
    write_images(tmp_path, ["a", "b", "c"], size=16)
    samples, _ = batch_of(tmp_path, ["a", "b", "c"], "rgby", size=16, normalise="dataset")
    pixels = np.concatenate([load_sample(paths).reshape(-1, 4) for paths in samples.files]) / 255
    mean, std = dataset_moments(samples)
    assert mean == pytest.approx(pixels.mean(0), abs=1e-5) and std == pytest.approx(pixels.std(0), abs=1e-5)


def test_a_blank_channel_becomes_zero_not_nan(tmp_path):
    cv2.imwrite(str(tmp_path / "a_green.png"), np.zeros((8, 8), np.uint8))
    _, loader = batch_of(tmp_path, ["a"], "green", normalise="image")
    assert (Normaliser(None, "image", None, None, torch.device("cpu"))(next(batches(loader))) == 0).all()


def epoch_of(folder, ids, epoch, workers, seed=0):
    chain = augment.build("d4", list(VALUES))
    samples, _ = batch_of(folder, ids, "rgby", 16, "crop", "image", augment=chain, random_crop=True, seed=seed)
    loader = make_loader(samples, 4, workers, torch.device("cpu"), shuffle=True)
    loader.order.epoch = epoch
    got = [(batch["rows"], batch["images"]) for batch in batches(loader)]
    return torch.cat([rows for rows, _ in got]), torch.cat([images for _, images in got])


def test_what_is_random_follows_from_seed_epoch_and_sample_alone(tmp_path):
    ids = [f"i{n}" for n in range(10)]
    write_images(tmp_path, ids, size=24)
    rows, images = epoch_of(tmp_path, ids, 1, 0)
    assert sorted(rows.tolist()) == list(range(10)), "each sample once"
    for workers in (1, 2):
        again = epoch_of(tmp_path, ids, 1, workers)
        assert torch.equal(rows, again[0]) and torch.equal(images, again[1])
    for epoch, seed in ((2, 0), (1, 1)):
        other = epoch_of(tmp_path, ids, epoch, 0, seed)
        assert not torch.equal(rows, other[0])
        by_row = images[rows.argsort()] != other[1][other[0].argsort()]
        assert by_row.flatten(1).any(1).sum() >= 8, "another epoch or seed, another crop of nearly every image"


def test_d4_makes_all_eight_flips_and_turns():
    image = np.arange(3 * 3 * 4, dtype=np.uint8).reshape(3, 3, 4)
    wanted = {np.rot90(turn, k).tobytes() for k in range(4) for turn in (image, image[:, ::-1])}
    d4 = augment.build("d4", list(VALUES))
    assert {np.ascontiguousarray(d4(image, None, 1, seed)[0]).tobytes() for seed in range(200)} == wanted


def test_scan_skips_other_files(tmp_path):
    write_images(tmp_path, ["a_b", "c"], ["green"])
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "d_purple.png").write_text("x")
    assert sorted(scan_folder(tmp_path)) == ["a_b", "c"]
