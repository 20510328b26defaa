"""SE-ResNeXt50 32x4d (Hu et al. 2018) from pretrainedmodels, for any number of input planes and any image size.

    input     C x H x W
    stem      conv 7x7 64 stride 2, batch norm, max-pool 3 stride 2
    layers    3, 4, 6, 3 SE-ResNeXt bottlenecks: 256, 512, 1024, 2048 channels, 32 groups of width 4, reduction 16
    head      global average, FC classes

25.5 million parameters with 4 planes and 28 classes. Its state dict has the same 384 keys as timm's
`legacy_seresnext50_32x4d`, so either's weight files fit.
"""

import torch
from pretrainedmodels.models.senet import se_resnext50_32x4d
from torch import nn

from utils.errors import InputError

STEM = "layer0.conv1.weight"
STEMS = {
    "mean": "every plane gets the mean of the R, G and B filters, scaled by 3/planes so that responses keep their size",
    "copy": "planes 1 to 3 keep the R, G and B filters, later planes get the R filter; scaled by 3/planes",
    "zero": "planes 1 to 3 keep the R, G and B filters, later planes start at zero: the ImageNet network, unchanged",
}


def build(classes, channels, stem):
    if stem not in STEMS:
        raise InputError(f"no stem is called {stem!r}; there are {', '.join(STEMS)}")
    network = se_resnext50_32x4d(num_classes=1000, pretrained=None)
    network.avg_pool = nn.AdaptiveAvgPool2d(1)  # the original averages 7x7 and so takes only 224² images
    network.last_linear = nn.Linear(network.last_linear.in_features, classes)
    first = network.layer0.conv1
    if channels != first.in_channels:
        widened = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        widened.weight.data = widen_stem(first.weight.data, channels, stem)
        network.layer0.conv1 = widened
    return network


def widen_stem(weight, channels, stem):
    """RGB filters (64, 3, 7, 7) -> filters for `channels` planes (64, channels, 7, 7), by one of `STEMS`."""
    if channels == 3:
        return weight.clone()
    if stem == "mean":
        return weight.mean(dim=1, keepdim=True).repeat(1, channels, 1, 1) * (3 / channels)
    if stem == "copy":
        return weight[:, [i if i < 3 else 0 for i in range(channels)]] * (3 / channels)
    widened = torch.zeros(weight.shape[0], channels, *weight.shape[2:])
    widened[:, : min(3, channels)] = weight[:, : min(3, channels)]
    return widened
