"""Heads that replace a network's own: from its last feature map (B, F, H, W), of any H and W, to logits (B, classes).

    avg_max      average and maximum of each feature: 2 F, batch norm, dropout .5, FC F, ReLU, batch norm, dropout .5, FC classes
    attention    at each position a logit and a weight per class, each a linear layer of the F features there; the weights are a
                 softmax over positions, and a class's logit is the weighted mean of its logits

`avg_max` is the head of the winner of the Human Protein Atlas image classification of 2018 (team bestfitting, public code,
networks/densenet.py and resnet.py), `attention` of its third place (pudae/kaggle-hpa, models/model_factory.py), there too on the whole
last map. With all weights of the second layer at 0, `attention` is a global average and a linear layer.
"""

import types

import torch
from torch import nn

from utils.errors import InputError


class AverageAndMaximum(nn.Sequential):
    def __init__(self, features, classes):
        pooled = [nn.BatchNorm1d(2 * features), nn.Dropout(0.5), nn.Linear(2 * features, features), nn.ReLU()]
        super().__init__(*pooled, nn.BatchNorm1d(features), nn.Dropout(0.5), nn.Linear(features, classes))

    def forward(self, maps):
        # Not nn.AdaptiveMaxPool2d, whose gradients a GPU adds in any order.
        return super().forward(torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1))


class ClassAttention(nn.Module):
    def __init__(self, features, classes):
        super().__init__()
        self.logits, self.attention = nn.Linear(features, classes), nn.Linear(features, classes)
        self.maps = nn.Identity()

    def forward(self, maps):
        return self.maps(self.parts(maps)).sum((2, 3))  # utils.engine.grad_cam shows the output of `maps`

    def parts(self, maps):
        """Each position's part of the logits, their sum: (B, F, H, W) -> (B, classes, H, W)."""
        positions = maps.flatten(2).transpose(1, 2)
        parts = self.logits(positions) * self.attention(positions).softmax(1)
        return parts.transpose(1, 2).unflatten(2, maps.shape[2:])


HEADS = {"avg_max": AverageAndMaximum, "attention": ClassAttention}  # besides "own"


def replace_head(network, name, head, feature_map, classes, channels, size):
    """Give a network, called `name`, one of `HEADS` with random weights, in place.

    feature_map: (network, images) -> its last map, or None if it has none. channels, size: of its images. All other layers keep
    their names, and the new one is `head`; the norm before the linear layer of timm's ConvNeXts goes with that. Raises InputError for a
    network that does not end in a map, its average and one linear layer.
    """
    own = [network.get_submodule(layer) for layer in network.head_layers] if feature_map else []
    if len(own) == 1 and isinstance(own[0], nn.Linear):
        network.set_submodule(network.head_layers[0], nn.Identity())
        network.head = HEADS[head](own[0].in_features, classes)
        network.head_layers = ("head",)
        if head == "attention":
            network.map_layer = "head.maps"
        # Bound methods follow the network into a deep copy.
        network.feature_map = types.MethodType(feature_map, network)
        network.forward = types.MethodType(_forward, network)
        if _runs(network, channels, size):
            return
    raise InputError(
        f"{name} cannot have the head {head}, since it does not end in one feature map, its average and one linear layer; give --head "
        "own, or another --model"
    )


def _forward(self, images):
    return self.head(self.feature_map(images))


def _runs(network, channels, size):
    """Whether the head fits the last map. Tried without memory or computing."""
    state = {name: value.to("meta") for name, value in network.state_dict().items()}
    images, training = torch.zeros(1, channels, size, size, device="meta"), network.training
    try:
        with torch.no_grad():
            torch.func.functional_call(network.eval(), state, (images,))
    except (RuntimeError, ValueError, IndexError, TypeError, AttributeError, AssertionError):
        return False
    finally:
        network.train(training)
    return True
