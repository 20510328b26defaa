"""Put runs side by side: what differs, macro F1 and its spread over seeds.

    python -m utils.compare runs/loss_*
    python -m utils.compare runs/chen/fold0 runs/other/fold0 -o compare.csv

Runs that differ in nothing but their seed are one line. F1 is macro F1 on the
validation fold at the best epoch: at 0.5; at the one cut-off that is best for
these very images, which the epoch was chosen by; with a cut-off for each
class, cross-fitted. Last epoch: at its own best cut-off, not chosen. Precision
and recall are those of all labels pooled, at 0.5.
"""

import argparse
import json
import math

import numpy as np
import pandas as pd
from tqdm import tqdm

from utils.checkpoint import fold_files
from utils.crossfit import cross_fit
from utils.cutoffs import per_class
from utils.errors import InputError, listing, run_script
from utils.files import check_writable, first_repeated, write_csv
from utils.metrics import best_global_threshold, macro_f1, multilabel_scores
from utils.runs import best_epoch, read_fold, read_numbers

NOT_A_DIFFERENCE = {
    "name",
    "seed",
    "runs",
    "workers",
    "overwrite",
    "device",
    "commit",
    "versions",
    "mean",
    "std",
    "images",
}
FIGURES = {"f1_half": "F1 at 0.5", "f1_one": "one cut-off", "f1_each": "each", "f1_last": "last epoch",
           "precision": "precision", "recall": "recall"}  # fmt: skip


def parse_args():
    parser = argparse.ArgumentParser(
        prog="python -m utils.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders or fold folders")
    parser.add_argument("-o", "--out", metavar="CSV", help="write a row a fold here")
    return parser.parse_args()


def main():
    args = parse_args()
    if args.out:
        check_writable(args.out)
    found = {run: fold_files(run, "oof.csv", itself=True) for run in args.runs}
    if without := [run for run, files in found.items() if not files]:
        raise InputError(f"{listing(without)}: no oof.csv there and no fold<k>/oof.csv; train first")
    files = [file for files in found.values() for file in files]
    if repeated := first_repeated(files):
        raise InputError(f"{repeated} is named twice; name each fold once")
    folds = [read_fold(file.parent) for file in files]
    configs = [matters(fold.config) for fold in folds]
    table = pd.DataFrame([measure(fold) for fold in tqdm(folds, disable=None, leave=False)]).astype({"epoch": "Int64"})
    keys = list(dict.fromkeys(key for config in configs for key in config))
    differing = [key for key in keys if len({json.dumps(config.get(key)) for config in configs}) > 1]
    if len({(config.get("fold"), config.get("rows_sha256")) for config in configs}) == len(
        {config.get("fold") for config in configs}
    ):
        differing = [
            key for key in differing if key != "rows_sha256"
        ]  # another fold has other rows, that goes without saying
    table.insert(
        0,
        "what",
        [
            ", ".join(f"{key} {_short(key, config.get(key))}" for key in differing) or "all the same"
            for config in configs
        ],
    )
    table.insert(0, "fold", [str(fold.folder) for fold in folds])
    print_groups(table)
    if args.out:
        write_csv(args.out, table)
        print(f"-> {args.out}")


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
    print(f"{'runs':>4}" + "".join(f"{title:>15}" for title in FIGURES.values()) + f"{'best epoch':>12}")
    print("each: a cut-off for each class, cross-fitted")
    for what, part in table.groupby("what", sort=False):
        cells = ["" if part[key].isna().any() else _spread(part[key]) for key in FIGURES]
        epochs = (
            ""
            if part["epoch"].isna().any()
            else " to ".join(f"{n:.0f}" for n in sorted({*part["epoch"].agg(["min", "max"])}))
        )
        print(f"{what}\n{len(part):>4}" + "".join(f"{cell:>15}" for cell in cells) + f"{epochs:>12}")


def _short(key, value):
    return str(value)[:8] if key == "rows_sha256" else value


def _spread(values):
    return f"{values.mean():.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


if __name__ == "__main__":
    run_script(main)
