"""Building blocks of several networks: convolutions, initialisation, the first layer for any number of planes, the check of a fixed
image size."""

import torch
from torch import nn

from utils.errors import InputError

STEMS = {
    "mean": "every plane gets the mean of the R, G and B filters, scaled by 3/planes so that responses keep their size",
    "copy": "planes 1 to 3 keep the R, G and B filters, later planes get the R filter; scaled by 3/planes",
    "zero": "planes 1 to 3 keep the R, G and B filters, later planes start at zero: the ImageNet network, unchanged",
    "random": "the filters stay random, only the other layers are pretrained",
}


def widen_stem(weight, channels, stem):
    """Trained RGB filters (N, 3, k, k) -> filters for `channels` planes (N, channels, k, k), by one of `STEMS` but
    random."""
    if stem not in STEMS:
        raise InputError(f"no stem is called {stem!r}; there are {', '.join(STEMS)}")
    if channels == 3:
        return weight.clone()
    if stem == "mean":
        return weight.mean(dim=1, keepdim=True).repeat(1, channels, 1, 1) * (3 / channels)
    if stem == "copy":
        return weight[:, [i if i < 3 else 0 for i in range(channels)]] * (3 / channels)
    widened = torch.zeros(weight.shape[0], channels, *weight.shape[2:])
    widened[:, : min(3, channels)] = weight[:, : min(3, channels)]
    return widened


def first_layer(rgb, channels, initialise=None):
    """A convolution for RGB with random filters -> the same for `channels` planes, each with random filters of its own: alike, the
    network would not know one plane from another. initialise: of the weights; torch's usual one if None."""
    if channels == rgb.in_channels:
        return rgb
    options = {"stride": rgb.stride, "padding": rgb.padding, "bias": rgb.bias is not None}
    layer = nn.Conv2d(channels, rgb.out_channels, rgb.kernel_size, **options)
    if initialise:
        initialise(layer.weight)
    return layer


def convolutions(inputs, widths, activation, kernel=3, stride=1):
    """Convolutions to each of `widths` channels with their activations, a list of layers. With bias and zero-padded so that stride 1
    keeps the size; only the first has the `stride`."""
    layers = []
    for outputs in widths:
        layers += [nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2), activation()]
        inputs, stride = outputs, 1
    return layers


def selu_layers(inputs, outputs):
    """Two fully connected layers with SELU and alpha-dropout, a list of layers."""
    first = [nn.Linear(inputs, outputs), nn.SELU(), nn.AlphaDropout(0.3)]
    return [*first, nn.Linear(outputs, outputs), nn.SELU(), nn.AlphaDropout(0.3)]


def lecun_normal(layer):
    """Variance 1/fan_in keeps SELU activations at unit variance (Klambauer et al. 2017). For `Module.apply`."""
    if isinstance(layer, (nn.Conv2d, nn.Linear)):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
        nn.init.zeros_(layer.bias)


def xavier_uniform(layer):
    """Variance 2/(fan_in + fan_out) (Glorot and Bengio 2010). For `Module.apply`."""
    if isinstance(layer, (nn.Conv2d, nn.Linear)):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)


def check_shape(network, images, size):
    """Raise InputError unless (B, C, H, W) `images` have the size that the fully connected layer was made for."""
    if images.shape[2:] != (size, size):
        height, width = images.shape[2:]
        raise InputError(f"this {network} was made for {size}x{size} pixels, not {width}x{height}; give such images")
