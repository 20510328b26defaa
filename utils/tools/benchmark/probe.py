"""A process of its own for what would otherwise count what others have left behind: memory, and the plain loop's speed.

python -m utils.tools.benchmark.probe '{"what": "step", …}'     # one line of JSON; what `ask` calls
"""

import argparse
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from utils.cli import run_script
from utils.data.loader import batches, make_loader
from utils.device import keep_freed_memory
from utils.engine.inference import prepare, view_probabilities
from utils.tools.benchmark.bench import MEAN, STD, Bench, Feed, draw_labels, repeated
from utils.tools.benchmark.plain import PlainDataset, plain_loader, plain_predict
from utils.tools.benchmark.resident import looking, most_memory
from utils.tools.benchmark.timing import median_within

SETTLED, PLAIN = "settled.pt", "plain.npy"  # in the benchmark's folder
GLIBC = (2**25, 2**26)  # the C library's thresholds once it has seen large blocks
ROOT = Path(__file__).parents[2]
ENOUGH = 3.0  # seconds after which a step has been timed enough
LONGEST = 15.0  # seconds of training whose memory is looked at


def ask(bench, what, **more):
    """What the function `what` finds in a new process; None where that was killed, for memory as a rule."""
    given = vars(bench.args) | {"what": what, "folder": str(bench.folder), "images": None} | more
    if what != "step":
        given["images"] = str(bench.images_folder)
    given["count"] = len(bench.files)
    command = [sys.executable, "-m", "utils.tools.benchmark.probe", json.dumps(given, default=str)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, errors="replace")
    if done.returncode < 0 or "OutOfMemoryError" in done.stderr:
        return None
    if done.returncode:
        raise RuntimeError(f"the probe of {what} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    args = argparse.Namespace(**json.loads(sys.argv[1]))
    print(json.dumps({"step": step, "training": training, "plain": plain}[args.what](Bench(args, Path(args.folder)))))


def step(bench):
    """ms an image of a training step and of a prediction, GB before the first step and at most in training."""
    size, count, device = bench.args.size, bench.args.batch, bench.device
    trainer, feed = bench.trainer(size, count), bench.noise(size, count, 4)
    start = most_memory(device)
    train = median_within(lambda: feed.step(trainer), bench.args.repeats, ENOUGH, device)
    peak = most_memory(device)
    batch = feed.batch
    with torch.inference_mode():
        network = prepare(trainer.network, trainer.normaliser(batch), bench.amp)

    @torch.inference_mode()
    def predict():
        view_probabilities(network, trainer.normaliser(batch), device, bench.amp, 1).cpu()

    see = median_within(predict, bench.args.repeats, ENOUGH, device)
    return {
        "training_ms": 1000 * train / count,
        "prediction_ms": 1000 * see / count,
        "start_gb": start,
        "peak_gb": peak,
    }


def training(bench):
    """Where the memory is while this process trains from packed data: a list of rows, MB of each process at its largest."""
    trainer = bench.trainer(bench.args.size, bench.batch_size)
    images = repeated(bench.packed(), max(len(bench.files), 8 * bench.batch_size))
    loader = make_loader(
        bench.samples(images, augmented=True), bench.batch_size, bench.workers, bench.device, shuffle=True
    )
    largest, start = {}, time.perf_counter()
    with looking(largest):
        feed = Feed(batches(loader), bench.device)
        for _ in range(len(loader) - 1):
            feed.step(trainer)
            if time.perf_counter() - start > LONGEST:
                break
    packed_mb = sum(Path(file.path).stat().st_size for file in images.maps) / 1e6
    return {
        "packed_mb": packed_mb,
        "batch": bench.batch_size,
        "rows": [{"process": name} | row for name, row in largest.items()],
    }


def plain(bench):
    """Seconds that a plain loop takes to predict, with the weights of `SETTLED`; its probabilities go to `PLAIN`."""
    keep_freed_memory(*GLIBC)
    network = bench.network(bench.args.size).to(memory_format=torch.contiguous_format)
    network.load_state_dict(torch.load(bench.folder / SETTLED, weights_only=True))
    count, said = bench.args.predicted, []
    files = repeated(bench.decoded(), count).files
    dataset = PlainDataset(files, draw_labels(count), bench.args.size, training=False)
    loader = plain_loader(dataset, bench.batch_size, bench.workers)

    def predict():
        said.append(plain_predict(network, loader, MEAN, STD, bench.device))

    seconds = median_within(predict, bench.args.repeats, math.inf, bench.device)
    np.save(bench.folder / PLAIN, said[-1])
    return {"seconds": seconds}


if __name__ == "__main__":
    run_script(main)
