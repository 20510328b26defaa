"""Fit thresholds on out-of-fold predictions: oof.csv files -> thresholds.json

    python threshold.py runs/chen    # all oof.csv -> runs/chen/thresholds.json
    python threshold.py runs/chen --method per_class --figures figures
    python threshold.py runs/chen --stack
    python threshold.py oof1.csv oof2.csv --labels input/train.csv \\
        -o thresholds.json

Every method is shown in sample (fitted and scored on the same rows, which is
optimistic) and cross-fitted (fitted on four fifths, applied to the rest,
scored once over all rows). bagged, the default, smooths F1 over the scores of
a class's few positives; auto takes the best cross-fitted one, which is a
little optimistic for that one. README.md describes each method.

Classes co-occur or exclude each other, so a network can gain from being
stacked: one logistic regression per class on the predictions for all classes.
What that would change is printed; --stack writes the stack to thresholds.json,
and whatever decides with this file applies it.

For a test set with other class priors: --class-priors, if they are known, or
--estimate-class-priors; python -m utils.tools.class_priors shows when it
helps.
"""

import textwrap
from pathlib import Path

import numpy as np

from utils.cli import check_least, option_parser, run_script
from utils.data.labels import load_classes
from utils.errors import InputError, plural
from utils.files import check_outputs, write_json
from utils.plots import decisions
from utils.runs.oof import add_oof_options, find_predictions, read_oof
from utils.runs.predictions import check_classes, read_predictions
from utils.runs.thresholds_file import read_class_priors
from utils.scoring import calibration
from utils.scoring.cross_fit import cross_fit, deal, describe_gain, held_out, paired_gain, print_summaries, summaries
from utils.scoring.ensembling import fit_and_decide
from utils.scoring.label_shift import MIN_ROWS, estimate_class_priors
from utils.scoring.stacking import Stack
from utils.scoring.thresholds import METHODS
from utils.scoring.thresholds.bagging import WIDTHS, bagged, bootstrap_thresholds
from utils.scoring.thresholds.exact import class_weights

FIGURES = ("thresholds.png", "f1_curves.png", "precision_recall.png", "reliability.png")
LOOSE = 3  # times as many predicted positives at one end of a threshold's interval: the data do not determine it
FEW = 5  # positives: fewer never determine it


def parse_args():
    parser = option_parser(__doc__)
    add_oof_options(parser)
    arg = parser.add_argument
    names = ["auto", *METHODS]
    arg("--method", choices=names, default="bagged", metavar="METHOD", help=f"{', '.join(names)} (default: bagged)")
    arg("--stack", action="store_true", help="stack the network, and fit thresholds of the stack")
    arg("--repeats", type=int, default=4, help="cross-fitting splits, five parts each (default: %(default)s)")
    arg("--seed", type=int, default=0, help="of the cross-fitting splits and intervals (default: %(default)s)")
    arg("--class-priors", "--shares", metavar="CSV", help="class,share: which part of the test set has each class")
    text = "predictions of the test set, to estimate its class priors"
    arg("--estimate-class-priors", "--estimate-shares", metavar="CSV", help=text)
    arg("--plot", metavar="PNG", help="draw each class's threshold and its F1 in sample and cross-fitted")
    arg("--figures", metavar="FOLDER", help=f"draw that and three more: {', '.join(FIGURES[1:])}")
    arg("-o", "--out", metavar="JSON", help="where to write (default: thresholds.json in the run's folder)")
    return parser.parse_args()


