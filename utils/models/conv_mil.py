"""Convolutional MIL: maps of the classes, pooled by a learned noisy-AND, and a second output on the maps themselves.

Kraus et al., "Classifying and segmenting microscopy images with deep multiple instance learning", Bioinformatics 2016, as
compared by Rumetshofer et al., ICLR 2019, section 3.

    input          C x S x S, one S of 32 or more
    convolutions   average-pool 3 stride 2, conv 32, conv 64, max-pool 3 stride 2, conv 64, max-pool, conv 128, max-pool,
                   conv 128, max-pool                                 dropout .2 after each max-pool
    maps           conv 1x1 1000, dropout .5, conv 1x1 classes        S/32 x S/32, one map per class
    noisy-AND      of the mean of each map's probabilities            only trained
    head           flatten all maps, FC classes                       trained, and predicts

3x3 convolutions with bias, zero-padded to keep the size; ReLU; Xavier-uniform weights, zero biases. 593,143 parameters at 1024²
with 4 channels and 13 classes, as in Table 7: the head fits one image size only.

Both outputs have the same loss, and the losses are added. The authors' public code takes the noisy-AND's probability for a
logit in its loss, a second sigmoid; here it is a probability.
"""

import torch
from torch import nn

from utils.models.layers import check_shape, convolutions, xavier_uniform

SLOPE = 5.0  # a: the best of 5, 7.5 and 10 on the paper's data


class ConvMIL(nn.Module):
    stem_layers, head_layers = ("convolutions.1",), ("maps", "threshold", "head")
    map_layer = "convolutions"  # the last one whose channels are not classes

    def __init__(self, classes, channels, size):
        super().__init__()
        self.size = size
        layers, inputs = [nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)], channels
        for number, outputs in enumerate((32, 64, 64, 128, 128)):
            layers += convolutions(inputs, [outputs], nn.ReLU)
            layers += [nn.MaxPool2d(3, stride=2, padding=1), nn.Dropout(0.2)] if number else []
            inputs = outputs
        self.convolutions = nn.Sequential(*layers, *convolutions(128, [1000], nn.ReLU, kernel=1), nn.Dropout(0.5))
        self.maps = nn.Conv2d(1000, classes, 1)
        self.threshold = nn.Parameter(torch.zeros(classes))  # b, 0 at first as in the authors' code
        self.head = nn.Linear(classes * (-(-size // 32)) ** 2, classes)
        self.apply(xavier_uniform)

    def forward(self, images):
        """(B, channels, S, S) float -> logits (B, classes); in training a pair, the second from the noisy-AND."""
        check_shape("conv_mil", images, self.size)
        maps = self.maps(self.convolutions(images))
        logits = self.head(maps.flatten(1))
        if not self.training:
            return logits
        with torch.no_grad():
            self.threshold.clamp_(0, 1)  # the nearest allowed value after each step
        return logits, torch.logit(noisy_and(maps.float().sigmoid().mean(dim=(2, 3)), self.threshold), eps=1e-6)


def noisy_and(mean, threshold, slope=SLOPE):
    """Kraus et al. 2016: 0 at a mean probability of 0, 1 at 1, steepest at the class's own threshold b.

        g = (σ(a(m − b)) − σ(−ab)) / (σ(a(1 − b)) − σ(−ab))

    mean: (B, classes) in [0, 1]. threshold: (classes,) in [0, 1]. -> (B, classes) in [0, 1].
    """
    none, all_ = torch.sigmoid(-slope * threshold), torch.sigmoid(slope * (1 - threshold))
    return (torch.sigmoid(slope * (mean - threshold)) - none) / (all_ - none)
