"""Batch norm folded into the convolution before it: the same network for predicting, with a pass over the activations less a layer."""

import contextlib
import copy
import weakref

import torch
from timm.layers import BatchNormAct2d, SyncBatchNormAct
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)
NORMS_WITH_ACTIVATION = (BatchNormAct2d, SyncBatchNormAct)
TOLERANCE = 1e-3  # of the largest output: rounding is far below it, a wrongly folded layer far above


@torch.inference_mode()
def fold_batch_norm(network, images):
    """A copy of the network, in evaluation mode, whose convolutions do the work of the batch norm behind them.

    images: one or more inputs of the network, (B, planes, S, S), by which it is found out which convolution each batch norm follows
    and whether the copy says the same. Where there is nothing to fold, or it does not, -> the network itself, in evaluation mode.
    """
    network.eval()
    if network in _known:
        return _folded(network, _known[network])
    images = images.float()
    with torch.autocast(images.device.type, enabled=False), torch.backends.cudnn.flags(benchmark=False, allow_tf32=False):
        pairs, expected = _followed(network, images)
        folded = _folded(network, pairs)
        if (folded(images) - expected).abs().max() <= TOLERANCE * expected.abs().max():
            _known[network] = pairs
            return folded
    return network


_known = weakref.WeakKeyDictionary()  # network: its pairs, found out once


def _folded(network, pairs):
    if not pairs:
        return network
    folded = copy.deepcopy(network)
    for convolution, norm in pairs:
        layer = folded.get_submodule(norm)
        folded.set_submodule(convolution, fuse_conv_bn_eval(folded.get_submodule(convolution), layer))
        rest = nn.Sequential(layer.drop, layer.act) if isinstance(layer, NORMS_WITH_ACTIVATION) else nn.Identity()
        folded.set_submodule(norm, rest.eval())
    return folded


def _followed(network, images):
    """Pairs of names, a convolution and the batch norm that takes its output, both used once; and the network's outputs."""
    made, pairs, uses, names = {}, [], {}, {}

    def convolved(layer, _, output):
        uses[layer] = uses.get(layer, 0) + 1
        made[id(output)] = layer, output  # held, so that its id is not given away

    def normed(layer, inputs):
        uses[layer] = uses.get(layer, 0) + 1
        if id(inputs[0]) in made:
            pairs.append((made[id(inputs[0])][0], layer))

    with contextlib.ExitStack() as hooks:
        for name, layer in network.named_modules():
            names[layer] = name
            if isinstance(layer, nn.Conv2d):
                hooks.callback(layer.register_forward_hook(convolved).remove)
            elif type(layer) in (*NORMS, *NORMS_WITH_ACTIVATION) and layer.track_running_stats:
                hooks.callback(layer.register_forward_pre_hook(normed).remove)
        outputs = network(images)
    once = [pair for pair in pairs if all(uses[layer] == 1 for layer in pair)]
    return [tuple(names[layer] for layer in pair) for pair in once], outputs
