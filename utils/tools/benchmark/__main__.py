"""Measure how fast the kit is. Most subjects time two ways to do the same and
print the ratio.

    python -m utils.tools.benchmark      # everything, about ten minutes
    python -m utils.tools.benchmark loading prediction --images input/train
    python -m utils.tools.benchmark cost --model gapnet_pl -o cost.json
    python -m utils.tools.benchmark thresholds

loading     ms per sample: packed data, PNG files, and a plain Dataset
training    images per second: real training, and training on noise in memory
prediction  four TTA views: predict.py, and a plain float32 loop
cost        time and memory of a step by image size and batch size; loading
            speed by number of DataLoader workers
memory      the training process and its DataLoader workers, on packed data
tables      make_folds.py and threshold.py on tables of the competition's size
thresholds  the best threshold of each class: an exact search, and the usual
            loop of scikit-learn's f1_score over 1000 thresholds

Without --images, the images are simulated. The network has random weights.
Temporary files go to TMPDIR and are removed at the end.
"""

import signal
import sys
import tempfile
import time
from pathlib import Path

from utils import models
from utils.cli import check_least, option_parser, run_script
from utils.data.image_files import scan_folder
from utils.data.labels import HPA_CLASSES
from utils.errors import InputError
from utils.files import check_outputs, write_json
from utils.plots.benchmark_figure import draw_benchmark
from utils.runs.config import HEADS
from utils.tools.benchmark.measuring import describe_machine, print_machine
from utils.tools.benchmark.subjects import NEED_NO_IMAGES, SUBJECTS
from utils.tools.benchmark.workload import RGBY, Workload


def parse_args():
    parser = option_parser(__doc__, "utils.tools.benchmark")
    arg = parser.add_argument
    arg("what", nargs="*", metavar="SUBJECT", help="what to measure (default: everything)")
    arg("--images", metavar="DIR", help="folder of real <Id>_<colour>.png files (default: simulated fields)")
    arg("--count", type=int, metavar="N", help="samples to simulate, or at most to use from --images (default: 64)")
    arg("--size", type=int, default=512, help="side of the network's input in pixels (default: %(default)s)")
    arg("--model", default="se_resnext50_32x4d", help="network, as in train.py (default: %(default)s)")
    arg("--head", choices=HEADS, default="own", help="its head, as in train.py (default: %(default)s)")
    arg("--batch-size", type=int, help="images per step (default: 4 on a CPU, else 64)")
    arg("--predicted", type=int, default=12, metavar="N", help="images to predict (default: %(default)s)")
    many = {"type": int, "nargs": "+", "metavar": "N"}
    arg("--sizes", **many, default=[128, 256, 512, 1024], help="image sizes for cost (default: 128 256 512 1024)")
    arg("--batches", **many, default=[1, 4, 16, 64], help="batch sizes for cost (default: 1 4 16 64)")
    arg("--tables", **many, default=[31072, 105000], help="table lengths in rows for tables (default: 31072 105000)")
    arg("--rows", type=int, default=31072, help="images for thresholds (default: %(default)s)")
    arg("--classes", type=int, default=28, help="classes for thresholds (default: %(default)s)")
    arg("--loop-classes", type=int, default=2, help="classes on which the loop is timed (default: %(default)s)")
    arg("--repeats", type=int, default=3, help="timed runs; their median is reported (default: %(default)s)")
    arg("--workers", type=int, default=-1, help="DataLoader workers (default: as in train.py)")
    arg("--device", default="auto", help="cuda, cuda:1, cpu, … (default: %(default)s)")
    arg("--plot", metavar="PNG", help="draw the results as a figure")
    arg("-o", "--out", metavar="JSON", help="write all numbers and a description of the machine")
    return parser.parse_args()


def main():
    args = parse_args()
    wanted = check_args(args)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # removes the temporary folder too
    started = time.time()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        work = Workload(args, Path(folder))
        found = {"machine": describe_machine(work.device, work.amp), "options": vars(args)}
        print_machine(found["machine"])
        if set(wanted) - NEED_NO_IMAGES:
            print(f"{len(work.files)} samples {'of ' + args.images if args.images else 'simulated'}")
        for name in wanted:
            measure, print_results = SUBJECTS[name]
            print(flush=True)
            found[name] = measure(work)
            print_results(found[name])
    found["minutes"] = (time.time() - started) / 60
    print(f"\n{found['minutes']:.1f} minutes")
    if args.out:
        write_json(args.out, found)
        print(f"-> {args.out}")
    if args.plot:
        draw_benchmark(found, args.plot)
        print(f"-> {args.plot}")


def check_args(args):
    """Raise InputError for bad options; -> the names of the wanted subjects, in the order of SUBJECTS."""
    if unknown := [word for word in args.what if word not in SUBJECTS]:
        raise InputError(f"unknown subject {unknown[0]!r}; the subjects are {', '.join(SUBJECTS)}")
    wanted = [name for name in SUBJECTS if name in args.what or not args.what]
    check_least(args, count=1, size=(32, 2048), batch_size=2, predicted=1, rows=2, classes=1, loop_classes=1)
    check_least(args, repeats=1, workers=-1)
    for name, least in (("sizes", 32), ("batches", 1), ("tables", 20)):
        if (smallest := min(getattr(args, name))) < least:
            raise InputError(f"--{name} {smallest} is out of range; give {least} or more")
    if args.rows * args.classes > 10**8:
        raise InputError(f"--rows {args.rows} x --classes {args.classes} is out of range; give at most 100,000,000")
    check_outputs([args.out, args.plot])
    if args.images:
        if not scan_folder(args.images):
            raise InputError(f"{args.images} has no <Id>_<colour>.png files; name another --images")
        args.images = str(Path(args.images).resolve())
    if {"training", "prediction", "cost", "memory"} & set(wanted):
        check_network(args, "cost" in wanted)
    return wanted


def check_network(args, with_cost):
    """Raise InputError if the network does not accept an image size, or if batch norm cannot train on a batch of 1."""
    for size in {args.size} | set(args.sizes if with_cost else ()):
        network = models.build(args.model, len(HPA_CLASSES), RGBY.planes, size, args.head)
        single = with_cost and size == min(args.sizes) and 1 in args.batches
        if single and not models.learns_from_one(network, RGBY.planes, size):
            fix = f"leave 1 out of --batches or {size} out of --sizes"
            raise InputError(f"{args.model} cannot be trained on one image of {size}²; {fix}")


if __name__ == "__main__":
    run_script(main)
