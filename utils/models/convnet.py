"""The simple convolutional network of the GapNet/Xception poster.

"Simple ConvNets" in the poster, which shows its results for RGB 299² and RGBY 1024² and none of its layers; all are decided here.

    input          C x H x W, any H and W of 32 or more
    convolutions   conv 32, max-pool 2, conv 64, max-pool 2, 3 x (conv 128, max-pool 2)
    head           global average: 128, FC 128, dropout .5, FC classes

3x3 convolutions with bias, zero-padded to keep the size; ReLU. 406,893 parameters with 4 channels and 13 classes.
"""

from torch import nn

from utils.models.layers import convolutions


class ConvNet(nn.Module):
    stem_layers, head_layers = ("convolutions.0",), ("head.5",)

    def __init__(self, classes, channels, size):
        super().__init__()
        layers, inputs = [], channels
        for outputs in (32, 64, 128, 128, 128):
            layers += [*convolutions(inputs, [outputs], nn.ReLU), nn.MaxPool2d(2)]
            inputs = outputs
        self.convolutions = nn.Sequential(*layers)
        layers = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 128), nn.ReLU(), nn.Dropout(0.5)]
        self.head = nn.Sequential(*layers, nn.Linear(128, classes))

    def forward(self, images):
        """(B, channels, H, W) float -> logits (B, classes)."""
        return self.head(self.convolutions(images))
