"""The backward pass of one batch, at once or in micro-batches (--accumulate), on one process or many."""

import contextlib
import math

import numpy as np
import torch

from utils.device import autocast
from utils.engine.activation_checkpointing import rehearsal


class Backward:
    """Adds the gradients of the loss of a batch: ``backward(images, targets, real, samples) -> (loss, {curve: value})``.

    network: the module itself. parallel: what is called in training, see `Ranks.wrap`. loss: a `ScheduledLoss`. scaler: a GradScaler.
    Batches of `full_size` images of this process go through torch.compile with --compile; smaller ones are not worth its minutes.
    """

    def __init__(self, network, parallel, loss, scaler, config, device, amp, context, full_size):
        self.network, self.parallel, self.loss, self.scaler = network, parallel, loss, scaler
        self.config, self.device, self.amp, self.context, self.full_size = config, device, amp, context, full_size
        self.compiled = torch.compile(parallel, dynamic=False) if config.compile else None
        # L1 shrinks weights, not biases.
        self.shrunk = [weight for weight in network.parameters() if weight.requires_grad and weight.ndim > 1]

    def __call__(self, images, targets, real, samples):
        """images: (n, planes, S, S) of this process. targets: (n, C). real: (n,) bool array, False for samples that only fill up the
        shard of a process, which come last and do not count. samples: that count in the batch, over all processes.

        -> the loss without the L1 penalty, and the curves, 0-d tensors of the whole batch. Gradients are averaged over processes, so
        each multiplies its loss by their number.
        """
        which = self.context.real_rows(samples, self.device)
        whole = self.context.all_gather(targets, which)
        network = self.compiled if self.compiled is not None and len(images) == self.full_size else self.parallel
        images = images.tensor_split(self.count_micro_batches(len(images)))
        if len(images) == 1:
            outputs = [self.context.all_gather(output, which) for output in self.outputs(network, images[0])]
            loss, curves = self.loss.with_curves(outputs, whole)
            self.scaler.scale(loss * self.context.world_size + self._penalty()).backward()
            return loss, curves
        outputs = self._accumulate(network, images, targets, real, whole, which)
        with torch.no_grad():
            return self.loss.with_curves([self.context.all_gather(output, which) for output in outputs], whole)

    def count_micro_batches(self, samples):
        """In how many micro-batches a process's shard of a batch goes through the network: none larger than those of a full batch,
        and of two samples at least, from which batch norm can learn."""
        if self.config.accumulate == 1:
            return 1
        largest = math.ceil(math.ceil(self.config.batch_size / self.context.world_size) / self.config.accumulate)
        return max(1, min(math.ceil(samples / largest), samples // 2))

    def outputs(self, network, images):
        """The outputs in training of `network`, the module or a wrapper of it: a list of (B, C) float32 logits, the first of which
        predicts."""
        with autocast(self.device, self.amp):
            outputs = network(images)
        return [output.float() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]

    def _accumulate(self, network, images, targets, real, whole, which):
        """A backward pass for each micro-batch, so that only one's activations are in memory: -> the outputs of all, (n, C) each.

        If the loss couples the samples of a batch, all micro-batches go through once before, to learn its slope at every output.
        """
        slopes = None if self.loss.separable else self._slopes(network, images, whole, which)
        targets = targets.tensor_split(len(images))
        counts = [int(part.sum()) for part in np.array_split(real, len(images))]
        seen = []
        for number, (part, count) in enumerate(zip(images, counts, strict=True)):
            last = number == len(images) - 1
            with contextlib.nullcontext() if last else self._unsynced():
                outputs = self.outputs(network, part)
                seen.append([output.detach() for output in outputs])
                if slopes:
                    total = sum((output * slope).sum() for output, slope in zip(outputs, slopes[number], strict=True))
                elif count:
                    mean = self.loss([output[:count] for output in outputs], targets[number][:count])
                    total = self.scaler.scale(mean * (self.context.world_size * count / len(whole)))
                else:  # every process takes part in every backward pass
                    total = sum(0 * output.sum() for output in outputs)
                if last and self.config.l1:
                    total = total + self.scaler.scale(self._penalty())
                total.backward()
        return [torch.cat(parts) for parts in zip(*seen, strict=True)]

    def _slopes(self, network, images, whole, which):
        """The derivative of the scaled loss by every output of every micro-batch: a list of lists (outputs) of (part, C)."""
        with self._unsynced(), rehearsal(self.network, self.device):
            # With gradients, though unused, so that a compiled network draws its dropout as it will again.
            seen = [[output.detach() for output in self.outputs(network, part)] for part in images]
        outputs = [torch.cat(parts).requires_grad_() for parts in zip(*seen, strict=True)]
        loss = self.loss([self.context.all_gather(output, which) for output in outputs], whole)
        slopes = torch.autograd.grad(self.scaler.scale(loss * self.context.world_size), outputs)
        return list(zip(*(slope.tensor_split(len(images)) for slope in slopes), strict=True))

    def _penalty(self):
        return self.config.l1 * sum(weight.abs().sum() for weight in self.shrunk) if self.config.l1 else 0.0

    def _unsynced(self):
        """For a backward pass that another follows in the same step: processes exchange gradients in the last one."""
        return self.parallel.no_sync() if hasattr(self.parallel, "no_sync") else contextlib.nullcontext()
