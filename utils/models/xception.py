"""Xception (Chollet, CVPR 2017) from pretrainedmodels, as in the GapNet/Xception poster.

    input     C x H x W, any H and W of 64 or more
    entry     conv 3x3 32 stride 2, conv 3x3 64, three blocks of separable convolutions: 128, 256, 728 channels
    middle    eight blocks of three separable convolutions of 728 channels
    exit      a block to 1024 channels, separable convolutions of 1536 and 2048
    head      global average, FC classes

20,833,877 parameters with 4 channels and 13 classes. timm's `legacy_xception` has the same weights.
"""

from torch import nn
from torch.nn import functional

from utils.models.layers import first_layer

# The same tensors as pretrainedmodels names them, and as timm does.
IMAGENET_URLS = (
    "http://data.lip6.fr/cadene/pretrainedmodels/xception-43020ad28.pth",
    "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-cadene/xception-43020ad28.pth",
)


def build(classes, channels, size):
    from pretrainedmodels.models.xception import Xception  # here, since it takes 480 MB and half a second

    network = Xception(num_classes=1000)
    network.last_linear = nn.Linear(network.fc.in_features, classes)
    del network.fc
    network.conv1 = first_layer(network.conv1, channels)
    network.stem_layers, network.head_layers = ("conv1",), ("last_linear",)
    return network


def feature_map(network, images):
    """(B, 2048, H/32, W/32), which the head averages."""
    return functional.relu(network.features(images), inplace=True)
