"""The tables of a comparison of methods (Rumetshofer et al., Tables 1, 2 and 7), from the runs of each."""

from collections import namedtuple

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from utils.data.tables import read_table
from utils.errors import InputError
from utils.runs.run_folder import kept_epoch, read_numbers
from utils.scoring.cross_fit import held_out_decisions
from utils.scoring.metrics import class_scores
from utils.scoring.significance import wilcoxon
from utils.scoring.thresholds.exact import per_class

DECIDE = ("half", "each")  # at 0.5 as in the paper, or at a threshold per class, cross-fitted
SCORES = ("f1", "precision", "recall", "auc")
COSTS = {  # column: its title, its format
    "parameters": ("parameters", "{:,.0f}"),
    "epoch_seconds": ("s/epoch", "{:.1f}"),
    "images_per_second": ("img/s", "{:.0f}"),
    "peak_gb": ("GB", "{:.1f}"),
    "epochs": ("epochs", "{:.0f}"),
    "kept": ("kept", "{:.0f}"),
    "minutes": ("minutes", "{:.1f}"),
}

# A trained run: its folder (the fold's folder if it has one fold), its folds (of `read_fold`), class names, and ids,
# truth (N, C) and probabilities (N, C) of the images on which it is measured.
Run = namedtuple("Run", "folder folds classes ids truth probabilities")


def pooled(folds):
    """Pool the folds of a run into one Run. Raises InputError if an image is validated in two of them."""
    ids = [id_ for fold in folds for id_ in fold.ids]
    if len(set(ids)) < len(ids):
        raise InputError(f"{folds[0].folder.parent}: its folds share validation images; train them with one folds file")
    truth, oof = (np.concatenate([getattr(fold, part) for fold in folds]) for part in ("truth", "oof"))
    folder = folds[0].folder if len(folds) == 1 else folds[0].folder.parent
    return Run(folder, folds, folds[0].classes, ids, truth, oof)


class Comparison(namedtuple("Comparison", "classes positives groups by_class cost")):
    """A comparison of methods, each the mean of its runs.

    positives (C,): images of each class. groups: {name: list of Run}. by_class: {name: `scores_by_class`}. cost:
    DataFrame with a row per method and the columns of `COSTS`.
    """

    @property
    def order(self):
        """Names of the methods, best mean F1 first."""
        return sorted(self.by_class, key=lambda name: -self.by_class[name]["f1"].mean())

    def methods(self):
        """Table 1, a row per method, best first: mean and standard deviation over classes; p of a one-sided paired
        Wilcoxon test of the null that the best method is no better than this one."""
        best, rows = self.order[0], []
        for name in self.order:
            scores = self.by_class[name]
            row = {"method": name, "runs": len(self.groups[name])}
            row |= {score: np.nanmean(scores[score]) for score in SCORES}
            row |= {"f1_spread": scores["f1"].std(), "auc_spread": np.nanstd(scores["auc"])}
            rows.append(row | {"p": np.nan if name == best else wilcoxon(self.by_class[best]["f1"], scores["f1"])})
        return pd.DataFrame(rows)

    def by_class_f1(self):
        """Table 2, a row per class: a column per method (best first), and `winner` (empty if all F1 are 0)."""
        table = pd.DataFrame({"class": self.classes} | {name: self.by_class[name]["f1"] for name in self.order})
        values = table[self.order].to_numpy()
        return table.assign(winner=[self.order[row.argmax()] if row.max() > 0 else "" for row in values])


def compare_methods(groups, decide="half"):
    """Compare methods: {name: list of Run}, all with the same classes -> Comparison."""
    runs = [run for part in groups.values() for run in part]
    for run in runs:
        if run.classes != runs[0].classes:
            raise InputError(f"{run.folder} has other classes than {runs[0].folder}; compare runs of one class list")
        if len(run.truth) < 2 or not run.truth.any():
            raise InputError(f"{run.folder} has fewer than two images, or none with a class; predict more images")
    by_class, cost = {}, {}
    for name, part in groups.items():
        scores = [scores_by_class(run.truth, run.probabilities, decide) for run in part]
        by_class[name] = {score: np.mean([one[score] for one in scores], axis=0) for score in SCORES}
        cost[name] = pd.DataFrame([costs(fold) for run in part for fold in run.folds]).mean()
    cost = pd.DataFrame(cost).T.astype(float)
    return Comparison(runs[0].classes, runs[0].truth.sum(axis=0), groups, by_class, cost)


