"""From a run of all folds to the line that submits it.

    python -m utils.kaggle.submit runs/chen --list
    python -m utils.kaggle.submit runs/chen --trained
    python -m utils.kaggle.submit runs/chen --file runs/chen/submission.csv

--list prints the numbers of the folds in --folds, and refuses a run that has
others already. --trained says how far each is, and ends with exit code 2 where
one is not trained to its end (train.py ends well when a time limit stops it).
--file checks the rows of a submission against --sample and prints the command
of Kaggle's client that submits it, with what the run promises.
"""

import argparse
import shlex
from pathlib import Path

from utils.cli import run_script
from utils.data.labels import load_classes, read_folds, read_labels, read_table
from utils.engine import checkpoint
from utils.engine.trainer import out_of_time
from utils.errors import InputError, listing, plural
from utils.kaggle import COMPETITION
from utils.runs.run_folder import ANY_WEIGHTS, fold_files
from utils.safe_load import read_json


def parse_args():
    parser = argparse.ArgumentParser(
        prog="python -m utils.kaggle.submit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arg = parser.add_argument
    arg("run", help="a run's folder, with fold<k>/ in it")
    arg("--list", action="store_true", help="print which folds are to be trained")
    arg("--wanted", type=int, default=0, metavar="N", help="how many folds there should be; 0: as many as there are")
    arg("--trained", action="store_true", help="look whether all folds are trained")
    arg("--fold", type=int, help="only this one")
    arg("--file", metavar="CSV", help="the submission that ensemble.py wrote")
    arg("--folds", default="input/folds.csv", help="table made by make_folds.py (default: %(default)s)")
    arg("--sample", default="input/sample_submission.csv", help="Kaggle's sample submission (default: %(default)s)")
    return parser.parse_args()


def main():
    args = parse_args()
    if not (args.list or args.trained or args.file):
        raise InputError("nothing is asked for; give --list, --trained or --file runs/chen/submission.csv")
    run = Path(args.run)
    if args.list:
        print(*folds_to_train(run, args.folds, args.wanted))
    if args.trained:
        check_trained(run, fold_numbers(args.folds) if args.fold is None else [args.fold])
    if args.file:
        check_rows(args.file, args.sample)
        print(submit_line(args.file, message(run)))


def fold_numbers(path):
    """The folds of a folds.csv, ascending, without the rows that are always or never trained on."""
    return sorted({int(fold) for fold in read_folds(path, load_classes("hpa"))["fold"] if fold >= 0})


def folds_to_train(run, path, wanted=0):
    """`fold_numbers`; raises InputError where there are not as many as `wanted` (0: any), or where the run has folds of another table,
    which predict.py would average in."""
    folds = fold_numbers(path)
    if not folds:
        raise InputError(f"{path} has no fold to validate on; make it with make_folds.py")
    if wanted and wanted != len(folds):
        raise InputError(
            f"{path} has {plural(len(folds), 'fold')}, not {wanted}; delete it to deal the images out anew"
        )
    others = [file.parent for file in fold_files(run, *ANY_WEIGHTS) if int(file.parent.name[4:]) not in folds]
    if others:
        raise InputError(f"{listing(others)}: no fold of {path} has this number; delete or move the folder")
    return folds


def check_trained(run, folds):
    """Print how far each fold is. Raises InputError where one is not trained to its end."""
    open_folds = []
    for fold in folds:
        path = run / f"fold{fold}" / "last.pt"
        done, told = how_far(path) if path.is_file() else (False, "not begun")
        print(f"{path.parent}: {told}")
        if not done:
            open_folds.append(fold)
    if open_folds:
        raise InputError(
            f"{run}: {plural(len(open_folds), 'fold')} of {len(folds)} not trained to the end ({listing(open_folds, 10)}); "
            "the same command goes on"
        )


def how_far(path):
    """Of a last.pt: is its training at its end, and in words how far."""
    state = checkpoint.load(path)
    if "finished" not in state:
        raise InputError(f"{path} does not say how far its training is; give one that train.py wrote")
    config, epoch = state["config"], state["epoch"]
    used_up = not state["position"] and out_of_time({"max_minutes": 0} | config, state["spent"], state["log"])
    how = "trained" if state["finished"] else "--max-minutes used up" if used_up else "not at its end"
    score = f", best macro F1 {state['score']:.4f} in epoch {state['best_epoch']}" if state["best_epoch"] else ""
    return state["finished"] or used_up, f"{how}, epoch {epoch} of {config['epochs']}{score}"


def check_rows(path, sample):
    """Raise InputError unless a submission has the rows of Kaggle's sample in its order, with classes that there are."""
    ids = read_labels(path, load_classes("hpa"), column="Predicted")["Id"]
    wanted = read_table(sample, ["Id"], what="Kaggle's sample submission")["Id"]
    if ids.tolist() != wanted.tolist():
        raise InputError(
            f"{path} has other rows, or another order, than {sample}; write it anew with ensemble.py --sample"
        )


def message(run):
    """What is said with a submission: the run, and the macro F1 that its thresholds promise."""
    path = run / "thresholds.json"
    if not path.is_file():
        raise InputError(f"{path} is missing; make it with threshold.py {run}")
    fitted = read_json(path, "thresholds", "make it with threshold.py")
    score = fitted.get("macro_f1", {}).get("cross_fitted") if isinstance(fitted, dict) else None
    if not isinstance(score, float):
        raise InputError(f"{path} does not say what macro F1 to expect; make it with threshold.py")
    return f"{run.name}, {plural(len(fold_files(run, *ANY_WEIGHTS)), 'fold')}, macro F1 {score:.4f} cross-fitted"


def submit_line(path, text):
    """The command of Kaggle's client, to be typed as it is."""
    return f"kaggle competitions submit -c {COMPETITION} -f {shlex.quote(str(path))} -m {shlex.quote(text)}"


if __name__ == "__main__":
    run_script(main)
