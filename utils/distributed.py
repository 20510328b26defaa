"""Data-parallel training and prediction with torchrun: one process per device, each with a shard of every batch.

All processes have the same weights and make the same decisions; the main process (rank 0) writes files and prints. A
step or a validation gives the result of a single process with the whole batch.
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
    """The distributed context of this process. Its methods do nothing costly in a single process."""

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
        """Return the module to train: it averages the gradients over all processes."""
        if self.world_size == 1:
            return network
        device_ids = [device] if device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=device_ids, gradient_as_bucket_view=True)

    def sync_batch_norm(self, network, device):
        """Synchronise batch norm over all processes, on GPUs only; on CPUs each process keeps its own statistics."""
        if self.world_size == 1 or device.type != "cuda":
            return network
        from timm.layers import convert_sync_batchnorm  # here, since timm takes seconds to import

        return convert_sync_batchnorm(network)  # torch's own would lose the activation in timm's layers

    def broadcast_buffers(self, *networks):
        """Copy the main process's buffers to all processes: without synchronised batch norm they differ."""
        if self.world_size > 1:
            for buffer in itertools.chain(*(network.buffers() for network in networks)):
                distributed.broadcast(buffer, 0)

    def shard_size(self, samples):
        """Return each process's number of samples of a batch of `samples`: two or more, as batch norm needs."""
        return max(math.ceil(samples / self.world_size), min(2, samples))

    def real_rows(self, samples, device):
        """Return the rows of a gathered batch that are not padding: (samples,) int64 for `all_gather`, None for all."""
        size = self.shard_size(samples)
        if size * self.world_size == samples:
            return None
        own = (len(range(rank, samples, self.world_size)) for rank in range(self.world_size))
        rows = [rank * size + number for rank, count in enumerate(own) for number in range(count)]
        return torch.tensor(rows).to(device, non_blocking=True)

    def all_gather(self, shard, rows):
        """Return the `rows` of all processes' concatenated tensors (n, …). Gradients flow only to this process's."""
        if self.world_size == 1:
            return shard
        shards = [torch.empty_like(shard) for _ in range(self.world_size)]
        distributed.all_gather(shards, shard.detach().contiguous())
        shards[self.rank] = shard
        return torch.cat(shards) if rows is None else torch.cat(shards).index_select(0, rows)

    def all_gather_object(self, value):
        """Return all processes' values, a list by rank."""
        values = [value]
        if self.world_size > 1:
            values *= self.world_size
            distributed.all_gather_object(values, value)
        return values

    def gather_rows(self, rows, values):
        """Return all processes' rows (n,), ascending, and their values (n, …): NumPy arrays, the same everywhere."""
        if self.world_size == 1:
            return rows, values
        parts = [part for part in self.all_gather_object((rows, values)) if len(part[0])]
        rows, values = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = rows.argsort()
        return rows[order], values[order]

    def merge_dicts(self, own):
        """Return all processes' dicts merged and sorted by key."""
        return dict(sorted(item for part in self.all_gather_object(own) for item in part.items()))

    def broadcast(self, value):
        """Return the main process's value, for decisions that depend on the clock or on rounding."""
        values = [value]
        if self.world_size > 1:
            distributed.broadcast_object_list(values)
        return values[0]

    def barrier(self):
        if self.world_size > 1:
            distributed.barrier()

    def local_main_first(self, function):
        """Return function(), called in one process per machine first, then in the others, which find its files."""
        if self.local_rank:
            self.barrier()
        result = function()
        if not self.local_rank:
            self.barrier()
        return result

    def largest(self, number, device):
        """Return the largest of all processes' integers."""
        return number if self.world_size == 1 else int(self.all_reduce_max(number, device))

    def all_reduce_max(self, number, device):
        """Return the largest of several processes' numbers as a 0-d float tensor, without waiting for the device."""
        tensor = torch.full((), float(number), device=device)
        distributed.all_reduce(tensor, distributed.ReduceOp.MAX)
        return tensor

    def check_equal(self, **values):
        """Raise InputError in every process unless all have the same values."""
        others = self.all_gather_object(values)
        if differing := [name for name in values if any(other[name] != values[name] for other in others)]:
            fix = "all machines need the same data, and --runs on a shared disk"
            raise InputError(f"the processes differ in {', '.join(differing)}; {fix}")


SINGLE_PROCESS = Distributed()


def init(spec):
    """Join torchrun's process group, if any: -> Distributed, this process's torch.device. spec: as for `pick_device`.
    Raise InputError if a machine has more processes than GPUs."""
    if not distributed.is_torchelastic_launched() or int(os.environ["WORLD_SIZE"]) == 1:
        return SINGLE_PROCESS, pick_device(spec)
    if spec not in ("auto", "cuda", "cpu"):
        raise InputError(f"--device {spec} is one device, torchrun starts several processes; give auto, cuda or cpu")
    context = Distributed(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")))
    if not context.is_main:  # only the main process prints and shows progress bars
        sys.stdout = open(os.devnull, "w", encoding="utf-8", errors="replace")  # noqa: SIM115
        sys.stderr = _NotATerminal(sys.stderr)
    on_gpu = spec != "cpu" and torch.cuda.is_available()
    if on_gpu and context.local_world_size > (gpus := torch.cuda.device_count()):
        started = f"torchrun has started {context.local_world_size} processes on a machine with {gpus} GPUs"
        raise InputError(f"{started}; give --nproc-per-node {gpus}, or --device cpu")
    device = pick_device(f"cuda:{context.local_rank}" if on_gpu else "cpu" if spec == "auto" else spec)
    options = {"backend": "nccl", "device_id": device} if device.type == "cuda" else {"backend": "gloo"}
    distributed.init_process_group(timeout=TIMEOUT, **options)
    return context, device


class _NotATerminal:
    """A stream that tqdm takes for a file, so that it shows no bar."""

    def __init__(self, stream):
        self.stream = stream

    def isatty(self):
        return False

    def __getattr__(self, name):
        return getattr(self.stream, name)


class DistributedBatchSampler(Sampler):
    """Yield one process's shard of each batch: every `world_size`-th key (epoch, row, …), as (epoch, row, …, batch
    size).

    All shards have the same length (`Distributed.shard_size`): a shorter one is padded with samples of the batch, as
    (epoch, ~row, …, batch size), which are computed and then dropped.
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
            yield [(*key, len(keys)) for key in [*own, *((epoch, ~row, *rest) for epoch, row, *rest in padding)]]
