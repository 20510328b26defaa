"""The score of thresholds on rows that they were not fitted on."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

from utils.parallel import cores
from utils.scoring.metrics import f1_from_counts, f1_per_class, macro_f1
from utils.scoring.stratify import stratified_parts

PARTS = 5


def cross_fit(methods, truth, probabilities, epochs=None, repeats=4, seed=0, progress=False):
    """Fit thresholds by several methods and score them: -> {name: dict of `summaries`, `thresholds` (C,), and `held_out`,
    the cross-fitted decisions (N, C) of each split}.

    methods: {name: function (truth, probabilities, epochs) -> (C,)}. Cross-fitted: fitted on four fifths of the rows,
    applied to the rest, scored over all rows; the mean over `repeats` stratified splits, shared by all methods. The
    score stays optimistic, since the same rows chose the epoch.
    """
    splits = deal(truth, repeats, seed)
    jobs = [(method, part) for method in methods.values() for part in [None, *splits]]

    def run(job):
        method, part = job
        if part is None:
            return method(truth, probabilities, epochs)
        return held_out_decisions(method, truth, probabilities, epochs, part)

    with ThreadPoolExecutor(cores()) as pool:  # sorting and counting release the interpreter lock
        silent = None if progress else True  # None: no bar without a terminal
        bar = tqdm(pool.map(run, jobs), total=len(jobs), desc="fitting", unit="fit", disable=silent, leave=False)
        done = iter(list(bar))
    fitted = {name: (next(done), [next(done) for _ in splits]) for name in methods}
    decided = {name: (probabilities >= thresholds, held_out) for name, (thresholds, held_out) in fitted.items()}
    scored = summaries(truth, decided, seed)
    return {name: scored[name] | dict(zip(("thresholds", "held_out"), fitted[name], strict=True)) for name in fitted}


def deal(truth, repeats=4, seed=0):
    """-> `repeats` stratified splits of the rows into `PARTS` parts (at most one per row): list of (N,) int."""
    return [stratified_parts(truth, min(PARTS, len(truth)), seed + repeat) for repeat in range(repeats)]


def held_out(part):
    """Iterate over the held-out rows of each part: (N,) of `deal` -> (N,) bool each."""
    return (part == number for number in range(part.max() + 1))


def held_out_decisions(method, truth, probabilities, epochs=None, part=None):
    """Decide each row with thresholds fitted on the other parts: (N, C) bool. part: (N,), one split of `deal`."""
    part = deal(truth, 1)[0] if part is None else part
    decisions = np.zeros(truth.shape, bool)
    for held in held_out(part):
        seen = None if epochs is None else epochs[:, ~held]
        decisions[held] = probabilities[held] >= method(truth[~held], probabilities[~held], seen)
    return decisions


def summaries(truth, decided, seed=0):
    """Score several decisions: -> {name: dict of numbers and of lists with one number per class}.

    decided: {name: ((N, C) in-sample decisions, list of (N, C) cross-fitted decisions)}. Intervals are 95 % percentiles
    of `resampled_f1` (Efron 1979). They lie a little low for macro F1: a rare class missing from a resample scores 0.
    """
    resampled = resampled_f1(truth, [cross_fitted[0] for _, cross_fitted in decided.values()], seed)
    results = {}
    for (name, (in_sample, cross_fitted)), drawn in zip(decided.items(), resampled, strict=True):
        by_class = np.array([f1_per_class(truth, decisions) for decisions in cross_fitted])
        macro = by_class.mean(axis=1)
        results[name] = {
            "in_sample": macro_f1(truth, in_sample),
            "cross_fitted": float(macro.mean()),
            "cross_fitted_spread": float(macro.std(ddof=min(1, len(macro) - 1))),
            "interval_95": np.percentile(drawn.mean(axis=1), [2.5, 97.5]).tolist(),
            "per_class": f1_per_class(truth, in_sample).tolist(),
            "per_class_cross_fitted": by_class.mean(axis=0).tolist(),
            "per_class_interval_95": np.percentile(drawn, [2.5, 97.5], axis=0).T.tolist(),
        }
    return results


def print_summaries(results, chosen, title="", width=16):
    """Print the macro F1 of each row, with a star at `chosen`. results: list of (name, dict of `summaries`)."""
    print(f"{title:{width}}{'in sample':>10}{'cross-fitted':>14}{'spread':>9}{'95 % interval':>18}")
    for name, found in results:
        low, high = found["interval_95"]
        star = "*" if name == chosen else " "
        scores = f"{found['in_sample']:>10.4f}{found['cross_fitted']:>14.4f}{found['cross_fitted_spread']:>9.4f}"
        print(f"{name:{width - 1}}{star}{scores}{low:>11.4f}–{high:.4f}")


def paired_gain(truth, new, old, seed=0):
    """Compare two lists of cross-fitted decisions (N, C): -> gain of `new` over `old` in macro F1, its standard error.

    The error is that of the paired difference on the first split, by bootstrap over rows.
    """
    gain = np.mean([macro_f1(truth, one) for one in new]) - np.mean([macro_f1(truth, one) for one in old])
    one, other = resampled_f1(truth, [new[0], old[0]], seed)
    return float(gain), float((one - other).mean(axis=1).std())


def describe_gain(gain, error):
    """Return ``+0.0921 ± 0.0076``; a gain below two standard errors is said to be no more than noise."""
    noise = "" if gain > 2 * error else ", which cannot be told from noise"
    return f"{gain:+.4f} ± {error:.4f}{noise}"


def resampled_f1(truth, decided, seed=0, draws=1000):
    """Bootstrap the F1 of each class: list of (N, C) bool -> list of (draws, C) float64, from the same resamples."""
    rng, rows, classes = np.random.default_rng(seed), len(truth), truth.shape[1]
    positive = np.asarray(truth, np.float32)
    columns = [positive, *(part for decisions in decided for part in (decisions * positive, decisions))]
    counted = np.concatenate(columns, axis=1, dtype=np.float32)
    scores = [[] for _ in decided]
    for start in range(0, draws, 50):
        block = min(50, draws - start)
        drawn = rng.integers(rows, size=(block, rows)) + rows * np.arange(block)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=block * rows).reshape(block, rows).astype(np.float32)
        sums = (counts @ counted).reshape(block, -1, classes).astype(np.float64)
        for place, found in enumerate(scores):
            found.append(f1_from_counts(sums[:, 1 + 2 * place], sums[:, 0], sums[:, 2 + 2 * place]))
    return [np.concatenate(found) for found in scores]
