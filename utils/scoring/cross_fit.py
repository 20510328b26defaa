"""What thresholds are worth on rows they were not fitted on."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

from utils.parallel import cores
from utils.scoring.metrics import f1_from_counts, f1_per_class, macro_f1
from utils.scoring.stratify import stratified_parts

PARTS = 5


def cross_fit(method, truth, probabilities, epochs=None, repeats=4, seed=0):
    """`cross_fit_all` of one method."""
    return cross_fit_all({"": method}, truth, probabilities, epochs, repeats, seed)[""]


def cross_fit_all(methods, truth, probabilities, epochs=None, repeats=4, seed=0, progress=False):
    """Thresholds fitted on all rows, and what they are worth in sample and cross-fitted: {name: dict}, as `summaries` has
    it and `thresholds` (C,).

    methods: {name: one of `cutoffs.METHODS`}. Two rows or more. Cross-fitted: fitted on four fifths of the rows, applied to
    the rest, scored once over all rows; that the epoch was chosen by these rows stays in it. All methods are fitted on the
    same `repeats` stratified ways to deal out the fifths.
    """
    parts = deal(truth, repeats, seed)
    work = [(name, part) for name in methods for part in [None, *parts]]

    def one(job):
        name, part = job
        if part is None:
            return methods[name](truth, probabilities, epochs)
        return held_out_decisions(methods[name], truth, probabilities, epochs, part)

    with ThreadPoolExecutor(cores()) as pool:  # sorting and counting leave the interpreter lock
        done = pool.map(one, work)
        done = list(
            tqdm(done, total=len(work), desc="fitting", unit="fit", disable=None if progress else True, leave=False)
        )
    each = repeats + 1
    fitted = {name: done[number * each : (number + 1) * each] for number, name in enumerate(methods)}
    decided = {name: (probabilities >= thresholds, apart) for name, (thresholds, *apart) in fitted.items()}
    results = summaries(truth, decided, seed)
    return {name: result | {"thresholds": fitted[name][0]} for name, result in results.items()}


def deal(truth, repeats=4, seed=0):
    """`repeats` stratified ways to deal rows out to `PARTS` parts (fewer where there are fewer rows): list of (N,) int."""
    return [stratified_parts(truth, min(PARTS, len(truth)), seed + repeat) for repeat in range(repeats)]


def held_out(part):
    """Which rows are held out, one part after the other: (N,) of `deal` -> (N,) bool each."""
    return (part == number for number in range(part.max() + 1))


def held_out_decisions(method, truth, probabilities, epochs=None, part=None):
    """Each row decided with thresholds fitted on the other parts, where part (N,) is one of `deal`: (N, C) bool."""
    part = deal(truth, 1)[0] if part is None else part
    decisions = np.zeros(truth.shape, bool)
    for held in held_out(part):
        seen = None if epochs is None else epochs[:, ~held]
        decisions[held] = probabilities[held] >= method(truth[~held], probabilities[~held], seen)
    return decisions


def summaries(truth, decided, seed=0):
    """Figures of ways to decide: {name: dict of numbers and of lists with one for each class}.

    decided: {name: ((N, C) decisions fitted on these rows, list of (N, C) of the same rows cross-fitted)}.
    """
    intervals = dict(zip(decided, intervals_of(truth, [apart[0] for _, apart in decided.values()], seed), strict=True))
    results = {}
    for name, (in_sample, apart) in decided.items():
        classes = np.array([f1_per_class(truth, decisions) for decisions in apart])
        macro = classes.mean(axis=1)
        results[name] = {
            "in_sample": macro_f1(truth, in_sample), "cross_fitted": float(macro.mean()),
            "cross_fitted_spread": float(macro.std(ddof=min(1, len(macro) - 1))), "interval_95": intervals[name][0],
            "per_class": f1_per_class(truth, in_sample).tolist(), "per_class_cross_fitted": classes.mean(axis=0).tolist(),
            "per_class_interval_95": intervals[name][1],
        }  # fmt: skip
    return results


def intervals_of(truth, decided, seed=0, draws=1000):
    """95 % bootstrap intervals over rows, percentiles of `draws` resamples (Efron 1979), of several ways to decide: for each
    that of macro F1 [low, high] and those of each class's F1 (C lists).

    decided: list of (N, C) bool. A resample may lack a class that has a handful of images, which counts 0 then, so the
    interval of macro F1 lies a little low.
    """
    results = []
    for f1 in resampled_f1(truth, decided, seed, draws):
        macro, by_class = (np.percentile(part, [2.5, 97.5], axis=0) for part in (f1.mean(axis=1), f1))
        results.append((macro.tolist(), by_class.T.tolist()))
    return results


def resampled_f1(truth, decided, seed=0, draws=1000):
    """F1 of each class on rows drawn with replacement: of each of `decided`, a list of (N, C) bool, a (draws, C) float64.

    All see the same resamples, so that their differences can be looked at.
    """
    rng, rows, classes = np.random.default_rng(seed), len(truth), truth.shape[1]
    positive = np.asarray(truth, np.float32)
    counted = np.concatenate(
        [positive, *(part for way in decided for part in (way * positive, way))], axis=1, dtype=np.float32
    )
    scores = [[] for _ in decided]
    for start in range(0, draws, 50):
        block = min(50, draws - start)
        drawn = rng.integers(rows, size=(block, rows)) + rows * np.arange(block)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=block * rows).reshape(block, rows).astype(np.float32)
        sums = (counts @ counted).reshape(block, -1, classes).astype(np.float64)
        for way, found in enumerate(scores):
            found.append(f1_from_counts(sums[:, 1 + 2 * way], sums[:, 0], sums[:, 2 + 2 * way]))
    return [np.concatenate(found) for found in scores]
