"""Heads in place of a network's own: what they compute, and that the networks still do all that they could."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from utils import models
from utils.engine import activation_checkpointing, batch_norm_folding, grad_cam
from utils.errors import InputError
from utils.models import external, heads
from utils.runs import config

WITH_MAPS = {network.feature_map: name for name, network in reversed(models.NETWORKS.items()) if network.feature_map}
WITH_MAPS = {name: feature_map for feature_map, name in WITH_MAPS.items()}  # the first of those that share a function
WITH_MAPS |= dict.fromkeys(("timm:test_resnet", "timm:efficientnet_lite0"), external.feature_map)
TINY = "timm:test_resnet"


def test_the_options_are_the_heads_that_exist():
    """Typed twice, so that reading a config need not import torch."""
    assert ("own", *heads.HEADS) == config.HEADS


@pytest.mark.parametrize("name", WITH_MAPS)
def test_without_attention_it_is_the_networks_own_head(name):
    """The global average of the last map and the own linear layer, found from the outside: a map too early, or one without its last
    activation, would give something else."""
    torch.manual_seed(0)
    network = models.build(name, 3, 4, 64).eval()
    images = torch.randn(2, 4, 64, 64)
    own = network.get_submodule(network.head_layers[0])
    with torch.no_grad():
        expected = network(images)
        other = copy.deepcopy(network)
        heads.replace_head(other, name, "attention", WITH_MAPS[name], 3, 4, 64)
        other.head.logits.load_state_dict(own.state_dict())
        nn.init.zeros_(other.head.attention.weight)
        assert torch.allclose(other.eval()(images), expected, atol=1e-5)
        assert torch.equal(network(images), expected), "the network it was copied from is as it was"
    kept = set(network.state_dict()) - set(models.parameters_of(network, network.head_layers))
    assert kept == set(other.state_dict()) - set(models.parameters_of(other, other.head_layers))


def test_attention_is_a_weighted_mean_over_positions():
    torch.manual_seed(0)
    head, maps = heads.ClassAttention(6, 2), torch.randn(2, 6, 3, 5)
    for image, found in zip(maps, head(maps), strict=True):
        places = [image[:, y, x] for y in range(3) for x in range(5)]
        weights = torch.stack([head.attention(place) for place in places]).exp()
        logits = torch.stack([head.logits(place) for place in places])
        assert torch.allclose(found, (weights * logits).sum(0) / weights.sum(0), atol=1e-6)


def test_the_map_of_attention_is_each_positions_part_of_the_logit():
    torch.manual_seed(0)
    network, images = models.build(TINY, 3, 4, 96, "attention").eval(), torch.randn(2, 4, 96, 96)
    with torch.no_grad():
        features = network.feature_map(images).flatten(2).transpose(1, 2)
        parts = network.head.logits(features) * network.head.attention(features).softmax(1)
        assert torch.allclose(parts.sum(1), network(images), atol=1e-5)
    found = grad_cam.grad_cam(network, images, [0, 2])
    expected = torch.stack([parts[0, :, 0], parts[1, :, 2]]).unflatten(1, found.maps.shape[1:]).clamp(min=0)
    assert found.layer == "head.maps" and torch.allclose(torch.from_numpy(found.maps), expected, atol=1e-6)
    assert grad_cam.grad_cam(models.build(TINY, 3, 4, 96, "avg_max"), images, [0, 2]).maps.shape[1:] == (3, 3)


def test_average_and_maximum_are_those_of_torchs_pools():
    torch.manual_seed(0)
    head, maps = heads.AverageAndMaximum(4, 3).train(), torch.rand(8, 4, 3, 3)
    pooled = [pool(maps, 1).flatten(1) for pool in (functional.adaptive_avg_pool2d, functional.adaptive_max_pool2d)]
    norm, _, wide, _, second, _, last = head

    def normed(values):
        return (values - values.mean(0)) / (values.var(0, unbiased=False) + 1e-5).sqrt()

    expected = last(normed(wide(normed(torch.cat(pooled, 1))).relu()))
    dropouts = [layer for layer in head if isinstance(layer, nn.Dropout)]
    assert [layer.p for layer in dropouts] == [0.5, 0.5] and (norm.num_features, second.num_features) == (8, 4)
    for layer in dropouts:
        layer.p = 0.0
    assert torch.allclose(head(maps), expected, atol=1e-5)


WITHOUT_MAPS = [name for name, network in models.NETWORKS.items() if not network.feature_map]
# Of timm one with tokens, and one with a layer after the average.
WITHOUT_MAPS += ["pretrainedmodels:resnet18", "timm:test_vit", "timm:mobilenetv3_small_050"]


@pytest.mark.parametrize("name", WITHOUT_MAPS)
def test_a_network_that_cannot_have_another_head_is_refused(name):
    size = {"timm:test_vit": 160, "m_cnn": 128}.get(name, 64)
    with pytest.raises(InputError, match=f"{name} cannot have the head attention, since .*; give --head own, or"):
        models.build(name, 3, 4, size, "attention")


@pytest.mark.parametrize("name, head", [("densenet121", "avg_max"), *((TINY, head) for head in heads.HEADS)])
def test_copies_folding_and_checkpointing_keep_the_network(name, head):
    """Each copy runs its own weights; gradients, statistics and dropout of checkpointing to the bit."""
    torch.manual_seed(0)
    network, images = models.build(name, 3, 4, 64, head), torch.randn(4, 4, 64, 64)
    other = copy.deepcopy(network)
    assert activation_checkpointing.checkpoint_blocks(other)
    results = []
    for subject in (network, other):
        torch.manual_seed(1)
        subject.train()(images).square().sum().backward()
        results.append([*subject.buffers(), *(weight.grad for weight in subject.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    folded = batch_norm_folding.fold_batch_norm(network, images[:1])
    assert folded is not network
    with torch.inference_mode():
        expected = network(images)
        for found in (folded(images), folded(images.contiguous(memory_format=torch.channels_last))):
            assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
