"""GapNet-PL: global averages of filters at three depths, then two fully connected layers.

Rumetshofer et al., "Human-level Protein Localization with Convolutional Neural Networks", ICLR 2019, Figure 4.

    input          C x H x W, any H and W of 16 or more
    block 1        conv 32 stride 2, max-pool 2                      -> global average: 32
    block 2        conv 64 stride 2, 3 x conv 64, max-pool 2         -> global average: 64
    block 3        3 x conv 128                                      -> global average: 128
    head           concatenate: 224, FC 256, FC 256, FC classes      alpha-dropout .3 after each FC 256

3x3 convolutions with bias, zero-padded by one pixel on every side; SELU; LeCun-normal weights, zero biases.
626,221 parameters with 4 channels and 13 classes, as in the paper's Table 7.
"""

import torch
from torch import nn

from utils.models.layers import convolutions, lecun_normal, selu_layers


class GapNetPL(nn.Module):
    stem_layers, head_layers = ("block1.0",), ("head",)
    map_layer = "block1"  # its map marks what the logit depends on; that of the deepest block does not (utils.notebook.blanking)

    def __init__(self, classes, channels, size):
        super().__init__()
        self.block1 = nn.Sequential(*convolutions(channels, [32], nn.SELU, stride=2), nn.MaxPool2d(2))
        self.block2 = nn.Sequential(*convolutions(32, [64] * 4, nn.SELU, stride=2), nn.MaxPool2d(2))
        self.block3 = nn.Sequential(*convolutions(64, [128] * 3, nn.SELU))
        self.features = nn.Sequential(*selu_layers(32 + 64 + 128, 256))
        self.head = nn.Linear(256, classes)
        self.apply(lecun_normal)

    def forward(self, images):
        """(B, channels, H, W) float -> logits (B, classes)."""
        averages = []
        for block in (self.block1, self.block2, self.block3):
            images = block(images)
            averages.append(images.mean(dim=(2, 3)))
        return self.head(self.features(torch.cat(averages, dim=1)))
