"""Any network of timm or pretrainedmodels by its name there: `timm:convnext_tiny`, `pretrainedmodels:inceptionv4`."""

import difflib

import torch
from torch import nn

from utils.errors import InputError, first_line, ignored_warnings, listing
from utils.models.layers import first_layer


def build(name, classes, channels, size):
    """A network with random weights. Raises InputError if the library has none of this name, or if it cannot take images of `size`
    pixels."""
    library, _, word = name.partition(":")
    make = {"timm": _from_timm, "pretrainedmodels": _from_pretrainedmodels}[library]
    try:
        network = make(word, classes, channels, size)
        with torch.inference_mode():
            shape = tuple(network.eval()(torch.zeros(1, channels, size, size)).shape)
    except (RuntimeError, AssertionError, ValueError, TypeError, AttributeError) as error:
        reason = first_line(error, 120)
        raise InputError(f"{name} cannot take images of {size} pixels ({reason}); try --size 224 or 299") from None
    if shape != (1, classes):
        raise InputError(f"{name} gives an output of shape {shape}, not one number per class; choose another network")
    return network


def feature_map(network, images):
    """(B, F, h, w), the last map of one of timm's networks. Raises ValueError if it has tokens instead."""
    maps = network.forward_features(images)
    if maps.ndim != 4:
        raise ValueError(f"(B, F, h, w) expected, not {tuple(maps.shape)}")
    return maps


def _from_timm(word, classes, channels, size):
    import timm  # here, since it takes seconds

    if not timm.is_model(word):
        near = difflib.get_close_matches(word, timm.list_models(), cutoff=0.3)
        raise InputError(f"timm has no network {word!r}; did you mean {listing(near or timm.list_models())}?")
    network = timm.create_model(word, pretrained=False, num_classes=classes, in_chans=channels, **size_for(word, size))
    layers = [network.pretrained_cfg.get(key) or () for key in ("first_conv", "classifier")]  # a name, or several
    network.stem_layers, network.head_layers = ((it,) if isinstance(it, str) else tuple(it) for it in layers)
    return network


def size_for(word, size):
    """The option that makes one of timm's networks of a fixed image size fit `size`; none for the others."""
    import timm

    try:
        config = timm.get_pretrained_cfg(word)
    except RuntimeError as error:  # resnet50.no_such_weights
        raise InputError(f"timm: {error}; give the name without what follows the dot, or another") from None
    return {"img_size": size} if config and config.fixed_input_size else {}


def _from_pretrainedmodels(word, classes, channels, size):
    import pretrainedmodels  # here, since it takes 480 MB and half a second

    if word not in pretrainedmodels.model_names:
        names = listing(pretrainedmodels.model_names, show=60)
        raise InputError(f"pretrainedmodels has no network {word!r}; it has {names}")
    with ignored_warnings():  # it calls torchvision with options of 2019
        network = pretrainedmodels.__dict__[word](num_classes=1000, pretrained=None)
    head = network.last_linear
    if isinstance(head, nn.Linear):
        network.last_linear = nn.Linear(head.in_features, classes)
    else:
        network.last_linear = nn.Conv2d(head.in_channels, classes, head.kernel_size)
    if getattr(network, "AuxLogits", None) is not None:  # a second output for 1000 classes, in training only
        network.aux_logits, network.AuxLogits = False, None
    for pool in ("avg_pool", "avgpool"):
        if isinstance(getattr(network, pool, None), nn.AvgPool2d):
            setattr(network, pool, nn.AdaptiveAvgPool2d(1))  # made for 224² otherwise
    first = next(path for path, layer in network.named_modules() if isinstance(layer, nn.Conv2d))
    rgb = network.get_submodule(first)
    spread = float(rgb.weight.detach().std())  # of the library's own random filters
    network.set_submodule(first, first_layer(rgb, channels, lambda weight: nn.init.normal_(weight, std=spread)))
    network.stem_layers, network.head_layers = (first,), ("last_linear",)
    return network
