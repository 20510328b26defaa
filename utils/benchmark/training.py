"""Does loading hold up training? Steps on what the loader brings, and on noise that lies in memory already."""

import itertools
import math
import time
from textwrap import fill

import numpy as np
from tqdm import tqdm

from utils.benchmark.bench import repeated
from utils.data import batches, make_loader
from utils.errors import plural

BLOCK = 6.0  # seconds that a block of steps takes, roughly
BLOCKS_STEPS = (3, 50)  # steps of a block, at least and at most
NOISE = 8  # batches of noise that are taken again and again


def measure(bench):
    """Images a second of `Trainer.train_step`, in blocks of steps that take turns: pairs of (loaded, in memory).

    The loader runs through all blocks in one epoch, so that its start does not count; nor do the batches that it has ready
    when a block begins, made while others were trained on.
    """
    size, batch_size, pairs = bench.args.size, bench.batch_size, bench.args.repeats
    trainer = bench.trainer(size, batch_size)
    noise = itertools.cycle([bench.random_batch(size, batch_size, seed) for seed in range(NOISE)])
    trainer.train_step(next(noise))
    start = time.perf_counter()
    trainer.train_step(next(noise))
    steps = int(np.clip(round(BLOCK / (time.perf_counter() - start)), *BLOCKS_STEPS))
    ready = 2 * bench.workers  # two a process
    images = repeated(bench.packed(), (pairs * (ready + steps) + 1) * batch_size)
    loader = make_loader(bench.samples(images, augmented=True), batch_size, bench.workers, bench.device, shuffle=True)
    loader.order.epoch = trainer.epoch
    loaded = batches(loader)
    trainer.train_step(next(loaded))
    found = []
    with tqdm(total=2 * pairs, desc="training", disable=None, leave=False) as bar:
        for pair in range(pairs):
            both = [("loaded", loaded, ready), ("in_memory", noise, 1)]
            speeds = {}
            for name, source, passed in both[:: -1 if pair % 2 else 1]:
                speeds[name] = batch_size / _seconds_a_step(trainer, source, passed, steps)
                bar.update()
            found.append(speeds | {"ratio": speeds["loaded"] / speeds["in_memory"]})
    speeds = {name: float(np.median([pair[name] for pair in found])) for name in ("loaded", "in_memory")}
    ratios = [pair["ratio"] for pair in found]
    return {
        "model": bench.args.model, "size": size, "batch": batch_size, "workers": bench.workers, "steps": steps, **speeds,
        "ratio": float(np.median(ratios)), "lowest": min(ratios), "highest": max(ratios), "pairs": found,
    }  # fmt: skip


def _seconds_a_step(trainer, source, passed, steps):
    """Mean seconds of `steps` steps, after some that do not count. A step ends when its loss is known, on a GPU too."""
    for batch in itertools.islice(source, passed):
        trainer.train_step(batch)
    start = time.perf_counter()
    done = sum(math.isfinite(trainer.train_step(batch)["loss"]) for batch in itertools.islice(source, steps))
    return (time.perf_counter() - start) / done


def report(found):
    told = f"{found['size']}², batches of {found['batch']}, {found['workers']} loading; images a second"
    print(fill(f"training: {found['model']}, {told}", 79))
    blocks = f"medians of {plural(len(found['pairs']), 'block')} of {plural(found['steps'], 'step')}"
    print(f"{'packed, augmentation chen':32}{found['loaded']:>9.2f}   {blocks}")
    print(f"{'noise, in memory already':32}{found['in_memory']:>9.2f}")
    print(f"{'ratio, median of the pairs':32}{found['ratio']:>9.3f}   {found['lowest']:.3f} to {found['highest']:.3f}")
