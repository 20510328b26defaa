"""SE-ResNeXt of 50 and 101 layers, 32x4d (Hu et al. 2018), from pretrainedmodels, for any number of input planes and
any image size.

Chen, "Extracting Cellular Location of Human Proteins Using Deep Learning", section III.B and Fig. 4, has SE-ResNeXt
without saying how deep; the commit of the author's public code whose thresholds Table I prints has 101 layers and
another head.

    input     C x H x W, any H and W of 16 or more
    stem      conv 7x7 64 stride 2, batch norm, max-pool 3 stride 2
    layers    3, 4, 6, 3 (of 101 layers: 3, 4, 23, 3) SE-ResNeXt bottlenecks: 256, 512, 1024, 2048 channels, 32 groups of
              width 4, reduction 16
    head      global average, FC classes; of the author's commit: average of each quarter, dropout 0.01, FC classes

With 4 channels and 13 classes `se_resnext50_32x4d` has 25,540,669 parameters, `se_resnext101_32x4d` 46,936,189 parameters,
`se_resnext101_quarters` 47,016,061 parameters. Their state dicts have the same keys as timm's `legacy_seresnext50_32x4d` and
`legacy_seresnext101_32x4d`, so either's weight files fit.
"""

from torch import nn

from utils.models.layers import first_layer
from utils.models.squeeze_excite import SqueezeExcite

# The same tensors as pretrainedmodels names them, and as timm does.
_HOSTS = (
    "http://data.lip6.fr/cadene/pretrainedmodels/",
    "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/legacy_",
)
IMAGENET_URLS_50 = (f"{_HOSTS[0]}se_resnext50_32x4d-a260b3a4.pth", f"{_HOSTS[1]}se_resnext50_32x4d-f3651bad.pth")
IMAGENET_URLS_101 = (f"{_HOSTS[0]}se_resnext101_32x4d-3b2fe3d8.pth", f"{_HOSTS[1]}se_resnext101_32x4d-37725eac.pth")


def build_50(classes, channels, size):
    return _build("se_resnext50_32x4d", classes, channels)


def build_101(classes, channels, size):
    return _build("se_resnext101_32x4d", classes, channels)


def build_101_quarters(classes, channels, size):
    """101 layers and the head of Chen's commit."""
    network = _build("se_resnext101_32x4d", classes, channels)
    network.avg_pool = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())  # its own flattening fails on channels_last
    network.dropout = nn.Dropout(0.01)
    network.last_linear = nn.Linear(4 * network.last_linear.in_features, classes)
    network.map_layer = "layer4"  # not the average
    return network


def feature_map(network, images):
    """(B, 2048, H/32, W/32), which the head of the first two averages."""
    return network.features(images)


def _build(name, classes, channels):
    from pretrainedmodels.models import senet  # here, since it takes 480 MB and half a second

    network = getattr(senet, name)(num_classes=1000, pretrained=None)
    for path, layer in list(network.named_modules()):
        if isinstance(layer, senet.SEModule):
            network.set_submodule(path, SqueezeExcite(layer.fc1, layer.fc2))
    network.avg_pool = nn.AdaptiveAvgPool2d(1)  # the original averages 7x7 and so takes only 224² images
    network.last_linear = nn.Linear(network.last_linear.in_features, classes)
    network.layer0.conv1 = first_layer(network.layer0.conv1, channels)
    network.stem_layers, network.head_layers = ("layer0.conv1",), ("last_linear",)
    return network
