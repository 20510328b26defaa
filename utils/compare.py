"""Put runs side by side: what differs, macro F1 and its spread over seeds, and
the tables of a comparison of methods.

    python -m utils.compare runs/loss_*
    python -m utils.compare runs/net_* --decide each -o tables
    python -m utils.compare runs/net_* --predictions test.csv \\
        --labels input/demo/solution.csv

Runs that differ in nothing but their seed are one line. F1 is macro F1 on the
validation fold at the best epoch: at 0.5; at the one cut-off that is best for
these very images, which the epoch was chosen by; with a cut-off for each
class, cross-fitted. Last epoch: at its own best cut-off, not chosen. Precision
and recall are those of all labels pooled, at 0.5.

Then, as Tables 1, 2 and 7 of Rumetshofer et al.: mean and spread over classes
with a Wilcoxon test against the best; F1 of each class; what training cost.
With --predictions these two are of that file in each run's folder, made by
predict.py for images that no run has seen.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from utils import methods, plots
from utils.checkpoint import fold_files
from utils.crossfit import cross_fit
from utils.cutoffs import per_class
from utils.errors import InputError, listing, run_script
from utils.files import check_writable, first_repeated, write_csv
from utils.labels import read_truth
from utils.metrics import best_global_threshold, macro_f1, multilabel_scores
from utils.predictions import check_classes, read_predictions
from utils.runs import best_epoch, read_fold, read_numbers

NOT_A_DIFFERENCE = {
    "name", "seed", "runs", "workers", "overwrite", "device", "commit", "versions", "mean", "std", "images",
    "parameters",
}  # fmt: skip
FIGURES = {"f1_half": "F1 at .5", "f1_one": "one cut", "f1_each": "each", "f1_last": "last ep.",
           "precision": "precision", "recall": "recall"}  # fmt: skip


def parse_args():
    parser = argparse.ArgumentParser(
        prog="python -m utils.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arg = parser.add_argument
    arg("runs", nargs="+", metavar="RUN", help="run folders or fold folders")
    arg("--decide", choices=methods.DECIDE, default="half",
        help="the tables' F1: at 0.5 as in the paper, or with a cut-off for each class, cross-fitted (default: %(default)s)")  # fmt: skip
    arg("--predictions", metavar="NAME", help="a predictions file in each run's or fold's folder, such as test.csv")
    arg("--labels", metavar="CSV", help="Id,Target: what is true of --predictions")
    arg("-o", "--out", metavar="FOLDER", help="write folds.csv, methods.csv, classes.csv, costs.csv, classes.png here")
    return parser.parse_args()


def main():
    args = parse_args()
    if (args.predictions is None) != (args.labels is None):
        raise InputError("--predictions and --labels belong together; give both or neither")
    if args.out:
        check_writable(Path(args.out) / "folds.csv")
    table, comparison, note = side_by_side(read_folds(args.runs), args.decide, args.predictions, args.labels)
    print_groups(table)
    if note:
        print(f"\n{note}")
    by_class = comparison.by_class_f1()
    methods.print_methods(comparison.methods(), args.decide)
    methods.print_by_class(by_class)
    methods.print_costs(comparison.cost)
    if args.out:
        out = Path(args.out)
        write_csv(out / "folds.csv", table)
        write_csv(out / "methods.csv", comparison.methods())
        write_csv(out / "classes.csv", by_class)
        write_csv(out / "costs.csv", comparison.cost.rename_axis("method").reset_index())
        plots.methods_by_class(by_class, comparison.positives, out / "classes.png")
        print(f"-> {out}/: folds.csv, methods.csv, classes.csv, costs.csv, classes.png")


def side_by_side(folds, decide="half", predictions=None, labels=None):
    """-> (DataFrame, a row a fold with its figures and `what` tells it from others; `Comparison` of the groups with the same
    `what`; a sentence where these were not measured on the same images, or None).

    folds: of `read_folds`. predictions, labels: a file's name in each run's folder and a table of what is true, or None for
    the validation fold.
    """
    configs = [matters(fold.config) for fold in folds]
    measured = [
        (fold, *predicted(fold, predictions, labels)) if predictions else (fold, fold.truth, fold.oof) for fold in folds
    ]
    table = pd.DataFrame([measure(fold) for fold in tqdm(folds, disable=None, leave=False)]).astype({"epoch": "Int64"})
    differing = what_differs(configs)
    table.insert(0, "what", [
        ", ".join(f"{key} {_short(key, config.get(key))}" for key in differing) or "all the same" for config in configs
    ])  # fmt: skip
    table.insert(0, "fold", [str(fold.folder) for fold in folds])
    groups = [[measured[row] for row in rows] for rows in table.groupby("what", sort=False).indices.values()]
    only_folds = [[fold for fold, *_ in group] for group in groups]
    names = methods.short_names(only_folds, differing)
    comparison = methods.Comparison(dict(zip(names, groups, strict=True)), decide)
    return table, comparison, None if predictions else methods.other_rows(only_folds)


def read_folds(runs):
    """Every trained fold behind the paths a user names."""
    found = {run: fold_files(run, "oof.csv", itself=True) for run in runs}
    if without := [run for run, files in found.items() if not files]:
        raise InputError(f"{listing(without)}: no oof.csv there and no fold<k>/oof.csv; train first")
    files = [file for files in found.values() for file in files]
    if repeated := first_repeated(files):
        raise InputError(f"{repeated} is named twice; name each fold once")
    return [read_fold(file.parent) for file in files]


def predicted(fold, name, labels):
    """Truth and probabilities of the predictions `name` in a fold's folder or, made of all folds, in its run's."""
    places = [fold.folder / name, fold.folder.parent / name]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise InputError(f"neither {places[0]} nor {places[1]} exists; make it with predict.py")
    table = read_predictions(path)
    check_classes(path, table, fold.classes)
    return read_truth(labels, fold.classes, table.index.tolist(), path), table.to_numpy()


def what_differs(configs):
    """The options in which runs differ. That another fold has other rows goes without saying."""
    keys = list(dict.fromkeys(key for config in configs for key in config))
    differing = [key for key in keys if len({json.dumps(config.get(key)) for config in configs}) > 1]
    pairs = {(config.get("fold"), config.get("rows_sha256")) for config in configs}
    return [key for key in differing if key != "rows_sha256" or len(pairs) > len({fold for fold, _ in pairs})]


def matters(config):
    """The options that make runs different. With a limit the seed picks the rows, so other rows are no difference then."""
    limited = {"rows_sha256"} if config.get("limit") or config.get("train_limit") else set()
    return {key: value for key, value in config.items() if key not in NOT_A_DIFFERENCE | limited}


def measure(fold):
    """One fold's figures on its validation rows; no epochs where it kept no log (utils.baseline)."""
    truth, oof = fold.truth, fold.oof
    if len(truth) < 2:
        raise InputError(f"{fold.folder / 'oof.csv'} has one row; cross-fitting needs two or more")
    at_half = multilabel_scores(truth, oof >= 0.5)
    best = best_epoch(fold.folder)
    last = math.nan if best is None else read_numbers(fold.folder / "log.csv", ["macro_f1"])["macro_f1"].iloc[-1]
    return {
        "f1_half": macro_f1(truth, oof >= 0.5), "f1_one": best_global_threshold(truth, oof)[1],
        "f1_each": cross_fit(per_class, truth, oof)["cross_fitted"], "f1_last": last,
        "precision": at_half["precision"]["pooled"], "recall": at_half["recall"]["pooled"], "epoch": best,
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
    return str(value)[:8] if key == "rows_sha256" else value


def _spread(values):
    numbers = [values.mean()] + ([np.std(values, ddof=1)] if len(values) > 1 else [])
    return "±".join(f"{number:.3f}".lstrip("0") for number in numbers)


if __name__ == "__main__":
    run_script(main)
