"""Put runs side by side: what differs, macro F1 and its spread over seeds, and
the tables of a comparison of methods.

    python -m utils.tools.compare runs/loss_*
    python -m utils.tools.compare runs/net_* --decide each -o tables
    python -m utils.tools.compare runs/net_* --predictions test.csv \\
        --labels input/hard/solution.csv

Folds of a run are pooled, runs that differ in nothing but their seed are one
line. F1 is macro F1 on the validation images at each fold's best epoch: at
0.5; at the one cut-off that is best for these very images, which the epoch was
chosen by; with a cut-off for each class, cross-fitted. Last epoch: at its own
best cut-off, not chosen. Precision and recall are those of all labels pooled,
at 0.5.

Then, as Tables 1, 2 and 7 of Rumetshofer et al.: mean and spread over classes
with a Wilcoxon test against the best; F1 of each class; what training cost.
With --predictions the first two are of that file in each run's folder, made by
predict.py for images that the run has not seen.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from utils.cli import run_script
from utils.data.labels import read_truth
from utils.errors import InputError, listing
from utils.files import check_writable, first_repeated, write_csv
from utils.plots.comparison import learning_curves, methods_by_class
from utils.runs.config import DEFAULTS, IGNORED_ON_RESUME
from utils.runs.predictions import read_predictions
from utils.runs.run_folder import best_epoch, fold_files, read_fold, read_numbers
from utils.scoring.cross_fit import cross_fit
from utils.scoring.metrics import best_global_threshold, macro_f1, multilabel_scores
from utils.scoring.thresholds import per_class
from utils.tools import method_tables
from utils.tools.evaluate import check_unseen

NOT_A_DIFFERENCE = IGNORED_ON_RESUME - {"folds", "classes", "max_minutes"} | {"name", "seed"}
FIGURES = {"f1_half": "F1 at .5", "f1_one": "one cut", "f1_each": "each", "f1_last": "last ep.",
           "precision": "precision", "recall": "recall"}  # fmt: skip


def parse_args():
    parser = argparse.ArgumentParser(
        prog="python -m utils.tools.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arg = parser.add_argument
    arg("runs", nargs="+", metavar="RUN", help="run folders or fold folders")
    arg("--decide", choices=method_tables.DECIDE, default="half",
        help="the tables' F1: at 0.5 as in the paper, or with a cut-off for each class, cross-fitted (default: %(default)s)")  # fmt: skip
    arg(
        "--predictions",
        metavar="NAME",
        help="a predictions file in each run's folder, or its only fold's, such as test.csv",
    )
    arg("--labels", metavar="CSV", help="Id,Target: what is true of --predictions")
    arg(
        "-o",
        "--out",
        metavar="FOLDER",
        help="write runs.csv, methods.csv, classes.csv, costs.csv, classes.png, curves.png here",
    )
    return parser.parse_args()


def main():
    args = parse_args()
    if (args.predictions is None) != (args.labels is None):
        raise InputError("--predictions and --labels belong together; give both or neither")
    if args.out:
        check_writable(Path(args.out) / "runs.csv")
    runs = read_runs(args.runs)
    table, comparison, note = side_by_side(runs, args.decide, args.predictions, args.labels)
    print_groups(table)
    if note:
        print(f"\n{note}")
    by_class = comparison.by_class_f1()
    method_tables.print_methods(comparison.methods(), args.decide)
    method_tables.print_by_class(by_class)
    method_tables.print_costs(comparison.cost)
    if args.out:
        out = Path(args.out)
        write_csv(out / "runs.csv", table)
        write_csv(out / "methods.csv", comparison.methods())
        write_csv(out / "classes.csv", by_class)
        write_csv(out / "costs.csv", comparison.cost.rename_axis("method").reset_index())
        methods_by_class(by_class, comparison.positives, out / "classes.png")
        files = "runs.csv, methods.csv, classes.csv, costs.csv, classes.png"
        if curves := logs(runs, table, comparison):
            learning_curves(curves, out / "curves.png")
            files += ", curves.png"
        print(f"-> {out}/: {files}")


def side_by_side(runs, decide="half", predictions=None, labels=None):
    """-> (DataFrame, a row a run with its figures and `what` tells it from others; `Comparison` of the groups with the same
    `what`; a sentence where these were not measured on the same images, or None).

    runs: of `read_runs`. predictions, labels: a file's name in each run's folder and a table of what is true, or None for
    the validation images.
    """
    measured = [predicted(run, predictions, labels) if predictions else run for run in runs]
    table = pd.DataFrame([measure(run) for run in tqdm(runs, disable=None, leave=False)]).astype({"epoch": "Int64"})
    configs = [matters(run) for run in runs]
    differing = what_differs(configs)
    table.insert(0, "what", [
        ", ".join(f"{key} {_short(key, config.get(key))}" for key in differing) or "all the same" for config in configs
    ])  # fmt: skip
    table.insert(0, "run", [str(run.folder) for run in runs])
    groups = [[measured[row] for row in rows] for rows in table.groupby("what", sort=False).indices.values()]
    comparison = method_tables.Comparison(
        dict(zip(method_tables.short_names(groups, differing), groups, strict=True)), decide
    )
    return table, comparison, method_tables.other_rows(groups)


def logs(runs, table, comparison):
    """The log.csv of every fold by method, the best method first: {name: [DataFrame seconds, macro_f1]}; a fold without a log
    (utils.tools.baseline) is left out. The arguments are those that `side_by_side` took and gave."""
    names = dict(zip(table["what"].unique(), comparison.cost.index, strict=True))
    found = {name: [] for name in comparison.order}
    for run, what in zip(runs, table["what"], strict=True):
        for fold in run.folds:
            if (path := fold.folder / "log.csv").is_file():
                found[names[what]].append(read_numbers(path, ["seconds", "macro_f1"]))
    return {name: tables for name, tables in found.items() if tables}


def read_runs(paths):
    """The runs behind the paths a user names, each with the rows of all its folds pooled: list of `methods.Run`."""
    found = {path: fold_files(path, "oof.csv", itself=True) for path in paths}
    if without := [path for path, files in found.items() if not files]:
        raise InputError(f"{listing(without)}: no oof.csv there and no fold<k>/oof.csv; train first")
    files = [file for files in found.values() for file in files]
    if repeated := first_repeated(files):
        raise InputError(f"{repeated} is named twice; name each fold once")
    folds = {}
    for fold in (read_fold(file.parent) for file in files):
        config = DEFAULTS | fold.config
        own = IGNORED_ON_RESUME | {"fold", "rows_sha256"}  # what each fold has for itself
        trained_alike = json.dumps({key: config[key] for key in sorted(config) if key not in own}, default=str)
        folds.setdefault((fold.folder.resolve().parent, trained_alike), []).append(fold)
    return [method_tables.pooled(part) for part in folds.values()]


def predicted(run, name, labels):
    """A run with the truth and probabilities of the predictions `name` in its folder, or in that of its only fold."""
    if Path(name).name != name:
        raise InputError(f"--predictions {name} should be a name without a folder; it is looked for in each run's")
    first = run.folds[0].folder
    places = [first.parent / name] if len(run.folds) > 1 else [first / name, first.parent / name]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise InputError(f"{places[-1]} does not exist; make it with predict.py")
    table = read_predictions(path, run.classes)
    if list(table.columns) != run.classes:
        raise InputError(f"{path} has other classes than {first}; predict with this run")
    ids = table.index.tolist()
    for fold in run.folds:
        check_unseen(fold.folder, ids, path)
    return run._replace(ids=ids, truth=read_truth(labels, run.classes, ids, path), probabilities=table.to_numpy())


def what_differs(configs):
    """The options in which runs differ. That another fold has other rows goes without saying."""
    keys = list(dict.fromkeys(key for config in configs for key in config))
    differing = [key for key in keys if len({json.dumps(config.get(key)) for config in configs}) > 1]
    pairs = {(config.get("fold"), config.get("rows_sha256")) for config in configs}
    return [key for key in differing if key != "rows_sha256" or len(pairs) > len({fold for fold, _ in pairs})]


def matters(run):
    """The options that make runs different. With a limit the seed picks the rows, so other rows are no difference then."""
    config = DEFAULTS | run.folds[0].config
    limited = {"rows_sha256"} if config.get("limit") or config.get("train_limit") else set()
    configs = [fold.config for fold in run.folds]
    config["fold"] = ", ".join(str(part.get("fold")) for part in configs)
    config["rows_sha256"] = ", ".join(str(part.get("rows_sha256"))[:8] for part in configs)
    return {key: value for key, value in config.items() if key not in NOT_A_DIFFERENCE | limited}


def measure(run):
    """One run's figures on its validation rows; no epochs where it kept no log (utils.tools.baseline)."""
    truth, oof = run.truth, run.probabilities
    if len(truth) < 2:
        raise InputError(f"{run.folder / 'oof.csv'} has one row; cross-fitting needs two or more")
    at_half = multilabel_scores(truth, oof >= 0.5)
    epochs = [best_epoch(fold.folder) for fold in run.folds]
    last = [math.nan if epoch is None else read_numbers(fold.folder / "log.csv", ["macro_f1"])["macro_f1"].iloc[-1]
            for fold, epoch in zip(run.folds, epochs, strict=True)]  # fmt: skip
    return {
        "f1_half": macro_f1(truth, oof >= 0.5), "f1_one": best_global_threshold(truth, oof)[1],
        "f1_each": cross_fit(per_class, truth, oof)["cross_fitted"], "f1_last": np.mean(last),
        "precision": at_half["precision"]["pooled"], "recall": at_half["recall"]["pooled"],
        "epoch": None if None in epochs else round(np.mean(epochs)),
    }  # fmt: skip


def print_groups(table):
    print(f"{'runs':>4}" + "".join(f"{title:>11}" for title in FIGURES.values()) + f"{'epoch':>8}")
    print("one cut: the best single cut-off; each: a cut-off for each class, cross-fitted")
    for what, part in table.groupby("what", sort=False):
        cells = ["" if part[key].isna().any() else _spread(part[key]) for key in FIGURES]
        epochs = (
            ""
            if part["epoch"].isna().any()
            else "–".join(f"{n:.0f}" for n in sorted({*part["epoch"].agg(["min", "max"])}))
        )
        print(f"{what}\n{len(part):>4}" + "".join(f"{cell:>11}" for cell in cells) + f"{epochs:>8}")


def _short(key, value):
    return str(value)[:40] if key == "rows_sha256" else value


def _spread(values):
    numbers = [values.mean()] + ([np.std(values, ddof=1)] if len(values) > 1 else [])
    return "±".join(f"{number:.3f}".lstrip("0") for number in numbers)


if __name__ == "__main__":
    run_script(main)
