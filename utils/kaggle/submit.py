"""Check a run and its submission, and print the command that submits it

    python -m utils.kaggle.submit runs/chen --list
    python -m utils.kaggle.submit runs/chen --trained
    python -m utils.kaggle.submit runs/chen --file runs/chen/submission.csv

--list prints the fold numbers of --folds, and refuses a run that has others.
--trained prints the state of each fold, with exit code 2 if one is unfinished
(train.py itself exits with 0 when a time limit stops it). --file checks the
rows of a submission against --sample, and prints the command of Kaggle's
client that submits it, with the expected macro F1.
"""

import shlex
from pathlib import Path

from utils.cli import option_parser, run_script
from utils.data.labels import load_classes, read_folds, read_labels
from utils.data.tables import read_table
from utils.errors import InputError, listing, plural
from utils.kaggle import COMPETITION
from utils.runs.run_folder import ANY_WEIGHTS, fold_files
from utils.safe_load import read_json


def main():
    parser = option_parser(__doc__, "utils.kaggle.submit")
    arg = parser.add_argument
    arg("run", help="folder of a run, with fold<k>/ in it")
    arg("--list", action="store_true", help="print the fold numbers of --folds")
    arg("--wanted", type=int, default=0, metavar="N", help="required number of folds; 0: any")
    arg("--trained", action="store_true", help="check that all folds are finished")
    arg("--fold", type=int, help="check only this fold")
    arg("--file", metavar="CSV", help="the submission that ensemble.py wrote")
    arg("--folds", default="input/folds.csv", help="table made by make_folds.py (default: %(default)s)")
    arg("--sample", default="input/sample_submission.csv", help="Kaggle's sample submission (default: %(default)s)")
    args = parser.parse_args()
    if not (args.list or args.trained or args.file):
        raise InputError("no action; give --list, --trained or --file runs/chen/submission.csv")
    run = Path(args.run)
    if args.list:
        print(*list_folds(run, args.folds, args.wanted))
    if args.trained:
        check_trained(run, fold_numbers(args.folds) if args.fold is None else [args.fold])
    if args.file:
        check_rows(args.file, args.sample)
        words = ["-c", COMPETITION, "-f", args.file, "-m", describe(run)]
        print("kaggle competitions submit", shlex.join(words))


def fold_numbers(path):
    """-> the fold numbers of a folds.csv, ascending, without those of rows that are always or never trained on."""
    return sorted({int(fold) for fold in read_folds(path, load_classes("hpa"))["fold"] if fold >= 0})


def list_folds(run, path, wanted=0):
    """-> `fold_numbers`. Raises InputError unless there are `wanted` (0: any), and if the run has other folds, which
    predict.py would average too."""
    folds = fold_numbers(path)
    if not folds:
        raise InputError(f"{path} has no fold to validate on; make it with make_folds.py")
    if wanted and wanted != len(folds):
        raise InputError(f"{path} has {plural(len(folds), 'fold')}, not {wanted}; delete it to make new folds")
    if others := [file.parent for file in fold_files(run, *ANY_WEIGHTS) if int(file.parent.name[4:]) not in folds]:
        raise InputError(f"{listing(others)}: no fold of {path} has this number; delete or move the folder")
    return folds


def check_trained(run, folds):
    """Print the state of each fold. Raises InputError if one is unfinished."""
    unfinished = []
    for fold in folds:
        path = run / f"fold{fold}" / "last.pt"
        finished, text = how_far(path) if path.is_file() else (False, "not started")
        print(f"{path.parent}: {text}")
        if not finished:
            unfinished.append(fold)
    if unfinished:
        count = f"{plural(len(unfinished), 'fold')} of {len(folds)}"
        raise InputError(f"{run}: {count} unfinished ({listing(unfinished, 10)}); run the same command again to resume")


def how_far(path):
    """-> whether the training of a last.pt is finished, and a description of its state."""
    from utils.engine import checkpoint  # here, since they import torch, which nothing else needs
    from utils.engine.trainer import out_of_time

    state = checkpoint.load(path)
    if "finished" not in state:
        raise InputError(f"{path} lacks the state of its training; give one that train.py wrote")
    config, epoch = state["config"], state["epoch"]
    used_up = not state["position"] and out_of_time(config.max_minutes, state["spent"], state["log"])
    how = "trained" if state["finished"] else "--max-minutes used up" if used_up else "unfinished"
    score = f", macro F1 {state['score']:.4f} in epoch {state['best_epoch']}" if state["best_epoch"] else ""
    return state["finished"] or used_up, f"{how}, epoch {epoch} of {config.epochs}{score}"


def check_rows(path, sample):
    """Raise InputError unless a submission has the rows of Kaggle's sample in its order, with valid classes."""
    ids = read_labels(path, load_classes("hpa"), column="Predicted")["Id"]
    wanted = read_table(sample, ["Id"], what="Kaggle's sample submission")["Id"]
    if ids.tolist() != wanted.tolist():
        raise InputError(f"{path} and {sample} differ in rows or their order; run ensemble.py --sample again")


def describe(run):
    """-> the message of a submission: the run, and the macro F1 of its thresholds.json."""
    path = run / "thresholds.json"
    if not path.is_file():
        raise InputError(f"{path} is missing; make it with threshold.py {run}")
    fitted = read_json(path, "thresholds", "make it with threshold.py")
    score = fitted.get("macro_f1", {}).get("cross_fitted") if isinstance(fitted, dict) else None
    if not isinstance(score, float):
        raise InputError(f"{path} has no cross-fitted macro F1; make it with threshold.py")
    return f"{run.name}, {plural(len(fold_files(run, *ANY_WEIGHTS)), 'fold')}, macro F1 {score:.4f} cross-fitted"


if __name__ == "__main__":
    run_script(main)
