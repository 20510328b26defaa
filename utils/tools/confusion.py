"""Confusion matrix of a network, and of a person. (Rumetshofer et al., Tables 3
and 4, Fig. 5)

    python -m utils.tools.confusion test.csv --labels input/demo/solution.csv
    python -m utils.tools.confusion test.csv --labels solution.csv \\
        --classes cyto --human human.csv --plot confusion.png -o confusion.json

Only images of exactly one class are used. The network's answer is the class of
highest probability, a person's is in --human (Id,Target). With --human both
are measured on the images that the person labelled, and compared with
McNemar's test.
"""

import numpy as np
import pandas as pd

from utils.cli import option_parser, run_script
from utils.data.labels import load_classes, read_truth
from utils.errors import InputError, plural
from utils.files import write_json
from utils.plots.comparison import confusion_matrices
from utils.scoring.metrics import multilabel_scores
from utils.scoring.significance import mcnemar
from utils.tools.evaluate import add_options, check_outputs, read_person, read_probabilities

RATIOS = ("f1", "precision", "recall")


def main():
    parser = option_parser(__doc__, "utils.tools.confusion")
    add_options(parser, plot="draw the matrices, each row divided by its sum")
    args = check_outputs(parser.parse_args())
    classes = load_classes(args.classes)
    table = read_probabilities(args.predictions, classes)
    truth = read_truth(args.labels, classes, table.index.tolist(), args.predictions)
    single = truth.sum(axis=1) == 1
    if not single.any():
        raise InputError(f"{args.labels}: no image of {args.predictions} has exactly one class; give such images")
    answers = {"network": table.to_numpy().argmax(axis=1)}
    if args.human:
        answers["person"] = read_answers(args.human, classes, table.index, args.predictions)
        single &= answers["person"] >= 0
        if not single.any():
            raise InputError(f"{args.human} has no image of exactly one class; let the person label such images")
    who = " that the person judged" if args.human else ""
    print(f"{plural(int(single.sum()), 'image')} of exactly one class{who}, of {len(truth):,}")
    true = truth[single].argmax(axis=1)
    answers = {who: part[single] for who, part in answers.items()}
    matrices = {who: count(true, part, len(classes)) for who, part in answers.items()}
    present = np.unique(np.concatenate([true, *answers.values()]))
    scores = {who: single_scores(true, part, present) for who, part in answers.items()}
    test = mcnemar(*(part == true for part in answers.values())) if args.human else {}
    print_scores(scores, test)
    for who, matrix in matrices.items():
        print_mistakes(who, matrix, classes)
    if args.plot:
        titles = [f"{who}: {part['accuracy']:.1%} of {len(true):,} images right" for who, part in scores.items()]
        confusion_matrices(dict(zip(titles, matrices.values(), strict=True)), classes, args.plot)
        print(f"-> {args.plot}")
    if args.out:
        counts = {who: matrix.tolist() for who, matrix in matrices.items()}
        write_json(args.out, {"classes": classes, "counts": counts, "scores": scores, "mcnemar": test})
        print(f"-> {args.out}")


def read_answers(path, classes, ids, predictions):
    """Read a person's class of each image: -> (N,) int, −1 for images without a label."""
    rows, labels = read_person(path, classes, ids.tolist(), predictions)
    if len(odd := np.flatnonzero(labels.sum(axis=1) != 1)):
        what = f"{plural(len(odd), 'row')} without exactly one class, the first {ids[rows[odd[0]]]}"
        raise InputError(f"{path}: {what}; give one class each")
    answers = np.full(len(ids), -1)
    answers[rows] = labels.argmax(axis=1)
    return answers


def count(true, answers, num_classes):
    """Count a confusion matrix: two (N,) of class numbers -> (C, C) int, rows true, columns answers."""
    return np.bincount(true * num_classes + answers, minlength=num_classes**2).reshape(num_classes, num_classes)


def of_one_class(truth, probabilities):
    """Score images of exactly one class: truth (N, C) 0/1, probabilities (N, C) -> confusion matrix (C, C),
    `single_scores`, number of images. Raises InputError if there is no such image."""
    rows = np.flatnonzero(truth.sum(axis=1) == 1)
    if not len(rows):
        raise InputError("no image has exactly one class; give such images")
    true, answers = truth[rows].argmax(axis=1), probabilities[rows].argmax(axis=1)
    return count(true, answers, truth.shape[1]), single_scores(true, answers, np.union1d(true, answers)), len(rows)


def taken_for(truth, decisions):
    """Count pairs of a false negative (row) and a false positive (column) in one image: (N, C), (N, C) of 0/1 -> (C, C)
    int; (C,) false negatives; (C,) false positives."""
    truth, decisions = np.asarray(truth, bool), np.asarray(decisions, bool)
    missed, wrong = (truth & ~decisions).astype(int), (decisions & ~truth).astype(int)
    return missed.T @ wrong, missed.sum(axis=0), wrong.sum(axis=0)


def beyond_chance(truth, decisions, classes, most=10):
    """List the pairs of `taken_for` with the most images beyond chance: -> DataFrame, a row per pair. By chance, an
    image with a false negative has a false positive of another class as often as any image without that class."""
    counts, _, wrong = taken_for(truth, decisions)
    absent = 1 - np.asarray(truth, int)
    missed = np.asarray(truth, int) * (1 - np.asarray(decisions, int))
    chance = (missed.T @ absent) * wrong / np.maximum(absent.sum(axis=0), 1)
    order = np.argsort(chance - counts, axis=None, kind="stable")[:most]
    rows, columns = np.unravel_index(order, counts.shape)
    pairs = {"missed": [classes[row] for row in rows], "predicted instead": [classes[column] for column in columns]}
    return pd.DataFrame(pairs | {"images": counts[rows, columns], "by chance": chance[rows, columns]})


def single_scores(true, answers, classes):
    """Compute Table 3: accuracy, and F1, precision and recall averaged over `classes`, the class numbers that occur."""
    scores = multilabel_scores(true[:, None] == classes, answers[:, None] == classes)
    return {"accuracy": float((true == answers).mean())} | {name: scores[name]["class"] for name in RATIOS}


def print_scores(scores, test):
    print(f"\n{'':10}{'accuracy':>10}{'F1':>11}{'precision':>11}{'recall':>11}")
    for who, part in scores.items():
        print(f"{who:10}{part['accuracy']:>10.4f}" + "".join(f"{part[name]:>11.4f}" for name in RATIOS))
    if test:
        only = f"only the network {test['only_first']:,}, only the person {test['only_second']:,}"
        print(f"\nboth right {test['both']:,}, {only}, neither {test['neither']:,}")
        print(f"McNemar's test: p = {test['p']:.1e}, exact {test['p_exact']:.1e}")


def print_mistakes(who, matrix, classes, most=8):
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    print(f"\n{who}, commonest mistakes{'':6}{'true':>5} {'answer':30}{'images':>7}")
    for true, answer in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if wrong[true, answer]:
            name = f"{classes[true]} ({matrix[true].sum():,})"
            print(f"  {name[:36]:37} {classes[answer][:30]:30}{wrong[true, answer]:>7,}")


if __name__ == "__main__":
    run_script(main)
