"""Combine predictions and decide: predictions, thresholds -> submission.csv

    python ensemble.py test.csv --thresholds runs/chen/thresholds.json
    python ensemble.py test.csv --thresholds 0.5    # one for all classes
    python ensemble.py a.csv b.csv --oof runs/a runs/b -o submission.csv
    python ensemble.py --oof runs/a runs/b          # only the comparison
    python ensemble.py test.csv --thresholds runs/chen/thresholds.json \\
        --format names -o names.csv
    python ensemble.py cells.csv --format 2021 --masks masks

With --thresholds several files are averaged. With --oof, each network's
out-of-fold predictions in the order of the files, combinations are compared on
these, cross-fitted so that no row sees itself: means of probabilities, of log
odds, of ranks; greedy weights; a stack, one logistic regression per class on
the predictions of all networks. The simplest of those within one standard
error of the best decides. One network can be stacked too (more simply by
threshold.py --stack, whose thresholds.json holds the stack).

Rows have the order of the sample submission, which the competition matches by
position. --format names writes locations by name instead, with probability,
threshold and held-out F1, and needs no sample submission.

--format 2021 writes a submission of the single-cell competition from tables of
cells (predict.py --cells): several are averaged, 28 classes merged into its
19, and every cell gets each class with a confidence above --min-score.
"""

import argparse
import os
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd

from utils.cli import check_least, option_parser, run_script
from utils.data import near_duplicates
from utils.data.labels import decode, load_classes
from utils.data.tables import check_ids, read_table
from utils.errors import InputError, data_size, listing, plural
from utils.files import check_outputs, first_repeated, write_csv, write_json
from utils.runs import cell_submission, location_table
from utils.runs.oof import find_predictions, read_members
from utils.runs.predictions import check_classes, check_same_ids, name_classes, read_all_predictions
from utils.runs.thresholds_file import read_held_out_f1, read_positive_rates, read_rule
from utils.scoring import ensembling
from utils.scoring.cross_fit import describe_gain, print_summaries
from utils.scoring.ensembling import COMBINATIONS
from utils.scoring.label_shift import match_positives

# Defaults of the options for fitting a combination, and of those for deciding.
FITTING = {"combine": "auto", "labels": None, "classes": None}
FITTING |= {"repeats": 2, "seed": 0, "leave_out": False, "report": None}
DECIDING = {"match_positives": False, "near_duplicates": None, "use_leak": None}
DECIDING |= {"format": "kaggle", "sample": "input/sample_submission.csv", "empty": "likeliest", "out": "submission.csv"}
CELLS = {"format": "2021", "masks": None, "min_score": 0.0, "sample": DECIDING["sample"], "out": DECIDING["out"]}
DECIDING_NAMES = DECIDING | {"sample": None, "empty": "leave", "out": "names.csv"}  # the defaults with --format names


def parse_args():
    """-> options with defaults filled in, and the names of those given."""
    parser = option_parser(__doc__, argument_default=argparse.SUPPRESS)
    parser.add_argument("predictions", nargs="*", default=[], metavar="CSV", help="files of predict.py to decide")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--thresholds", metavar="JSON|NUMBER", help="thresholds.json, or one number for all classes")
    how.add_argument("--oof", nargs="+", action="extend", metavar="RUN|CSV", help="each network's run or predictions")
    arg = parser.add_argument_group("with --oof").add_argument
    arg("--combine", choices=["auto", *COMBINATIONS], help=f"the combination (default: {FITTING['combine']})")
    arg("--labels", metavar="CSV", help="Id,Target table (default: the folds.csv a run was trained on)")
    arg("--classes", help="hpa, cyto, hpa2021 or a CSV class,name (default: the run's, or hpa)")
    arg("--repeats", type=int, help=f"cross-fitting splits (default: {FITTING['repeats']})")
    arg("--seed", type=int, help=f"of these splits (default: {FITTING['seed']})")
    arg("--leave-out", action="store_true", help="measure also without each network, which takes longer")
    arg("--report", metavar="JSON", help="write every figure, and the weights, here")
    arg = parser.add_argument_group("with predictions to decide").add_argument
    text = "move thresholds to the fraction of positives out of fold: for darker or brighter images"
    arg("--match-positives", "--match-calls", action="store_true", help=text)
    arg("--near-duplicates", "--twins", metavar="CSV", help="pairs Id,twin,bits: their predictions are averaged")
    text = "Id,Target: give test images the labels of their near-duplicates in this table"
    arg("--use-leak", metavar="CSV", help=text)
    text = "a submission of 2018, a table of locations by name, or a submission of single cells"
    arg("--format", choices=["kaggle", "names", "2021"], help=f"{text} (default: {DECIDING['format']})")
    text = f"which Ids in which order (default: {DECIDING['sample']}; for names as predicted)"
    arg("--sample", metavar="CSV", help=text)
    text = "a row below all thresholds: give it the class nearest to its own, or none"
    text += f" (default: {DECIDING['empty']}; for names {DECIDING_NAMES['empty']})"
    arg("--empty", choices=["likeliest", "leave"], help=text)
    text = f"where to write (default: {DECIDING['out']}, {DECIDING_NAMES['out']})"
    arg("-o", "--out", metavar="CSV", help=text)
    arg = parser.add_argument_group("with --format 2021").add_argument
    arg("--masks", metavar="FOLDER", help="label images <Id>.png, the masks of the cells")
    text = "leave out detections that are no more confident than this, for a smaller file"
    arg("--min-score", type=float, metavar="NUMBER", help=f"{text} (default: {CELLS['min_score']:g})")
    given = vars(parser.parse_args())
    if given.get("format") == "2021":
        return argparse.Namespace(**CELLS | given), list(given)
    if not given.keys() & {"thresholds", "oof"}:
        parser.error("one of the arguments --thresholds --oof is required")
    deciding = DECIDING_NAMES if given.get("format") == "names" else DECIDING
    return argparse.Namespace(**{"thresholds": None, "oof": None} | FITTING | deciding | given), list(given)