def main():
    args = parse_args()
    check_options(args)
    files, labels_file, run_classes = find_predictions(args.predictions, args.labels)
    out = output_file(args, [*files, labels_file])
    classes = load_classes(args.classes) if args.classes else run_classes or load_classes("hpa")
    oof, truth, epochs = read_oof(files, labels_file, classes)
    priors = priors_of_test_set(args, truth, oof, classes)
    methods = {name: one.fit for name, one in METHODS.items() if epochs is not None or not one.needs_epochs}
    if args.method not in ("auto", *methods):
        raise InputError(
            f"{args.method} needs the epochs' predictions beside oof.csv; name the run's folder, or another --method"
        )

    results = cross_fit(methods, truth, oof, epochs, args.repeats, args.seed, progress=True)
    candidates = [name for name in methods if priors is None or METHODS[name].takes_priors]
    plain = max(candidates, key=lambda name: results[name]["cross_fitted"]) if args.method == "auto" else args.method
    stacked, gain = cross_fit_stack(
        truth, oof, results[plain]["held_out"], args.repeats if args.stack else 1, args.seed
    )
    best, fit, scores = plain, methods[plain], oof
    if args.stack:
        best, fit, scores = "stacked", bagged, stacked.scores
        found = summaries(truth, {best: (stacked.in_sample, stacked.held_out)}, args.seed)
        results[best] = found[best] | {"thresholds": stacked.thresholds}
    chosen = results[best]["thresholds"] if priors is None else fit(truth, scores, class_priors=priors)
    table = figures_by_class(truth, scores, chosen, results[best], priors)
    drawn = draw(args, truth, scores, chosen, table, classes)
    stack = stacked.combination.for_raw_inputs() if args.stack else None
    write_json(out, contents(best, classes, results, table, stack, priors, files, len(oof)))
    print(f"macro F1 over {len(truth):,} rows, {len(classes)} classes")
    print_summaries(results.items(), best, "method")
    hint = "" if args.stack else "; --stack does it"
    print_paragraph(f"stacking changes macro F1 by {describe_gain(*gain)} (cross-fitted, paired with {plain}){hint}")
    if epochs is None:
        print("chen_smoothed and epochs_curve left out: no last epochs beside each oof.csv")
    else:
        print(f"chen_smoothed and epochs_curve smooth over {plural(len(epochs), 'epoch')}")
    print_classes(table, classes)
    if priors is not None:
        print_priors(classes, truth.mean(axis=0), priors)
    for path in [out, *drawn]:
        print(f"-> {path}")


def check_options(args):
    if not 1 <= args.repeats <= 1000:
        raise InputError(f"--repeats {args.repeats} is out of range; give 1 to 1000")
    check_least(args, seed=0)
    if args.stack and args.method != "bagged":
        raise InputError(f"--stack decides with thresholds of bagged; leave --method {args.method} out")
    if args.class_priors and args.estimate_class_priors:
        raise InputError("--class-priors and --estimate-class-priors exclude each other; give one")
    able = [name for name, method in METHODS.items() if method.takes_priors]
    if (args.class_priors or args.estimate_class_priors) and args.method not in ("auto", *able):
        raise InputError(f"--method {args.method} cannot use class priors; take {', '.join(able)}")


def output_file(args, inputs):
    """The file to write, after a check that it and the figures can be written and are none of the inputs."""
    runs = [Path(path) for path in args.predictions if Path(path).is_dir()]
    out = args.out if args.out is not None else runs[0] / "thresholds.json" if len(runs) == 1 else None
    if out is None:
        raise InputError("name the file to write the thresholds to: -o thresholds.json")
    figures = [] if args.figures is None else [Path(args.figures) / name for name in FIGURES]
    check_outputs([out, args.plot, *figures], [*inputs, args.class_priors, args.estimate_class_priors])
    return out


def priors_of_test_set(args, truth, oof, classes):
    """(C,) class priors of the test set, or None if no option names them."""
    if args.class_priors:
        return read_class_priors(args.class_priors, classes)
    if not args.estimate_class_priors:
        return None
    table = read_predictions(args.estimate_class_priors, classes)
    check_classes(args.estimate_class_priors, table, classes)
    if min(len(table), len(truth)) < MIN_ROWS:
        raise InputError(
            f"{args.estimate_class_priors}: fewer than {MIN_ROWS} rows, here or out of fold, give no class priors; leave it out"
        )
    return estimate_class_priors(truth, oof, table.to_numpy())


def cross_fit_stack(truth, oof, plain, repeats, seed):
    """Stack a network: -> Fitted, and its `paired_gain` over the cross-fitted decisions `plain` of at least `repeats`
    splits."""
    stacked = fit_and_decide(Stack, truth, oof[None], repeats, seed)
    return stacked, paired_gain(truth, stacked.held_out, plain[:repeats], seed)


def figures_by_class(truth, oof, chosen, result, priors):
    """The threshold of each class and its figures: dict of lists of C."""
    positives = truth.sum(axis=0)
    _, drawn = bootstrap_thresholds(truth, oof, priors, widths=(0, *WIDTHS))
    drawn[positives == 0] = np.nan
    low, high = np.percentile(drawn, [2.5, 97.5], axis=1)
    with np.errstate(invalid="ignore"):
        most, fewest = ((oof >= threshold).sum(axis=0) for threshold in (low, high))
    weights = np.where(truth, *class_weights(truth, priors).T[:, None])
    loose = ((most >= LOOSE * np.maximum(fewest, 1)) | (positives < FEW)) & (positives > 0)
    return {
        "positives": positives.tolist(),
        "thresholds": chosen.tolist(),
        "called": np.average(oof >= chosen, axis=0, weights=weights).tolist(),
        "interval_95": [None if np.isnan(a) else [a, b] for a, b in zip(low.tolist(), high.tolist(), strict=True)],
        "calls_at_interval": np.stack([fewest, most], axis=1).tolist(),
        "loose": loose.tolist(),
        "f1_in_sample": result["per_class"],
        "f1_cross_fitted": result["per_class_cross_fitted"],
        "f1_interval_95": result["per_class_interval_95"],
    }


