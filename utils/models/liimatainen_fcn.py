"""A fully convolutional network with a confidence map for each class, in the manner of the Cyto Challenge's winner.

Liimatainen et al., "Cell organelle classification with fully convolutional neural networks", technical report 2018, which is
not published. Rumetshofer et al. (ICLR 2019) say of it: one confidence map and one threshold per class
(section 4); trained on crops with several cells at high resolution (section 3.1), or on crops of single cells (section 4),
of which the first is followed. The layers are decided here.

    input          C x H x W, any H and W of 16 or more
    convolutions   2 x conv 32, max-pool 2, 2 x conv 64, max-pool 2, 2 x conv 128, max-pool 2, 2 x conv 256, max-pool 2
    maps           conv 1x1 256, dropout .5, conv 1x1 classes, sigmoid       H/16 x W/16
    output         the mean of each map, as a logit

3x3 convolutions without bias, batch norm, ReLU. 1,242,893 parameters with 4 channels and 13 classes.
"""

import torch
from torch import nn


class LiimatainenFCN(nn.Module):
    stem_layers, head_layers = ("convolutions.0",), ("maps",)
    map_layer = "convolutions"  # the last one whose channels are not classes

    def __init__(self, classes, channels, size):
        super().__init__()
        layers, inputs = [], channels
        for outputs in (32, 64, 128, 256):
            layers += [*_conv(inputs, outputs, 3), *_conv(outputs, outputs, 3), nn.MaxPool2d(2)]
            inputs = outputs
        self.convolutions = nn.Sequential(*layers, *_conv(inputs, 256, 1), nn.Dropout(0.5))
        self.maps = nn.Conv2d(256, classes, 1)

    def confidence_maps(self, images):
        """(B, channels, H, W) float -> (B, classes, H/16, W/16) float32 probabilities: where is each class seen?"""
        return self.maps(self.convolutions(images)).float().sigmoid()

    def forward(self, images):
        """(B, channels, H, W) float -> logits (B, classes)."""
        return torch.logit(self.confidence_maps(images).mean(dim=(2, 3)), eps=1e-6)


def _conv(inputs, outputs, kernel):
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
