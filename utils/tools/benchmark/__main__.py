"""How fast is it? Two ways to the same thing in one run, and their ratio.

    python -m utils.tools.benchmark                        # everything, ten minutes
    python -m utils.tools.benchmark loading prediction --images input/train
    python -m utils.tools.benchmark cost --model gapnet_pl -o cost.json
    python -m utils.tools.benchmark thresholds

loading     ms a sample: packed, from PNG, and of a plain Dataset
training    images a second of real training, and of the network alone on
            noise that lies in memory
prediction  with four views: as predict.py does it, and a plain float32 loop
cost        time and memory of a step by size and batch; loading by processes
memory      of the training process and those that load, from packed data
tables      make_folds.py and threshold.py on tables of the competition's size
thresholds  the best threshold of each class, exactly, and by the usual loop of
            scikit-learn's f1_score over 1000 thresholds

Without --images simulated fields are drawn for it. The network has random
weights. All that is written on the way lies in a temporary folder (TMPDIR),
gone at the end.
"""

import argparse
import contextlib
import signal
import sys
import tempfile
import time
from pathlib import Path

from utils import models
from utils.cli import check_least, run_script
from utils.data.images import scan_folder
from utils.data.labels import HPA_CLASSES
from utils.errors import InputError
from utils.files import check_outputs, write_json
from utils.plots.benchmark_figure import draw_benchmark
from utils.tools.benchmark import cost, loading, machine, memory, prediction, tables, thresholds, training
from utils.tools.benchmark.bench import RGBY, Bench

SUBJECTS = {
    "loading": loading, "training": training, "prediction": prediction, "cost": cost, "memory": memory, "tables": tables,
    "thresholds": thresholds,
}  # fmt: skip
WITH_IMAGES = {"loading", "training", "prediction", "cost", "memory"}


def parse_args():
    parser = argparse.ArgumentParser(
        prog="python -m utils.tools.benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arg = parser.add_argument
    arg("what", nargs="*", metavar="SUBJECT", help="what to measure (default: everything)")
    arg("--images", metavar="DIR", help="folder of real <Id>_<colour>.png files (default: simulated fields)")
    arg("--count", type=int, metavar="N", help="samples to draw, or most to take of --images (default: 64)")
    arg("--size", type=int, default=512, help="pixels of the network's square input (default: %(default)s)")
    arg("--model", default="se_resnext50_32x4d", help="as of train.py (default: %(default)s)")
    arg("--batch-size", type=int, help="images a step (default: 4 on a CPU, else 64)")
    arg("--predicted", type=int, default=12, metavar="N", help="images to predict (default: %(default)s)")
    arg(
        "--sizes",
        type=int,
        nargs="+",
        default=[128, 256, 512, 1024],
        metavar="N",
        help="of cost (default: 128 to 1024)",
    )
    arg("--batches", type=int, nargs="+", default=[1, 4, 16, 64], metavar="N", help="of cost (default: 1 4 16 64)")
    arg(
        "--tables", type=int, nargs="+", default=[31072, 105000], metavar="N", help="their rows (default: 31072 105000)"
    )
    arg("--rows", type=int, default=31072, help="images of thresholds (default: %(default)s)")
    arg("--classes", type=int, default=28, help="classes of thresholds (default: %(default)s)")
    arg("--loop-classes", type=int, default=2, help="classes that the loop is timed on (default: %(default)s)")
    arg("--repeats", type=int, default=3, help="runs of which the median counts (default: %(default)s)")
    arg("--workers", type=int, default=-1, help="loading processes (default: as of train.py)")
    arg("--device", default="auto", help="cuda, cuda:1, cpu, … (default: %(default)s)")
    arg("--plot", metavar="PNG", help="draw it")
    arg("-o", "--out", metavar="JSON", help="write every figure, and what it was measured on")
    return parser.parse_args()


def main():
    args = parse_args()
    wanted = check(args)
    started = time.time()
    with temporary_folder() as folder:
        bench = Bench(args, folder)
        found = {"machine": machine.describe(bench.device, bench.amp), "options": vars(args)}
        machine.report(found["machine"])
        if wanted & WITH_IMAGES:
            print(f"{len(bench.files)} samples {'of ' + args.images if args.images else 'simulated'}")
        for name in [name for name in SUBJECTS if name in wanted]:
            print(flush=True)
            found[name] = SUBJECTS[name].measure(bench)
            SUBJECTS[name].report(found[name])
    found["minutes"] = (time.time() - started) / 60
    print(f"\n{found['minutes']:.1f} minutes")
    if args.out:
        write_json(args.out, found)
        print(f"-> {args.out}")
    if args.plot:
        draw_benchmark(found, args.plot)
        print(f"-> {args.plot}")


@contextlib.contextmanager
def temporary_folder():
    """A Path that goes with the context, also where the process is told to end (SIGTERM)."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            yield Path(folder)
    finally:
        signal.signal(signal.SIGTERM, before)


def check(args):
    """Refuse what cannot be measured before anything is: -> the subjects that are wanted."""
    if unknown := [word for word in args.what if word not in SUBJECTS]:
        raise InputError(f"nothing to measure is called {unknown[0]!r}; there are {', '.join(SUBJECTS)}")
    wanted = set(args.what or SUBJECTS)
    check_least(args, count=1, batch_size=2, predicted=1, rows=2, classes=1, loop_classes=1, repeats=1, workers=-1)
    for name, least in (("sizes", 32), ("batches", 1), ("tables", 20)):
        if (smallest := min(getattr(args, name))) < least:
            raise InputError(f"--{name} {smallest} is out of range; give {least} or more")
    if not 32 <= args.size <= 2048:
        raise InputError(f"--size {args.size} is out of range; give 32 to 2048")
    if args.rows * args.classes > 10**8:
        raise InputError(
            f"--rows {args.rows} x --classes {args.classes} are too many for memory; give at most 100,000,000 in all"
        )
    check_outputs([args.out, args.plot])
    if args.images:
        if not scan_folder(args.images):
            raise InputError(f"{args.images} holds no <Id>_<colour>.png files; name another --images")
        args.images = str(Path(args.images).resolve())
    if wanted & WITH_IMAGES - {"loading"}:
        check_network(args, "cost" in wanted)
    return wanted


def check_network(args, at_cost):
    """Refuse what the network cannot take: its size, and a batch of one where so few pixels are left that batch norm fails."""
    for size in {args.size} | set(args.sizes if at_cost else ()):
        network = models.build(args.model, len(HPA_CLASSES), RGBY.planes, size)
        one = at_cost and size == min(args.sizes) and 1 in args.batches
        if one and not models.learns_from_one(network, RGBY.planes, size):
            raise InputError(
                f"{args.model} cannot be trained on one image of {size}²; leave 1 out of --batches or {size} out of --sizes"
            )


if __name__ == "__main__":
    run_script(main)