def contents(best, classes, results, table, stack, priors, files, rows):
    """thresholds.json. With class priors of a test set, its F1 are those of thresholds fitted without them."""
    short = ("in_sample", "cross_fitted", "cross_fitted_spread", "interval_95")
    macro = {name: {key: result[key] for key in short} for name, result in results.items()}
    return {
        "method": best,
        "classes": list(classes),
        "thresholds": table["thresholds"],
        "stack": stack and {"weights": stack.weights.tolist(), "intercepts": stack.intercepts.tolist()},
        "macro_f1": macro[best],
        "rows": rows,
        "per_class": table,
        "methods": macro,
        "shares": None if priors is None else priors.tolist(),
        "fitted_on": [str(Path(file).resolve()) for file in files],
    }


def draw(args, truth, oof, chosen, table, classes):
    """Draw the figures of --plot and --figures: their paths."""
    folder = Path(args.figures) if args.figures else None
    drawn = [path for path in (args.plot, folder and folder / FIGURES[0]) if path]
    for path in drawn:
        decisions.class_thresholds(
            classes, truth.sum(axis=0), chosen, table["f1_in_sample"], table["f1_cross_fitted"], path
        )
    if folder:
        curves, precision_recall, reliability = (folder / name for name in FIGURES[1:])
        decisions.f1_curves(classes, truth, oof, chosen, table["interval_95"], curves)
        decisions.precision_recall_by_class(classes, truth, oof, chosen, precision_recall)
        calibrated = np.empty(oof.shape)
        for held in held_out(deal(truth, 1, args.seed)[0]):
            calibrated[held] = calibration.apply(oof[held], *calibration.fit(truth[~held], oof[~held]))
        decisions.reliability(truth, oof, calibrated, reliability)
        drawn += [curves, precision_recall, reliability]
    return drawn


def print_classes(table, classes):
    print(f"\n{'':3}{'class':20}{'rows':>6}{'threshold':>10}{'95 %':>8}{'F1 in sample':>16}{'held out':>9}{'95 %':>7}")
    loose = []
    for number, name in enumerate(classes):
        row = {key: values[number] for key, values in table.items()}
        span = "none to fit" if row["interval_95"] is None else "–".join(map(format_threshold, row["interval_95"]))
        short, (low, high) = name if len(name) < 20 else name[:18] + "…", row["f1_interval_95"]
        threshold = f"{format_threshold(row['thresholds']):>7} {span:>12}"
        scores = f"{row['f1_in_sample']:>9.3f}{row['f1_cross_fitted']:>9.3f} {low:.2f}–{high:.2f}"
        print(f"{number:>2} {short:20}{row['positives']:>6,}{threshold}{scores}{' !' if row['loose'] else ''}")
        if row["loose"]:
            fewest, most = row["calls_at_interval"]
            loose.append(f"{name} {fewest:,} to {most:,}")
    if loose:
        print_paragraph(f"! the data do not determine the number of predicted positives: {'; '.join(loose)}")
    if always := [name for name, rate in zip(classes, table["called"], strict=True) if rate == 1]:
        print_paragraph(f"predicted positive in every image: {', '.join(always)}")


def print_priors(classes, own, priors):
    pairs = [(name, f"{a:.2%}", f"{b:.2%}") for name, a, b in zip(classes, own, priors, strict=True)]
    changed = ", ".join(f"{name} {a} -> {b}" for name, a, b in pairs if a != b) or "no class prior differs"
    print_paragraph(f"The written thresholds are for other class priors, all F1 above for the rows' own: {changed}")


def print_paragraph(text):
    print(textwrap.fill(text, 79, subsequent_indent="  "))


def format_threshold(probability):
    """0.123, or 1e-05 instead of 0.000."""
    return f"{probability:.3f}" if probability >= 0.0005 or probability == 0 else f"{probability:.0e}"


if __name__ == "__main__":
    run_script(main)
