"""The numbers and figures of Chen's paper from one trained fold, and its predictions of images never trained on."""

import pandas as pd

from utils.data.labels import HPA_CLASSES
from utils.data.tables import read_table
from utils.errors import InputError
from utils.plots.comparison import person_and_machine
from utils.runs.run_folder import read_numbers
from utils.runs.thresholds_file import read_rule
from utils.scoring.metrics import READINGS, class_scores, multilabel_scores
from utils.tools import plot
from utils.tools.evaluate import read_person
from utils.tools.paper.trained import TEST, Ours, Results, tested

TEXT, ONE, TWO, THREE = "Sections III and IV", "Table I", "Table II", "Table III"
THRESHOLD = 0.268  # III.D, chosen by hand for all classes
FITTED = "thresholds.json"  # in the run's folder, of threshold.py
SPEED = "speed.csv"  # in the run's folder, of predict.py --benchmark
CAPTIONS = {
    "figure2.png": "Fig. 2: images of each class, training and validation",
    "figure5.png": "Fig. 5: nine values at every step",
    "figure6.png": "Fig. 6: macro F1 and focal score of each epoch",
    "figure7.png": "Fig. 7: F1 of each class by epoch",
    "figure8.png": "Fig. 8: precision and recall of the best epoch",
    "figure9.png": f"Fig. 9: each class, machine (test images, threshold {THRESHOLD}) and person",
}
NO_PERSON = "no person's labels; give --human"


def measure(runs, human, out):
    """Draw Figs. 2 and 5 to 9 into the folder `out` and measure Tables I to III. runs: of `find_runs`. human: the file of
    a person's labels of test images, or None. -> Results."""
    run = runs["machine"]
    if run.fold.classes != list(HPA_CLASSES):
        raise InputError(f"{run.folder} has other classes than the competition's 28; train with --classes hpa")
    history, test = plot.read_history(run.fold.folder), tested(run)
    person = read_person(human, run.fold.classes, test.ids, run.folder / TEST) if human else None
    fitted = read_rule(run.folder / FITTED, run.fold.classes)
    speed = read_table(
        run.folder / SPEED, ["images", "batch", "all", "device"], what="a table of predict.py --benchmark"
    )
    plot.draw_figures(history, out)
    raw, smoothed = plot.table_one(history.fold.truth, history.fold.oof, history.epochs)
    decisions = test.probabilities >= THRESHOLD
    draw_figure_9(test, decisions, person, out)
    values = _text(run, test, decisions, raw[0], person)
    for row, *both in zip(["All", *map(str, range(len(HPA_CLASSES)))], raw, smoothed, strict=True):
        for column, value in zip(("raw", "smoothed"), both, strict=True):
            values[ONE, row, column] = [Ours(value, run.note)]
    ways = {f"threshold {THRESHOLD}": decisions, "fitted thresholds": fitted.decide(test.probabilities)}
    parts = [table_two(test.truth, taken, "machine", run.note, way) for way, taken in ways.items()]
    values |= {key: [number for part in parts for number in part[key]] for key in parts[0]}
    if person:
        rows, labels = person
        values |= table_two(test.truth[rows], labels, "human", f"{len(rows):,} images")
    values |= table_three(speed)
    labels = {str(number): f"{number} {name}" for number, name in enumerate(HPA_CLASSES)}
    missing = {"human": NO_PERSON, "images that a person labelled": NO_PERSON}
    return Results(values, missing, list(CAPTIONS.items()), labels)


def _text(run, test, decisions, threshold, person):
    """The numbers between the tables."""
    log = read_numbers(run.fold.folder / "log.csv", ["soft_f1", "precision", "recall"])
    last, iou = log.iloc[-1], class_scores(test.truth, decisions)["iou"]
    batches = f"{run.note}; mean over the batches of the last epoch".removeprefix("; ")
    smooth = "1 − soft F1, in which a class absent from a batch counts too, so not the paper's formula"
    at = f"IoU at {THRESHOLD} on the test images"
    numbers = {
        "images to train and validate on": Ours(len(run.fold.train) + len(run.fold.truth), run.note),
        "test images, never trained on": Ours(len(test.ids), run.note),
        "epochs": Ours(len(log), run.note),
        "training F1": Ours(1 - last["soft_f1"], f"{batches}; {smooth}"),
        "training precision": Ours(last["precision"], f"{batches}, pooled, at 0.5"),
        "training recall": Ours(last["recall"], f"{batches}, pooled, at 0.5"),
        "threshold for all classes": Ours(threshold, "the best of 1000 points for our validation images"),
        "accuracy of the best class": Ours(iou.max(), f"{HPA_CLASSES[iou.argmax()]}; {at}"),
        "accuracy of Nucleoli": Ours(iou[HPA_CLASSES.index("Nucleoli")], at),
    }
    if person:
        numbers["images that a person labelled"] = Ours(len(person[0]))
    return {(TEXT, row, "machine"): [number] for row, number in numbers.items()}


def table_two(truth, decisions, column, note, way=""):
    """Table II: -> values of `Results`. The paper does not name its averages of precision, recall and IoU, so each way of
    averaging is given (see `multilabel_scores`)."""
    scores = multilabel_scores(truth, decisions)
    counts = {"correct labels": "correct", "total labels": "total", "binary accuracy": "binary_accuracy"}
    values = {(TWO, row, column): [Ours(scores[key], note, way)] for row, key in counts.items()}
    values[TWO, "F1, macro", column] = [Ours(scores["f1"]["class"], note, way)]
    for row, key in {"precision": "precision", "recall": "recall", "IoU": "iou"}.items():
        names = {reading: reading if reading == "pooled" else f"{reading} mean" for reading in READINGS}
        readings = [(", ".join(filter(None, (way, name))), scores[key][reading]) for reading, name in names.items()]
        values[TWO, row, column] = [Ours(value, note, name) for name, value in readings]
    return values


def draw_figure_9(test, decisions, person, out):
    """Fig. 9 as in the paper: the machine on all test images, a person on those labelled."""
    images, counts, scores = {"machine": f"{len(test.ids):,} test images", "person": None}, None, None
    if person:
        rows, labels = person
        scores, counts = class_scores(test.truth[rows], labels), test.truth[rows].sum(axis=0)
        images["person"] = f"{len(rows):,} of these"
    machine = class_scores(test.truth, decisions)
    person_and_machine(test.classes, counts, machine, scores, out / "figure9.png", images)


def table_three(speed):
    """Table III from the rows of `predict.py --benchmark`: the original files, npy copies one at a time and 64."""
    seconds = pd.to_numeric(speed["all"], errors="coerce")
    copies, single = speed["images"].str.endswith("npy"), speed["batch"] == "1"
    rows = {"4x1728x1728 .jpg, batch 1": ~copies, "4x512x512 .npy, batch 1": copies & single}
    rows["4x512x512 .npy, batch 64"] = copies & ~single
    if not all(row.sum() == 1 for row in rows.values()) or not (seconds > 0).all():
        raise InputError(f"{SPEED} lacks the three rows of predict.py --benchmark; delete it and measure again")
    values = {}
    for name, row in rows.items():
        (place,) = speed.index[row]
        note = f"{speed['images'][place]} on {speed['device'][place]}"
        values[THREE, name, "one P100, 16 vCPU"] = [Ours(seconds[place], note)]
    fastest = Ours(1 / seconds[place], f"{note}, batch {speed['batch'][place]}")
    values[THREE, "images per second", "one P100, 16 vCPU"] = [fastest]
    values[THREE, "images per minute", "one P100, 16 vCPU"] = [fastest._replace(value=60 * fastest.value)]
    return values
