"""Does loading hold up training? Steps on what the loader brings, and on noise that lies in memory already."""

import time
from textwrap import fill

import numpy as np
from tqdm import tqdm

from utils.data.loader import AHEAD, begin_epoch, make_loader
from utils.errors import plural
from utils.tools.benchmark.bench import Feed, repeated

BLOCK = 6.0  # seconds that a block of steps takes, roughly
BLOCKS_STEPS = (3, 50)  # steps of a block, at least and at most


def measure(bench):
    """Images a second of `Trainer.train_step`, in blocks of steps that take turns: pairs of (loaded, in memory).

    The loader runs through all blocks in one epoch, so that its start does not count; nor do the batches that it has ready
    when a block begins, made while others were trained on.
    """
    size, batch_size, pairs = bench.args.size, bench.batch_size, bench.args.repeats
    trainer, noise = bench.trainer(size, batch_size), bench.noise(size, batch_size)
    noise.step(trainer)
    start = time.perf_counter()
    noise.step(trainer)
    steps = int(np.clip(round(BLOCK / (time.perf_counter() - start)), *BLOCKS_STEPS))
    ready = AHEAD * bench.workers
    images = repeated(bench.packed(), (pairs * (ready + steps) + 2) * batch_size)
    loader = make_loader(bench.samples(images, augmented=True), batch_size, bench.workers, bench.device, shuffle=True)
    loaded = Feed(begin_epoch(loader, trainer.epoch), bench.device)
    loaded.step(trainer)
    found = []
    with tqdm(total=2 * pairs, desc="training", disable=None, leave=False) as bar:
        for pair in range(pairs):
            both = [("loaded", loaded, ready), ("in_memory", noise, 1)]
            speeds = {}
            for name, feed, passed in both[:: -1 if pair % 2 else 1]:
                speeds[name] = batch_size / _seconds_a_step(trainer, feed, passed, steps)
                bar.update()
            found.append(speeds | {"ratio": speeds["loaded"] / speeds["in_memory"]})
    speeds = {name: float(np.median([pair[name] for pair in found])) for name in ("loaded", "in_memory")}
    ratios = [pair["ratio"] for pair in found]
    return {
        "model": bench.args.model, "size": size, "batch": batch_size, "workers": bench.workers, "steps": steps, **speeds,
        "ratio": float(np.median(ratios)), "lowest": min(ratios), "highest": max(ratios), "pairs": found,
    }  # fmt: skip


def _seconds_a_step(trainer, feed, passed, steps):
    """Mean seconds of `steps` steps, after some that do not count."""
    for _ in range(passed):
        feed.step(trainer)
    start = time.perf_counter()
    for _ in range(steps):
        feed.step(trainer)
    return (time.perf_counter() - start) / steps


def report(found):
    told = f"{found['size']}², batches of {found['batch']}, {found['workers']} loading; images a second"
    print(fill(f"training: {found['model']}, {told}", 79))
    blocks = f"medians of {plural(len(found['pairs']), 'block')} of {plural(found['steps'], 'step')}"
    print(f"{'packed, augmentation chen':32}{found['loaded']:>9.2f}   {blocks}")
    print(f"{'noise, in memory already':32}{found['in_memory']:>9.2f}")
    print(f"{'ratio, median of the pairs':32}{found['ratio']:>9.3f}   {found['lowest']:.3f} to {found['highest']:.3f}")
