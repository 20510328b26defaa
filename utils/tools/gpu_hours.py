"""Estimate the hours that training takes on a GPU, from the floating-point operations of the network."""

import functools
import math

import torch
from torch._subclasses.fake_tensor import FakeTensorMode  # private; without a public equivalent
from torch.utils.flop_counter import FlopCounterMode

from utils import models
from utils.data.images import parse_channels
from utils.engine.recipes import RECIPES

# Memory in GB and memory bandwidth in TB/s, from the vendor's data sheets.
CARDS = {"H200": (141, 4.8), "H100": (80, 3.35), "A100": (40, 1.56), "RTX 4090": (24, 1.01)}
CARDS |= {"V100": (16, 0.90), "P100": (16, 0.73), "T4": (16, 0.32)}
# SE-ResNeXt50 at 512² trains at 577 images a second on an H200, a pass backward costing twice the pass forward.
MEASURED = (RECIPES["chen"], 577, "H200")
STEP = 0.02  # seconds of a step that do not depend on its images
FULL_SIDE = 2048  # of images that recipes with --fit crop see whole in validation
ASSUMED = f"""assumed: all epochs of the recipe; SE-ResNeXt50's speed as measured on an H200,
other networks by their floating-point operations, other cards by the speed of
their memory, {1000 * STEP:.0f} ms a step besides. A slow disk or small batches can take three
times as long."""


def hours(options, trained, validated, classes, card):
    """Estimate the hours of all epochs of training and validation.

    options: train.py's, as in `RECIPES`. trained, validated: images of an epoch. card: of `CARDS`.
    """
    other, speed, on = MEASURED
    rate = 3 * operations(other, classes) * speed * CARDS[card][1] / CARDS[on][1]  # operations a second
    tiles = math.ceil(FULL_SIDE / options["size"]) ** 2 if options["fit"] == "crop" else 1
    work = operations(options, classes) * (3 * trained + tiles * validated)
    steps = math.ceil(trained / options["batch_size"])
    return options["epochs"] * (work / rate + STEP * steps) / 3600


def operations(options, classes):
    """Count the floating-point operations of one image's pass forward through a network, options as for `hours`."""
    planes = parse_channels(options["channels"]).planes
    return _operations(options["model"], classes, planes, options["size"], options.get("head", "own"))


@functools.cache
def _operations(model, classes, planes, size, head):
    with FakeTensorMode(), FlopCounterMode(display=False) as counter:
        network = models.build(model, classes, planes, size, head)
        network.eval()(torch.zeros(1, planes, size, size))
    return counter.get_total_flops()
