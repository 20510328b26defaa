"""SE-ResNeXt50 32x4d (Hu et al. 2018) from pretrainedmodels, for any number of input planes and any image size.

Chen, "Extracting Cellular Location of Human Proteins Using Deep Learning", section III.B, Fig. 4.

    input     C x H x W, any H and W of 16 or more
    stem      conv 7x7 64 stride 2, batch norm, max-pool 3 stride 2
    layers    3, 4, 6, 3 SE-ResNeXt bottlenecks: 256, 512, 1024, 2048 channels, 32 groups of width 4, reduction 16
    head      global average, FC classes

25,540,669 parameters with 4 channels and 13 classes. Its state dict has the same 384 keys as timm's
`legacy_seresnext50_32x4d`, so either's weight files fit.
"""

from torch import nn

from utils.models.layers import first_layer
from utils.models.squeeze_excite import SqueezeExcite

# The same tensors as pretrainedmodels names them, and as timm does.
IMAGENET_URLS = (
    "http://data.lip6.fr/cadene/pretrainedmodels/se_resnext50_32x4d-a260b3a4.pth",
    "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/legacy_se_resnext50_32x4d-f3651bad.pth",
)


def build(classes, channels, size):
    # Here, since it takes 480 MB and half a second.
    from pretrainedmodels.models.senet import SEModule, se_resnext50_32x4d

    network = se_resnext50_32x4d(num_classes=1000, pretrained=None)
    for name, layer in list(network.named_modules()):
        if isinstance(layer, SEModule):
            network.set_submodule(name, SqueezeExcite(layer.fc1, layer.fc2))
    network.avg_pool = nn.AdaptiveAvgPool2d(1)  # the original averages 7x7 and so takes only 224² images
    network.last_linear = nn.Linear(network.last_linear.in_features, classes)
    network.layer0.conv1 = first_layer(network.layer0.conv1, channels)
    network.stem_layers, network.head_layers = ("layer0.conv1",), ("last_linear",)
    return network
