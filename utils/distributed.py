"""Many processes that train or predict as one, started by torchrun: each has a number, its rank, and computes its share.

Every rank keeps the same weights and takes the same decisions; the first writes the files and prints. What a step or a validation
gives is that of all ranks' samples together, as if one process had seen them.
"""

import itertools
import math
import os
import sys
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
from timm.layers import convert_sync_batchnorm
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Sampler

from utils.device import pick_device
from utils.errors import InputError

# How long ranks wait for one that is busy, as the first may be with packing. The dead are noticed by torchrun.
PATIENCE = timedelta(hours=24)


@dataclass(frozen=True)
class Ranks:
    """This process among those that work together: its number `rank` of `count`, and `local` of `here` on this machine."""

    rank: int = 0
    count: int = 1
    local: int = 0
    here: int = 1

    @property
    def first(self):
        return self.rank == 0

    def describe(self):
        return f"{self.count} x " if self.count > 1 else ""

    def wrap(self, network, device):
        """What to call in training instead of the network: it averages the gradients over all ranks."""
        if self.count == 1:
            return network
        return DistributedDataParallel(
            network, device_ids=[device] if device.type == "cuda" else None, gradient_as_bucket_view=True
        )

    def share_batch_norm(self, network, device):
        """The network with batch norm over all ranks' samples. Only GPUs can; elsewhere each rank counts its own."""
        if self.count == 1 or device.type != "cuda":
            return network
        return convert_sync_batchnorm(network)  # torch's own would lose the activation in timm's layers

    def share_buffers(self, *networks):
        """The first rank's buffers on all: without a shared batch norm each has counted its own statistics."""
        if self.count > 1:
            for network in networks:
                for buffer in network.buffers():
                    distributed.broadcast(buffer, 0)

    def share(self, samples):
        """How many of a batch of so many samples each rank gets: the same number, and two at least, from which batch norm can learn."""
        return max(math.ceil(samples / self.count), min(2, samples))

    def which_count(self, samples, device):
        """Of all ranks' shares of a batch of so many samples, one after another, the rows that count: (samples,) int64, or None for
        all. For `gather`; known without asking the others or the device."""
        share = self.share(samples)
        if self.count == 1 or share * self.count == samples:
            return None
        rows = [
            rank * share + number
            for rank in range(self.count)
            for number in range(len(range(rank, samples, self.count)))
        ]
        return torch.tensor(rows).to(device, non_blocking=True)

    def gather(self, part, which):
        """The rows `which` of all ranks' tensors (n, …). Gradients flow through this rank's alone."""
        if self.count == 1:
            return part
        parts = self._all(part.detach().contiguous())
        parts[self.rank] = part
        return torch.cat(parts) if which is None else torch.cat(parts).index_select(0, which)

    def _all(self, tensor):
        parts = [torch.empty_like(tensor) for _ in range(self.count)]
        distributed.all_gather(parts, tensor)
        return parts

    def gather_rows(self, rows, values):
        """All ranks' rows (n,), ascending, and their values (n, …): numpy arrays, the same on every rank."""
        if self.count == 1:
            return rows, values
        parts = [part for part in self.collect((rows, values)) if len(part[0])]  # of few samples some ranks get none
        rows, values = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = rows.argsort()
        return rows[order], values[order]

    def union(self, found):
        """All ranks' dicts as one, in the order of its keys, the same on every rank."""
        parts = [found]
        if self.count > 1:
            parts = [None] * self.count
            distributed.all_gather_object(parts, found)
        return dict(sorted(item for part in parts for item in part.items()))

    def agree(self, value):
        """The first rank's value, on all: for what a clock or rounding decides."""
        if self.count == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box)
        return box[0]

    def wait(self):
        """Go on when all are here."""
        if self.count > 1:
            distributed.barrier()

    def in_turn(self, function):
        """function(), first on one rank of each machine, then on the others, which find what it has left."""
        if self.local:
            self.wait()
        result = function()
        if not self.local:
            self.wait()
        return result

    def most(self, number, device):
        """The largest of all ranks' whole numbers, on all."""
        return number if self.count == 1 else int(self.largest(number, device))

    def largest(self, number, device):
        """The same as a 0-d float tensor on the device, which is not waited for; of several ranks only."""
        box = torch.full((), float(number), device=device)
        distributed.all_reduce(box, distributed.ReduceOp.MAX)
        return box

    def collect(self, value):
        """All ranks' values, in their order: a list."""
        if self.count == 1:
            return [value]
        parts = [None] * self.count
        distributed.all_gather_object(parts, value)
        return parts

    def check_alike(self, **values):
        """Raise InputError on every rank unless all have the same values."""
        parts = self.collect(values)
        if differing := [name for name in values if any(part[name] != values[name] for part in parts)]:
            raise InputError(
                f"the processes differ in {', '.join(differing)}; all machines need the same data, and --runs on a disk they share"
            )


ALONE = Ranks()


def join(spec):
    """The ranks torchrun has started, or `ALONE`, and this one's device: -> Ranks, torch.device. spec: as for `pick_device`.

    Raises InputError where there are more ranks on a machine than GPUs.
    """
    if not distributed.is_torchelastic_launched() or int(os.environ["WORLD_SIZE"]) == 1:
        return ALONE, pick_device(spec)
    if spec not in ("auto", "cuda", "cpu"):
        raise InputError(
            f"--device {spec} is one device, and torchrun starts several processes; give auto, cuda or cpu"
        )
    rank, count, local, here = (
        int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    )
    if rank:
        sys.stdout = open(os.devnull, "w", encoding="utf-8", errors="replace")  # noqa: SIM115
        sys.stderr = _NotATerminal(sys.stderr)  # one progress bar is enough
    on_gpu = spec != "cpu" and torch.cuda.is_available()
    if on_gpu and here > (gpus := torch.cuda.device_count()):
        raise InputError(
            f"torchrun has started {here} processes on a machine of {gpus} GPUs; give --nproc-per-node {gpus}, or --device cpu"
        )
    device = pick_device(f"cuda:{local}" if on_gpu else "cpu" if spec == "auto" else spec)
    on_gpu = {"device_id": device} if device.type == "cuda" else {}
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE, **on_gpu)
    return Ranks(rank, count, local, here), device


class _NotATerminal:
    def __init__(self, stream):
        self.stream = stream

    def isatty(self):
        return False

    def __getattr__(self, name):
        return getattr(self.stream, name)


class Shares(Sampler):
    """One rank's part of each batch: every `count`-th of its keys (epoch, row), as (epoch, row, samples of the whole batch).

    All ranks' parts are equally long (`Ranks.share`). Where a batch does not give that, some of its samples come again as
    (epoch, ~row, …): they are computed and do not count.
    """

    def __init__(self, batches, ranks):
        self.batches, self.ranks = batches, ranks

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        for keys in self.batches:
            own = keys[self.ranks.rank :: self.ranks.count]
            spare = itertools.islice(itertools.cycle(keys), self.ranks.share(len(keys)) - len(own))
            yield [(*key, len(keys)) for key in [*own, *((epoch, ~row) for epoch, row in spare)]]
