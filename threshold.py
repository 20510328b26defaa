"""Fit cut-offs on out-of-fold predictions: oof.csv files -> thresholds.json

    python threshold.py runs/chen    # all oof.csv -> runs/chen/thresholds.json
    python threshold.py runs/chen --method per_class --plot thresholds.png
    python threshold.py oof1.csv oof2.csv --labels input/train.csv \\
        -o thresholds.json

fixed (0.5), global (one cut-off) and per_class are exact; chen_raw,
chen_smoothed and chen_global are the paper's, from 1000 points; epochs_curve
and chen_smoothed also use what a run's last epochs said. Each is shown in
sample (fitted and scored on the same rows, which flatters) and cross-fitted
(fitted on four fifths, applied to the rest, scored once over all rows). auto
takes the best cross-fitted one.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from utils import plots
from utils.checkpoint import fold_files
from utils.crossfit import cross_fit
from utils.cutoffs import METHODS, NEED_EPOCHS, read_last_epochs
from utils.errors import InputError, check_least, listing, plural, run_script
from utils.files import check_writable, write_json
from utils.labels import load_classes, read_truth
from utils.predictions import check_classes, read_all
from utils.runs import read_config


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arg = parser.add_argument
    arg("predictions", nargs="+", metavar="RUN|CSV", help="a run's folder (all its folds' oof.csv) or prediction files")
    arg("--labels", metavar="CSV", help="Id,Target table (default: the folds.csv that a run was trained on)")
    arg("--classes", help="hpa, cyto or a CSV class,name (default: the run's, or hpa)")
    arg(
        "--method",
        choices=["auto", *METHODS],
        default="auto",
        metavar="METHOD",
        help="which one to write (default: %(default)s)",
    )
    arg("--repeats", type=int, default=4, help="cross-fitting splits, five parts each (default: %(default)s)")
    arg("--seed", type=int, default=0, help="of the cross-fitting splits and intervals (default: %(default)s)")
    arg("--plot", metavar="PNG", help="draw each class's threshold and its F1 in sample and cross-fitted")
    arg("-o", "--out", metavar="JSON", help="where to write (default: thresholds.json in the run's folder)")
    return parser.parse_args()


def main():
    args = parse_args()
    if not 1 <= args.repeats <= 1000:
        raise InputError(f"--repeats {args.repeats} is out of range; give 1 to 1000")
    check_least(args, seed=0)
    files, run_labels, run_classes = find_predictions(args.predictions)
    labels_file = args.labels or run_labels
    if not labels_file:
        raise InputError("prediction files alone do not say what is true; add --labels CSV")
    runs = [Path(path) for path in args.predictions if Path(path).is_dir()]
    out = Path(args.out) if args.out else runs[0] / "thresholds.json" if len(runs) == 1 else None
    if out is None:
        raise InputError("say where to write the thresholds: -o thresholds.json")
    for path in [out, args.plot]:
        if path:
            check_writable(path)
    classes = load_classes(args.classes) if args.classes else run_classes or load_classes("hpa")
    oof, truth, epochs = gather(files, labels_file, classes)
    methods = [name for name in METHODS if epochs is not None or name not in NEED_EPOCHS]
    if args.method not in ("auto", *methods):
        raise InputError(
            f"{args.method} needs the epochs' predictions that train.py keeps beside oof.csv; name the run's folder, or another --method"
        )

    results = {
        name: cross_fit(METHODS[name], truth, oof, epochs, args.repeats, args.seed)
        for name in tqdm(methods, desc="fitting", disable=None, leave=False)
    }
    best = max(results, key=lambda name: results[name]["cross_fitted"]) if args.method == "auto" else args.method
    chosen = results[best].pop("thresholds")
    write_json(out, {
        "method": best, "classes": list(classes), "thresholds": chosen.tolist(),
        "macro_f1": results[best], "rows": len(oof), "fitted_on": [str(Path(file).resolve()) for file in files],
    })  # fmt: skip
    if args.plot:
        in_sample, cross_fitted = (results[best][key] for key in ("per_class", "per_class_cross_fitted"))
        plots.thresholds(classes, truth.sum(axis=0), chosen, in_sample, cross_fitted, args.plot)
    report(results, best, chosen, truth, classes, epochs)
    print(f"{best} -> {out}" + (f", {args.plot}" if args.plot else ""))


def find_predictions(paths):
    """-> (prediction files, the labels file and the class list that a run names, None where only files were given)."""
    files, labels, classes = [], None, None
    for path in map(Path, paths):
        if not path.is_dir():
            files.append(path)
            continue
        found = fold_files(path, "oof.csv", itself=True)
        if not found:
            raise InputError(f"{path} holds no oof.csv and no fold<k>/oof.csv; train a fold first")
        files += found
        config = read_config(found[0].parent, "folds")
        labels, classes = labels or config["folds"], classes or config["class_names"]
    return files, labels, classes


def gather(files, labels_file, classes):
    """One table over all files, its labels, matched by Id, and what the last epochs said of the same rows: (N, C) float64,
    (N, C) uint8, (K, N, C) float64 or None."""
    tables = read_all(files)
    oof = pd.concat(tables.values())
    check_classes(files[0], oof, classes)
    if twice := oof.index[oof.index.duplicated()].unique().tolist():
        raise InputError(
            f"{plural(len(twice), 'Id')} in more than one prediction file: {listing(twice)}; give each row once"
        )
    if len(oof) < 2:
        raise InputError(f"{files[0]} has one row; thresholds need two or more")
    return oof.to_numpy(), read_truth(labels_file, classes, oof.index, "the predictions"), gather_epochs(tables)


def gather_epochs(tables):
    """(K, N, C): as many last epochs as every fold has; None unless all files are oof.csv of runs that kept them."""
    if not all(Path(path).name == "oof.csv" for path in tables):
        return None
    parts = [read_last_epochs(Path(path).parent, table.to_numpy()) for path, table in tables.items()]
    if any(part is None for part in parts):
        return None
    shared = min(len(part) for part in parts)
    return np.concatenate([part[-shared:] for part in parts], axis=1)


def report(results, best, chosen, truth, classes, epochs):
    print(f"macro F1 over {len(truth):,} rows, {len(classes)} classes")
    print(f"{'method':14}{'in sample':>10}{'cross-fitted':>14}{'spread':>9}{'95 % interval':>18}")
    for name, result in results.items():
        low, high = result["interval_95"]
        star = "*" if name == best else " "
        print(f"{name:13}{star}{result['in_sample']:>10.4f}{result['cross_fitted']:>14.4f}{result['cross_fitted_spread']:>9.4f}"
              f"{low:>11.4f}–{high:.4f}")  # fmt: skip
    if epochs is None:
        print(
            f"left out, since not every file is an oof.csv beside its run's last epochs: {', '.join(sorted(NEED_EPOCHS))}"
        )
    else:
        print(f"{' and '.join(sorted(NEED_EPOCHS))} smooth over {plural(len(epochs), 'epoch')}")
    always = [name for name, cut in zip(classes, chosen, strict=True) if cut <= 0]
    if always:
        print(f"threshold 0, so called in every image: {listing(always, show=5)}")
    absent = [name for name, count in zip(classes, truth.sum(axis=0), strict=True) if not count]
    if absent:
        print(f"no positive rows, so nothing to fit and F1 0: {listing(absent, show=30)}")


if __name__ == "__main__":
    run_script(main)
