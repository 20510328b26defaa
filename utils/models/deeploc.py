"""DeepLoc, adapted to large images.

Kraus et al., "Automated analysis of high-content microscopy data with deep learning", Molecular Systems Biology 2017, as
adapted by Rumetshofer et al., ICLR 2019, Table 6: fewer channels, SELU in the place of batch norm and ReLU.

    input          C x S x S, one S of 8 or more
    convolutions   2 x conv 32, max-pool 2, 2 x conv 64, max-pool 2, 4 x conv 96, max-pool 2
    head           FC 128, FC 128, FC classes                         alpha-dropout .3 after each FC 128 (authors' code)

3x3 convolutions with bias, zero-padded to keep the size; SELU; LeCun-normal weights, zero biases. 201,715,277 parameters at
1024² with 4 channels and 13 classes. The paper's Table 7 prints 201,716,967, which its own Table 6 does not give. Nearly all
are the first fully connected layer, which fits one image size only.
"""

from torch import nn

from utils.models.layers import check_shape, convolutions, lecun_normal, selu_layers


class DeepLoc(nn.Module):
    stem_layers, head_layers = ("convolutions.0",), ("head.6",)

    def __init__(self, classes, channels, size):
        super().__init__()
        self.size = size
        layers, inputs = [], channels
        for outputs, count in ((32, 2), (64, 2), (96, 4)):
            layers += [*convolutions(inputs, [outputs] * count, nn.SELU), nn.MaxPool2d(2)]
            inputs = outputs
        self.convolutions = nn.Sequential(*layers)
        self.head = nn.Sequential(*selu_layers(96 * (size // 8) ** 2, 128), nn.Linear(128, classes))
        self.apply(lecun_normal)

    def forward(self, images):
        """(B, channels, S, S) float -> logits (B, classes)."""
        check_shape("deeploc", images, self.size)
        return self.head(self.convolutions(images).flatten(1))
