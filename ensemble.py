"""Combine predictions and decide: predictions, thresholds -> submission.csv

    python ensemble.py test.csv --thresholds runs/chen/thresholds.json
    python ensemble.py test.csv --thresholds 0.5    # one for all classes
    python ensemble.py a.csv b.csv --oof runs/a runs/b -o submission.csv
    python ensemble.py --oof runs/a runs/b          # only the comparison

With --thresholds several files are averaged. With --oof, each network's
out-of-fold predictions in the order of the files, ways to combine are
measured on these, cross-fitted so that no row sees itself: means of
probabilities, of log odds, of ranks; greedily weighted; stacked, a logistic
regression a class on what all networks say. The simplest of those that are within one
standard error of the best decides. One network may be stacked too.

Rows come out in the order of the sample submission, which the competition
matches by position.
"""

import argparse
import textwrap

import numpy as np
import pandas as pd

from utils import blend, twins
from utils.calibration import logit
from utils.combine import WAYS, Mean
from utils.cutoffs import read_called, read_thresholds
from utils.errors import InputError, check_least, plural, run_script
from utils.files import check_writable, write_csv, write_json
from utils.labels import check_ids, decode, load_classes, read_table
from utils.outoffold import gather_members
from utils.predictions import check_classes, read_all, same_ids
from utils.shift import match_calls


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arg = parser.add_argument
    arg("predictions", nargs="*", metavar="CSV", help="files of predict.py for the images to decide")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--thresholds", metavar="JSON|NUMBER", help="thresholds.json, or one number for all classes")
    how.add_argument("--oof", nargs="+", metavar="RUN|CSV", help="each network's run, or its out-of-fold predictions")
    arg("--combine", choices=["auto", *WAYS], default="auto", help="with --oof: how (default: %(default)s)")
    arg("--labels", metavar="CSV", help="with --oof: Id,Target table (default: the folds.csv a run was trained on)")
    arg("--classes", help="with --oof: hpa, cyto or a CSV class,name (default: the run's, or hpa)")
    arg("--repeats", type=int, default=2, help="with --oof: cross-fitting splits (default: %(default)s)")
    arg("--seed", type=int, default=0, help="with --oof: of these splits (default: %(default)s)")
    arg("--report", metavar="JSON", help="with --oof: write every figure, and the weights, here")
    arg("--match-calls", action="store_true",
        help="move each cut-off so that as large a part is called as out of fold: for darker or brighter test images")  # fmt: skip
    arg("--twins", metavar="CSV", help="near-duplicates Id,twin,bits: their predictions are averaged")
    arg(
        "--use-leak",
        metavar="CSV",
        help="with --twins: give test images the labels of their twins in this Id,Target table",
    )
    arg("--sample", default="input/sample_submission.csv", help="which Ids in which order (default: %(default)s)")
    arg("--empty", choices=["likeliest", "leave"], default="likeliest",
        help="a row below all cut-offs gets the class nearest to its own, or stays empty (default: %(default)s)")  # fmt: skip
    arg("-o", "--out", default="submission.csv", help="where to write (default: %(default)s)")
    return parser.parse_args()


def main():
    args = parse_args()
    check_options(args)
    tables, order = read_predictions(args) if args.predictions else ({}, None)
    if args.oof:
        way = fit(args, tables)
        if not tables:
            return
        thresholds, called, combine = way.thresholds, way.called, way.fitted.apply
    else:
        thresholds, combine = read_thresholds(args.thresholds, classes_of(tables)), Mean().apply
        called = read_called(args.thresholds) if args.match_calls else None
    pairs, labels = read_twins(args, order, classes_of(tables))
    members = np.stack([table.loc[order].to_numpy() for table in tables.values()])
    scores = combine(members)
    if pairs is not None:
        scores = twins.average(order, scores, pairs)
    if args.match_calls:
        thresholds = match_calls(scores, called)
    decisions = decide(scores, thresholds, args.empty)
    if labels is not None:
        decisions = twins.carry_over(order, decisions, pairs, labels)
    write_csv(args.out, pd.DataFrame({"Id": order, "Predicted": decode(decisions)}))
    report(args, classes_of(tables), scores, thresholds, decisions)


