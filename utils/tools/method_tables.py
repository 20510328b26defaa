"""The tables of a comparison of methods (Rumetshofer et al., Tables 1, 2 and 7), from the runs of each."""

from collections import namedtuple

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from utils.data.tables import read_table
from utils.errors import InputError
from utils.runs.run_folder import best_epoch, read_numbers
from utils.scoring.cross_fit import held_out_decisions
from utils.scoring.metrics import class_scores
from utils.scoring.significance import wilcoxon
from utils.scoring.thresholds import per_class

DECIDE = ("half", "each")  # at 0.5 as in the paper, or with a cut-off for each class, cross-fitted
SCORES = ("f1", "precision", "recall", "auc")


# A trained run: its folder (a fold's own where only that was named), its folds (of `read_fold`), class names, and ids, truth
# (N, C) and probabilities (N, C) of the images it is measured on.
Run = namedtuple("Run", "folder folds classes ids truth probabilities")


def pooled(folds):
    """One run of its folds: each image is validated in one of them."""
    ids = [id_ for fold in folds for id_ in fold.ids]
    if len(set(ids)) < len(ids):
        raise InputError(f"{folds[0].folder.parent}: its folds share validation images; train them with one folds file")
    truth, oof = (np.concatenate([getattr(fold, part) for fold in folds]) for part in ("truth", "oof"))
    folder = folds[0].folder if len(folds) == 1 else folds[0].folder.parent
    return Run(folder, folds, folds[0].classes, ids, truth, oof)


def scores_by_class(truth, probabilities, decide):
    """{f1, precision, recall, auc: (C,) float64}; the AUC of a class with no positives or no negatives is NaN."""
    if decide == "half":
        decisions = probabilities >= 0.5
    else:
        decisions = held_out_decisions(per_class, truth, probabilities)
    scores = class_scores(truth, decisions)
    auc = [roc_auc_score(column, values) if 0 < column.sum() < len(column) else np.nan
           for column, values in zip(truth.T, probabilities.T, strict=True)]  # fmt: skip
    return {name: scores[name] for name in ("f1", "precision", "recall")} | {"auc": np.array(auc)}


def costs(fold):
    """What a fold's training took, from config.json and log.csv: {parameters, seconds an epoch, images a second, GB, epochs,
    best epoch, minutes}, NaN where it kept none."""
    row = {"parameters": fold.config.get("parameters", np.nan)}
    path = fold.folder / "log.csv"
    if not path.is_file():
        return row | dict.fromkeys(
            ("epoch_seconds", "images_per_second", "peak_gb", "epochs", "best", "minutes"), np.nan
        )
    log = read_numbers(path, ["seconds", "images_per_second"])
    table = read_table(path, ["seconds"])
    told = table["peak_gb"] if "peak_gb" in table.columns else pd.Series(dtype=object)  # some systems do not say
    peak = pd.to_numeric(told, errors="coerce").max()
    return row | {
        "epoch_seconds": log["seconds"].mean(), "images_per_second": log["images_per_second"].mean(), "peak_gb": peak,
        "epochs": len(log), "best": best_epoch(fold.folder), "minutes": log["seconds"].sum() / 60,
    }  # fmt: skip


class Comparison:
    """Methods side by side, each the mean of its runs: {name: list of `Run`}, all of one class list."""

    def __init__(self, methods, decide="half"):
        first = next(iter(methods.values()))[0]
        for run in (run for runs in methods.values() for run in runs):
            if run.classes != first.classes:
                raise InputError(f"{run.folder} has other classes than {first.folder}; compare runs of one class list")
            if len(run.truth) < 2 or not run.truth.any():
                raise InputError(
                    f"{run.folder}: fewer than two images, or none with a class, to compare on; predict more"
                )
        self.classes, self.positives = first.classes, first.truth.sum(axis=0)
        self.groups = methods
        self.by_class = {
            name: _mean([scores_by_class(run.truth, run.probabilities, decide) for run in runs])
            for name, runs in methods.items()
        }
        folds = {name: [fold for run in runs for fold in run.folds] for name, runs in methods.items()}
        self.cost = pd.DataFrame(
            {name: pd.DataFrame(map(costs, part)).mean() for name, part in folds.items()}
        ).T.astype(float)

    @property
    def order(self):
        """Names of the methods, best mean F1 first."""
        return sorted(self.by_class, key=lambda name: -self.by_class[name]["f1"].mean())

    def methods(self):
        """Table 1: a row a method, best first: mean and standard deviation over classes; p of the one-sided paired Wilcoxon
        test that the best method is no better than this one."""
        best, rows = self.order[0], []
        for name in self.order:
            scores = self.by_class[name]
            row = {"method": name, "runs": len(self.groups[name])}
            row |= {score: np.nanmean(scores[score]) for score in SCORES}
            row |= {"f1_spread": scores["f1"].std(), "auc_spread": np.nanstd(scores["auc"])}
            row["p"] = np.nan if name == best else wilcoxon(self.by_class[best]["f1"], scores["f1"])
            rows.append(row)
        return pd.DataFrame(rows)

    def by_class_f1(self):
        """Table 2: a row a class, a column a method (best first), `winner` (empty where no method finds the class)."""
        table = pd.DataFrame({name: self.by_class[name]["f1"] for name in self.order})
        table.insert(0, "class", self.classes)
        values = table[self.order].to_numpy()
        table["winner"] = [self.order[row.argmax()] if row.max() > 0 else "" for row in values]
        return table


