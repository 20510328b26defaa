"""Which class is taken for which, and is a person better? (Rumetshofer et al.,
Tables 3 and 4, Fig. 5)

    python -m utils.tools.confusion test.csv --labels input/demo/solution.csv
    python -m utils.tools.confusion test.csv --labels solution.csv --classes cyto \\
        --human human.csv --plot confusion.png -o confusion.json

On the images of exactly one class: the network says the class of highest
probability, a person the one in --human (Id,Target). With --human both are
measured on the images that the person labelled, and McNemar's test says
whether they differ.
"""

import argparse

import numpy as np
import pandas as pd

from utils.cli import run_script
from utils.data.labels import load_classes, read_truth
from utils.errors import InputError, plural
from utils.files import check_writable, write_json
from utils.plots.comparison import confusion_matrices
from utils.runs.predictions import check_classes, read_predictions
from utils.scoring.metrics import multilabel_scores
from utils.scoring.significance import mcnemar
from utils.tools.evaluate import read_person

RATIOS = ("f1", "precision", "recall")


def parse_args():
    parser = argparse.ArgumentParser(
        prog="python -m utils.tools.confusion",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arg = parser.add_argument
    arg("predictions", metavar="CSV", help="file of predict.py, or an oof.csv")
    arg("--labels", required=True, metavar="CSV", help="Id,Target: what is true")
    arg("--classes", default="hpa", help="hpa, cyto or a CSV class,name (default: %(default)s)")
    arg("--human", metavar="CSV", help="Id,Target: the one class a person said of some of these images")
    arg("--plot", metavar="PNG", help="draw the matrices, each row divided by its sum")
    arg("-o", "--out", metavar="JSON", help="write counts and scores here")
    return parser.parse_args()


def main():
    args = parse_args()
    for path in (args.plot, args.out):
        if path:
            check_writable(path)
    classes = load_classes(args.classes)
    table = read_predictions(args.predictions, classes)
    check_classes(args.predictions, table, classes)
    truth = read_truth(args.labels, classes, table.index.tolist(), args.predictions)
    single = truth.sum(axis=1) == 1
    if not single.any():
        raise InputError(f"{args.labels}: no image of {args.predictions} has exactly one class; give images that have")
    said = {"network": table.to_numpy().argmax(axis=1)}
    if args.human:
        rows, labels = read_person(args.human, classes, table.index.tolist(), args.predictions)
        single = judged(args.human, rows, labels, single, table.index)
        said["person"] = np.full(len(truth), -1)
        said["person"][rows] = labels.argmax(axis=1)
    who = ", that the person judged" if args.human else ""
    print(f"{plural(int(single.sum()), 'image')} of exactly one class{who}, of {len(truth):,}")
    true = truth[single].argmax(axis=1)
    said = {who: answers[single] for who, answers in said.items()}
    matrices = {who: count(true, answers, len(classes)) for who, answers in said.items()}
    there = np.unique(np.concatenate([true, *said.values()]))
    scores = {who: single_scores(true, answers, there) for who, answers in said.items()}
    print_scores(scores)
    test = mcnemar(*(answers == true for answers in said.values())) if args.human else {}
    if test:
        print_test(test)
    for who, matrix in matrices.items():
        print_worst(who, matrix, classes)
    if args.plot:
        titles = {who: f"{who}: {scores[who]['accuracy']:.1%} of {len(true):,} images right" for who in said}
        confusion_matrices({titles[who]: matrix for who, matrix in matrices.items()}, classes, args.plot)
        print(f"-> {args.plot}")
    if args.out:
        counts = {who: matrix.tolist() for who, matrix in matrices.items()}
        write_json(args.out, {"classes": classes, "counts": counts, "scores": scores, "mcnemar": test})
        print(f"-> {args.out}")


def judged(path, rows, labels, single, ids):
    """Which images of one class the person judged: (N,) bool. Raises InputError where an answer is not one class."""
    if len(odd := np.flatnonzero(labels.sum(axis=1) != 1)):
        raise InputError(
            f"{path}: {plural(len(odd), 'row')} without exactly one class, the first {ids[rows[odd[0]]]}; give one class each"
        )
    both = np.zeros(len(single), bool)
    both[rows] = True
    if not (both & single).any():
        raise InputError(f"{path} has no image of exactly one class; let the person label such images")
    return both & single


def count(true, said, classes):
    """Confusion matrix of (N,) class numbers: (C, C) int, rows true, columns said."""
    return np.bincount(true * classes + said, minlength=classes * classes).reshape(classes, classes)


def of_one_class(truth, probabilities):
    """How a network does on the images of exactly one class, if it may name one: confusion matrix (C, C), scores of
    `single_scores`, number of images. truth (N, C) 0/1, probabilities (N, C). Raises InputError where no image has just one."""
    rows = np.flatnonzero(truth.sum(axis=1) == 1)
    if not len(rows):
        raise InputError("no image has exactly one class; give images that have")
    true, said = truth[rows].argmax(axis=1), probabilities[rows].argmax(axis=1)
    return count(true, said, truth.shape[1]), single_scores(true, said, np.union1d(true, said)), len(rows)


def taken_for(truth, decisions):
    """What was called in the place of what: (N, C), (N, C) of 0/1 -> (C, C) int, images that miss the class of the row and were
    wrongly given the class of the column; (C,) images that miss each class; (C,) that were wrongly given it. An image with
    several of both counts in each pair."""
    truth, decisions = np.asarray(truth, bool), np.asarray(decisions, bool)
    missed, wrong = (truth & ~decisions).astype(int), (decisions & ~truth).astype(int)
    return missed.T @ wrong, missed.sum(axis=0), wrong.sum(axis=0)


def beyond_chance(truth, decisions, classes, most=10):
    """The pairs of `taken_for` that stand out: a DataFrame with a row a pair, falling in images beyond chance. By chance, an image
    that misses a class is wrongly given another as often as any image that has not got it."""
    counts, _, wrong = taken_for(truth, decisions)
    absent = 1 - np.asarray(truth, int)
    missed = np.asarray(truth, int) * (1 - np.asarray(decisions, int))
    chance = (missed.T @ absent) * wrong / np.maximum(absent.sum(axis=0), 1)
    order = np.argsort(chance - counts, axis=None, kind="stable")[:most]
    rows, columns = np.unravel_index(order, counts.shape)
    return pd.DataFrame(
        {
            "missed": [classes[row] for row in rows],
            "called instead": [classes[column] for column in columns],
            "images": counts[rows, columns],
            "by chance": chance[rows, columns],
        }
    )


def single_scores(true, said, classes):
    """Table 3: accuracy, and F1, precision, recall as means over `classes`, the numbers of those that occur or that anyone said."""
    scores = multilabel_scores(true[:, None] == classes, said[:, None] == classes)
    return {"accuracy": float((true == said).mean())} | {name: scores[name]["class"] for name in RATIOS}


def print_scores(scores):
    print(f"\n{'':10}{'accuracy':>10}" + "".join(f"{name if name != 'f1' else 'F1':>11}" for name in RATIOS))
    for who, part in scores.items():
        print(f"{who:10}{part['accuracy']:>10.4f}" + "".join(f"{part[name]:>11.4f}" for name in RATIOS))


def print_test(test):
    print(f"\nboth right {test['both']:,}, only the network {test['only_first']:,}, only the person {test['only_second']:,}, "
          f"neither {test['neither']:,}\nMcNemar's test: p = {test['p']:.1e}, exact {test['p_exact']:.1e}")  # fmt: skip


def print_worst(who, matrix, classes, most=8):
    """The commonest mistakes."""
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    print(f"\n{who}, commonest mistakes{'':6}{'true':>5} {'taken for':30}{'images':>7}")
    for true, said in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if wrong[true, said]:
            name = f"{classes[true]} ({matrix[true].sum():,})"
            print(f"  {name[:36]:37} {classes[said][:30]:30}{wrong[true, said]:>7,}")


if __name__ == "__main__":
    run_script(main)