def check_options(args):
    if not args.oof:
        for name in ("labels", "classes", "report"):
            if getattr(args, name):
                raise InputError(f"--{name} is for fitting a combination; add --oof, or leave it out")
        if args.combine != "auto":
            raise InputError(
                "--combine needs --oof, the predictions it is fitted on; with --thresholds files are averaged"
            )
        if not args.predictions:
            raise InputError("nothing to decide; name the predictions of the test set")
    elif args.predictions and len(args.predictions) != len(args.oof):
        raise InputError(
            f"{plural(len(args.predictions), 'prediction file')}, but {plural(len(args.oof), 'network')} after --oof; give one file "
            f"of each network, in the same order"
        )
    if args.use_leak and not args.twins:
        raise InputError(
            "--use-leak needs to know who is whose twin; add --twins, made with python -m utils.duplicates"
        )
    if not 1 <= args.repeats <= 100:
        raise InputError(f"--repeats {args.repeats} is out of range; give 1 to 100")
    check_least(args, seed=0)
    for path in (args.predictions and args.out, args.report):
        if path:
            check_writable(path)


def read_predictions(args):
    """-> {path: DataFrame}, and the Ids in the order of the sample submission."""
    tables = read_all(args.predictions)
    order = read_table(args.sample, ["Id"], what="the sample submission")["Id"]
    check_ids(args.sample, order)
    for path, table in tables.items():
        same_ids(path, table.index, args.sample, order)
    return tables, order


def classes_of(tables):
    return list(next(iter(tables.values())).columns)


def fit(args, tables):
    """Measure the networks and ways to combine them, print them: -> `blend.Way` of the one taken."""
    members, truth, classes, note = gather_members(args.oof, args.labels, args.classes and load_classes(args.classes))
    for path, table in tables.items():
        check_classes(path, table, classes)
    comparison = blend.compare(args.oof, truth, members, args.combine, args.repeats, args.seed)
    if note:
        print(note)
    blend.report(comparison, len(truth))
    if args.report:
        write_json(args.report, blend.contents(comparison, classes, len(truth)))
        print(f"-> {args.report}")
    return comparison.ways[comparison.taken]


def read_twins(args, order, classes):
    """-> pairs of twins (P, 3) or None, {Id: decisions} of the labels to carry over or None."""
    if not args.twins:
        return None, None
    pairs = twins.read_pairs(args.twins)
    return pairs, twins.read_known(args.use_leak, classes) if args.use_leak else None


def decide(scores, thresholds, empty):
    """(N, C) 0/1; a row below all thresholds gets the class nearest to its own, or with empty "leave" none."""
    decisions = scores >= thresholds
    none = ~decisions.any(axis=1)
    if empty == "likeliest":
        decisions[none, (logit(scores[none]) - logit(thresholds)).argmax(axis=1)] = True
    return decisions


def report(args, classes, scores, thresholds, decisions):
    empty = int((~(scores >= thresholds).any(axis=1)).sum())
    what = f"{plural(len(args.predictions), 'file')}, {plural(len(decisions), 'row')}"
    print(f"{what}, {decisions.sum() / len(decisions):.2f} classes a row")
    filled = "got their likeliest class" if args.empty == "likeliest" else "stay empty"
    print(f"{plural(empty, 'row')} below every cut-off {filled}")
    called = [f"{name} {count:,}" for name, count in zip(classes, decisions.sum(axis=0), strict=True)]
    print(textwrap.fill(f"called: {', '.join(called)}", 79, subsequent_indent="  "))
    print(f"-> {args.out}")


if __name__ == "__main__":
    run_script(main)