def _mean(scores):
    return {name: np.mean([part[name] for part in scores], axis=0) for name in scores[0]}


def short_names(groups, differing):
    """A short name for each group of runs: the value of one option in which all groups differ, else the run's name.

    groups: list of lists of `Run`. differing: keys of config.
    """
    configs = [runs[0].folds[0].config for runs in groups]
    for key in ("model", "recipe", *differing):
        if key not in differing or key in ("fold", "folds", "rows_sha256", "max_minutes"):
            continue
        values = [config.get(key) for config in configs]
        values = [value if isinstance(value, str) else f"{key} {value}" for value in values]
        if len(set(values)) == len(values) and max(map(len, values)) <= 24:
            return values
    names = [str(config.get("name", runs[0].folder.name)) for config, runs in zip(configs, groups, strict=True)]
    return names if len(set(names)) == len(names) else [str(runs[0].folder) for runs in groups]


def print_methods(table, decide):
    where = "0.5" if decide == "half" else "a cut-off for each class, cross-fitted"
    print(f"\nmean over classes ± standard deviation over classes, decided at\n{where}")
    print(f"{'method':24}{'runs':>4}{'F1':>13}{'precision':>11}{'recall':>8}{'AUC':>13}{'p':>7}")
    for row in in_words(table).itertuples():
        print(
            f"{_cut(row.method, 23):24}{row.runs:>4}{row.F1:>13}{row.precision:>11}{row.recall:>8}{row.AUC:>13}{row.p:>7}"
        )
    print("p: one-sided paired Wilcoxon test over the classes, that the first is no better")


def in_words(table):
    """`Comparison.methods` as a reader wants it: method, runs, F1 ± spread over classes, precision, recall, AUC ± spread, p."""
    pairs = {name: zip(table[key], table[f"{key}_spread"], strict=True) for name, key in (("F1", "f1"), ("AUC", "auc"))}
    means = {name: [f"{mean:.3f} ± {spread:.2f}" for mean, spread in pair] for name, pair in pairs.items()}
    words = table[["method", "runs"]].assign(F1=means["F1"])
    for name in ("precision", "recall"):
        words[name] = table[name].map("{:.3f}".format)
    return words.assign(AUC=means["AUC"], p=table["p"].map(_p))


def _p(p):
    if np.isnan(p):
        return "–"
    return "<.0001" if p < 0.0001 else f"{p:.4f}".removeprefix("0")


def print_by_class(table, width=80):
    names = [column for column in table.columns if column not in ("class", "winner")]
    room = (width - 24) // 11
    for start in range(0, len(names), room):
        part = names[start : start + room]
        print(f"\n{'F1, * the best':24}" + "".join(f"{_middle(name, 10):>11}" for name in part))
        for row in table.to_dict("records"):
            cells = [f"{row[name]:.3f}" + ("*" if row["winner"] == name else " ") for name in part]
            print(f"{_cut(row['class'], 23):24}" + "".join(f"{cell:>11}" for cell in cells))
        wins = table["winner"].value_counts()
        print(f"{'mean':24}" + "".join(f"{f'{table[name].mean():.3f} ':>11}" for name in part))
        print(f"{'classes won':24}" + "".join(f"{f'{wins.get(name, 0)} ':>11}" for name in part))


def print_costs(cost):
    print(f"\n{'method':21}{'parameters':>13}{'s/epoch':>9}{'img/s':>7}{'GB':>6}{'epochs':>8}{'best':>6}{'minutes':>9}")
    for row in cost.itertuples():
        cells = ((row.parameters, 13, ",.0f"), (row.epoch_seconds, 9, ".1f"), (row.images_per_second, 7, ".0f"),
                 (row.peak_gb, 6, ".1f"), (row.epochs, 8, ".0f"), (row.best, 6, ".0f"), (row.minutes, 9, ".1f"))  # fmt: skip
        line = "".join(f"{'' if np.isnan(value) else format(value, form):>{room}}" for value, room, form in cells)
        print(f"{_cut(row.Index, 20):21}{line}")
    print("GB: most memory that training took, on a GPU there, else in this process")


def _middle(name, room):
    """Names of methods often differ at their end: what does not fit is left out before it."""
    return name if len(name) <= room else f"{name[: room - 4]}…{name[-3:]}"


def _cut(name, room):
    return name if len(name) <= room else name[: room - 1] + "…"


def other_rows(groups):
    """A sentence where the groups, lists of runs, were not all measured on the same images; else None. Within a group each run may
    have images of its own, as with a limit, where the seed picks them."""
    seen = [{frozenset(run.ids) for run in runs} for runs in groups]
    for runs, ids in zip(groups, seen, strict=True):
        if ids != seen[0]:
            return f"not the same images: {runs[0].folder} and {groups[0][0].folder} were measured on different ones"
