"""How good are predictions, and is a person better? (Chen, Table II and Fig. 9)

    python -m utils.tools.evaluate test.csv --labels input/demo/solution.csv \\
        --thresholds runs/demo/thresholds.json
    python -m utils.tools.evaluate submission.csv --labels solution.csv \\
        --human human.csv --plot figure9.png -o table2.json
    python -m utils.tools.evaluate hpav18.csv --labels input/folds.csv \\
        --thresholds 0.268 --unseen-by runs/chen

Predictions are probabilities with --thresholds, or a submission. With --human,
a person's Id,Target for some of the same images, both are compared on these
images, and McNemar's test says whether they differ; the table and the figure
by class show the machine on all. --unseen-by refuses if a run has trained or
validated on an image of the same Id.
"""

import argparse
import os
from pathlib import Path

import numpy as np

from utils import plots
from utils.cli import run_script
from utils.data.labels import encode, load_classes, read_labels, read_table, read_truth
from utils.errors import InputError, listing, plural
from utils.files import check_writable, write_json
from utils.runs.predictions import check_classes, read_predictions
from utils.runs.run_folder import ANEW, ANY_WEIGHTS, fold_files
from utils.safe_load import read_json
from utils.scoring.metrics import READINGS, class_scores, multilabel_scores
from utils.scoring.significance import mcnemar
from utils.scoring.thresholds import read_thresholds

RATIOS = {"f1": "F1", "precision": "precision", "recall": "recall", "iou": "IoU"}


