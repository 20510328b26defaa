"""Timing that is fair to what is compared: the same minutes of one machine, turn and turn about."""

import contextlib
import time

import numpy as np
import torch
from tqdm import tqdm


def seconds_of(function, device):
    """Seconds that `function` takes, what it left the GPU to do included."""
    _wait(device)
    start = time.perf_counter()
    function()
    _wait(device)
    return time.perf_counter() - start


def _wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def take_turns(ways, repeats, device, what):
    """Median seconds of each of `ways`, {name: function}: -> {name: float}.

    Each is called once without a clock; then all of them `repeats` times, forwards and backwards in turn (ABBA), so that a
    machine that grows slower or is shared for a while is so for all.
    """
    taken = {name: [] for name in ways}
    with tqdm(total=len(ways) * (repeats + 1), desc=what, disable=None, leave=False) as bar:
        for function in ways.values():
            function()
            bar.update()
        for turn in range(repeats):
            for name in list(ways)[:: -1 if turn % 2 else 1]:
                taken[name].append(seconds_of(ways[name], device))
                bar.update()
    return {name: float(np.median(values)) for name, values in taken.items()}


def median_within(function, repeats, seconds, device):
    """Median seconds of a call: of `repeats` after one that does not count, fewer once they have taken `seconds` in all."""
    function()
    taken = []
    while len(taken) < repeats and (not taken or sum(taken) < seconds):
        taken.append(seconds_of(function, device))
    return float(np.median(taken))


@contextlib.contextmanager
def one_core():
    """Torch computes in the calling thread alone (OpenCV always does, see utils/__init__.py)."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
