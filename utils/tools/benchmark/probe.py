"""Measurements that need a new process, because the memory or settings of earlier measurements would change the result.

python -m utils.tools.benchmark.probe '{"what": "step", …}'     # prints one line of JSON; started by `run_probe`
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from utils.cli import run_script
from utils.data.loader import batches, make_loader
from utils.device import keep_freed_memory
from utils.engine.inference import prepare_network, tta_probabilities
from utils.tools.benchmark.measuring import median_seconds, peak_gb, resident_mb
from utils.tools.benchmark.workload import Feed, PlainDataset, Workload, draw_labels, plain_predict, repeated

WEIGHTS, PROBABILITIES = "weights.pt", "plain.npy"  # files of the plain loop, in the temporary folder
GLIBC_DEFAULTS = (2**25, 2**26)  # malloc's thresholds once it has freed large blocks
STEP_SECONDS = 3.0  # time limit of a step's timing
TRAINING_SECONDS = 15.0  # time limit of the training whose memory is measured
ROOT = Path(__file__).parents[3]


def run_probe(work, what, **more):
    """Run the probe `what` in a new process: -> its result, or None if it was killed, usually for its memory."""
    options = vars(work.args) | {"what": what, "folder": str(work.folder), "count": len(work.files)}
    options |= {"images": str(work.images_folder)} | more
    command = [sys.executable, "-m", "utils.tools.benchmark.probe", json.dumps(options, default=str)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, errors="replace")
    if done.returncode < 0 or "OutOfMemoryError" in done.stderr:
        return None
    if done.returncode:
        raise RuntimeError(f"the probe of {what} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    args = argparse.Namespace(**json.loads(sys.argv[1]))
    print(json.dumps(PROBES[args.what](Workload(args, Path(args.folder)))))


def step(work):
    """-> ms per image of a training step and of a prediction; GB before the first step, and the peak in training."""
    size, count, device = work.args.size, work.args.batch, work.device
    trainer, feed = work.trainer(size, count), work.noise(size, count, 4)
    start = peak_gb(device)
    training = median_seconds(lambda: feed.step(trainer), work.args.repeats, device, STEP_SECONDS)
    peak = peak_gb(device)
    with torch.inference_mode():
        network = prepare_network(trainer.network, trainer.normaliser(feed.batch), work.amp)

    @torch.inference_mode()
    def predict():
        tta_probabilities(network, trainer.normaliser(feed.batch), device, work.amp, 1).cpu()

    prediction = median_seconds(predict, work.args.repeats, device, STEP_SECONDS)
    milliseconds = {"training_ms": 1000 * training / count, "prediction_ms": 1000 * prediction / count}
    return milliseconds | {"start_gb": start, "peak_gb": peak}


def memory(work):
    """Train from packed data: -> a row of MB for this process and each DataLoader worker, each at its peak.

    Memory is read after each step, since the process keeps what a step frees (`keep_freed_memory`)."""
    trainer = work.trainer(work.args.size, work.batch_size)
    images = repeated(work.packed(), max(len(work.files), 8 * work.batch_size))
    loader = make_loader(work.samples(images, augmented=True), work.batch_size, work.workers, work.device, shuffle=True)
    largest, feed, start = {}, Feed(batches(loader), work.device), time.perf_counter()
    for _ in range(len(loader) - 1):
        feed.step(trainer)
        pids = [os.getpid(), *(process.pid for process in multiprocessing.active_children())]
        for number, pid in enumerate(pids):
            name, now = f"worker {number}" if number else "training", resident_mb(pid)
            if now and now["resident_mb"] > largest.get(name, {"resident_mb": 0})["resident_mb"]:
                largest[name] = now
        if time.perf_counter() - start > TRAINING_SECONDS:
            break
    return [{"process": name} | row for name, row in largest.items()]


def plain(work):
    """Predict with a plain loop and the weights in `WEIGHTS`, and write `PROBABILITIES`: -> seconds."""
    keep_freed_memory(*GLIBC_DEFAULTS)
    network = work.network(work.args.size).to(memory_format=torch.contiguous_format)
    network.load_state_dict(torch.load(work.folder / WEIGHTS, weights_only=True))
    files = repeated(work.decoded(), work.args.predicted).files
    dataset = PlainDataset(files, draw_labels(len(files)), work.args.size, training=False)
    workers = {"num_workers": work.workers, "persistent_workers": work.workers > 0}  # their start-up is not timed
    loader, results = DataLoader(dataset, work.batch_size, **workers), []

    def predict():
        results.append(plain_predict(network, loader, work.device))

    seconds = median_seconds(predict, work.args.repeats, work.device)
    np.save(work.folder / PROBABILITIES, results[-1])
    return seconds


PROBES = {"step": step, "memory": memory, "plain": plain}

if __name__ == "__main__":
    run_script(main)
