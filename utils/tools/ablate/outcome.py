"""The outcome of an experiment: each arm's scores, its paired gain over the baseline, and the verdict."""

import math

import pandas as pd

from utils.errors import plural
from utils.scoring.significance import paired_difference
from utils.tools.ablate.experiments import verdict

NONE = (math.nan, math.nan)
SCORES = ("average_precision", "f1")  # the first one decides


def tabulate(experiment, scores, on_hep2=None):
    """Compare an experiment's arms on one place: -> DataFrame with a row per arm, the baseline first.

    scores: {arm: {seed: {average_precision, f1, minutes}}}, the seeds that are finished. on_hep2: {arm: `gain_of`} there, if that
    must show no loss. Columns: arm, seeds (that the arm and the baseline have both), the means average_precision, f1 and minutes of these,
    gain_… and error_… of both scores, and verdict. With `taken_off` a gain is the baseline's over the arm.
    """
    base, *_ = experiment.arms
    rows = []
    for name in experiment.arms:
        own, first = scores.get(name, {}), scores.get(base, {})
        seeds = sorted(own.keys() & first.keys())
        row = {"arm": name, "seeds": len(seeds)}
        for column in (*SCORES, "minutes"):
            row[column] = sum(own[seed][column] for seed in seeds) / len(seeds) if seeds else math.nan
        for column in SCORES:
            pair = [[part[seed][column] for seed in seeds] for part in (own, first)]
            gain = (
                paired_difference(*(pair[::-1] if experiment.taken_off else pair)) if seeds and name != base else NONE
            )
            row[f"gain_{column}"], row[f"error_{column}"] = gain
        rows.append(row | {"verdict": "" if name == base else _decide(experiment, row, on_hep2)})
    return pd.DataFrame(rows)


def _decide(experiment, row, on_hep2):
    if row["seeds"] < experiment.seeds:  # a verdict on the way would be one on the luckiest moment
        return f"{row['seeds']} of {plural(experiment.seeds, 'seed')}"
    words = verdict(gain_of(row), () if on_hep2 is None else on_hep2.get(row["arm"]))
    return {"adopt": "keep", "simpler stays": "leave out"}.get(words, words) if experiment.taken_off else words


def gain_of(row):
    """-> (mean, standard error) of the score that decides, of a row of `tabulate`."""
    return row[f"gain_{SCORES[0]}"], row[f"error_{SCORES[0]}"]


def print_table(title, table):
    print(f"\n{title}")
    print(f"{'':24}{'seeds':>5}{'AP':>6}{'F1':>6}{'gain in AP':>14}{'in F1':>14}{'min':>7}  verdict")
    for row in table.to_dict("records"):
        scores = "".join(f"{_short(row[column]):>6}" for column in SCORES)
        gains = "".join(f"{_gain(row[f'gain_{column}'], row[f'error_{column}']):>14}" for column in SCORES)
        minutes = "" if math.isnan(row["minutes"]) else f"{row['minutes']:.1f}"
        print(f"{row['arm'][:23]:24}{row['seeds']:>5}{scores}{gains}{minutes:>7}  {row['verdict']}".rstrip())


def _short(number, sign=""):
    """``.312``, or with a sign ``+.012``."""
    return "" if math.isnan(number) else f"{number:{sign}.3f}".replace("0.", ".", 1)


def _gain(gain, error):
    return _short(gain, "+") + ("" if math.isnan(error) else f" ± {_short(error)}")
