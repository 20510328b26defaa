"""Batch norm folded into the convolution before it: the same network for prediction, with one pass less over the activations."""

import contextlib
import copy
import weakref

import torch
from timm.layers import BatchNormAct2d, SyncBatchNormAct
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from utils.device import autocast

NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)
NORMS_WITH_ACTIVATION = (BatchNormAct2d, SyncBatchNormAct)
TRIAL_SIZE = 128  # pixels of the image that folding is tried on; a network of a fixed size gets its own
TOLERANCE = 1e-6  # of the largest output, in float64


@torch.inference_mode()
def fold_batch_norm(network, images):
    """A copy of the network, in evaluation mode, whose convolutions include the batch norm that follows them.

    images: inputs of the network, (B, planes, S, S), of which only the shape counts. The pairs are looked for once and
    verified with random statistics. -> the network itself if there are none, or if the copy would not give the same.
    """
    network.eval()
    if network not in _known:
        with autocast(torch.device("cpu"), None):
            _known[network] = _find_pairs(network, images.shape)
    return _folded(network, _known[network])


_known = weakref.WeakKeyDictionary()  # network: pairs of names, a convolution and the batch norm behind it


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


def _find_pairs(network, shape):
    norms = [name for name, layer in network.named_modules() if type(layer) in (*NORMS, *NORMS_WITH_ACTIVATION)]
    if not norms:
        return []
    # On the CPU, since not every device computes in float64.
    trial, random = copy.deepcopy(network).cpu().double(), torch.Generator().manual_seed(0)
    for name in norms:
        layer = trial.get_submodule(name)
        centred, positive = (layer.running_mean, layer.bias), (layer.running_var, layer.weight)
        order = [(centred[0], -0.5, 0.5), *((values, 0.5, 1.5) for values in positive), (centred[1], -0.5, 0.5)]
        for values, least, most in order:
            if values is not None:
                values.copy_(torch.empty(values.shape).uniform_(least, most, generator=random))
    for size in sorted({min(TRIAL_SIZE, shape[-1]), shape[-1]}):
        image = torch.rand(1, shape[1], size, size, generator=random, dtype=torch.double)
        # It may not take this size, or not compute in float64.
        with contextlib.suppress(RuntimeError, ValueError, AssertionError, TypeError):
            pairs, expected = _trace_pairs(trial, image)
            error = (_folded(trial, pairs)(image) - expected).abs().max()
            return pairs if error <= TOLERANCE * expected.abs().max() else []
    return []


def _trace_pairs(network, images):
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
            elif type(layer) in (*NORMS, *NORMS_WITH_ACTIVATION) and layer.running_mean is not None:
                hooks.callback(layer.register_forward_pre_hook(normed).remove)
        outputs = network(images)
    once = [pair for pair in pairs if all(uses[layer] == 1 for layer in pair)]
    return [tuple(names[layer] for layer in pair) for pair in once], outputs
