"""Less memory in training for more time: activations are computed again in the backward pass instead of kept.

`checkpoint_blocks` does it inside a network, block by block; `rehearsal` is for a batch that goes through in micro-batches.
"""

import contextlib
import types

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

POOLINGS = (nn.MaxPool2d, nn.AvgPool2d)
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def checkpoint_blocks(network):
    """Let every block of a network keep only its input in training, and compute the rest again in the backward pass.

    A block is a residual block, a dense layer and the like, or the layers of an nn.Sequential up to a pooling. Results, gradients,
    running statistics and the names of the parameters stay the same. Changes the network itself.
    -> whether it has any block
    """
    blocks = list(_find_blocks([network] if isinstance(network, nn.Sequential) else network.children()))
    for layer, forward in blocks:
        # A bound method follows its layer into a deep copy.
        layer.forward = types.MethodType(forward, layer)
    return any(forward is _forward_block or layer.spans for layer, forward in blocks)


def _find_blocks(layers):
    """Yield (layer, the forward to give it)."""
    for layer in layers:
        inner = list(layer.children())
        if not inner or not any(True for _ in layer.parameters()):
            continue
        if isinstance(layer, nn.Sequential) and type(layer).forward is nn.Sequential.forward:
            layer.spans = _spans(inner)
            yield layer, _forward_spans
            yield from _find_blocks(inner)
        elif isinstance(layer, CONTAINERS) or any(_is_stage(row) for row in inner):
            yield from _find_blocks(inner)
        else:
            yield layer, _forward_block


def _is_stage(layer):
    """Whether it is a container of only blocks, two or more."""
    inner = list(layer.children())
    return (
        isinstance(layer, CONTAINERS) and len(inner) > 1 and all(any(True for _ in block.children()) for block in inner)
    )


def _spans(layers):
    """[(first, end)] of the plain layers to compute again together: with a convolution, up to a pooling or a block."""
    found, first = [], 0
    for end in range(1, len(layers) + 1):
        last = layers[end - 1]
        is_block = any(True for _ in last.children())
        if not (is_block or isinstance(last, POOLINGS) or end == len(layers)):
            continue
        until = end - 1 if is_block else end
        while first < until and getattr(layers[first], "inplace", False):
            first += 1  # it would change what the span is computed again from
        if any(isinstance(layer, nn.Conv2d) for layer in layers[first:until]):
            found.append((first, until))
        first = end
    return found


def _forward_block(self, *arguments, **options):
    forward = types.MethodType(type(self).forward, self)
    if not (self.training and torch.is_grad_enabled()):
        return forward(*arguments, **options)
    # DenseNet's blocks later append to the very list that they pass.
    arguments = [list(value) if isinstance(value, list) else value for value in arguments]
    return _compute_again([self], forward, *arguments, **options)


def _forward_spans(self, images):
    if not (self.training and torch.is_grad_enabled()):
        return _run(images, self)
    layers, done = list(self), 0
    for first, end in self.spans:
        images = _compute_again(layers[first:end], _run, _run(images, layers[done:first]), layers[first:end])
        done = end
    return _run(images, layers[done:])


def _run(images, layers):
    for layer in layers:
        images = layer(images)
    return images


def _compute_again(layers, function, *arguments, **options):
    if (
        not torch.compiler.is_compiling()
    ):  # the compiler itself keeps the statistics' update out of what is computed again
        options["context_fn"] = lambda: (contextlib.nullcontext(), frozen_buffers(layers))
    return checkpoint(function, *arguments, use_reentrant=False, **options)


@contextlib.contextmanager
def frozen_buffers(layers):
    """Undo what these layers do to their buffers inside, as batch norm does to its running statistics."""
    owners = [owner for layer in layers for owner in layer.modules()]
    buffers = [(owner, name, buffer) for owner in owners for name, buffer in owner.named_buffers(recurse=False)]
    for owner, name, buffer in buffers:
        setattr(owner, name, buffer.clone())
    try:
        yield
    finally:
        for owner, name, buffer in buffers:
            setattr(owner, name, buffer)


@contextlib.contextmanager
def rehearsal(network, device):
    """For passes through the network that are repeated afterwards with the same random numbers (dropout) and count only then: batch
    norm's statistics and the generators are put back."""
    module = {"cuda": torch.cuda, "mps": torch.mps}.get(device.type)
    which = (device,) if device.type == "cuda" else ()
    state, on_device = torch.get_rng_state(), module and module.get_rng_state(*which)
    try:
        with frozen_buffers([network]):
            yield
    finally:
        torch.set_rng_state(state)
        if module:
            module.set_rng_state(on_device, *which)
