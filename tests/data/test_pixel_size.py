"""Pixel sizes: rescaled images, and where the sizes come from."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tifffile
from conftest import refuse, succeed, write_images

from utils.data.crops import middle, tiles
from utils.data.dataset import Samples, moments
from utils.data.image_statistics import image_statistics
from utils.data.images import load_sample, parse_channels
from utils.data.pixel_size import RescaledImages, find_scales, of_input, read_pixel_sizes, rescaled_shapes
from utils.errors import InputError
from utils.opencv import cv2
from utils.runs import unlike_training
from utils.scoring import mahalanobis

GREEN = parse_channels("green")


def one(folder, height, width):
    cv2.imwrite(str(folder / "a_green.png"), np.random.default_rng(0).integers(0, 256, (height, width), np.uint8))
    return [(folder / "a_green.png",)]


@pytest.mark.parametrize("fit, expected", [("resize", 0.32), ("zoom", 0.32), ("crop", 0.08)])
def test_the_pixel_size_of_a_network_follows_from_its_training_images(fit, expected):
    assert of_input(0.08, np.array([[2048, 2048], [1728, 1728], [3072, 3072]]), 512, fit) == pytest.approx(expected)
    assert of_input(0.08, np.array([[1024, 4096]]), 512, fit) == pytest.approx(expected)  # the same area


def test_sides_follow_the_scale_but_for_those_that_almost_fit_the_network():
    sizes, scales = np.array([[2048, 2048], [2090, 1980], [4000, 2500], [100, 1]]), np.array([0.25, 0.25, 0.25, 0.25])
    assert rescaled_shapes(sizes, scales, 512).tolist() == [[512, 512], [512, 512], [1024, 625], [25, 1]]


def test_an_image_of_the_size_in_training_is_loaded_as_without_a_pixel_size(tmp_path):
    files = one(tmp_path, 96, 100)
    images = RescaledImages(files, 32, rescaled_shapes(np.array([[96, 100]]), np.array([1 / 3]), 32))
    assert np.array_equal(images.read(0), load_sample(files[0], 32)) and images.shape(0) == (32, 32)


@pytest.mark.parametrize("shape", [(7, 20), (20, 7), (1, 1), (33, 9), (32, 50)])
def test_smaller_images_are_mirrored_at_their_borders(tmp_path, shape):
    files = one(tmp_path, *shape)
    whole = (images := RescaledImages(files, 32, np.array([shape]))).read(0)
    assert whole.shape == (*images.shape(0), 1) == (max(32, shape[0]), max(32, shape[1]), 1)
    image = load_sample(files[0])
    assert np.array_equal(images.inside(whole, 0), image)
    assert {*np.unique(whole)} == {*np.unique(image)}
    assert np.array_equal(images[[0]].read(0), whole)


def test_each_tile_of_a_larger_image_is_normalised_as_an_image_of_its_own(tmp_path):
    files = one(tmp_path, 32, 80)
    images = RescaledImages(files, 32, np.array([[32, 80]]))
    sample = Samples(images, GREEN, 32, "tiles", "image")[1, 0, 0]
    expected = [moments(tile) for tile in tiles(load_sample(files[0]), 32)]
    assert len(expected) == 3 and len({float(mean[0]) for mean, _ in expected}) == 3
    assert np.array_equal(sample["mean"], [mean for mean, _ in expected])
    assert np.array_equal(sample["std"], [std for _, std in expected])


def config(**values):
    return SimpleNamespace(**{"input_pixel_size": None, "size": 512, "fit": "resize", "class_names": ["a"]} | values)


def test_scales_are_of_the_option_or_of_the_table(tmp_path, capsys):
    table = tmp_path / "images.csv"
    pd.DataFrame({"Id": ["a", "b"], "pixel_size": [0.16, 0.64]}).to_csv(table, index=False)
    network = config(input_pixel_size=0.32)
    assert find_scales(None, [table], ["b", "a"], network, "r").tolist() == [2, 0.5]
    assert "0.16 to 0.64 µm a pixel, rescaled 0.5 to 2 times" in capsys.readouterr().out
    assert find_scales(0.08, [table], ["b", "a"], network, "r").tolist() == [0.25, 0.25]
    assert find_scales(0, [table], ["b", "a"], network, "r") is None
    assert find_scales(None, [tmp_path], ["a"], network, "r") is None
    with pytest.raises(InputError, match="1 Id of 2 without a pixel_size: c; fill in"):
        find_scales(None, [tmp_path, table], ["a", "c"], network, "r")


def test_networks_of_unknown_pixel_size_are_taken_for_the_atlas_if_their_classes_are(capsys):
    from utils.data.labels import HPA_CLASSES

    assert find_scales(0.16, [], ["a"], config(class_names=list(HPA_CLASSES)), "r").tolist() == [0.5]
    assert "sees 163.8 µm at 0.32 µm a pixel, if trained on the Atlas's" in capsys.readouterr().out
    for unknown in (config(), config(class_names=list(HPA_CLASSES), fit="crop")):
        with pytest.raises(InputError, match="my_run does not record its pixel size; train with --pixel-size"):
            find_scales(0.16, [], ["a"], unknown, "my_run")


@pytest.mark.parametrize("text", ["wide", "-1", "0", "inf", "1e9"])
def test_pixel_sizes_that_are_none_are_refused_by_row(tmp_path, text):
    (tmp_path / "images.csv").write_text(f"Id,pixel_size\na,\nb,{text}\n")
    with pytest.raises(InputError, match=r"images.csv, row 3: pixel_size '.*' is not in micrometres, 0.005 to 50"):
        read_pixel_sizes([tmp_path / "images.csv"], ["a"])


def test_images_that_would_become_huge_are_refused(tmp_path):
    with pytest.raises(
        InputError, match="1 image would be enlarged to more than 8192 pixels, .*a_green.png to 9000x64"
    ):
        RescaledImages(one(tmp_path, 4, 4), 32, np.array([[64, 9000]]))


TIFFS = {
    "OME": ({"axes": "CYX", "PhysicalSizeX": 0.16, "PhysicalSizeY": 0.16}, {"ome": True}, 0.16),
    "OME in nm": ({"axes": "CYX", "PhysicalSizeX": 80, "PhysicalSizeXUnit": "nm"}, {"ome": True}, 0.08),
    "OME in pixels": ({"axes": "CYX", "PhysicalSizeX": 1, "PhysicalSizeXUnit": "pixel"}, {"ome": True}, None),
    "OME without": ({"axes": "CYX"}, {"ome": True}, None),
    "ImageJ": ({"axes": "CYX", "unit": "um"}, {"imagej": True, "resolution": (6.25, 6.25)}, 0.16),
    "ImageJ without": ({"axes": "CYX"}, {"imagej": True}, None),
}


@pytest.mark.parametrize("name", TIFFS)
def test_find_images_takes_the_pixel_size_from_the_file(tmp_path, name):
    metadata, options, expected = TIFFS[name]
    (tmp_path / "tiffs").mkdir()
    end = "ome.tif" if "OME" in name else "tif"
    for id_ in "ab":
        stack = np.zeros((3, 32, 32), np.uint8)
        tifffile.imwrite(tmp_path / f"tiffs/{id_}.{end}", stack, metadata=metadata, photometric="minisblack", **options)
    out, stains = tmp_path / "images.csv", ["--stains", "C1=red", "C2=green", "C3=blue"]
    succeed("utils.tools.find_images", tmp_path / "tiffs", "-o", out, *stains)
    table = pd.read_csv(out)
    assert ("pixel_size" in table) == (expected is not None)
    assert expected is None or table["pixel_size"].tolist() == [expected] * 2


def test_much_larger_nuclei_are_found_and_those_of_the_same_size_are_not(atlas):
    channels = ("red", "green", "blue", "yellow")
    ids = pd.read_csv(atlas / "train.csv")["Id"]
    images = [load_sample([atlas / f"train/{id_}_{name}.png" for name in channels]) for id_ in ids]
    values = np.stack([image_statistics(image, channels) for image in images])
    fold = unlike_training.TrainingImages(channels, mahalanobis.fit(values.astype(float)), 1.0, 0.1, len(values))
    enlarged = np.stack([image_statistics(middle(image, 32), channels) for image in images])
    assert unlike_training.nuclei_wider([fold], values) is None
    assert 1.5 < unlike_training.nuclei_wider([fold], enlarged) < 2.5


def test_the_option_is_checked_before_the_work(tmp_path):
    write_images(tmp_path, ["a"])
    for script in ("train", "predict"):
        words = ["--fold", 0] if script == "train" else ["r", "--images", tmp_path]
        refuse(script, *words, "--pixel-size", 0.001, says="--pixel-size 0.001 is out of range; give 0.005 to 50 micro")
