"""Estimate GPU memory and hours of training, on any machine, on fake tensors.

    python -m utils.tools.gpu_memory               # every recipe as it is
    python -m utils.tools.gpu_memory chen --batch-size 16
    python -m utils.tools.gpu_memory chen --accumulate 4 --checkpointing
    python -m utils.tools.gpu_memory best --images 27965     # hours too

The estimate is the peak of weights, optimiser, activations and gradients, in
float32 and in 16 bits (--amp). CUDA and cuDNN need about 1 GB more.
"""

import warnings
import weakref

import numpy as np
import torch

# Private, without public equivalents: tensors without memory, a hook on every operation, tensors of nested results.
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from utils import models
from utils.cli import check_least, option_parser, run_script
from utils.data.dataset import Samples
from utils.data.images import LEAST_SIDE, MOST_SIDE, parse_channels
from utils.data.labels import CYTO_CLASSES, HPA_CLASSES
from utils.engine import activation_checkpointing, losses
from utils.engine.recipes import RECIPES
from utils.engine.trainer import Trainer
from utils.errors import InputError
from utils.runs.config import HEADS, RunConfig
from utils.tools.gpu_hours import ASSUMED, CARDS, hours

ARITHMETIC = (None, torch.bfloat16)  # float16 needs as much as bfloat16


def estimate(options, classes, amp):
    """Estimate a training step's peak bytes. options: train.py's, as in `RECIPES`. amp: None or a 16-bit type."""
    channels, size, batch = parse_channels(options["channels"]), options["size"], options["batch_size"]
    moments = [0.1] * channels.planes
    without = options | {"ema": 0.0}  # a network cannot be copied here
    config = RunConfig(**without, class_names=[str(number) for number in range(classes)], mean=moments, std=moments)
    labelled = Samples([], channels, size, "resize", "none", np.ones((max(batch, 2), classes), np.uint8))
    schedule = losses.parse_schedule(options["loss"])
    with FakeTensorMode(), Peak() as peak:
        network = models.build(options["model"], classes, channels.planes, size, config.head)
        if options.get("checkpointing"):
            activation_checkpointing.checkpoint_blocks(network)
        average = [torch.empty_like(value) for value in network.state_dict().values()] if options.get("ema") else []
        trainer = Trainer(network, labelled, config, schedule, torch.device("cpu"), amp, steps_per_epoch=1)
        trainer.begin_epoch()
        # All loss terms together need at least as much memory as the largest stage.
        trainer.loss.terms = {term: 1.0 for stage in schedule for term in stage.value}
        for _ in range(2):  # the second step includes the optimiser's state
            trainer.optimiser.zero_grad(set_to_none=True)
            images = torch.zeros(batch, channels.planes, size, size, dtype=amp or torch.float32)
            trainer.backward(images, torch.zeros(batch, classes), np.ones(batch, bool), batch)
            trainer.optimiser.step()
        del average  # alive until here
    return peak.bytes


class Peak(TorchDispatchMode):
    """Context that counts the bytes of live tensors created in it; `bytes` is the peak."""

    def __init__(self):
        super().__init__()
        self.alive, self.now, self.bytes = weakref.WeakSet(), 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and (storage := tensor.untyped_storage()) not in self.alive:
                self.alive.add(storage)
                self.count(storage.nbytes())
                weakref.finalize(storage, self.count, -storage.nbytes())
        return result

    def count(self, added):
        self.now += added
        self.bytes = max(self.bytes, self.now)


def main():
    parser = option_parser(__doc__, "utils.tools.gpu_memory")
    arg = parser.add_argument
    arg("recipes", nargs="*", metavar="RECIPE", help=f"{', '.join(RECIPES)} (default: all)")
    arg("--model", help="another network")
    arg("--head", choices=HEADS, help="another head, as in train.py")
    arg("--size", type=int, help="pixels of the network's square input")
    arg("--batch-size", type=int, help="images per step")
    arg("--accumulate", type=int, default=1, metavar="N", help="micro-batches of a batch, one in memory at a time")
    arg("--checkpointing", action="store_true", help="recompute activations in the backward pass")
    arg("--images", type=int, metavar="N", help="that an epoch trains on: print hours by card, too")
    args = parser.parse_args()
    if unknown := [name for name in args.recipes if name not in RECIPES]:
        raise InputError(f"unknown recipe {unknown[0]!r}; choose from {', '.join(RECIPES)}")
    check_least(args, size=(LEAST_SIDE, MOST_SIDE), batch_size=1, accumulate=1, images=1)
    given = {
        name: value for name, value in vars(args).items() if name not in ("recipes", "images") and value is not None
    }
    cards = CARDS if args.images else {}
    heads = "".join(f"{card:>10}" for card in cards)
    print(f"{'recipe':20}{'batch':>6}{'size':>6}{'float32':>12}{'16 bits':>12}{heads}")
    for name in args.recipes or RECIPES:
        options = RECIPES[name] | given
        classes = CYTO_CLASSES if options["channels"] == "bgry" else HPA_CLASSES
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            estimates = [estimate(options, len(classes), amp) / 1e9 for amp in ARITHMETIC]
        cells = "".join(f"{gigabytes:>9.1f} GB" for gigabytes in estimates)
        cells += "".join(
            f"{hours(options, args.images, args.images // 9, len(classes), card):>8.1f} h" for card in cards
        )
        print(f"{name:20}{options['batch_size']:>6}{options['size']:>6}{cells}", flush=True)
    if cards:
        print(f"hours of one fold; a ninth as many images validate.\n{ASSUMED}")


if __name__ == "__main__":
    run_script(main)
