"""Compare runs: options that differ, macro F1 and its spread over seeds, and
the tables of a comparison of methods.

    python -m utils.tools.compare runs/loss_*
    python -m utils.tools.compare runs/net_* --decide each -o tables
    python -m utils.tools.compare runs/net_* --predictions test.csv \\
        --labels input/hard/solution.csv

Folds of a run are pooled; runs that differ only in their seed share a line. F1
is macro F1 on the validation images at the epoch that each fold keeps, the
best one unless --keep last: at 0.5; at the best single threshold for these
images, by which the best epoch is chosen too; at a threshold per class,
cross-fitted. Last epoch: F1 of the last epoch as in train.py's
--score-threshold. Precision and recall are pooled over all labels, at 0.5.

Then come Tables 1, 2 and 7 of Rumetshofer et al.: mean and spread over classes
with a Wilcoxon test against the best; F1 of each class; the cost of training.
With --predictions the first two use that file in each run's folder, made by
predict.py for images that the run has not seen. --out also draws the last
figure of Chen's paper: the best F1 of each run, in the order of their starts.
"""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from utils.cli import option_parser, run_script
from utils.data.labels import read_truth
from utils.errors import InputError, listing
from utils.files import check_writable, first_repeated, write_csv
from utils.plots import comparison as figures
from utils.runs.config import IGNORED_ON_RESUME
from utils.runs.predictions import read_predictions
from utils.runs.run_folder import fold_files, kept_epoch, read_fold, read_numbers
from utils.scoring.cross_fit import deal, held_out_decisions
from utils.scoring.metrics import best_global_threshold, macro_f1, multilabel_scores
from utils.scoring.thresholds.exact import per_class
from utils.tools import method_tables
from utils.tools.evaluate import check_unseen

NOT_A_DIFFERENCE = IGNORED_ON_RESUME - {"folds", "classes", "pseudo", "max_minutes"} | {"name", "seed"}
FIGURES = {"f1_half": "F1 at .5", "f1_one": "single", "f1_each": "per class", "f1_last": "last ep."}
FIGURES |= {"precision": "precision", "recall": "recall"}


def parse_args():
    parser = option_parser(__doc__, "utils.tools.compare")
    arg = parser.add_argument
    arg("runs", nargs="+", metavar="RUN", help="run folders or fold folders")
    text = "the tables' F1: at 0.5 as in the paper, or at a threshold per class, cross-fitted (default: %(default)s)"
    arg("--decide", choices=method_tables.DECIDE, default="half", help=text)
    text = "a predictions file in each run's folder, or its only fold's, such as test.csv"
    arg("--predictions", metavar="NAME", help=text)
    arg("--labels", metavar="CSV", help="Id,Target: the true labels of --predictions")
    text = "write runs.csv, methods.csv, classes.csv, costs.csv and classes.png, curves.png, generations.png here"
    arg("-o", "--out", metavar="FOLDER", help=text)
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
    method_tables.print_tables(comparison, args.decide)
    if args.out:
        out, by_class = Path(args.out), comparison.by_class_f1()
        costs = comparison.cost.rename_axis("method").reset_index()
        tables = {"runs": table, "methods": comparison.methods(), "classes": by_class, "costs": costs}
        for name, content in tables.items():
            write_csv(out / f"{name}.csv", content)
        figures.methods_by_class(by_class, comparison.positives, out / "classes.png")
        files = [f"{name}.csv" for name in tables] + ["classes.png"]
        if curves := logs(runs, table, comparison):
            figures.learning_curves(curves, out / "curves.png")
            files.append("curves.png")
        if len(best := generations(runs)):
            figures.generations(best, out / "generations.png")
            files.append("generations.png")
        print(f"-> {out}/: {', '.join(files)}")


def side_by_side(runs, decide="half", predictions=None, labels=None):
    """Measure runs of `read_runs`: -> DataFrame with a row of scores per run, whose column `what` names its differing
    options; Comparison of the groups with equal `what`; a message if these were measured on different images, else
    None.

    predictions, labels: a file name in each run's folder and a table of true labels, or None for the validation images.
    """
    measured = [predicted(run, predictions, labels) if predictions else run for run in runs]
    table = pd.DataFrame([measure(run) for run in tqdm(runs, disable=None, leave=False)]).astype({"epoch": "Int64"})
    configs = [result_options(run) for run in runs]
    differing = what_differs(configs)
    table.insert(0, "run", [str(run.folder) for run in runs])
    table.insert(1, "what", [_describe(config, differing) for config in configs])
    groups = [[measured[row] for row in rows] for rows in table.groupby("what", sort=False).indices.values()]
    named = dict(zip(method_tables.short_names(groups, differing), groups, strict=True))
    return table, method_tables.compare_methods(named, decide), method_tables.other_rows(groups)


def _describe(config, differing):
    values = {key: str(config.get(key))[:40] if key == "rows_sha256" else config.get(key) for key in differing}
    return ", ".join(f"{key} {value}" for key, value in values.items()) or "all the same"


def logs(runs, table, comparison):
    """Read each method's log.csv files, best method first: -> {name: [DataFrame seconds, macro_f1]}. Folds without a
    log (utils.tools.baseline) are skipped. table, comparison: results of `side_by_side`."""
    names = dict(zip(table["what"].unique(), comparison.cost.index, strict=True))
    found = {name: [] for name in comparison.order}
    for run, what in zip(runs, table["what"], strict=True):
        paths = [fold.folder / "log.csv" for fold in run.folds]
        found[names[what]] += [read_numbers(path, ["seconds", "macro_f1"]) for path in paths if path.is_file()]
    return {name: tables for name, tables in found.items() if tables}


