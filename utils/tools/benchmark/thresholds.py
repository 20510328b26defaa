"""The best threshold of each class, exactly, against the usual loop of scikit-learn's f1_score over 1000 thresholds."""

import time

import numpy as np
from sklearn.metrics import f1_score
from tqdm import tqdm

from utils.errors import plural
from utils.scoring.calibration import sigmoid
from utils.scoring.metrics import best_thresholds, f1_per_class
from utils.scoring.thresholds.chen import GRID

TIMED = 7  # runs of the fast way, of which the median counts


def measure(bench):
    rows, classes = bench.args.rows, bench.args.classes
    truth, probabilities = made_up(rows, classes)
    seconds = []
    for _ in range(TIMED):
        start = time.perf_counter()
        thresholds, _ = best_thresholds(truth, probabilities)
        seconds.append(time.perf_counter() - start)
    exact = float(np.median(seconds))

    looped = min(bench.args.loop_classes, classes)
    start = time.perf_counter()
    best = [best_of_loop(truth[:, c], probabilities[:, c], c) for c in range(looped)]
    loop = (time.perf_counter() - start) * classes / looped
    gain = (f1_per_class(truth, probabilities >= thresholds)[:looped] - best).mean()
    return {
        "rows": rows, "classes": classes, "loop_classes": looped, "exact_ms": 1000 * exact, "fastest_ms": 1000 * min(seconds),
        "slowest_ms": 1000 * max(seconds), "loop_ms": 1000 * loop, "ratio": loop / exact, "gain": float(gain),
    }  # fmt: skip


def made_up(rows, classes):
    """Labels from common to rare and predictions that know something of them: (N, C) uint8, (N, C) float64."""
    rng = np.random.default_rng(0)
    truth = (rng.random((rows, classes)) < np.geomspace(0.4, 0.001, classes)).astype(np.uint8)
    truth[0] = 1
    return truth, probabilities_for(truth, rng)


def probabilities_for(truth, rng=None):
    """Predictions that know something of the labels: (N, C) of 0 and 1 -> (N, C) float64."""
    rng = np.random.default_rng(0) if rng is None else rng
    return sigmoid(rng.normal(-2, 1, truth.shape) + 2.5 * truth)


def best_of_loop(positive, values, number):
    steps = tqdm(GRID, desc=f"f1_score, class {number}", disable=None, leave=False)
    return max(f1_score(positive, values >= threshold, zero_division=0) for threshold in steps)


def report(found):
    spread = f"{found['fastest_ms']:.1f} to {found['slowest_ms']:.1f}"
    looped = plural(found["loop_classes"], "class", "classes")
    print(f"best threshold of each class, {found['rows']:,} rows x {found['classes']} classes")
    print(f"exact, by sorting               {found['exact_ms']:>10.2f} ms   median of {TIMED} ({spread})")
    print(f"f1_score at 1000 thresholds     {found['loop_ms']:>10,.0f} ms   timed on {looped}")
    print(f"ratio                           {found['ratio']:>10,.0f}      and F1 higher by {found['gain']:.5f}")