def parse_args():
    parser = argparse.ArgumentParser(
        prog="python -m utils.tools.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arg = parser.add_argument
    arg("predictions", metavar="CSV", help="file of predict.py, an oof.csv, or a submission Id,Predicted")
    arg("--labels", required=True, metavar="CSV", help="Id,Target: what is true")
    arg("--thresholds", metavar="JSON|NUMBER", help="for probabilities: thresholds.json, or one number for all classes")
    arg("--classes", default="hpa", help="hpa, cyto or a CSV class,name (default: %(default)s)")
    arg("--human", metavar="CSV", help="Id,Target: what a person said of some of these images")
    arg("--unseen-by", action="append", default=[], metavar="RUN", help="refuse if this run has seen any of the images")
    arg("--plot", metavar="PNG", help="draw each class's IoU, F1 and accuracy, with --human beside the person's")
    arg("-o", "--out", metavar="JSON", help="write every number here too")
    return parser.parse_args()


def main():
    args = parse_args()
    for path in (args.plot, args.out):
        if path:
            check_writable(path)
    classes = load_classes(args.classes)
    ids, decisions = read_decisions(args.predictions, args.thresholds, classes)
    truth = read_truth(args.labels, classes, ids, args.predictions)
    if in_sample := fitted_on(args.thresholds, args.predictions):
        print(f"IN SAMPLE: {args.thresholds} was fitted on these very predictions, which flatters every figure\n")
    for run in args.unseen_by:
        check_unseen(run, ids, args.predictions)
    person = read_person(args.human, classes, ids, args.predictions) if args.human else None

    columns = {f"machine, {len(ids):,}": (truth, decisions)}
    if person:
        rows, said = person
        columns = {
            f"person, {len(rows):,}": (truth[rows], said),
            "machine, same": (truth[rows], decisions[rows]),
        } | columns
    scores = {name: multilabel_scores(*pair) for name, pair in columns.items()}
    print_table(scores)
    tests = {}
    if person:
        tests = compare(truth[rows], said, decisions[rows])
        print_tests(tests, len(rows))
    machine = class_scores(truth, decisions)
    by_class = {"machine": machine} | ({"person": class_scores(truth[rows], said)} if person else {})
    print_classes(classes, truth, by_class, truth[rows] if person else None)
    if args.plot:
        seen = truth[rows].sum(axis=0) if person else None
        images = {"machine": f"{len(ids):,} images", "person": f"{len(rows):,} of these" if person else None}
        plots.person_and_machine(classes, seen, machine, by_class.get("person"), args.plot, images)
    if args.out:
        numbers = {who: {name: values.tolist() for name, values in part.items()} for who, part in by_class.items()}
        write_json(
            args.out,
            {"classes": classes, "in_sample": in_sample, "scores": scores, "mcnemar": tests, "by_class": numbers},
        )
    for path in (args.plot, args.out):
        if path:
            print(f"-> {path}")


def read_decisions(path, thresholds, classes):
    """-> Ids (list) and 0/1 decisions (N, C) of a submission, or of probabilities at `thresholds`."""
    header = read_table(path, ["Id"], what="predictions or a submission").columns
    if "Predicted" in header:
        if thresholds is not None:
            raise InputError(f"{path} is a submission, already decided; leave --thresholds out")
        table = read_labels(path, classes, column="Predicted")
        return table["Id"].tolist(), encode(table["Predicted"], classes)
    table = read_predictions(path, classes)
    check_classes(path, table, classes)
    if thresholds is None:
        raise InputError(f"{path} holds probabilities; add --thresholds thresholds.json, or a number such as 0.5")
    return table.index.tolist(), (table.to_numpy() >= read_thresholds(thresholds, classes)).astype(np.uint8)


def fitted_on(thresholds, predictions):
    """Does a thresholds.json name this file among those it was fitted on, perhaps under the name that their run had before?"""
    if thresholds is None or not Path(thresholds).is_file():
        return False
    content = read_json(thresholds, "a thresholds.json", "fit it with threshold.py")
    files = content.get("fitted_on") if isinstance(content, dict) else None
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        return False
    own, folder = Path(predictions).resolve(), Path(thresholds).resolve().parent
    within = own.relative_to(folder).parts if own.is_relative_to(folder) else ()
    moved = [
        file for file in files if within and Path(file).parts[-len(within) :] == within and not os.path.exists(file)
    ]
    return str(own) in files or bool(moved)


def read_person(path, classes, ids, predictions):
    """A person's labels of some of the images: -> positions in `ids` (n,), 0/1 decisions (n, C)."""
    table = read_labels(path, classes)
    place = {id_: row for row, id_ in enumerate(ids)}
    if unknown := [id_ for id_ in table["Id"] if id_ not in place]:
        raise InputError(
            f"{path}: {plural(len(unknown), 'Id')} not in {predictions}: {listing(unknown)}; predict these images too"
        )
    return np.array([place[id_] for id_ in table["Id"]]), encode(table["Target"], classes)


def check_unseen(run, ids, path):
    """Raise InputError if a run, or any fold of it, has trained on one of the images or validated on it."""
    folds = [file.parent for names in (ANY_WEIGHTS, ["oof.csv"]) for file in fold_files(run, *names, itself=True)]
    if not folds:
        raise InputError(f"{run} holds no best.safetensors or oof.csv and no fold<k> with one; name a run's folder")
    for file in [folder / "rows.csv" for folder in dict.fromkeys(folds)]:
        if not file.is_file():
            raise InputError(f"{file} does not exist, so what was trained on is not known; {ANEW}")
        seen = set(read_table(file, ["Id"], what="the rows of a run")["Id"])
        if both := [id_ for id_ in ids if id_ in seen]:
            raise InputError(
                f"{path}: {plural(len(both), 'Id')} of {len(ids):,} were trained or validated on ({file}): {listing(both)}; "
                f"evaluate on images this run has never seen"
            )


def compare(truth, person, machine):
    """McNemar's test, machine first: on whole images, which are independent of one another, and on single labels."""
    right = [(decided == truth) for decided in (machine, person)]
    return {
        "images": mcnemar(*(part.all(axis=1) for part in right)),
        "labels": mcnemar(*(part.ravel() for part in right)),
    }


def print_table(scores):
    print(f"{'':30}" + "".join(f"{name:>16}" for name in scores))
    for key, title in (("correct", "correct labels"), ("total", "total labels")):
        print(f"{title:30}" + "".join(f"{part[key]:>16,}" for part in scores.values()))
    print(f"{'binary accuracy':30}" + "".join(f"{part['binary_accuracy']:>16.2%}" for part in scores.values()))
    for key, title in RATIOS.items():
        for reading in READINGS:
            name = f"{title}, {reading if reading == 'pooled' else reading + ' mean'}"
            print(f"{name:30}" + "".join(f"{part[key][reading]:>16.4f}" for part in scores.values()))
    print("\n" + "\n".join(f"{reading:7} {meaning}" for reading, meaning in READINGS.items()))


def print_tests(tests, images):
    print(f"\nMcNemar's test on the {plural(images, 'image')} both judged")
    print(f"{'right on':24}{'both':>7}{'machine':>9}{'person':>8}{'neither':>9}{'p':>9}{'p exact':>9}")
    titles = {"images": "all labels of an image", "labels": "single labels*"}
    for unit, title in titles.items():
        test = tests[unit]
        counts = [test[key] for key in ("both", "only_first", "only_second", "neither")]
        print(f"{title:24}" + "".join(f"{n:>{w},}" for n, w in zip(counts, (7, 9, 8, 9), strict=True))
              + f"{test['p']:>9.1e}{test['p_exact']:>9.1e}")  # fmt: skip
    print("* the labels of one image hang together, so their p looks better than it is")


def print_classes(classes, truth, by_class, truth_of_person):
    both = "person" in by_class
    print(f"\n{'':3}{'class':22}{'images':>7}{'accuracy':>9}{'F1':>6}{'IoU':>6}"
          + (f"{'  person:':9}{'n':>4}{'F1':>6}{'IoU':>6}" if both else ""))  # fmt: skip
    for number, name in enumerate(classes):
        part = by_class["machine"]
        line = f"{number:>2} {name[:21]:22}{truth[:, number].sum():>7,}{part['accuracy'][number]:>9.2%}"
        line += f"{part['f1'][number]:>6.3f}{part['iou'][number]:>6.3f}"
        if both:
            part = by_class["person"]
            line += f"{truth_of_person[:, number].sum():>13,}{part['f1'][number]:>6.3f}{part['iou'][number]:>6.3f}"
        print(line)


if __name__ == "__main__":
    run_script(main)
