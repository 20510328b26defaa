"""Score predictions, and compare them with a person's (Chen, Table II, Fig. 9).

    python -m utils.tools.evaluate test.csv --labels input/demo/solution.csv \\
        --thresholds runs/demo/thresholds.json
    python -m utils.tools.evaluate submission.csv --labels solution.csv \\
        --human human.csv --plot figure9.png -o table2.json
    python -m utils.tools.evaluate hpav18.csv --labels input/folds.csv \\
        --thresholds 0.268 --unseen-by runs/chen

Predictions are probabilities with --thresholds, or a submission. --human is a
person's Id,Target for some of the images: McNemar's test compares both on
these images; the table and the figure by class show the machine on all
images. --unseen-by exits with an error if a run trained or validated on an
image of the same Id.
"""

import os
from pathlib import Path

import numpy as np

from utils.cli import option_parser, run_script
from utils.data.labels import encode, load_classes, read_labels, read_truth
from utils.data.tables import read_table
from utils.errors import InputError, listing, plural
from utils.files import check_writable, write_json
from utils.plots.comparison import person_and_machine
from utils.runs.predictions import check_classes, read_predictions
from utils.runs.run_folder import ANY_WEIGHTS, RETRAIN, fold_files
from utils.runs.thresholds_file import read_rule
from utils.safe_load import read_json
from utils.scoring.metrics import READINGS, class_scores, mean_average_precision, multilabel_scores
from utils.scoring.significance import mcnemar

RATIOS = {"f1": "F1", "precision": "precision", "recall": "recall", "iou": "IoU"}


def parse_args():
    parser = option_parser(__doc__, "utils.tools.evaluate")
    arg = add_options(parser, plot="draw each class's IoU, F1 and accuracy, with --human beside the person's")
    arg("--thresholds", metavar="JSON|NUMBER", help="for probabilities: thresholds.json, or one number for all classes")
    arg("--unseen-by", action="append", default=[], metavar="RUN", help="fail if this run has seen any of the images")
    return check_outputs(parser.parse_args())


def add_options(parser, plot):
    """Add the options shared with utils.tools.confusion: -> parser.add_argument."""
    arg = parser.add_argument
    arg("predictions", metavar="CSV", help="file of predict.py or an oof.csv")
    arg("--labels", required=True, metavar="CSV", help="Id,Target: the true labels")
    arg("--classes", default="hpa", help="hpa, cyto, hpa2021 or a CSV class,name (default: %(default)s)")
    arg("--human", metavar="CSV", help="Id,Target: a person's labels of some of these images")
    arg("--plot", metavar="PNG", help=plot)
    arg("-o", "--out", metavar="JSON", help="also write all numbers here")
    return arg


def check_outputs(args):
    for path in (args.plot, args.out):
        if path:
            check_writable(path)
    return args


def main():
    args = parse_args()
    classes = load_classes(args.classes)
    ids, decisions, probabilities = read_decisions(args.predictions, args.thresholds, classes)
    truth = read_truth(args.labels, classes, ids, args.predictions)
    if in_sample := fitted_on(args.thresholds, args.predictions):
        print(f"IN SAMPLE: {args.thresholds} was fitted on these predictions, so every score is optimistic\n")
    for run in args.unseen_by:
        check_unseen(run, ids, args.predictions)
    columns, tests = {}, {}
    machine, person, shared = class_scores(truth, decisions), None, None
    images = {"machine": f"{len(ids):,} images", "person": None}
    if args.human:
        rows, answers = read_person(args.human, classes, ids, args.predictions)
        shared, ours = truth[rows], decisions[rows]
        columns = {f"person, {len(rows):,}": (shared, answers), "machine, same": (shared, ours)}
        right = [part == shared for part in (ours, answers)]
        # Images are independent, labels within an image are not.
        tests = {"images": mcnemar(*(part.all(axis=1) for part in right)), "labels": mcnemar(*map(np.ravel, right))}
        person, images["person"] = class_scores(shared, answers), f"{len(rows):,} of these"
    columns[f"machine, {len(ids):,}"] = truth, decisions
    scores = {name: multilabel_scores(*pair) for name, pair in columns.items()}
    print_scores(scores)
    known = probabilities is not None and truth.any()
    precision = mean_average_precision(truth, probabilities) if known else None
    if precision is not None:
        print(f"\naverage precision, mean of the {truth.any(axis=0).sum()} classes that occur: {precision:.4f}")
    if tests:
        print_tests(tests, len(shared))
    print_classes(classes, truth, machine, person, shared)
    if args.plot:
        counts = None if person is None else shared.sum(axis=0)
        person_and_machine(classes, counts, machine, person, args.plot, images)
        print(f"-> {args.plot}")
    if args.out:
        judges = {"machine": machine} | ({"person": person} if person else {})
        by_class = {who: {name: values.tolist() for name, values in part.items()} for who, part in judges.items()}
        found = {"classes": classes, "in_sample": in_sample, "scores": scores, "mcnemar": tests, "by_class": by_class}
        write_json(args.out, found | {"mean_average_precision": precision})
        print(f"-> {args.out}")


