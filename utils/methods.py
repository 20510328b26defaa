"""The tables of a comparison of methods (Rumetshofer et al., Tables 1, 2 and 7), from the trained folds of each."""

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from utils.crossfit import held_out_decisions
from utils.cutoffs import per_class
from utils.errors import InputError
from utils.metrics import class_scores
from utils.runs import best_epoch, read_numbers
from utils.significance import wilcoxon

DECIDE = ("half", "each")  # at 0.5 as in the paper, or with a cut-off for each class, cross-fitted
SCORES = ("f1", "precision", "recall", "auc")


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
    peak = read_numbers(path, ["peak_gb"]).max().item() if "peak_gb" in pd.read_csv(path, nrows=0).columns else np.nan
    return row | {
        "epoch_seconds": log["seconds"].mean(), "images_per_second": log["images_per_second"].mean(), "peak_gb": peak,
        "epochs": len(log), "best": best_epoch(fold.folder), "minutes": log["seconds"].sum() / 60,
    }  # fmt: skip


class Comparison:
    """Methods side by side, each the mean of its runs. Build it from folds, truths and probabilities; read the tables.

    methods: {name: list of (fold, truth (N, C), probabilities (N, C))}, all of one class list.
    """

    def __init__(self, methods, decide="half"):
        first = next(iter(methods.values()))[0][0]
        for runs in methods.values():
            for fold, *_ in runs:
                if fold.classes != first.classes:
                    raise InputError(
                        f"{fold.folder} has other classes than {first.folder}; compare runs of one class list"
                    )
        self.classes, self.positives = first.classes, next(iter(methods.values()))[0][1].sum(axis=0)
        self.runs = {name: len(runs) for name, runs in methods.items()}
        self.by_class = {
            name: _mean([scores_by_class(truth, probabilities, decide) for _, truth, probabilities in runs])
            for name, runs in methods.items()
        }
        self.cost = pd.DataFrame(
            {name: pd.DataFrame([costs(fold) for fold, *_ in runs]).mean() for name, runs in methods.items()}
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
            row = {"method": name, "runs": self.runs[name]}
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
    """A short name for each group of folds: the value of one option in which all groups differ, else the run's name.

    groups: list of lists of folds. differing: keys of config.
    """
    configs = [folds[0].config for folds in groups]
    for key in ("model", "recipe", *differing):
        values = [str(config.get(key)) for config in configs]
        if key in differing and len(set(values)) == len(values) and max(map(len, values)) <= 24:
            return values
    names = [folds[0].config.get("name", folds[0].folder.name) for folds in groups]
    return names if len(set(names)) == len(names) else [str(folds[0].folder) for folds in groups]


def print_methods(table, decide):
    where = "0.5" if decide == "half" else "a cut-off for each class, cross-fitted"
    print(f"\nmean over classes ± standard deviation over classes, decided at\n{where}")
    print(f"{'method':25}{'runs':>4}{'F1':>13}{'precision':>11}{'recall':>8}{'AUC':>13}{'p':>6}")
    for row in table.itertuples():
        p = "–" if np.isnan(row.p) else f"{row.p:.4f}"[1:] if row.p < 0.99995 else "1"
        print(f"{_cut(row.method, 24):25}{row.runs:>4}{f'{row.f1:.3f} ± {row.f1_spread:.2f}':>13}{row.precision:>11.3f}"
              f"{row.recall:>8.3f}{f'{row.auc:.3f} ± {row.auc_spread:.2f}':>13}{p:>6}")  # fmt: skip
    print("p: one-sided paired Wilcoxon test over the classes, that the first is no better")


def print_by_class(table, width=80):
    names = [column for column in table.columns if column not in ("class", "winner")]
    room = (width - 24) // 11
    for start in range(0, len(names), room):
        part = names[start : start + room]
        print(f"\n{'F1, * the best':24}" + "".join(f"{_cut(name, 10):>11}" for name in part))
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


def _cut(name, room):
    return name if len(name) <= room else name[: room - 1] + "…"


def other_rows(groups):
    """A sentence where not all methods were measured on the same images, fold by fold; else None."""
    seen = {}
    for fold in (fold for folds in groups for fold in folds):
        folder, ids = seen.setdefault(fold.config.get("fold"), (fold.folder, set(fold.ids)))
        if set(fold.ids) != ids:
            return f"not the same images: {fold.folder} and {folder} validated on different ones"
