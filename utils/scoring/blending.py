"""Measuring ways to combine networks on their out-of-fold predictions, and telling what each network adds."""

from collections import namedtuple
from pathlib import Path

import numpy as np
from tqdm import tqdm

from utils.scoring.cross_fit import resampled_f1, summaries
from utils.scoring.ensembling import WAYS, Mean, Weighted, fit_and_decide, fits
from utils.scoring.metrics import macro_f1

# One network or way to combine: the fitted combination, its thresholds (C,), the share of held-out rows it calls (C,), and its
# figures (dict of `crossfit.summaries`).
Way = namedtuple("Way", "fitted thresholds called figures")
# What `compare` finds: {name: Way} of each network alone and of each way, the name of the way taken, and of each network its
# weight in greedy selection and what the way taken loses without it (cross-fitted macro F1; None where not measured).
Comparison = namedtuple("Comparison", "alone ways taken weights losses")
TITLES = {"mean": "mean of probabilities", "logit": "mean of log odds", "rank": "mean of ranks", "weighted": "greedy weights",
          "stack": "stacked"}  # fmt: skip


def compare(names, truth, members, combine="auto", repeats=2, seed=0, leave_out=False):
    """Measure networks and ways to combine them: -> `Comparison`.

    names: M different names. truth (N, C), members (M, N, C). combine: a name of `WAYS`, or "auto" for
    `simplest_of_the_best`. leave_out: measure the way taken without each network too.
    """
    several = len(members) > 1
    leave_out = leave_out and several
    ways = [combine] if combine != "auto" else list(WAYS) if several else ["mean", "stack"]
    measured = (len(members) + len(ways)) * fits(repeats, len(truth)) + leave_out * len(members) * fits(1, len(truth))
    with tqdm(total=measured, desc="fitting", unit="fit", disable=None, leave=False) as bar:

        def measure(way, members, repeats=repeats):
            return fit_and_decide(way, truth, members, repeats, seed, bar.update)

        done = [measure(Mean, members[[number]]) for number in range(len(members))]
        done += [measure(WAYS[way], members) for way in ways]
        figures = summaries(truth, {number: (one[2], one[3]) for number, one in enumerate(done)}, seed)
        found = [Way(fitted, thresholds, held_out[0].mean(axis=0), figures[number])
                 for number, (fitted, thresholds, _, held_out) in enumerate(done)]  # fmt: skip
        by_way = dict(zip(ways, found[len(members) :], strict=True))
        taken = simplest_of_the_best(
            truth, {way: one[3] for way, one in zip(ways, done[len(members) :], strict=True)}, seed
        )
        losses = None
        if leave_out:
            first = macro_f1(truth, done[len(members) + ways.index(taken)][3][0])
            fewer = [np.delete(members, number, axis=0) for number in range(len(members))]
            losses = [first - macro_f1(truth, measure(WAYS[taken], part, repeats=1)[3][0]) for part in fewer]
    weights = (by_way["weighted"].fitted if "weighted" in by_way else Weighted().fit(truth, members)).weights
    return Comparison(dict(zip(names, found[: len(members)], strict=True)), by_way, taken, weights.tolist(), losses)


def simplest_of_the_best(truth, decided, seed=0):
    """The first way that is no more than one standard error worse than the best (Breiman et al. 1984, section 3.4.3), since
    what is fitted more closely suffers more when test images are not like these.

    decided: {way: list of cross-fitted decisions (N, C)}, simple ways first. The error is that of the difference between two
    ways, by bootstrap over rows.
    """
    f1 = dict(zip(decided, resampled_f1(truth, [held_out[0] for held_out in decided.values()], seed), strict=True))
    scores = {way: np.mean([macro_f1(truth, decisions) for decisions in held_out]) for way, held_out in decided.items()}
    best = max(scores, key=scores.get)
    for way in decided:
        error = (f1[best] - f1[way]).mean(axis=1).std()
        if scores[best] - scores[way] <= error:
            return way


def report(comparison, rows):
    """Print the table of networks and ways, and what each network adds."""
    print(f"macro F1 over {rows:,} rows at each class's threshold (bagged)")
    print(f"{'':28}{'in sample':>10}{'cross-fitted':>13}{'spread':>8}{'95 % interval':>17}")
    alone = dict(zip(tails(list(comparison.alone)), comparison.alone.values(), strict=True))
    for name, way in (alone | {TITLES[name]: way for name, way in comparison.ways.items()}).items():
        star = "*" if name == TITLES[comparison.taken] else " "
        figures, (low, high) = way.figures, way.figures["interval_95"]
        print(f"{name:27}{star}{figures['in_sample']:>10.4f}{figures['cross_fitted']:>13.4f}{figures['cross_fitted_spread']:>8.4f}"
              f"{low:>10.4f}–{high:.4f}")  # fmt: skip
    if len(alone) > 1:
        lost = comparison.losses
        print(
            f"\n{'network':28}{'greedy weight':>14}"
            + (f"   change of F1 without it ({comparison.taken})" if lost else "")
        )
        for place, (name, weight) in enumerate(zip(alone, comparison.weights, strict=True)):
            print(f"{name:28}{weight:>14.2f}" + (f"{-lost[place]:>+14.4f}" if lost else ""))


def contents(comparison, classes, rows):
    """Every figure as a dict for JSON. The thresholds are on the scale of the way taken, and of use for nothing else."""
    taken = comparison.ways[comparison.taken]
    return {
        "combine": comparison.taken, "classes": list(classes), "combined_thresholds": taken.thresholds.tolist(), "rows": rows,
        "networks": {str(name): way.figures for name, way in comparison.alone.items()},
        "ways": {name: way.figures for name, way in comparison.ways.items()},
        "greedy_weights": comparison.weights, "loses_without": comparison.losses,
    }  # fmt: skip


def tails(paths, width=26):
    """The shortest ends of paths, in whole parts, that tell them apart: list of str, cut in front to `width`."""
    parts = [Path(path).resolve().parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        ends = ["/".join(part[-depth:]) for part in parts]
        if len(set(ends)) == len(ends):
            break
    short = [end if len(end) <= width else "…" + end[1 - width :] for end in ends]
    return (
        short
        if len(set(short)) == len(short)
        else [f"{number}: {end[: width - 4]}" for number, end in enumerate(short, 1)]
    )