def main():
    args, given = parse_args()
    if args.format == "2021":
        return submit_cells(args, given)
    check_options(args, given)
    tables, order = read_predictions(args) if args.predictions else ({}, None)
    pairs = near_duplicates.read_pairs(args.near_duplicates, order) if args.near_duplicates else None
    known = near_duplicates.read_known_labels(args.use_leak, classes_of(tables)) if args.use_leak else {}
    if args.oof:
        fitted, report, f1 = fit(args, tables)
        classes = classes_of(tables) if tables else None
        thresholds, rates, combine = fitted.thresholds, fitted.held_out[0].mean(axis=0), fitted.combination.apply
    else:
        rule = read_rule(args.thresholds, classes_of(tables))
        classes, f1 = rule.classes, read_held_out_f1(args.thresholds, classes_of(tables))
        thresholds, combine = rule.thresholds, lambda members: rule.scores(members.mean(axis=0))
        rates = read_positive_rates(args.thresholds, classes_of(tables)) if args.match_positives else None
    if tables:
        scores = combine(np.stack([table.loc[order].to_numpy() for table in tables.values()]))
        if pairs is not None:
            scores = near_duplicates.average_scores(order, scores, pairs)
        if args.match_positives:
            thresholds, f1 = match_positives(scores, rates), np.full(len(rates), np.nan)
        decisions = scores >= thresholds
        empty = ~decisions.any(axis=1)
        if known:
            decisions, leaked = near_duplicates.carry_over_labels(order, decisions, pairs, known)
            empty &= ~leaked
        if args.empty != "leave":
            decisions[empty, location_table.log_odds_above(scores[empty], thresholds).argmax(axis=1)] = True
        if args.format == "names":
            location_table.write(args.out, location_table.Calls(classes, scores, thresholds, f1, decisions), order)
        else:
            write_csv(args.out, pd.DataFrame({"Id": order, "Predicted": decode(decisions)}))
        print_decisions(args, classes_of(tables), int(empty.sum()), decisions)
    if args.report:
        write_json(args.report, report)
        print(f"-> {args.report}")


def submit_cells(args, given):
    """Write a submission of the single-cell competition."""
    if other := [name for name in given if name not in {"predictions", *CELLS}]:
        raise InputError(f"--{other[0].replace('_', '-')} does not go with --format 2021; leave it out")
    if not args.predictions:
        raise InputError("nothing to submit; name the tables of cells")
    if not args.masks:
        raise InputError("--format 2021 needs the masks of the cells; add --masks FOLDER")
    if repeated := first_repeated(args.predictions):
        raise InputError(f"{repeated} is given twice; name each file once")
    check_least(args, min_score=(0, 1))
    check_outputs([args.out], [*args.predictions, args.sample])
    cells = cell_submission.average_cells(args.predictions)
    count, empty = cell_submission.write_submission(args.out, cells, args.masks, args.sample, args.min_score)
    print(f"{plural(len(args.predictions), 'file')}, {plural(len(cells), 'cell')}, {plural(count, 'detection')}")
    if empty:
        print_paragraph(f"{plural(len(empty), 'image')} without any: {listing(empty)}")
    print(f"-> {args.out} ({data_size(Path(args.out).stat().st_size)})")


