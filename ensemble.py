"""Combine predictions and decide: predictions, thresholds -> submission.csv

    python ensemble.py test.csv --thresholds runs/chen/thresholds.json
    python ensemble.py test.csv --thresholds 0.5    # one for all classes
    python ensemble.py a.csv b.csv --oof runs/a runs/b -o submission.csv
    python ensemble.py --oof runs/a runs/b          # only the comparison

With --thresholds several files are averaged. With --oof, each network's
out-of-fold predictions in the order of the files, ways to combine are measured
on these, cross-fitted so that no row sees itself: means of probabilities, of
log odds, of ranks; greedy weights; a stack, which is a logistic regression a
class on what all networks say. The simplest of those within one standard error
of the best decides. One network may be stacked too.

Rows come out in the order of the sample submission, which the competition
matches by position.
"""

import argparse
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd

from utils.cli import check_least, run_script
from utils.data import near_duplicates
from utils.data.labels import decode, load_classes
from utils.data.tables import check_ids, read_table
from utils.errors import InputError, plural
from utils.files import check_outputs, write_csv, write_json
from utils.runs.oof import find_predictions, read_members
from utils.runs.predictions import check_classes, check_same_ids, name_classes, read_all_predictions
from utils.runs.thresholds_file import read_positive_rates, read_thresholds
from utils.scoring import blending
from utils.scoring.calibration import logit
from utils.scoring.ensembling import WAYS, Mean
from utils.scoring.label_shift import match_calls
from utils.scoring.thresholds import FLOOR

SAMPLE = "input/sample_submission.csv"


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arg = parser.add_argument
    arg("predictions", nargs="*", metavar="CSV", help="files of predict.py for the images to decide")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--thresholds", metavar="JSON|NUMBER", help="thresholds.json, or one number for all classes")
    how.add_argument(
        "--oof",
        nargs="+",
        action="extend",
        metavar="RUN|CSV",
        help="each network's run, or its out-of-fold predictions",
    )
    arg("--combine", choices=["auto", *WAYS], help="with --oof: how (default: auto)")
    arg("--labels", metavar="CSV", help="with --oof: Id,Target table (default: the folds.csv a run was trained on)")
    arg("--classes", help="with --oof: hpa, cyto or a CSV class,name (default: the run's, or hpa)")
    arg("--repeats", type=int, help="with --oof: cross-fitting splits (default: 2)")
    arg("--seed", type=int, help="with --oof: of these splits (default: 0)")
    arg(
        "--leave-out",
        action="store_true",
        help="with --oof: measure also without each network, which takes longer",
    )
    arg("--report", metavar="JSON", help="with --oof: write every figure, and the weights, here")
    arg("--match-calls", action="store_true",
        help="move each cut-off so that it calls as large a part as out of fold: for darker or brighter test images")  # fmt: skip
    arg("--twins", metavar="CSV", help="near-duplicates Id,twin,bits: their predictions are averaged")
    arg(
        "--use-leak",
        metavar="CSV",
        help="with --twins: give test images the labels of their twins in this Id,Target table",
    )
    arg("--sample", metavar="CSV", help=f"which Ids in which order (default: {SAMPLE})")
    arg("--empty", choices=["likeliest", "leave"],
        help="a row below all cut-offs gets the class nearest to its own, or stays empty (default: likeliest)")  # fmt: skip
    arg("-o", "--out", metavar="CSV", help="where to write (default: submission.csv)")
    return parser.parse_args()


def main():
    args = parse_args()
    check_options(args)
    fill_in(args)
    tables, order = read_predictions(args) if args.predictions else ({}, None)
    pairs = near_duplicates.read_pairs(args.twins, order) if args.twins else None
    known = near_duplicates.read_known_labels(args.use_leak, classes_of(tables)) if args.use_leak else {}
    if args.oof:
        comparison, contents = fit(args, tables)
        way = comparison.ways[comparison.taken]
        thresholds, called, combine = way.thresholds, way.called, way.fitted.apply
    else:
        thresholds, combine = read_thresholds(args.thresholds, classes_of(tables)), Mean().apply
        called = read_positive_rates(args.thresholds, classes_of(tables)) if args.match_calls else None
    if tables:
        scores = combine(np.stack([table.loc[order].to_numpy() for table in tables.values()]))
        if pairs is not None:
            scores = near_duplicates.average_scores(order, scores, pairs)
        if args.match_calls:
            thresholds = match_calls(scores, called)
        decisions = scores >= thresholds
        empty = ~decisions.any(axis=1)
        if known:
            decisions, told = near_duplicates.carry_over_labels(order, decisions, pairs, known)
            empty &= ~told
        if args.empty != "leave":
            decisions[empty, nearest(scores[empty], thresholds)] = True
        write_csv(args.out, pd.DataFrame({"Id": order, "Predicted": decode(decisions)}))
        report(args, classes_of(tables), int(empty.sum()), decisions)
    if args.report:
        write_json(args.report, contents)
        print(f"-> {args.report}")


