"""DenseNet-121: every layer sees the outputs of all layers before it in its block.

Huang et al., "Densely Connected Convolutional Networks", CVPR 2017, from torchvision; as compared by Rumetshofer et al.,
ICLR 2019, section 3 and Table 5.

    input          C x H x W, any H and W of 32 or more
    stem           conv 7x7 64 stride 2, batch norm, ReLU, max-pool 3 stride 2
    blocks         6, 12, 24, 16 x (conv 1x1 128, conv 3x3 32, dropout .2), growth 32
    between        conv 1x1 that halves the channels, average-pool 2
    head           batch norm, ReLU, global average: 1024, FC classes

Batch norm and ReLU before every convolution. 6,970,317 parameters with 4 channels and 13 classes, as in Table 7.
"""

from torch import nn
from torch.nn import functional

from utils.models.layers import first_layer

IMAGENET_URLS = ("https://download.pytorch.org/models/densenet121-a639ec97.pth",)


def build(classes, channels, size):
    from torchvision.models import densenet121  # here, since torchvision takes seconds to import

    network = densenet121(num_classes=classes, drop_rate=0.2)
    network.features.conv0 = first_layer(network.features.conv0, channels, nn.init.kaiming_normal_)
    network.stem_layers, network.head_layers = ("features.conv0",), ("classifier",)
    return network


def feature_map(network, images):
    """(B, 1024, H/32, W/32), which the head averages."""
    return functional.relu(network.features(images), inplace=True)
