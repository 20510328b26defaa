"""ResNet50, and Mylavarapu's with one more convolution in every identity block.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, from torchvision; Mylavarapu, "Classification of
Subcellular Protein Localizations" (poster), section "Architecture".

    input     C x H x W, any H and W of 32 or more
    stem      conv 7x7 64 stride 2, batch norm, max-pool 3 stride 2
    layers    3, 4, 6, 3 bottlenecks: 256, 512, 1024, 2048 channels
    head      global average, FC classes

A bottleneck is conv 1x1, conv 3x3, conv 1x1, added to its input; an identity block is one whose input is added as it is, 12
of the 16. The poster does not say what the additional convolution is: here a second 3x3 with batch norm and ReLU after the first.
23,537,805 parameters with 4 channels and 13 classes, enhanced 31,727,245.
"""

from functools import partial

from torch import nn

from utils.models.layers import first_layer

IMAGENET_URLS = ("https://download.pytorch.org/models/resnet50-0676ba61.pth",)
FAN_OUT = partial(nn.init.kaiming_normal_, mode="fan_out", nonlinearity="relu")  # as torchvision's other convolutions


def build(classes, channels, size, enhanced=False):
    from torchvision.models.resnet import Bottleneck, ResNet  # here, since torchvision takes seconds to import

    class EnhancedBottleneck(Bottleneck):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            if self.downsample is None:  # an identity block
                width = self.conv2.out_channels
                second = nn.Conv2d(width, width, 3, padding=1, bias=False)
                self.conv2 = nn.Sequential(self.conv2, nn.BatchNorm2d(width), nn.ReLU(inplace=True), second)

    network = ResNet(EnhancedBottleneck if enhanced else Bottleneck, [3, 4, 6, 3], num_classes=classes)
    network.conv1 = first_layer(network.conv1, channels, FAN_OUT)
    network.stem_layers, network.head_layers = ("conv1",), ("fc",)
    return network


def feature_map(network, images):
    """(B, 2048, H/32, W/32), which the head averages."""
    images = network.maxpool(network.relu(network.bn1(network.conv1(images))))
    return network.layer4(network.layer3(network.layer2(network.layer1(images))))


def build_enhanced(classes, channels, size):
    return build(classes, channels, size, enhanced=True)
