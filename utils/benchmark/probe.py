"""A process of its own for each measurement of memory: what others have left behind would count.

python -m utils.benchmark.probe '{"what": "step", …}'     # one line of JSON; what `ask` calls
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch

from utils.benchmark.bench import Bench, repeated
from utils.benchmark.resident import looking, most_memory
from utils.benchmark.timing import median_within
from utils.data import batches, make_loader
from utils.errors import run_script
from utils.inference import view_probabilities

ROOT = Path(__file__).parents[2]
ENOUGH = 3.0  # seconds after which a step has been timed enough
LONGEST = 15.0  # seconds of training whose memory is looked at


def ask(bench, what, **more):
    """What the function `what` finds in a new process; None where that was killed, for memory as a rule."""
    given = vars(bench.args) | {"what": what, "folder": str(bench.folder), "images": None} | more
    if what == "training":
        given["images"] = str(bench.images_folder)
    given["count"] = len(bench.files)
    command = [sys.executable, "-m", "utils.benchmark.probe", json.dumps(given, default=str)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode < 0 or "OutOfMemoryError" in done.stderr:
        return None
    if done.returncode:
        raise RuntimeError(f"the probe of {what} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    args = argparse.Namespace(**json.loads(sys.argv[1]))
    print(json.dumps({"step": step, "training": training}[args.what](Bench(args, Path(args.folder)))))


def step(bench):
    """ms an image of a training step and of a prediction, GB before the first step and at most in training."""
    size, count, device = bench.args.size, bench.args.batch, bench.device
    trainer, batch = bench.trainer(size, count), bench.random_batch(size, count)
    start = most_memory(device)
    train = median_within(lambda: trainer.train_step(batch), bench.args.repeats, ENOUGH, device)
    peak = most_memory(device)
    trainer.network.eval()

    @torch.inference_mode()
    def predict():
        view_probabilities(trainer.network, trainer.normaliser(batch), device, bench.amp, 1).cpu()

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
        for batch in batches(loader):
            trainer.train_step(batch)
            if time.perf_counter() - start > LONGEST:
                break
    packed_mb = sum(Path(file.path).stat().st_size for file in images.maps) / 1e6
    return {
        "packed_mb": packed_mb,
        "batch": bench.batch_size,
        "rows": [{"process": name} | row for name, row in largest.items()],
    }


if __name__ == "__main__":
    run_script(main)
