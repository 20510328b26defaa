"""Where the time of a prediction goes: decoding, transfer to the device, network (Chen, Table III)."""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from utils.data import collate
from utils.device import describe
from utils.images import read_plane
from utils.inference import view_probabilities

SINGLES, BATCH = 16, 64  # images measured one by one, and the size of the large batch
PUBLISHED = (
    "published, one P100 and 16 vCPU: 1.16 (4x1728x1728 jpg), 0.0769 (4x512x512 npy), 0.0128 (the same, batch 64)"
)


def benchmark(samples, network, normaliser, device, amp, tta, chunk, folder):
    """Print seconds an image of one network for the files as they are at batch 1, and packed as .npy at batch 1 and 64.

    The stages run one after another here, each waited for; in a real prediction decoding goes on beside the network. The
    packed copies lie in a temporary folder in `folder`, decoded and resized, and are removed afterwards. Images are taken
    in order and again from the first where there are fewer than needed.
    """
    print(f"one network, {tta} view{'s' * (tta > 1)} an image, on {describe(device, amp)}; seconds an image")
    print(f"{'images':32}{'batch':>6}{'decode':>10}{'transfer':>10}{'network':>10}{'all':>10}{'img/s':>9}")
    run = _Stages(samples, network, normaliser, device, amp, tta, chunk)
    first = samples.files[0][0]
    height, width = read_plane(first).shape
    report(f"{len(samples.files[0])}x{height}x{width} {first.suffix[1:]}", 1, run.measure(samples.decode, 1, SINGLES))
    with tempfile.TemporaryDirectory(prefix=".packed-", dir=folder) as place:
        paths = [Path(place) / f"{row}.npy" for row in range(min(BATCH, len(samples)))]
        for row, path in enumerate(tqdm(paths, desc="packing", unit="img", disable=None, leave=False)):
            np.save(path, samples.decode(row))
        shape = np.load(paths[0]).shape
        for batch, count in ((1, SINGLES), (BATCH, BATCH)):
            seconds = run.measure(lambda row: np.load(paths[row % len(paths)]), batch, count)
            report(f"{shape[2]}x{shape[0]}x{shape[1]} npy", batch, seconds)
    print(PUBLISHED)


def report(name, batch, seconds):
    total = sum(seconds)
    print(
        f"{name:32}{batch:>6}" + "".join(f"{value:>10.4f}" for value in (*seconds, total)) + f"{1 / total:>9.1f}",
        flush=True,
    )


class _Stages:
    def __init__(self, samples, network, normaliser, device, amp, tta, chunk):
        self.samples, self.network, self.normaliser, self.device = samples, network, normaliser, device
        self.amp, self.tta, self.chunk = amp, tta, chunk

    def measure(self, decode, batch, count):
        """(decode, transfer, network) seconds an image over `count` images, after one batch that does not count."""
        sums, starts = np.zeros(3), [0, *range(0, count, batch)]
        for number, start in enumerate(tqdm(starts, desc=f"batch {batch}", disable=None, leave=False)):
            times = self.once(decode, [row % len(self.samples) for row in range(start, start + batch)])
            sums += times if number else 0
        return tuple(sums / count)

    @torch.inference_mode()
    def once(self, decode, rows):
        clock = [time.perf_counter()]
        batch = collate([self.samples.prepare(decode(row), 0, row) for row in rows])
        clock.append(time.perf_counter())
        batch["images"] = batch["images"].to(self.device)
        self.wait(clock)
        for part in self.normaliser(batch).split(max(self.chunk, len(rows))):
            view_probabilities(self.network, part, self.device, self.amp, self.tta).cpu()
        self.wait(clock)
        return np.diff(clock)

    def wait(self, clock):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        clock.append(time.perf_counter())
