"""Data-parallel training and prediction with torchrun: one process per device, each with a shard of every batch.

All processes hold the same weights and take the same decisions; the main one (rank 0) writes the files and prints. A
step or a validation gives what one process would compute from the whole batch.
"""

import itertools
import math
import os
import sys
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Sampler

from utils.device import pick_device
from utils.errors import InputError

TIMEOUT = timedelta(hours=24)  # the others wait while the main process packs images; torchrun notices dead processes


@dataclass(frozen=True)
class Distributed:
    """The distributed context of this process, with torchrun's numbers. Each method is cheap in a single process."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1

    @property
    def is_main(self):
        return self.rank == 0

    def describe(self):
        return f"{self.world_size} x " if self.world_size > 1 else ""

    def wrap(self, network, device):
        """Return the module to call in training: it averages the gradients over all processes."""
        if self.world_size == 1:
            return network
        device_ids = [device] if device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=device_ids, gradient_as_bucket_view=True)

    def sync_batch_norm(self, network, device):
        """Let batch norm see all processes' samples. Only GPUs can; elsewhere each process keeps its own statistics."""
        if self.world_size == 1 or device.type != "cuda":
            return network
        from timm.layers import convert_sync_batchnorm  # here, since timm takes seconds to import

        return convert_sync_batchnorm(network)  # torch's own would lose the activation in timm's layers

    def broadcast_buffers(self, *networks):
        """Copy the main process's buffers to all: statistics of batch norm that is not synchronised differ."""
        if self.world_size > 1:
            for buffer in itertools.chain(*(network.buffers() for network in networks)):
                distributed.broadcast(buffer, 0)

    def shard_size(self, samples):
        """Samples that each process gets of a batch of `samples`: two at least, from which batch norm can learn."""
        return max(math.ceil(samples / self.world_size), min(2, samples))

    def real_rows(self, samples, device):
        """Rows of all gathered shards of a batch that are samples and not padding: (samples,) int64 for `all_gather`,
        or None for all. Needs no communication."""
        size = self.shard_size(samples)
        if size * self.world_size == samples:
            return None
        own = (len(range(rank, samples, self.world_size)) for rank in range(self.world_size))
        rows = [rank * size + number for rank, count in enumerate(own) for number in range(count)]
        return torch.tensor(rows).to(device, non_blocking=True)

    def all_gather(self, shard, rows):
        """The `rows` of all processes' tensors (n, …), one after another. Gradients flow through the own shard
        alone."""
        if self.world_size == 1:
            return shard
        shards = [torch.empty_like(shard) for _ in range(self.world_size)]
        distributed.all_gather(shards, shard.detach().contiguous())
        shards[self.rank] = shard
        return torch.cat(shards) if rows is None else torch.cat(shards).index_select(0, rows)

    def all_gather_object(self, value):
        """All processes' values: a list in the order of the ranks."""
        values = [value]
        if self.world_size > 1:
            values *= self.world_size
            distributed.all_gather_object(values, value)
        return values

    def gather_rows(self, rows, values):
        """All processes' rows (n,), ascending, and their values (n, …): NumPy arrays, the same in every process."""
        if self.world_size == 1:
            return rows, values
        parts = [part for part in self.all_gather_object((rows, values)) if len(part[0])]  # some may have no samples
        rows, values = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = rows.argsort()
        return rows[order], values[order]

    def merge_dicts(self, own):
        """All processes' dicts as one, sorted by key, the same in every process."""
        return dict(sorted(item for part in self.all_gather_object(own) for item in part.items()))

    def broadcast(self, value):
        """The main process's value, in all: for what a clock or rounding decides."""
        values = [value]
        if self.world_size > 1:
            distributed.broadcast_object_list(values)
        return values[0]

    def barrier(self):
        """Wait for all processes."""
        if self.world_size > 1:
            distributed.barrier()

    def local_main_first(self, function):
        """Return function(), called first in one process of each machine, then in the others, which find the files it
        wrote."""
        if self.local_rank:
            self.barrier()
        result = function()
        if not self.local_rank:
            self.barrier()
        return result

    def largest(self, number, device):
        """The largest of all processes' whole numbers, in all."""
        return number if self.world_size == 1 else int(self.all_reduce_max(number, device))

    def all_reduce_max(self, number, device):
        """The same as a 0-d float tensor on the device, without waiting for it. Needs several processes."""
        tensor = torch.full((), float(number), device=device)
        distributed.all_reduce(tensor, distributed.ReduceOp.MAX)
        return tensor

    def check_equal(self, **values):
        """Raise InputError in every process unless all have the same values."""
        others = self.all_gather_object(values)
        if differing := [name for name in values if any(other[name] != values[name] for other in others)]:
            raise InputError(
                f"the processes differ in {', '.join(differing)}; "
                "all machines need the same data, and --runs on a shared disk"
            )


SINGLE_PROCESS = Distributed()


def init(spec):
    """Join the processes that torchrun started, if it did: -> Distributed, this process's torch.device. spec: as for
    `pick_device`.

    Raises InputError if a machine has more processes than GPUs.
    """
    if not distributed.is_torchelastic_launched() or int(os.environ["WORLD_SIZE"]) == 1:
        return SINGLE_PROCESS, pick_device(spec)
    if spec not in ("auto", "cuda", "cpu"):
        raise InputError(
            f"--device {spec} is one device, and torchrun starts several processes; give auto, cuda or cpu"
        )
    context = Distributed(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")))
    if not context.is_main:  # one report and one progress bar are enough
        sys.stdout = open(os.devnull, "w", encoding="utf-8", errors="replace")  # noqa: SIM115
        sys.stderr = _NotATerminal(sys.stderr)
    on_gpu = spec != "cpu" and torch.cuda.is_available()
    processes = context.local_world_size
    if on_gpu and processes > (gpus := torch.cuda.device_count()):
        raise InputError(
            f"torchrun has started {processes} processes on a machine of {gpus} GPUs; "
            f"give --nproc-per-node {gpus}, or --device cpu"
        )
    device = pick_device(f"cuda:{context.local_rank}" if on_gpu else "cpu" if spec == "auto" else spec)
    options = {"backend": "nccl", "device_id": device} if device.type == "cuda" else {"backend": "gloo"}
    distributed.init_process_group(timeout=TIMEOUT, **options)
    return context, device


class _NotATerminal:
    """A stream on which tqdm shows no bar."""

    def __init__(self, stream):
        self.stream = stream

    def isatty(self):
        return False

    def __getattr__(self, name):
        return getattr(self.stream, name)


class DistributedBatchSampler(Sampler):
    """One process's shard of each batch: every `world_size`-th of its keys (epoch, row), as (epoch, row, samples of the
    batch).

    All shards are equally long (`Distributed.shard_size`). A shorter one is padded with samples of the batch as (epoch,
    ~row, …): they are computed and do not count.
    """

    def __init__(self, batches, context):
        self.batches, self.context = batches, context

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        context = self.context
        for keys in self.batches:
            own = keys[context.rank :: context.world_size]
            padding = itertools.islice(itertools.cycle(keys), context.shard_size(len(keys)) - len(own))
            yield [(*key, len(keys)) for key in [*own, *((epoch, ~row) for epoch, row in padding)]]
