"""Less memory in training for more time: activations that are computed again in the backward pass instead of kept.

`checkpoint_blocks` does it inside a network, block by block; `rehearsal` is for a batch that goes through in parts.
"""

import contextlib

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

POOLINGS = (nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AvgPoolNd)
ROWS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def checkpoint_blocks(network):
    """Let every block of a network keep only its input in training, and compute the rest again in the backward pass.

    A block is a residual block, a dense layer and the like, or the layers of an nn.Sequential up to a pooling. Results,
    gradients and running statistics stay the same, and so do the names of the parameters. Changes the network itself.
    -> does it have any block?
    """
    _mark_inside([network] if isinstance(network, nn.Sequential) else network.children())
    return any(isinstance(layer, _CheckpointedBlock) or getattr(layer, "runs", ()) for layer in network.modules())


def _mark_inside(layers):
    for layer in layers:
        inner = list(layer.children())
        if isinstance(layer, _Marked) or not inner or not any(True for _ in layer.parameters()):
            continue
        if isinstance(layer, nn.Sequential) and type(layer).forward is nn.Sequential.forward:
            layer.runs = _runs(inner)
            _mark(layer, _CheckpointedRuns)
            _mark_inside(inner)
        elif isinstance(layer, ROWS) or any(_is_stage(row) for row in inner):
            _mark_inside(inner)
        else:
            _mark(layer, _CheckpointedBlock)


def _is_stage(layer):
    """Is it a row of nothing but blocks?"""
    inner = list(layer.children())
    return isinstance(layer, ROWS) and len(inner) > 1 and all(any(True for _ in block.children()) for block in inner)


def _mark(layer, mixin):
    # A class of its own, not a forward of its own: a copy of the layer must not run the original's.
    layer.__class__ = type(type(layer).__name__, (mixin, type(layer)), {})


def _runs(layers):
    """[(first, end)] of the runs of plain layers to compute again: with a convolution, up to a pooling or a block."""
    found, first = [], 0
    for end in range(1, len(layers) + 1):
        last = layers[end - 1]
        block = any(True for _ in last.children())
        if not (block or isinstance(last, POOLINGS) or end == len(layers)):
            continue
        until = end - 1 if block else end
        while first < until and getattr(layers[first], "inplace", False):
            first += 1  # it would change what the run is computed again from
        if any(isinstance(layer, nn.modules.conv._ConvNd) for layer in layers[first:until]):
            found.append((first, until))
        first = end
    return found


class _Marked:
    """A layer that `checkpoint_blocks` has changed."""


class _CheckpointedBlock(_Marked):
    def forward(self, *arguments, **options):
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(*arguments, **options)
        # DenseNet's blocks later append to the very list that they hand out.
        arguments = [list(value) if isinstance(value, list) else value for value in arguments]
        return _compute_again([self], super().forward, *arguments, **options)


class _CheckpointedRuns(_Marked):
    def forward(self, images):
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(images)
        layers, done = list(self), 0
        for first, end in self.runs:
            images = _compute_again(layers[first:end], _pass, _pass(images, layers[done:first]), layers[first:end])
            done = end
        return _pass(images, layers[done:])


def _pass(images, layers):
    for layer in layers:
        images = layer(images)
    return images


def _compute_again(layers, function, *arguments, **options):
    if torch.compiler.is_compiling():  # which itself keeps the statistics' update out of what is computed again
        return checkpoint(function, *arguments, use_reentrant=False, **options)
    contexts = lambda: (contextlib.nullcontext(), frozen_buffers(layers))  # noqa: E731
    return checkpoint(function, *arguments, use_reentrant=False, context_fn=contexts, **options)


@contextlib.contextmanager
def frozen_buffers(layers):
    """Whatever these layers do to their buffers inside, as batch norm to its running statistics, is forgotten after."""
    buffers = [
        (layer, name, buffer)
        for root in layers
        for layer in root.modules()
        for name, buffer in layer._buffers.items()
        if buffer is not None
    ]
    for layer, name, buffer in buffers:
        layer._buffers[name] = buffer.clone()
    try:
        yield
    finally:
        for layer, name, buffer in buffers:
            layer._buffers[name] = buffer


@contextlib.contextmanager
def rehearsal(network, device):
    """Passes through the network that are repeated after with the same random numbers (dropout), and that count only
    then: what batch norm counts here is forgotten."""
    chip = {"cuda": torch.cuda, "mps": torch.mps}.get(device.type)
    where = (device,) if device.type == "cuda" else ()
    state, on_chip = torch.get_rng_state(), chip and chip.get_rng_state(*where)
    try:
        with frozen_buffers([network]):
            yield
    finally:
        torch.set_rng_state(state)
        if chip:
            chip.set_rng_state(on_chip, *where)
