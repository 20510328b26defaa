"""M-CNN: seven branches that see the image at seven scales.

Godinez et al., "A multi-scale convolutional neural network for phenotyping high-content cellular images",
Bioinformatics 2017, as compared by Rumetshofer et al., ICLR 2019, section 3.

    input          C x S x S, one S of 128 or more
    branch i       max-pool 2^i, 3 x conv 5x5, max-pool 2^(6 − i)     i = 0 … 6: 16, 16, 16, 32, 32, 32, 64 channels
    together       concatenate: 208 at S/64, conv 1x1 1024, max-pool 2
    head           FC 512, FC classes

Convolutions with bias, zero-padded to keep the size; ReLU; Xavier-uniform weights, zero biases (authors' code).
34,193,853 parameters at 1024² with 4 channels and 13 classes, as in the paper's Table 7: nearly all are the first fully
connected layer, which fits one image size only.
"""

import torch
from torch import nn

from utils.models.layers import check_shape, convolutions, xavier_uniform

WIDTHS = (16, 16, 16, 32, 32, 32, 64)


class MCNN(nn.Module):
    stem_layers, head_layers = tuple(f"branches.{i}.1" for i in range(len(WIDTHS))), ("head.2",)

    def __init__(self, classes, channels, size):
        super().__init__()
        self.size = size
        self.branches = nn.ModuleList(self._branch(i, channels, width) for i, width in enumerate(WIDTHS))
        self.together = nn.Sequential(*convolutions(sum(WIDTHS), [1024], nn.ReLU, kernel=1), nn.MaxPool2d(2))
        side = size // 64 // 2
        self.head = nn.Sequential(nn.Linear(1024 * side * side, 512), nn.ReLU(), nn.Linear(512, classes))
        self.apply(xavier_uniform)

    @staticmethod
    def _branch(i, channels, width):
        layers = convolutions(channels, [width] * 3, nn.ReLU, kernel=5)
        return nn.Sequential(nn.MaxPool2d(2**i), *layers, nn.MaxPool2d(2 ** (6 - i)))

    def forward(self, images):
        """(B, channels, S, S) float -> logits (B, classes)."""
        check_shape("m_cnn", images, self.size)
        scales = torch.cat([branch(images) for branch in self.branches], dim=1)
        return self.head(self.together(scales).flatten(1))
