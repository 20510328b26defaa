"""Redraw the figures of Chen's paper, and its Table I, from a run's files.

    python -m utils.tools.plot runs/chen          # -> runs/chen/fold<k>/figures/
    python -m utils.tools.plot runs/chen/fold0 -o figures --human human.csv

figure2.png   images of each class, training and validation
figure5.png   nine values at every step
figure6.png   macro F1 and focal score of each epoch
figure7.png   F1 of each class by epoch
figure8.png   precision and recall of the best epoch
figure9.png   each class's accuracy, with --human beside a person's
table1.csv    best thresholds of each class, raw and smoothed
"""

import argparse
from pathlib import Path

import pandas as pd

from utils import plots
from utils.cli import run_script
from utils.engine import losses
from utils.errors import InputError
from utils.files import check_writable, write_csv
from utils.runs.oof import read_last_epochs
from utils.runs.predictions import EPOCHS_FOLDER
from utils.runs.run_folder import RETRAIN, fold_files, read_fold, read_numbers
from utils.scoring.metrics import best_global_threshold, class_scores
from utils.scoring.thresholds.chen import table_one
from utils.tools.evaluate import read_person

FIGURES = [f"figure{number}.png" for number in (2, 5, 6, 7, 8, 9)]


def parse_args():
    parser = argparse.ArgumentParser(
        prog="python -m utils.tools.plot", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder or fold folder")
    parser.add_argument("--human", metavar="CSV", help="Id,Target of a person, for figure 9")
    parser.add_argument(
        "-o", "--out", metavar="FOLDER", help="where to write (default: figures/ in each fold's folder)"
    )
    return parser.parse_args()


def main():
    args = parse_args()
    folders = [folder for run in args.runs for folder in find_folds(run)]
    if args.out and len(folders) > 1:
        raise InputError(f"{len(folders)} folds cannot share one --out; name one fold, or leave it out")
    for folder in folders:
        check_writable(Path(args.out or folder / "figures") / FIGURES[0])
    runs = [read_run(folder, args.human) for folder in folders]  # all are read before the first is drawn
    for folder, run in zip(folders, runs, strict=True):
        out = Path(args.out or folder / "figures")
        draw(run, out)
        print(f"{folder} -> {out}/: {', '.join([*FIGURES, 'table1.csv'])}")


def find_folds(run):
    """A fold's folder, or all of a run's that are trained."""
    found = fold_files(run, "log.csv", itself=True)
    if not found:
        raise InputError(f"{run} holds no log.csv and no fold<k>/log.csv; train a fold first")
    return [path.parent for path in found]


def read_run(folder, human=None):
    """A fold's files: -> dict of what the figures need."""
    fold = read_fold(folder, "loss", "fold")
    names = [f"f1 {name}" for name in fold.classes]
    log = read_numbers(folder / "log.csv", ["epoch", "macro_f1", "valid_focal", *names])
    epochs = read_last_epochs(folder, fold.oof)
    if epochs is None:
        raise InputError(f"{folder} lacks epochs' predictions in {EPOCHS_FOLDER}/, as older runs; {RETRAIN}")
    schedule = losses.parse_schedule(str(fold.config["loss"]))
    switches = [(epoch, losses.describe(terms)) for epoch, terms in schedule[1:] if epoch <= log["epoch"].max()]
    person = read_person(human, fold.classes, fold.ids, folder / "oof.csv") if human else None
    steps = read_numbers(folder / "steps.csv", ["step", "epoch", *plots.NINE])
    if steps["epoch"].max() < log["epoch"].max():
        raise InputError(f"{folder / 'steps.csv'} ends before log.csv does; {RETRAIN}")
    first_steps = [(int(steps["step"][steps["epoch"] >= epoch].min()), name) for epoch, name in switches]
    return {"fold": fold, "log": log, "steps": steps, "epochs": epochs, "switches": switches, "first_steps": first_steps,
            "person": person}  # fmt: skip


def draw(run, out):
    """All figures and Table I of one fold into the folder `out`."""
    fold, steps, log, switches = run["fold"], run["steps"], run["log"], run["switches"]
    classes, truth, oof = fold.classes, fold.truth, fold.oof
    threshold, _ = best_global_threshold(truth, oof)
    plots.split(fold.train.sum(axis=0), truth.sum(axis=0), classes, fold.config["fold"], out / "figure2.png")
    plots.nine_curves(steps, run["first_steps"], out / "figure5.png")
    plots.validation(log, switches, out / "figure6.png")
    plots.class_curves(log, classes, truth.sum(axis=0), switches, out / "figure7.png")
    plots.precision_recall(truth, oof, threshold, out / "figure8.png")
    machine, person, positives = class_scores(truth, oof >= threshold), None, None
    if run["person"]:
        rows, decisions = run["person"]
        person, positives = class_scores(truth[rows], decisions), truth[rows].sum(axis=0)
    images = {"machine": f"{len(truth):,} validation images, at the cut-off best for them, {threshold:.3f}"}
    images["person"] = f"{len(run['person'][0]):,} of these" if run["person"] else None
    plots.person_and_machine(classes, positives, machine, person, out / "figure9.png", images)
    raw, smoothed = table_one(truth, oof, run["epochs"])
    write_csv(out / "table1.csv", pd.DataFrame({"class": ["All", *classes], "raw": raw, "smoothed": smoothed}))


if __name__ == "__main__":
    run_script(main)
