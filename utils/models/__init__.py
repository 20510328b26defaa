"""The networks, one a file. Each file has `build(classes, channels, size, stem)`.

A network takes (B, channels, size, size) float and returns logits (B, classes). In training it may return a tuple: all its
members are logits, the same loss is taken of each, and only the first predicts. Two attributes name its layers for weights that
come from elsewhere: `stem_layers`, which see the channels, and `head_layers`, which know the classes. A third, `map_layer`, may name
the layer whose places `utils.notebook.grad_cam` shows, where that is not the last one that has places.
"""

import torch
from torch import nn

from utils.errors import InputError
from utils.models import (
    conv_mil,
    convnet,
    deeploc,
    densenet121,
    external,
    gapnet_pl,
    liimatainen_fcn,
    m_cnn,
    resnet50,
    se_resnext50,
    xception,
)

NETWORKS = {
    "se_resnext50_32x4d": se_resnext50.build,
    "gapnet_pl": gapnet_pl.build,
    "m_cnn": m_cnn.build,
    "densenet121": densenet121.build,
    "deeploc": deeploc.build,
    "conv_mil": conv_mil.build,
    "liimatainen_fcn": liimatainen_fcn.build,
    "resnet50": resnet50.build,
    "resnet50_enhanced": resnet50.build_enhanced,
    "convnet": convnet.build,
    "xception": xception.build,
}


def build(name, classes, channels, size=512, stem="mean"):
    """A network with random weights: one of `NETWORKS`, or `timm:NAME`, `pretrainedmodels:NAME`.

    `classes`: outputs. `channels`: input planes. `size`: pixels of the square images; fully convolutional networks take any
    other size too. `stem`: how a first convolution made for RGB is widened; networks made for any number of channels have
    no use for it. Raises InputError for an unknown name and for a size that the network cannot take.
    """
    if name in NETWORKS:
        return NETWORKS[name](classes=classes, channels=channels, size=size, stem=stem)
    if name.partition(":")[0] in external.LIBRARIES and ":" in name:
        return external.build(name, classes, channels, size, stem)
    raise InputError(
        f"no network is called {name!r}; there are {', '.join(NETWORKS)}, timm:NAME and pretrainedmodels:NAME"
    )


def parameters_of(network, layers):
    """The names of a network's parameters and statistics that belong to `layers` (names of layers or of parameters)."""
    return [name for name in network.state_dict() if within(name, layers)]


def within(name, layers):
    """Is it one of these layers, or inside one?"""
    return any(name == layer or name.startswith(f"{layer}.") for layer in layers)


def set_training(network, layers="all"):
    """Put the network into training mode. Of ``last`` layers alone: batch norm outside of them keeps its statistics, which belong
    to what is not trained."""
    network.train()
    if layers == "last":
        for name, layer in network.named_modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm) and not within(name, network.head_layers):
                layer.eval()


def learns_from_one(network, planes, size, layers="all"):
    """Can the network be trained on a batch of one image of size²? Not where that leaves batch norm one value of a channel, whose
    deviation is 0. Tried without memory or computing; True also where a network cannot be tried so."""
    set_training(network, layers)
    state = {name: value.to("meta") for name, value in network.state_dict().items()}
    try:
        with torch.no_grad():
            torch.func.functional_call(network, state, (torch.zeros(1, planes, size, size, device="meta"),))
    except ValueError as error:
        return "more than 1 value" not in str(error)
    except (RuntimeError, TypeError, AttributeError):
        pass
    return True
