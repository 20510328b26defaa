"""The outcome of an experiment: each arm's scores, its paired gain over the baseline, and the verdict."""

import math

import pandas as pd

from utils.scoring.significance import paired_difference
from utils.tools.ablate.experiments import verdict

SCORES = ("average_precision", "f1")  # the first one decides


def tabulate(experiment, scores, second=()):
    """Compare an experiment's arms on one place: -> DataFrame with a row per arm, the baseline first.

    scores: {arm: {seed: {average_precision, f1, minutes}}}, the seeds that are finished. second: the DataFrame of the same on HEp-2,
    if that may object; (): it may not. Columns: arm, seeds (that the arm and the baseline have both), the means average_precision,
    f1, minutes of these, gain_… and error_… of both scores, and verdict. With `taken_off` a gain is the baseline's over the arm.
    """
    names = list(experiment.arms)
    rows = []
    for name in names:
        own, base = scores.get(name, {}), scores.get(names[0], {})
        seeds = sorted(own.keys() & base.keys())
        row = {"arm": name, "seeds": len(seeds)}
        for column in (*SCORES, "minutes"):
            row[column] = sum(own[seed][column] for seed in seeds) / len(seeds) if seeds else math.nan
        for column in SCORES:
            pair = [[part[seed][column] for seed in seeds] for part in (own, base)][
                :: -1 if experiment.taken_off else 1
            ]
            known = seeds and name != names[0]
            row[f"gain_{column}"], row[f"error_{column}"] = paired_difference(*pair) if known else (math.nan, math.nan)
        rows.append(row | {"verdict": "" if name == names[0] else decide(row, second)})
    return pd.DataFrame(rows)


def decide(row, second):
    """The verdict on a row of `tabulate`."""
    if not row["seeds"]:
        return "not measured"
    if second != ():
        on_hep2 = {one["arm"]: gain_of(one) for one in second.to_dict("records") if one["seeds"]}
        second = on_hep2.get(row["arm"])
    return verdict(gain_of(row), second)


def gain_of(row):
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