def generations(runs):
    """Each run's best training and validation F1 of an epoch, mean over its folds, in the order in which the runs were
    started: -> DataFrame name, train, valid. Runs without a log or TensorBoard's events, whose names hold the time, are
    skipped.

    train: F1 at 0.5 from the precision and recall of an epoch's steps. valid: macro F1 as log.csv has it.
    """
    found = []
    for run in runs:
        logs = [fold.folder / "log.csv" for fold in run.folds]
        events = [path for fold in run.folds for path in fold.folder.glob("tensorboard/events.out.tfevents.*")]
        if not events or not all(path.is_file() for path in logs):
            continue
        started = min(float(".".join(path.name.split(".")[3:5])) for path in events)
        best = [_best_f1(read_numbers(path, ["precision", "recall", "macro_f1"])) for path in logs]
        found.append((started, run.folds[0].folder.resolve().parent.name, *np.mean(best, axis=0)))
    return pd.DataFrame(sorted(found), columns=["started", "name", "train", "valid"]).drop(columns="started")


def _best_f1(log):
    """-> (best training F1, best validation F1) of the epochs of a log.csv."""
    both = log["precision"] + log["recall"]
    train = (2 * log["precision"] * log["recall"] / both).where(both > 0, 0.0)
    return train.max(), log["macro_f1"].max()


def read_runs(paths):
    """Read runs and pool the folds of each: paths -> list of `method_tables.Run`."""
    found = {path: fold_files(path, "oof.csv", itself=True) for path in paths}
    if without := [path for path, files in found.items() if not files]:
        raise InputError(f"{listing(without)}: no oof.csv there and no fold<k>/oof.csv; train first")
    files = [file for files in found.values() for file in files]
    if repeated := first_repeated(files):
        raise InputError(f"{repeated} is named twice; name each fold once")
    folds = {}
    for fold in (read_fold(file.parent) for file in files):
        config = fold.config.to_dict()
        own = IGNORED_ON_RESUME | {"fold", "rows_sha256"}  # these may differ between folds of one run
        trained_alike = json.dumps({key: config[key] for key in sorted(config) if key not in own}, default=str)
        folds.setdefault((fold.folder.resolve().parent, trained_alike), []).append(fold)
    return [method_tables.pooled(part) for part in folds.values()]


def predicted(run, name, labels):
    """Return the run with truth and probabilities of the predictions `name` in its folder or in its only fold's."""
    if Path(name).name != name:
        raise InputError(f"--predictions {name} should be a name without a folder; the file lies in each run's folder")
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
    """List the options in which runs differ. Rows that differ because the fold does are ignored."""
    keys = dict.fromkeys(key for config in configs for key in config)
    differing = [key for key in keys if len({json.dumps(config.get(key)) for config in configs}) > 1]
    pairs = {(config.get("fold"), config.get("rows_sha256")) for config in configs}
    return [key for key in differing if key != "rows_sha256" or len(pairs) > len({fold for fold, _ in pairs})]


def result_options(run):
    """Return the options that change a run's result; not its rows if --limit is set, since the seed picks them."""
    configs = [fold.config.to_dict() for fold in run.folds]
    config = dict(configs[0])
    limited = {"rows_sha256"} if config.get("limit") or config.get("train_limit") else set()
    config["fold"] = ", ".join(str(part.get("fold")) for part in configs)
    config["rows_sha256"] = ", ".join(str(part.get("rows_sha256"))[:8] for part in configs)
    return {key: value for key, value in config.items() if key not in NOT_A_DIFFERENCE | limited}


def measure(run):
    """Score one run on its validation rows; the epoch is None without a log (utils.tools.baseline)."""
    truth, oof = run.truth, run.probabilities
    if len(truth) < 2:
        raise InputError(f"{run.folder / 'oof.csv'} has one row; cross-fitting needs two or more")
    pooled = {name: part["pooled"] for name, part in multilabel_scores(truth, oof >= 0.5).items() if name in FIGURES}
    epochs, last = [kept_epoch(fold.folder) for fold in run.folds], math.nan
    if None not in epochs:
        scores = [read_numbers(fold.folder / "log.csv", ["macro_f1"])["macro_f1"].iloc[-1] for fold in run.folds]
        last = np.mean(scores)
    f1_each = [macro_f1(truth, held_out_decisions(per_class, truth, oof, part=part)) for part in deal(truth)]
    return {
        "f1_half": macro_f1(truth, oof >= 0.5),
        "f1_one": best_global_threshold(truth, oof)[1],
        "f1_each": float(np.mean(f1_each)),
        "f1_last": last,
        "precision": pooled["precision"],
        "recall": pooled["recall"],
        "epoch": None if None in epochs else round(np.mean(epochs)),
    }


def print_groups(table):
    print(f"{'runs':>4}" + "".join(f"{title:>11}" for title in FIGURES.values()) + f"{'epoch':>8}")
    print("single: the best single threshold; per class: one threshold each, cross-fitted")
    for what, part in table.groupby("what", sort=False):
        cells = ["" if part[key].isna().any() else _spread(part[key]) for key in FIGURES]
        epochs = [] if part["epoch"].isna().any() else sorted({part["epoch"].min(), part["epoch"].max()})
        print(f"{what}\n{len(part):>4}" + "".join(f"{cell:>11}" for cell in cells) + f"{'–'.join(map(str, epochs)):>8}")


def _spread(values):
    numbers = [values.mean()] + ([np.std(values, ddof=1)] if len(values) > 1 else [])
    return "±".join(f"{number:.3f}".lstrip("0") for number in numbers)


if __name__ == "__main__":
    run_script(main)
