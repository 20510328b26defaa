"""How fast is it? Two ways to the same thing in one run, and their ratio.

    python -m utils.benchmark thresholds

the best threshold of each class, exactly, against the usual loop of
scikit-learn's f1_score over 1000 thresholds, on made-up predictions of the
competition's size
"""

import argparse
import time

import numpy as np
from sklearn.metrics import f1_score
from tqdm import tqdm

from utils.calibration import sigmoid
from utils.cutoffs import GRID
from utils.errors import InputError, check_least, plural, run_script
from utils.metrics import best_thresholds, f1_per_class

TIMED = 7  # runs of the fast way, of which the median counts


def parse_args():
    parser = argparse.ArgumentParser(
        prog="python -m utils.benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arg = parser.add_argument
    arg("what", choices=["thresholds"], help="what to measure")
    arg("--rows", type=int, default=31072, help="images (default: %(default)s)")
    arg("--classes", type=int, default=28, help="classes (default: %(default)s)")
    arg("--loop-classes", type=int, default=2, help="classes that the loop is timed on (default: %(default)s)")
    return parser.parse_args()


def main():
    args = parse_args()
    check_least(args, rows=2, classes=1, loop_classes=1)
    if args.rows * args.classes > 10**8:
        raise InputError(
            f"--rows {args.rows} x --classes {args.classes} are too many for memory; give at most 100,000,000 in all"
        )
    truth, probabilities = made_up(args.rows, args.classes)
    seconds = []
    for _ in range(TIMED):
        start = time.perf_counter()
        thresholds, _ = best_thresholds(truth, probabilities)
        seconds.append(time.perf_counter() - start)
    exact = float(np.median(seconds))

    looped = min(args.loop_classes, args.classes)
    start = time.perf_counter()
    best = [best_of_loop(truth[:, c], probabilities[:, c], c) for c in range(looped)]
    loop = (time.perf_counter() - start) * args.classes / looped
    gain = (f1_per_class(truth, probabilities >= thresholds)[:looped] - best).mean()
    print(f"best threshold of each class, {args.rows:,} rows x {args.classes} classes")
    spread = f"{1000 * min(seconds):.1f} to {1000 * max(seconds):.1f}"
    print(f"exact, by sorting               {1000 * exact:>10.2f} ms   median of {TIMED} ({spread})")
    print(f"f1_score at 1000 thresholds     {1000 * loop:>10,.0f} ms   timed on {plural(looped, 'class', 'classes')}")
    print(f"ratio                           {loop / exact:>10,.0f}      and F1 higher by {gain:.5f}")


def made_up(rows, classes):
    """Labels from common to rare and predictions that know something of them: (N, C) uint8, (N, C) float64."""
    rng = np.random.default_rng(0)
    truth = (rng.random((rows, classes)) < np.geomspace(0.4, 0.001, classes)).astype(np.uint8)
    truth[0] = 1
    return truth, sigmoid(rng.normal(-2, 1, truth.shape) + 2.5 * truth)


def best_of_loop(positive, values, number):
    steps = tqdm(GRID, desc=f"f1_score, class {number}", disable=None, leave=False)
    return max(f1_score(positive, values >= threshold, zero_division=0) for threshold in steps)


if __name__ == "__main__":
    run_script(main)
