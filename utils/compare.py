"""Put trained folds side by side: what differs between them, and macro F1 with its spread over seeds.

    python -m utils.compare runs/loss_*
    python -m utils.compare runs/chen/fold0 runs/other/fold0 -o compare.csv

Runs that differ in nothing but their seed are one line. F1 is macro F1 on the
validation fold at the best epoch: at 0.5, at the one cut-off that is best for
these very images, and with cut-offs of each class, cross-fitted. Precision and
recall are those of all labels pooled, at 0.5.
"""

import argparse
import json

import numpy as np
import pandas as pd
from tqdm import tqdm

from utils.checkpoint import fold_files
from utils.crossfit import cross_fit
from utils.cutoffs import per_class
from utils.errors import InputError, run_script
from utils.files import check_writable, write_csv
from utils.labels import encode, read_labels, read_table
from utils.metrics import best_global_threshold, macro_f1, multilabel_scores
from utils.predictions import read_predictions

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
FIGURES = {"f1_half": "F1 at 0.5", "f1_one": "one cut-off", "f1_each": "each, cross-f.", "precision": "precision", "recall": "recall",
           "epoch": "best epoch"}  # fmt: skip


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
    files = [file for run in args.runs for file in fold_files(run, "oof.csv", itself=True)]
    if not files:
        raise InputError(f"{', '.join(args.runs[:3])}: no oof.csv in them and no fold<k>/oof.csv; train first")
    folds = [file.parent for file in files]
    configs = [read_config(fold) for fold in folds]
    rows = [measure(fold, config) for fold, config in zip(tqdm(folds, disable=None, leave=False), configs, strict=True)]
    table = pd.DataFrame(rows)
    differing = [key for key in configs[0] if len({json.dumps(config.get(key)) for config in configs}) > 1]
    table.insert(
        0, "what", [", ".join(f"{key} {config.get(key)}" for key in differing) or "all the same" for config in configs]
    )
    table.insert(0, "fold", [str(fold) for fold in folds])
    print_groups(table)
    if args.out:
        write_csv(args.out, table)
        print(f"-> {args.out}")


def read_config(fold):
    """What a fold was trained with, without what does not matter."""
    try:
        config = json.loads((fold / "config.json").read_text(encoding="utf-8"))
        return {"class_names": config["class_names"]} | {k: v for k, v in config.items() if k not in NOT_A_DIFFERENCE}
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise InputError(
            f"{fold / 'config.json'} is not a run's config ({str(error)[:100]}); train the fold anew"
        ) from None


def measure(fold, config):
    """One fold's figures on its validation rows."""
    oof = read_predictions(fold / "oof.csv")
    rows = read_labels(fold / "rows.csv", config["class_names"]).set_index("Id")["Target"]
    if list(oof.columns) != config["class_names"] or not set(oof.index) <= set(rows.index):
        raise InputError(f"{fold / 'oof.csv'} does not fit config.json and rows.csv beside it; train the fold anew")
    truth, oof = encode(rows.loc[oof.index], config["class_names"]), oof.to_numpy()
    log = read_table(fold / "log.csv", ["epoch", "macro_f1"], what="a run's log")
    at_half = multilabel_scores(truth, oof >= 0.5)
    return {
        "f1_half": macro_f1(truth, oof >= 0.5), "f1_one": best_global_threshold(truth, oof)[1],
        "f1_each": cross_fit(per_class, truth, oof)["cross_fitted"], "precision": at_half["precision"]["pooled"],
        "recall": at_half["recall"]["pooled"], "epoch": int(log["epoch"][log["macro_f1"].astype(float).idxmax()]),
    }  # fmt: skip


def print_groups(table):
    print(f"{'runs':>4}" + "".join(f"{title:>17}" for title in FIGURES.values()))
    for what, part in table.groupby("what", sort=False):
        cells = [
            f"{part[key].mean():.3f}" + (f" ± {np.std(part[key], ddof=1):.3f}" if len(part) > 1 else "")
            for key in FIGURES
        ]
        cells[-1] = f"{part['epoch'].min()} to {part['epoch'].max()}"
        print(f"{what}\n{len(part):>4}" + "".join(f"{cell:>17}" for cell in cells))


if __name__ == "__main__":
    run_script(main)