def check_options(args):
    """Refuse options that do not go together."""
    fitting = ("combine", "labels", "classes", "repeats", "seed", "leave_out", "report")
    deciding = ("match_calls", "twins", "use_leak", "sample", "empty", "out")

    def given(names):
        found = [name for name in names if getattr(args, name) is not None and getattr(args, name) is not False]
        return f"--{found[0].replace('_', '-')}" if found else None

    if not args.oof and (word := given(fitting)):
        raise InputError(f"{word} is for fitting a combination; add --oof, or leave it out")
    if not args.oof and not args.predictions:
        raise InputError("nothing to decide; name the predictions of the test set")
    if not args.predictions and (word := given(deciding)):
        raise InputError(f"{word} is for deciding; name the predictions of the test set, or leave it out")
    if args.oof and args.predictions and len(args.predictions) != len(args.oof):
        raise InputError(
            f"{plural(len(args.predictions), 'prediction file')}, but {plural(len(args.oof), 'network')} after --oof; give one file "
            f"of each network, in the same order"
        )
    if args.leave_out and len(args.oof) == 1:
        raise InputError("--leave-out needs two networks or more after --oof; leave it out")
    if args.use_leak and not args.twins:
        raise InputError(
            "--use-leak needs to know who is whose twin; add --twins, made with python -m utils.tools.find_duplicates"
        )
    if args.match_calls and args.thresholds and not Path(args.thresholds).is_file():
        raise InputError(f"--match-calls needs a thresholds.json that threshold.py wrote, not {args.thresholds}")


def fill_in(args):
    """The defaults of options left out, and the checks of their values."""
    args.combine, args.repeats = args.combine or "auto", 2 if args.repeats is None else args.repeats
    args.seed, args.sample = args.seed or 0, SAMPLE if args.sample is None else args.sample
    args.out = "submission.csv" if args.out is None and args.predictions else args.out
    if not 1 <= args.repeats <= 100:
        raise InputError(f"--repeats {args.repeats} is out of range; give 1 to 100")
    check_least(args, seed=0)
    files, args.labels, _ = find_predictions(args.oof, args.labels) if args.oof else ([], None, None)
    read = [*args.predictions, *files, args.labels, args.sample, args.thresholds, args.twins, args.use_leak]
    check_outputs([args.out, args.report], read)


def read_predictions(args):
    """-> {path: DataFrame}, and the Ids in the order of the sample submission."""
    tables = read_all_predictions(args.predictions)
    order = read_table(args.sample, ["Id"], what="the sample submission")["Id"]
    check_ids(args.sample, order)
    for path, table in tables.items():
        check_same_ids(path, table.index, args.sample, order)
    return tables, order


def classes_of(tables):
    return list(next(iter(tables.values())).columns)


def fit(args, tables):
    """Measure the networks and ways to combine them, print them: -> `blend.Comparison`, and its figures for --report."""
    members, truth, classes, note = read_members(args.oof, args.labels, args.classes and load_classes(args.classes))
    for path in tables:
        tables[path] = name_classes(tables[path], classes)
        check_classes(path, tables[path], classes)
    comparison = blending.compare(args.oof, truth, members, args.combine, args.repeats, args.seed, args.leave_out)
    if note:
        print(note)
    blending.report(comparison, len(truth))
    for path, name in zip(tables, args.oof, strict=False):
        print(f"{path} is predicted by {name}")
    return comparison, blending.contents(comparison, classes, len(truth))


def nearest(scores, thresholds):
    """Most likely class relative to its threshold: largest log odds over the threshold's, (N, C) -> (N,)."""
    return (logit(scores, FLOOR) - logit(thresholds, FLOOR)).argmax(axis=1)


def report(args, classes, empty, decisions):
    print(
        f"{plural(len(args.predictions), 'file')}, {plural(len(decisions), 'row')}, {decisions.sum() / len(decisions):.2f} classes a row"
    )
    filled = "stay empty" if args.empty == "leave" else "got their likeliest class"
    print(f"{plural(empty, 'row')} below every cut-off {filled}")
    called = [f"{name} {count:,}" for name, count in zip(classes, decisions.sum(axis=0), strict=True)]
    print(textwrap.fill(f"called: {', '.join(called)}", 79, subsequent_indent="  "))
    print(f"-> {args.out}")


if __name__ == "__main__":
    run_script(main)
