"""Batch norm folded into convolutions, and files written from a thread."""

import pytest
import torch
from torch import nn

from utils import models
from utils.engine.batch_norm_folding import fold_batch_norm
from utils.engine.inference import copy_for_inference


def trained(network, size, channels=4):
    """Statistics of batch norm that are not those of the start."""
    torch.manual_seed(1)
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.momentum = None
                if layer.affine:
                    layer.weight.uniform_(0.5, 1.5)
                    layer.bias.uniform_(-0.5, 0.5)
        for _ in range(2):
            network.train()(torch.randn(4, channels, size, size))
    return network


def norms(network):
    return sum(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in network.modules())


# Batch norms that stand before their convolution, and those of inputs put together, stay.
STAY = {"densenet121": 62, "timm:test_resnet": 0, "timm:resnetv2_50": 17}


SIZES = {"se_resnext50_32x4d": 64, "densenet121": 64, "resnet50_enhanced": 32, "xception": 64, "liimatainen_fcn": 32}
SIZES |= {"se_resnext101_quarters": 64, "timm:test_resnet": 32, "timm:mobilenetv3_small_100": 64}


@pytest.mark.parametrize("name, size", SIZES.items())
def test_a_folded_network_gives_the_same_and_the_trained_one_stays_as_it_was(name, size):
    network = trained(models.build(name, 3, 4, size), size)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    images = torch.randn(3, 4, size, size)
    folded = fold_batch_norm(network, images[:1])
    assert norms(folded) == STAY.get(name, 0) < norms(network)
    with torch.inference_mode():
        expected, found = network.eval()(images), folded(images)
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    with torch.no_grad():
        network.state_dict()[next(key for key in before if key.endswith("running_mean"))].add_(1)
        again = fold_batch_norm(network, images)
        assert torch.allclose(again(images), network(images), rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
        assert not torch.allclose(again(images), found, rtol=1e-3)


class Twice(nn.Module):
    """A convolution whose output is used beside its batch norm too."""

    def __init__(self, shared):
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.shared = shared

    def forward(self, images):
        seen = self.first(images)
        other = self.second(self.first(seen)) if self.shared else seen
        return (self.norm(seen) + other).mean(dim=(2, 3))


@pytest.mark.parametrize("shared", [True, False])
def test_what_would_give_something_else_is_left_alone(shared):
    """Also at the start, where batch norm changes nothing yet and a wrong fold would not be seen."""
    for network in (Twice(shared), trained(Twice(shared), 8)):
        images = torch.randn(2, 4, 8, 8)
        assert fold_batch_norm(network, images) is network and not network.training


def test_folding_draws_no_random_numbers_of_the_training():
    network, before = models.build("liimatainen_fcn", 3, 4, 32), torch.get_rng_state()
    fold_batch_norm(network, torch.zeros(1, 4, 32, 32))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", ["gapnet_pl", "liimatainen_fcn", "timm:test_convnext"])
def test_weights_in_16_bits_are_those_of_autocast(name):
    """And the network that is trained keeps its own."""
    network = trained(models.build(name, 3, 4, 32), 32)
    images = torch.randn(2, 4, 32, 32).bfloat16()
    ready = copy_for_inference(network, images, torch.bfloat16)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ready(images), fold_batch_norm(network, images)(images))
    halves = {key for key, value in ready.state_dict().items() if value.dtype == torch.bfloat16}
    assert halves and all(value.dtype != torch.bfloat16 for value in network.state_dict().values())


def test_nothing_to_fold():
    network = models.build("gapnet_pl", 3, 4, 32)
    assert fold_batch_norm(network, torch.randn(1, 4, 32, 32)) is network