def check_options(args, given):
    """Refuse options that exclude each other, values out of range, and outputs that cannot be written."""
    if cells := [name for name in ("masks", "min_score") if name in given]:
        raise InputError(f"--{cells[0].replace('_', '-')} is for single cells; add --format 2021, or leave it out")
    fitting, deciding = (
        [f"--{name.replace('_', '-')}" for name in part if name in given] for part in (FITTING, DECIDING)
    )
    if not args.oof and fitting:
        raise InputError(f"{fitting[0]} is for fitting a combination; add --oof, or leave it out")
    if not args.oof and not args.predictions:
        raise InputError("nothing to decide; name the predictions of the test set")
    if not args.predictions and deciding:
        raise InputError(f"{deciding[0]} is for deciding; name the predictions of the test set, or leave it out")
    if args.oof and args.predictions and len(args.predictions) != len(args.oof):
        raise InputError(
            f"{plural(len(args.predictions), 'prediction file')}, but {plural(len(args.oof), 'network')} after --oof; give one "
            f"file of each network, in the same order"
        )
    if args.leave_out and len(args.oof) == 1:
        raise InputError("--leave-out needs two networks or more after --oof; leave it out")
    if args.use_leak and not args.near_duplicates:
        raise InputError("--use-leak needs --near-duplicates CSV; make it with python -m utils.tools.find_duplicates")
    if args.match_positives and args.thresholds and not Path(args.thresholds).is_file():
        raise InputError(f"--match-positives needs a thresholds.json that threshold.py wrote, not {args.thresholds}")
    if not 1 <= args.repeats <= 100:
        raise InputError(f"--repeats {args.repeats} is out of range; give 1 to 100")
    check_least(args, seed=0)
    files, args.labels, _ = find_predictions(args.oof, args.labels) if args.oof else ([], None, None)
    read = [*args.predictions, *files, args.labels, args.sample, args.thresholds, args.near_duplicates, args.use_leak]
    check_outputs([args.out if args.predictions else None, args.report], read)


def read_predictions(args):
    """-> {path: DataFrame}, and the Ids in the order of the sample submission, or without one of the first file."""
    tables = read_all_predictions(args.predictions)
    if args.sample is None:
        reference, order = next((path, table.index) for path, table in tables.items())
    else:
        reference, order = args.sample, read_table(args.sample, ["Id"], what="the sample submission")["Id"]
        check_ids(args.sample, order)
    for path, table in tables.items():
        check_same_ids(path, table.index, reference, order)
    return tables, order


def classes_of(tables):
    return list(next(iter(tables.values())).columns)


def fit(args, tables):
    """Compare networks and combinations, print the table: -> the chosen one's `Fitted`, every figure as a dict for JSON, and
    the held-out F1 (C,) of its classes.

    Thresholds of a combination are on its own scale, so the JSON is no thresholds.json.
    """
    members, truth, classes, note = read_members(args.oof, args.labels, args.classes and load_classes(args.classes))
    for path in tables:
        tables[path] = name_classes(tables[path], classes)
        check_classes(path, tables[path], classes)
    found = ensembling.compare(args.oof, truth, members, args.combine, args.repeats, args.seed, args.leave_out)
    if note:
        print(note)
    print_comparison(found, len(truth))
    for path, name in zip(tables, args.oof, strict=False):
        print(f"{path} is predicted by {name}")
    f1 = np.where(truth.any(axis=0), found.combinations[found.chosen]["per_class_cross_fitted"], np.nan)
    report = {
        "combine": found.chosen,
        "classes": list(classes),
        "combined_thresholds": found.fitted.thresholds.tolist(),
        "rows": len(truth),
        "networks": {str(name): figures for name, figures in found.networks.items()},
        "ways": found.combinations,
        "greedy_weights": found.weights,
        "loses_without": found.losses,
    }
    return found.fitted, report, f1


def print_comparison(found, rows):
    """The table of networks and combinations, and what each network adds."""
    names = short_names(found.networks)
    results = list(zip(names, found.networks.values(), strict=True))
    results += [(COMBINATIONS[name].title, figures) for name, figures in found.combinations.items()]
    print(f"macro F1 over {rows:,} rows at each class's threshold (bagged)")
    print_summaries(results, COMBINATIONS[found.chosen].title, width=28)
    if found.chosen == "stack":
        other, *gain = found.gain
        other = COMBINATIONS[other].title if other in COMBINATIONS else names[other]
        print_paragraph(f"stacking changes macro F1 by {describe_gain(*gain)} (paired with {other}, cross-fitted)")
    if len(names) > 1:
        change = f"   change of F1 without it ({found.chosen})" if found.losses else ""
        print(f"\n{'network':28}{'greedy weight':>14}{change}")
        for place, (name, weight) in enumerate(zip(names, found.weights, strict=True)):
            print(f"{name:28}{weight:>14.2f}" + (f"{-found.losses[place]:>+14.4f}" if found.losses else ""))


def short_names(paths, width=26):
    """Paths below their common folder, cut in front to `width`: list of str."""
    paths = [Path(path).resolve() for path in paths]
    common = os.path.commonpath([path.parent for path in paths])
    names = [str(path.relative_to(common)) for path in paths]
    return [name if len(name) <= width else "…" + name[1 - width :] for name in names]


def print_decisions(args, classes, empty, decisions):
    files, rows = plural(len(args.predictions), "file"), plural(len(decisions), "row")
    print(f"{files}, {rows}, {decisions.sum() / len(decisions):.2f} classes a row")
    filled = "stay empty" if args.empty == "leave" else "got their likeliest class"
    print(f"{plural(empty, 'row')} below every threshold {filled}")
    counts = [f"{name} {count:,}" for name, count in zip(classes, decisions.sum(axis=0), strict=True)]
    print_paragraph(f"predicted positive: {', '.join(counts)}")
    print(f"-> {args.out}")


def print_paragraph(text):
    print(textwrap.fill(text, 79, subsequent_indent="  "))


if __name__ == "__main__":
    run_script(main)
