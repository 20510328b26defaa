"""Squeeze and excitation whose gradient is written in one pass, as on a GPU."""

import copy

import pytest
import torch
from torch import nn

from utils import models
from utils.engine import activation_checkpointing
from utils.models.squeeze_excite import Excite, Squeeze, SqueezeExcite


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    layer = SqueezeExcite(nn.Conv2d(6, 2, 1), nn.Conv2d(2, 6, 1)).double()
    images = torch.randn(2, 6, 3, 5, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda images, *_: layer.in_one_pass(images), (images, *layer.parameters()))


@pytest.mark.parametrize("name, size", [("se_resnext50_32x4d", 64), ("se_resnext101_quarters", 32)])
def test_the_whole_networks_gradients_are_autograds(name, size, monkeypatch):
    """Also with activations computed twice. In training the one pass is taken everywhere, as on a GPU."""
    torch.manual_seed(0)
    network = models.build(name, 5, 4, size).double()
    if network.dropout:
        network.dropout.p = 0.0
    images = torch.rand(2, 4, size, size, dtype=torch.double)
    plain = SqueezeExcite.forward

    def forward(layer, images):
        return layer.in_one_pass(images) if torch.is_grad_enabled() else plain(layer, images)

    def gradients(network):
        (network(images) ** 2).sum().backward()
        return {name: weight.grad for name, weight in network.named_parameters()}

    expected = gradients(copy.deepcopy(network))
    monkeypatch.setattr(SqueezeExcite, "forward", forward)
    checkpointed = copy.deepcopy(network)
    activation_checkpointing.checkpoint_blocks(checkpointed)
    for found in (gradients(network), gradients(checkpointed)):
        for name, gradient in expected.items():
            assert (found[name] - gradient).norm() <= 1e-11 * gradient.norm(), name


@pytest.mark.parametrize("trains", ["all", "gate", "images", "nothing"])
def test_what_is_not_trained_needs_no_gradient(trains):
    layer = SqueezeExcite(nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)).requires_grad_(trains in ("all", "gate"))
    images = torch.randn(2, 4, 3, 3, requires_grad=trains in ("all", "images"))
    out = layer.in_one_pass(images)
    assert out.requires_grad == (trains != "nothing")
    if trains == "nothing":
        return
    out.sum().backward()
    found = images.grad, layer.fc1.weight.grad
    layer.zero_grad()
    images.grad = None
    layer(images).sum().backward()
    for value, expected in zip(found, (images.grad, layer.fc1.weight.grad), strict=True):
        assert (value is None) == (expected is None)
        if expected is not None:
            torch.testing.assert_close(value, expected)


def test_images_keep_their_layout_and_arithmetic():
    """In channels_last, or every layer before would pay for the copy."""
    layer = SqueezeExcite(nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1))
    images = torch.randn(2, 8, 4, 4).bfloat16().to(memory_format=torch.channels_last).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = layer.in_one_pass(images)
    out.float().sum().backward()
    for tensor in (out, images.grad):
        assert tensor.is_contiguous(memory_format=torch.channels_last) and tensor.dtype == torch.bfloat16


def test_taken_on_a_gpu_in_training_alone(monkeypatch):
    called = []
    for function in (Squeeze, Excite):
        monkeypatch.setattr(
            function, "apply", lambda *a, f=function, apply=function.apply: called.append(f.__name__) or apply(*a)
        )
    layer = SqueezeExcite(nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1))

    class OnGpu(torch.Tensor):
        is_cuda = True

    images = torch.randn(1, 4, 2, 2)
    layer(images)
    with torch.no_grad():
        layer(images.as_subclass(OnGpu))
    assert not called
    layer(images.as_subclass(OnGpu))
    assert called == ["Squeeze", "Excite"]