def scores_by_class(truth, probabilities, decide):
    """-> {f1, precision, recall, auc: (C,) float64}; the AUC of a class without positives or negatives is NaN."""
    half = decide == "half"
    decisions = probabilities >= 0.5 if half else held_out_decisions(per_class, truth, probabilities)
    columns = zip(truth.T, probabilities.T, strict=True)
    auc = [roc_auc_score(own, values) if 0 < own.sum() < len(own) else np.nan for own, values in columns]
    return class_scores(truth, decisions) | {"auc": np.array(auc)}


def costs(fold):
    """Read a fold's training cost from config.json and log.csv: -> dict of `COSTS`; without a log mostly NaN."""
    row = dict.fromkeys(COSTS, np.nan) | {"parameters": fold.config.parameters or np.nan}
    path = fold.folder / "log.csv"
    if not path.is_file():
        return row
    log, table = read_numbers(path, ["seconds", "images_per_second"]), read_table(path, ["seconds"])
    row["epoch_seconds"], row["images_per_second"] = log["seconds"].mean(), log["images_per_second"].mean()
    if "peak_gb" in table.columns:  # empty on some systems
        row["peak_gb"] = pd.to_numeric(table["peak_gb"], errors="coerce").max()
    return row | {"epochs": len(log), "kept": kept_epoch(fold.folder), "minutes": log["seconds"].sum() / 60}


def short_names(groups, differing):
    """Name each group of runs: by the value of an option in which all groups differ, else by the run's name.

    groups: list of lists of Run. differing: keys of config.
    """
    configs = [runs[0].folds[0].config for runs in groups]
    for key in ("model", "recipe", *differing):
        if key not in differing or key in ("fold", "folds", "rows_sha256", "max_minutes"):
            continue
        values = [getattr(config, key) for config in configs]
        values = [value if isinstance(value, str) else f"{key} {value}" for value in values]
        if len(set(values)) == len(values) and max(map(len, values)) <= 24:
            return values
    names = [config.name or runs[0].folder.name for config, runs in zip(configs, groups, strict=True)]
    return names if len(set(names)) == len(names) else [str(runs[0].folder) for runs in groups]


def in_words(table):
    """Format `Comparison.methods`: method, runs, F1 ± spread over classes, precision, recall, AUC ± spread, p."""
    words = table[["method", "runs"]].copy()
    for name, key in {"F1": "f1", "precision": "precision", "recall": "recall", "AUC": "auc"}.items():
        words[name] = table[key].map("{:.3f}".format)
        if f"{key}_spread" in table:
            words[name] += table[f"{key}_spread"].map(" ± {:.2f}".format)
    return words.assign(p=table["p"].map(_p))


def _p(p):
    if np.isnan(p):
        return "–"
    return "<.0001" if p < 0.0001 else f"{p:.4f}".removeprefix("0")


def print_tables(comparison, decide):
    """Print Tables 1, 2 and 7."""
    threshold = "0.5" if decide == "half" else "a threshold per class, cross-fitted"
    print(f"\nmean over classes ± standard deviation over classes, decided at\n{threshold}")
    _print(in_words(comparison.methods()).set_index("method"), "method")
    print("p: one-sided paired Wilcoxon test over classes; null: the first is no better\n")
    table, cells = comparison.by_class_f1(), {}
    for name in comparison.order:
        won = table["winner"] == name
        cells[name] = [f"{f1:.3f}{'*' if best else ' '}" for f1, best in zip(table[name], won, strict=True)]
        cells[name] += [f"{table[name].mean():.3f} ", f"{won.sum()} "]
    _print(pd.DataFrame(cells, [*table["class"], "mean", "classes won"]), "F1, * the best")
    print()
    cost = comparison.cost[list(COSTS)].rename(columns={key: title for key, (title, _) in COSTS.items()})
    _print(cost, "method", {title: form.format for title, form in COSTS.values()})
    print("GB: peak memory of training, on a GPU or else in this process")


def _print(table, corner, formatters=None):
    table = table.rename_axis(index=None, columns=corner)
    print(table.to_string(line_width=80, na_rep="", formatters=formatters))


def other_rows(groups):
    """Return a message if the groups (lists of runs) were measured on different images, else None. Within a group
    images may differ, as with --limit, since the seed picks them."""
    seen = [{frozenset(run.ids) for run in runs} for runs in groups]
    for runs, ids in zip(groups, seen, strict=True):
        if ids != seen[0]:
            return f"not the same images: {runs[0].folder} and {groups[0][0].folder} were measured on different ones"
