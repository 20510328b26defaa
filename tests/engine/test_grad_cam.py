"""Class-activation maps: against the closed form, and for images with a known answer."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from spots import CONFIG, PLACES, Spots, draw_spots
from torch import nn
from torch.nn import functional

from utils import models
from utils.engine import grad_cam
from utils.errors import InputError

TIMM = ["convnext_atto", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "efficientnet_lite0"]
NAMES = [name for name in models.NETWORKS if name != "m_cnn"] + [f"timm:{name}" for name in TIMM]
NAMES.append("pretrainedmodels:resnet18")


@pytest.mark.parametrize("name", ["resnet50", "se_resnext50_32x4d", "densenet121"])
def test_of_a_global_average_and_one_layer_it_is_the_class_activation_map(name):
    """Zhou et al. 2016, equation 2: the sum over channels of the last layer's weight times the feature map."""
    torch.manual_seed(0)
    network = models.build(name, classes=5, channels=4, size=96).eval()
    images = torch.randn(6, 4, 96, 96)
    columns = np.array([0, 1, 2, 3, 4, 4])
    if name == "resnet50":
        features, head = nn.Sequential(*list(network.children())[:-2])(images), network.fc
    elif name == "densenet121":
        features, head = functional.relu(network.features(images)), network.classifier
    else:
        features, head = network.features(images), network.last_linear
    expected = torch.einsum("nk,nkhw->nhw", head.weight[columns], features).clamp(min=0).detach().numpy()
    found = grad_cam.grad_cam(network, images, columns)
    assert expected.max() > 0 and found.maps.shape == (6, 3, 3)
    np.testing.assert_allclose(found.maps * 9, expected, rtol=1e-3, atol=1e-4 * expected.max())
    np.testing.assert_allclose(found.logits, network(images).detach().numpy()[range(6), columns], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_every_network_has_a_map_and_is_left_as_it_was(name):
    torch.manual_seed(0)
    network = models.build(name, classes=4, channels=3, size=96).train()
    network.requires_grad_(False)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    images = torch.randn(4, 3, 96, 96)
    found = grad_cam.grad_cam(network, images, [0, 1, 2, 3])
    alone = grad_cam.grad_cam(network, images[1:], [1, 2, 3])
    assert found.maps.shape[1] == found.maps.shape[2] > 1 and (found.maps >= 0).all() and found.maps.any()
    assert found.layer == alone.layer
    np.testing.assert_allclose(found.maps[1:], alone.maps, rtol=0.01, atol=0.01 * alone.maps.max())
    assert network.training and all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(weight.grad is None for weight in network.parameters())


def test_the_layer_is_the_last_one_with_places_or_the_one_named():
    images = torch.randn(1, 3, 96, 96)
    expected = {
        "gapnet_pl": ("block1", 24),
        "resnet50": ("layer4", 3),
        "deeploc": ("convolutions", 12),
        "conv_mil": ("convolutions", 3),
        "timm:vit_tiny_patch16_224": ("blocks.11.norm1", 6),
        "timm:swin_tiny_patch4_window7_224": ("norm", 3),
    }
    for name, (layer, side) in expected.items():
        found = grad_cam.grad_cam(models.build(name, classes=2, channels=3, size=96), images, [0])
        assert (found.layer, found.maps.shape[1]) == (layer, side), name
    network = models.build("gapnet_pl", classes=2, channels=3, size=96)
    assert grad_cam.grad_cam(network, images, [0], "block3").maps.shape == (1, 6, 6)
    for wrong in ("block4", "head"):
        with pytest.raises(InputError, match=f"no layer '{wrong}' with a spatial output"):
            grad_cam.grad_cam(network, images, [0], wrong)
    with pytest.raises(InputError, match="Sequential.* has no layer with"):
        grad_cam.grad_cam(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), torch.randn(1, 3, 2, 2), [0])


def test_the_map_marks_the_spot_that_its_class_depends_on(tmp_path):
    files = draw_spots(tmp_path, (32, 32), PLACES)
    for column in (0, 1):
        maps, layer, shape = grad_cam.sample_maps(Spots(), CONFIG, files, [column, column])
        assert layer == "relu" and shape == (32, 32)
        for found, both in zip(maps, PLACES.values(), strict=True):
            expected = np.zeros((32, 32), bool)
            y, x = both[column]
            expected[y : y + 4, x : x + 4] = True
            assert np.array_equal(found > 0.01 * found.max(), expected)
    mixed, *_ = grad_cam.sample_maps(Spots(), CONFIG, files, [1, 0])
    assert mixed[0][25, 9] > 0 and mixed[1][17, 13] > 0


def test_tiles_are_put_together_where_they_lie(tmp_path):
    """A spot where tiles overlap, and one in a corner, of an image that is not square."""
    files = draw_spots(tmp_path, (48, 80), {"a": ((24, 26), (40, 70)), "b": ((0, 76), (44, 0))})
    maps, *_ = grad_cam.sample_maps(Spots(), replace(CONFIG, fit="crop"), files, [0, 0])
    for found, (y, x) in zip(maps, ((24, 26), (0, 76)), strict=True):
        expected = np.zeros((48, 80), bool)
        expected[y : y + 4, x : x + 4] = True
        assert found.shape == (48, 80) and np.array_equal(found > 0.01 * found.max(), expected)
    assert maps[0].max() == pytest.approx(maps[1].max()), "the mean where tiles overlap, not the sum"


def test_images_are_normalised_as_in_the_run(tmp_path):
    """Only the statistics of the run make the spot cross the threshold."""
    files = draw_spots(tmp_path, (32, 32), PLACES)
    dataset = replace(CONFIG, normalise="dataset", mean=[0.9, 0.9], std=[1.0, 1.0])
    maps, *_ = grad_cam.sample_maps(Spots(), dataset, files, [0, 0])
    assert not np.any(maps)
    dataset.std = [0.1, 0.1]
    maps, *_ = grad_cam.sample_maps(Spots(), dataset, files, [0, 0])
    assert np.all([found.max() > 0 for found in maps])
    maps, *_ = grad_cam.sample_maps(Spots(), replace(CONFIG, normalise="image"), files, [0, 0])
    assert [np.unravel_index(found.argmax(), found.shape)[0] // 4 for found in maps] == [1, 4]