def read_decisions(path, thresholds, classes):
    """Read a submission, or probabilities and decide at `thresholds`: -> Ids (list), 0/1 decisions (N, C), probabilities
    (N, C) or None."""
    header = read_table(path, ["Id"], what="predictions or a submission").columns
    if "Predicted" in header:
        if thresholds is not None:
            raise InputError(f"{path} is a submission, already decided; leave --thresholds out")
        table = read_labels(path, classes, column="Predicted")
        return table["Id"].tolist(), encode(table["Predicted"], classes), None
    table = read_probabilities(path, classes)
    if thresholds is None:
        raise InputError(f"{path} holds probabilities; add --thresholds thresholds.json, or a number such as 0.5")
    probabilities = table.to_numpy()
    return table.index.tolist(), read_rule(thresholds, classes).decide(probabilities).astype(np.uint8), probabilities


def read_probabilities(path, classes):
    """Read a predictions file with exactly these classes: -> DataFrame."""
    table = read_predictions(path, classes)
    check_classes(path, table, classes)
    return table


def fitted_on(thresholds, predictions):
    """Return whether a thresholds.json was fitted on this file, even if the run's folder has been renamed since."""
    if thresholds is None or not Path(thresholds).is_file():
        return False
    content = read_json(thresholds, "a thresholds.json", "fit it with threshold.py")
    files = content.get("fitted_on") if isinstance(content, dict) else None
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        return False
    own, folder = Path(predictions).resolve(), Path(thresholds).resolve().parent
    within = own.relative_to(folder).parts if own.is_relative_to(folder) else ()
    gone = [Path(file).parts for file in files if not os.path.exists(file)]
    return str(own) in files or any(within and parts[-len(within) :] == within for parts in gone)


def read_person(path, classes, ids, predictions):
    """Read a person's labels of some images: -> positions in `ids` (n,), 0/1 decisions (n, C)."""
    table = read_labels(path, classes)
    place = {id_: row for row, id_ in enumerate(ids)}
    if unknown := [id_ for id_ in table["Id"] if id_ not in place]:
        what = f"{plural(len(unknown), 'Id')} not in {predictions}: {listing(unknown)}"
        raise InputError(f"{path}: {what}; predict these images too")
    return np.array([place[id_] for id_ in table["Id"]]), encode(table["Target"], classes)


def check_unseen(run, ids, path):
    """Raise InputError if a run, or any of its folds, trained or validated on one of the images."""
    folds = [file.parent for names in (ANY_WEIGHTS, ["oof.csv"]) for file in fold_files(run, *names, itself=True)]
    if not folds:
        raise InputError(f"{run} holds no best.safetensors or oof.csv and no fold<k> with one; name a run's folder")
    for file in dict.fromkeys(folder / "rows.csv" for folder in folds):
        if not file.is_file():
            raise InputError(f"{file} does not exist, so the run's training images are not known; {RETRAIN}")
        seen = set(read_table(file, ["Id"], what="the rows of a run")["Id"])
        if both := [id_ for id_ in ids if id_ in seen]:
            what = f"{plural(len(both), 'Id')} of {len(ids):,} were trained or validated on ({file})"
            raise InputError(f"{path}: {what}: {listing(both)}; evaluate on images this run has never seen")


def print_scores(scores):
    rows = {"": [f"{name:>16}" for name in scores]}
    for key, title in {"correct": "correct labels", "total": "total labels"}.items():
        rows[title] = [f"{part[key]:>16,}" for part in scores.values()]
    rows["binary accuracy"] = [f"{part['binary_accuracy']:>16.2%}" for part in scores.values()]
    for key, title in RATIOS.items():
        for reading in READINGS:
            name = f"{title}, {reading if reading == 'pooled' else reading + ' mean'}"
            rows[name] = [f"{part[key][reading]:>16.4f}" for part in scores.values()]
    print("\n".join(f"{name:30}{''.join(cells)}" for name, cells in rows.items()))
    print("\n" + "\n".join(f"{reading:7} {meaning}" for reading, meaning in READINGS.items()))


def print_tests(tests, images):
    print(f"\nMcNemar's test on the {plural(images, 'image')} both judged")
    print(f"{'right on':24}{'both':>7}{'machine':>9}{'person':>8}{'neither':>9}{'p':>9}{'p exact':>9}")
    for unit, title in {"images": "all labels of an image", "labels": "single labels*"}.items():
        test = tests[unit]
        counts = f"{test['both']:>7,}{test['only_first']:>9,}{test['only_second']:>8,}{test['neither']:>9,}"
        print(f"{title:24}{counts}{test['p']:>9.1e}{test['p_exact']:>9.1e}")
    print("* labels within an image are correlated, so p is optimistic")


def print_classes(classes, truth, machine, person, shared):
    header = "" if person is None else f"{'  person:':9}{'n':>4}{'F1':>6}{'IoU':>6}"
    print(f"\n{'':3}{'class':22}{'images':>7}{'accuracy':>9}{'F1':>6}{'IoU':>6}{header}")
    for n, name in enumerate(classes):
        line = f"{n:>2} {name[:21]:22}{truth[:, n].sum():>7,}{machine['accuracy'][n]:>9.2%}"
        line += f"{machine['f1'][n]:>6.3f}{machine['iou'][n]:>6.3f}"
        if person is not None:
            line += f"{shared[:, n].sum():>13,}{person['f1'][n]:>6.3f}{person['iou'][n]:>6.3f}"
        print(line)


if __name__ == "__main__":
    run_script(main)
