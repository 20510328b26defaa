"""Class maps: what each place of an image adds to the logits of a network that was trained on labels of whole images.

If a network ends in the global average of its last feature map and one linear layer, a class's logit is the mean over
positions of what that layer makes of the features there, its bias included: the class activation map of Zhou et al.,
"Learning Deep Features for Discriminative Localization", CVPR 2016, equation 2, not clipped at 0. With the head
`attention` it is the mean of the positions' weighted logits, times their number. Of other networks no such map exists: a
layer after the average, or a maximum, mixes the places.
"""

import torch
from torch import nn
from torch.nn import functional

from utils.errors import InputError
from utils.models.heads import ClassAttention

TOLERANCE = 1e-4  # of the largest logit


class ClassMaps(nn.Module):
    """A network that returns maps, (B, classes, h, w), whose means over positions are its logits. feature_map: (network, images)
    -> its last map; head: the name of the layer that follows, an nn.Linear behind a global average or a ClassAttention; grid: (h,
    w) at the size that the network was trained at."""

    def __init__(self, network, feature_map, head):
        super().__init__()
        self.network, self.feature_map, self.head, self.grid = network, feature_map, head, None

    def forward(self, images):
        """(B, channels, S, S) float -> (B, classes, h, w)."""
        features = self.feature_map(self.network, images)
        head = self.network.get_submodule(self.head)
        if isinstance(head, ClassAttention):
            return head.parts(features) * features[0, 0].numel()
        return functional.conv2d(features, head.weight[..., None, None], head.bias)


@torch.inference_mode()
def with_class_maps(network, name, feature_map, channels, size):
    """-> the `ClassMaps` of a network, called `name`, with the same weights.

    feature_map: (network, images) -> its last map, or None if it has none. channels, size: of its images, one of which, random,
    is tried. Raises InputError if the means of the maps are not the logits.
    """
    device = next(network.parameters()).device
    images = torch.randn(1, channels, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    if feature_map and len(network.head_layers) == 1:
        found = ClassMaps(network, feature_map, network.head_layers[0]).eval()
        try:
            logits, maps = network.eval()(images), found(images)
            means, found.grid = maps.mean((2, 3)), tuple(maps.shape[2:])
        except (RuntimeError, ValueError, AttributeError, IndexError, TypeError):
            means = None  # tokens, no linear layer, or one for other features
        if means is not None and bool((means - logits).abs().max() <= TOLERANCE * logits.abs().max()):
            return found
    raise InputError(
        f"a logit of {name} is not the mean of a map, so its cells cannot be scored; train a network that ends in a global average "
        "and one linear layer, such as densenet121, or with --head attention"
    )
