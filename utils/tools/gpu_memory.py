"""How much memory does training take on a GPU? Estimated on any machine, by a step
in which nothing is computed.

    python -m utils.tools.gpu_memory                  # every recipe as published
    python -m utils.tools.gpu_memory chen --batch-size 16
    python -m utils.tools.gpu_memory chen --accumulate 4 --checkpointing

Weights, optimiser, activations and gradients at the moment they take most, in
float32 and in 16 bits (--amp). About 1 GB comes on top: CUDA itself, and what
cuDNN needs to compute in.
"""

import argparse
import warnings

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from utils import models
from utils.cli import check_least, run_script
from utils.data.dataset import Samples
from utils.data.images import LEAST_SIDE, MOST_SIDE, parse_channels
from utils.data.labels import CYTO_CLASSES, HPA_CLASSES
from utils.engine import activation_checkpointing, losses
from utils.engine.recipes import RECIPES
from utils.engine.trainer import Trainer
from utils.errors import InputError

ARITHMETIC = (None, torch.bfloat16)  # of which a GPU's float16 takes as much


def estimate(options, classes, amp):
    """Bytes that a training step takes at most. options: of train.py, a dict as in `RECIPES`. amp: None or a 16-bit type."""
    channels, size, batch = parse_channels(options["channels"]), options["size"], options["batch_size"]
    config = options | {"seed": 0, "mean": [0.1] * channels.planes, "std": [0.1] * channels.planes}
    labelled = Samples([], channels, size, "resize", "none", np.ones((max(batch, 2), classes), np.uint8))
    cpu = torch.device("cpu")
    with FakeTensorMode(), Peak() as peak:
        network = models.build(options["model"], classes, channels.planes, size, options["stem"])
        if options.get("checkpointing"):
            activation_checkpointing.checkpoint_blocks(network)
        schedule = losses.parse_schedule(options["loss"])
        trainer = Trainer(network, labelled, config, schedule, cpu, amp, steps_an_epoch=1)
        trainer.begin_epoch()
        trainer.terms = {term: 1.0 for _, terms in schedule for term in terms}  # the stage that needs most has them all
        for _ in range(2):  # from the second on the optimiser has its state
            trainer.optimiser.zero_grad(set_to_none=True)
            images = torch.zeros(batch, channels.planes, size, size, dtype=amp or torch.float32)
            targets = torch.zeros(batch, classes)
            trainer.backward(images, targets, np.ones(batch, bool), batch)
            trainer.optimiser.step()
    return peak.bytes


class Peak(TorchDispatchMode):
    """Counts the bytes of all tensors made inside that are alive at the same time: `bytes` is the largest sum."""

    def __init__(self):
        super().__init__()
        self.kept, self.bytes = {}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.kept[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        if self.sum() > self.bytes:  # some of it may be gone
            self.kept = {key: kept for key, kept in self.kept.items() if not kept[0].expired()}
            self.bytes = max(self.bytes, self.sum())
        return result

    def sum(self):
        return sum(bytes_ for _, bytes_ in self.kept.values())


def main():
    parser = argparse.ArgumentParser(
        prog="python -m utils.tools.gpu_memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arg = parser.add_argument
    arg("recipes", nargs="*", metavar="RECIPE", help=f"of {', '.join(RECIPES)} (default: all)")
    arg("--model", help="another network")
    arg("--size", type=int, help="pixels of the square the network sees")
    arg("--batch-size", type=int, help="images a step")
    arg("--accumulate", type=int, default=1, metavar="N", help="parts of a batch, one in memory at a time")
    arg("--checkpointing", action="store_true", help="compute activations twice")
    args = parser.parse_args()
    if unknown := [name for name in args.recipes if name not in RECIPES]:
        raise InputError(f"no recipe is called {unknown[0]!r}; there are {', '.join(RECIPES)}")
    check_least(args, size=(LEAST_SIDE, MOST_SIDE), batch_size=1, accumulate=1)
    given = {name: value for name, value in vars(args).items() if name != "recipes" and value is not None}
    print(f"{'recipe':20}{'batch':>6}{'size':>6}{'float32':>12}{'16 bits':>12}")
    for name in args.recipes or RECIPES:
        options = RECIPES[name] | given
        classes = HPA_CLASSES if options["channels"] != "bgry" else CYTO_CLASSES
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = [estimate(options, len(classes), amp) / 1e9 for amp in ARITHMETIC]
        cells = "".join(f"{gigabytes:>9.1f} GB" for gigabytes in found)
        print(f"{name:20}{options['batch_size']:>6}{options['size']:>6}{cells}", flush=True)


if __name__ == "__main__":
    run_script(main)
