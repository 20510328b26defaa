"""Where the time of a prediction goes: decoding, transfer to the device, network (Chen, Table III)."""

import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from utils.data.images import read_plane
from utils.data.loader import collate
from utils.device import describe_device
from utils.engine.inference import prepare_network, tta_probabilities
from utils.errors import InputError

SINGLES, BATCH = 16, 64  # images measured one by one, and the size of the large batch
PUBLISHED = (
    "published, one P100 and 16 vCPU: 1.16 (4x1728x1728 jpg),\n0.0769 (4x512x512 npy), 0.0128 (the same, batch 64)"
)


def measure_stages(samples, network, normaliser, device, amp, tta, tiles, chunk):
    """Print seconds per image of one network: for the files as they are at batch 1, and for .npy copies at batch 1 and 64.
    -> DataFrame images, batch, decode, transfer, network, all, device, a row each.

    The stages run one after another here, each waited for; in a real prediction decoding goes on beside the network. The copies,
    decoded and resized (or whole, for a network that sees tiles), lie in a temporary folder. Images are taken in order, and again
    from the first if there are fewer than needed. tiles: per image. chunk: tiles in one forward pass; a network that sees whole
    images gets the large batch at once.
    """
    machine, rows = describe_device(device, amp), []
    print(f"one network, {tta} TTA view{'s' * (tta > 1)} per image, on {machine}; seconds per image")
    print(f"{'images':18}{'batch':>6}{'decode':>10}{'transfer':>10}{'network':>10}{'all':>10}{'img/s':>9}")
    stages = _Stages(samples, network, normaliser, device, amp, tta, BATCH if tiles == 1 else max(1, chunk // tiles))
    first = samples.files[0][0]
    height, width = read_plane(first).shape
    name = f"{len(samples.files[0])}x{height}x{width} {first.suffix[1:]}"
    rows.append(_print_row(name, 1, stages.measure(samples.images.read, 1, SINGLES)))
    try:
        with tempfile.TemporaryDirectory(prefix="decoded-") as folder:
            paths = [Path(folder) / f"{row}.npy" for row in range(min(BATCH, len(samples)))]
            for row, path in enumerate(tqdm(paths, desc="decoding", unit="img", disable=None, leave=False)):
                np.save(path, samples.images.read(row))
            height, width, planes = np.load(paths[0]).shape
            for batch, count in ((1, SINGLES), (BATCH, BATCH)):
                seconds = stages.measure(lambda row: np.load(paths[row % len(paths)]), batch, count)
                rows.append(_print_row(f"{planes}x{height}x{width} npy", batch, seconds))
    except OSError as error:
        why = error.strerror or error
        raise InputError(
            f"cannot write copies to the temporary folder ({why}); set TMPDIR to a folder with room"
        ) from None
    print(PUBLISHED)
    columns = ["images", "batch", "decode", "transfer", "network", "all"]
    return pd.DataFrame(rows, columns=columns).assign(device=machine)


def _print_row(name, batch, seconds):
    total = sum(seconds)
    cells = "".join(f"{value:>10.4f}" for value in (*seconds, total))
    print(f"{name:18}{batch:>6}{cells}{1 / total:>9.1f}", flush=True)
    return name, batch, *seconds, total


class _Stages:
    def __init__(self, samples, network, normaliser, device, amp, tta, most):
        self.samples, self.given, self.normaliser, self.device = samples, network, normaliser, device
        self.network = None  # as it predicts, from the first images on, which do not count
        self.amp, self.tta, self.most = amp, tta, most

    def measure(self, decode, batch, count):
        """(decode, transfer, network) seconds per image over `count` images, after one batch that does not count."""
        sums, starts = np.zeros(3), [0, *range(0, count, batch)]
        for number, start in enumerate(tqdm(starts, desc=f"batch {batch}", disable=None, leave=False)):
            rows = [row % len(self.samples) for row in range(start, start + batch)]
            for part in range(0, batch, self.most):
                times = self._time(decode, rows[part : part + self.most])
                sums += times if number else 0
        return tuple(sums / count)

    @torch.inference_mode()
    def _time(self, decode, rows):
        clock = [time.perf_counter()]
        batch = collate([self.samples.prepare(decode(row), 0, row) for row in rows])
        clock.append(time.perf_counter())
        batch["images"] = batch["images"].to(self.device)
        self._wait(clock)
        images = self.normaliser(batch)
        self.network = self.network or prepare_network(self.given, images, self.amp)
        tta_probabilities(self.network, images, self.device, self.amp, self.tta).cpu()
        self._wait(clock)
        return np.diff(clock)

    def _wait(self, clock):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        clock.append(time.perf_counter())
