"""The networks, one a file, and `heads`, other heads for them.

A network takes (B, channels, size, size) float and returns logits (B, classes). In training it may return a tuple of logits: the
same loss is taken of each, and only the first predicts. Its attributes `stem_layers` and `head_layers` name the layers that see the
channels and that know the classes, for weights from elsewhere. `map_layer` may name the layer that `utils.engine.grad_cam` shows,
if that is not the last one with a height and width. Networks know nothing of files, recipes or losses.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from utils.errors import InputError
from utils.models import (
    class_maps,
    conv_mil,
    convnet,
    deeploc,
    densenet121,
    external,
    gapnet_pl,
    heads,
    liimatainen_fcn,
    m_cnn,
    resnet50,
    se_resnext,
    xception,
)


class Network(NamedTuple):
    """build(classes, channels, size) -> nn.Module. smallest: pixels below which images would shrink to nothing. imagenet_urls:
    where ImageNet weights are published, in the order to try. feature_map(network, images) -> (B, F, h, w), the last map, of a network
    that ends in a global average and a linear layer: other heads can follow it."""

    build: Callable
    smallest: int
    imagenet_urls: tuple = ()
    feature_map: Callable | None = None


NETWORKS = {
    "se_resnext50_32x4d": Network(se_resnext.build_50, 16, se_resnext.IMAGENET_URLS_50, se_resnext.feature_map),
    "se_resnext101_32x4d": Network(se_resnext.build_101, 16, se_resnext.IMAGENET_URLS_101, se_resnext.feature_map),
    "se_resnext101_quarters": Network(se_resnext.build_101_quarters, 16, se_resnext.IMAGENET_URLS_101),
    "gapnet_pl": Network(gapnet_pl.GapNetPL, 16),
    "m_cnn": Network(m_cnn.MCNN, 128),
    "densenet121": Network(densenet121.build, 32, densenet121.IMAGENET_URLS, densenet121.feature_map),
    "deeploc": Network(deeploc.DeepLoc, 8),
    "conv_mil": Network(conv_mil.ConvMIL, 32),
    "liimatainen_fcn": Network(liimatainen_fcn.LiimatainenFCN, 16),
    "resnet50": Network(resnet50.build, 32, resnet50.IMAGENET_URLS, resnet50.feature_map),
    "resnet50_enhanced": Network(resnet50.build_enhanced, 32, feature_map=resnet50.feature_map),
    "convnet": Network(convnet.ConvNet, 32),
    "xception": Network(xception.build, 64, xception.IMAGENET_URLS, xception.feature_map),
}


def build(name, classes, channels, size=512, head="own"):
    """A network with random weights: one of `NETWORKS`, or `timm:NAME`, `pretrainedmodels:NAME`.

    classes: outputs. channels: input planes. size: pixels of the square images; fully convolutional networks take any other size
    too. head: "own", or one of `heads.HEADS` in its place.
    Raises InputError for an unknown name, for a size that the network cannot take, and for a head that it cannot have.
    """
    network, feature_map = _build(name, classes, channels, size)
    if head != "own":
        heads.replace_head(network, name, head, feature_map, classes, channels, size)
    return network


def _build(name, classes, channels, size):
    """-> a network with its own head, and the function to its last map, if any."""
    if name not in NETWORKS:
        if name.startswith("timm:"):
            return external.build(name, classes, channels, size), external.feature_map
        if name.startswith("pretrainedmodels:"):
            return external.build(name, classes, channels, size), None
        names = ", ".join(NETWORKS)
        raise InputError(f"no network is called {name!r}; there are {names}, timm:NAME and pretrainedmodels:NAME")
    network = NETWORKS[name]
    if size < (least := network.smallest):
        raise InputError(f"{name} takes images of {least} pixels or more, not {size}; give --size {least}")
    return network.build(classes=classes, channels=channels, size=size), network.feature_map


def with_class_maps(network, name, channels, size):
    """A network of `build`, called `name`, as one that returns the maps of which its logits are the means: see `class_maps`.
    Raises InputError if there are none."""
    feature_map = external.feature_map if name.startswith("timm:") else getattr(NETWORKS.get(name), "feature_map", None)
    return class_maps.with_class_maps(network, name, feature_map, channels, size)


def parameters_of(network, layers):
    """The names of a network's parameters and statistics that belong to `layers` (names of layers or of parameters)."""
    return [name for name in network.state_dict() if _is_within(name, layers)]


def _is_within(name, layers):
    """Return whether a layer or parameter is one of `layers`, or inside one."""
    return any(name == layer or name.startswith(f"{layer}.") for layer in layers)


def set_training(network, layers="all"):
    """Put the network into training mode. With layers="last", batch norm outside of the head keeps its statistics, which belong to
    the layers that are not trained."""
    network.train()
    if layers == "last":
        for name, layer in network.named_modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm) and not _is_within(name, network.head_layers):
                layer.eval()


def learns_from_one(network, planes, size, layers="all"):
    """Return whether the network can be trained on a batch of one image of size². It cannot if a batch norm is left with one value a
    channel, which has no deviation. Tried without memory or computing; True if that fails for another reason."""
    set_training(network, layers)
    values = []  # a channel, at each batch norm
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs: values.append(inputs[0].numel() // inputs[0].shape[1]))
        for layer in network.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.training
    ]
    state = {name: value.to("meta") for name, value in network.state_dict().items()}
    try:
        with torch.no_grad():
            torch.func.functional_call(network, state, (torch.zeros(1, planes, size, size, device="meta"),))
    except (ValueError, RuntimeError, TypeError, AttributeError):
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return 1 not in values
