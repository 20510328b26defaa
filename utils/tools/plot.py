"""Redraw the figures of Chen's paper, and its Table I, from a run's files.

    python -m utils.tools.plot runs/chen     # -> runs/chen/fold<k>/figures/
    python -m utils.tools.plot runs/chen/fold0 -o figures --human human.csv

figure2.png   images of each class, training and validation
figure5.png   nine values at every step
figure6.png   macro F1 and focal score of each epoch
figure7.png   F1 of each class by epoch
figure8.png   precision and recall of the epoch kept
figure9.png   each class's accuracy, with --human beside a person's
table1.csv    best thresholds of each class, raw and smoothed
"""

from collections import namedtuple
from pathlib import Path

import pandas as pd

from utils.cli import option_parser, run_script
from utils.engine import losses
from utils.errors import InputError
from utils.files import check_writable, write_csv
from utils.plots import training_curves
from utils.plots.comparison import person_and_machine
from utils.plots.decisions import precision_recall
from utils.runs.oof import read_last_epochs
from utils.runs.predictions import EPOCHS_FOLDER
from utils.runs.run_folder import RETRAIN, fold_files, read_fold, read_numbers
from utils.scoring.metrics import best_global_threshold, class_scores
from utils.scoring.thresholds.chen import table_one
from utils.tools.evaluate import read_person

FIGURES = [f"figure{number}.png" for number in (2, 5, 6, 7, 8, 9)]
# fold: of read_fold. log, steps: DataFrames of log.csv and steps.csv. epochs: each epoch's predictions. switches,
# first_steps: [(first epoch, loss)] and [(first step, loss)] of the loss's later stages. person: of read_person, or
# None.
History = namedtuple("History", "fold log steps epochs switches first_steps person")


def main():
    parser = option_parser(__doc__, "utils.tools.plot")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder or fold folder")
    parser.add_argument("--human", metavar="CSV", help="Id,Target of a person, for figure 9")
    parser.add_argument("-o", "--out", metavar="FOLDER", help="output folder (default: figures/ in each fold's folder)")
    args = parser.parse_args()
    folders = []
    for run in args.runs:
        if not (found := fold_files(run, "log.csv", itself=True)):
            raise InputError(f"{run} holds no log.csv and no fold<k>/log.csv; train a fold first")
        folders += [path.parent for path in found]
    if args.out and len(folders) > 1:
        raise InputError(f"{len(folders)} folds cannot share one --out; name one fold, or leave it out")
    for folder in folders:
        check_writable(Path(args.out or folder / "figures") / FIGURES[0])
    # All input is read before the first figure is drawn.
    histories = [read_history(folder, args.human) for folder in folders]
    for folder, history in zip(folders, histories, strict=True):
        out = Path(args.out or folder / "figures")
        draw_figures(history, out)
        print(f"{folder} -> {out}/: {', '.join([*FIGURES, 'table1.csv'])}")


def read_history(folder, human=None):
    """Read the tables that a trained fold wrote, and a person's labels in the file `human`, if given: -> History."""
    fold = read_fold(folder, "loss", "fold")
    columns = ["epoch", "macro_f1", "valid_focal", *(f"f1 {name}" for name in fold.classes)]
    log = read_numbers(folder / "log.csv", columns)
    if (epochs := read_last_epochs(folder, fold.oof)) is None:
        raise InputError(f"{folder} lacks each epoch's predictions in {EPOCHS_FOLDER}/, as older runs do; {RETRAIN}")
    schedule = losses.parse_schedule(fold.config.loss or "")
    steps = read_numbers(folder / "steps.csv", ["step", "epoch", *training_curves.STEP_CURVES])
    if steps["epoch"].max() < log["epoch"].max():
        raise InputError(f"{folder / 'steps.csv'} ends before log.csv does; {RETRAIN}")
    per_epoch = (steps["epoch"] == log["epoch"].min()).sum()
    later = [(stage.first_step(per_epoch), losses.describe_terms(stage.value)) for stage in schedule[1:]]
    later = [(step, name) for step, name in later if step < steps["step"].max()]
    first_steps = [(step + 1, name) for step, name in later]
    switches = [(step / per_epoch + 1, name) for step, name in later]
    person = read_person(human, fold.classes, fold.ids, folder / "oof.csv") if human else None
    return History(fold, log, steps, epochs, switches, first_steps, person)


def draw_figures(history, out):
    """Draw all figures and write Table I of one fold into the folder `out`."""
    fold, log, truth, oof = history.fold, history.log, history.fold.truth, history.fold.oof
    classes, positives = fold.classes, truth.sum(axis=0)
    threshold, _ = best_global_threshold(truth, oof)
    counts = fold.train.sum(axis=0), positives
    training_curves.train_validation_split(*counts, classes, fold.config.fold, out / "figure2.png")
    training_curves.nine_curves(history.steps, history.first_steps, out / "figure5.png")
    training_curves.validation_scores(log, history.switches, out / "figure6.png")
    training_curves.class_curves(log, classes, positives, history.switches, out / "figure7.png")
    precision_recall(truth, oof, threshold, out / "figure8.png")
    images = {"machine": f"{len(truth):,} validation images, at the threshold best for them, {threshold:.3f}"}
    scores = None
    if history.person:
        rows, labels = history.person
        scores, positives = class_scores(truth[rows], labels), truth[rows].sum(axis=0)
        images["person"] = f"{len(rows):,} of these"
    machine = class_scores(truth, oof >= threshold)
    person_and_machine(classes, positives, machine, scores, out / "figure9.png", images)
    raw, smoothed = table_one(truth, oof, history.epochs)
    write_csv(out / "table1.csv", pd.DataFrame({"class": ["All", *classes], "raw": raw, "smoothed": smoothed}))


if __name__ == "__main__":
    run_script(main)
