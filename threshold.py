"""Fit cut-offs on out-of-fold predictions: oof.csv files -> thresholds.json

    python threshold.py runs/chen    # all oof.csv -> runs/chen/thresholds.json
    python threshold.py runs/chen --method per_class --figures figures
    python threshold.py oof1.csv oof2.csv --labels input/train.csv \\
        -o thresholds.json

Every method is shown in sample (fitted and scored on the same rows, which
flatters) and cross-fitted (fitted on four fifths, applied to the rest, scored
once over all rows). bagged, the default, smooths F1 over where a class's few
positives happen to lie; auto takes the best cross-fitted one, which flatters
that one a little. README.md tells what each method does.

For a test set with other shares of classes: --shares, where they are known,
or --estimate-shares; python -m utils.tools.class_priors shows when that helps.
"""

import argparse
import textwrap
from pathlib import Path

import numpy as np

from utils.cli import check_least, run_script
from utils.data.labels import load_classes
from utils.errors import InputError, plural
from utils.files import check_outputs, write_json
from utils.plots import decisions
from utils.runs.oof import find_predictions, read_oof
from utils.runs.predictions import check_classes, read_predictions
from utils.runs.thresholds_file import read_class_priors
from utils.scoring import calibration
from utils.scoring.cross_fit import cross_fit_all, deal, held_out
from utils.scoring.label_shift import LEAST, estimate_shares
from utils.scoring.thresholds import KNOW_SHARES, METHODS, NEED_EPOCHS, WIDTHS, draws
from utils.scoring.thresholds.exact import class_weights

FIGURES = ("thresholds.png", "f1_curves.png", "precision_recall.png", "reliability.png")
LOOSE = 3  # times as many images called at one end of a threshold's interval as at the other: the data do not fix it
FEW = 5  # positives: with fewer they never do


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arg = parser.add_argument
    arg("predictions", nargs="+", metavar="RUN|CSV", help="a run's folder (all its folds' oof.csv) or prediction files")
    arg("--labels", metavar="CSV", help="Id,Target table (default: the folds.csv that a run was trained on)")
    arg("--classes", help="hpa, cyto or a CSV class,name (default: the run's, or hpa)")
    arg(
        "--method",
        choices=["auto", *METHODS],
        default="bagged",
        metavar="METHOD",
        help=f"auto, {', '.join(METHODS)} (default: %(default)s)",
    )
    arg("--repeats", type=int, default=4, help="cross-fitting splits, five parts each (default: %(default)s)")
    arg("--seed", type=int, default=0, help="of the cross-fitting splits and intervals (default: %(default)s)")
    arg("--shares", metavar="CSV", help="class,share: how large a part of the test set has each class")
    arg("--estimate-shares", metavar="CSV", help="predictions of the test set, to estimate its shares from")
    arg("--plot", metavar="PNG", help="draw each class's threshold and its F1 in sample and cross-fitted")
    arg("--figures", metavar="FOLDER", help=f"draw that and three more: {', '.join(FIGURES[1:])}")
    arg("-o", "--out", metavar="JSON", help="where to write (default: thresholds.json in the run's folder)")
    return parser.parse_args()


def main():
    args = parse_args()
    if not 1 <= args.repeats <= 1000:
        raise InputError(f"--repeats {args.repeats} is out of range; give 1 to 1000")
    check_least(args, seed=0)
    check_shares(args)
    files, labels_file, run_classes = find_predictions(args.predictions, args.labels)
    out = find_place(args, [*files, labels_file])
    classes = load_classes(args.classes) if args.classes else run_classes or load_classes("hpa")
    oof, truth, epochs = read_oof(files, labels_file, classes)
    shares = shares_of_test_set(args, truth, oof, classes)
    methods = {name: fit for name, fit in METHODS.items() if epochs is not None or name not in NEED_EPOCHS}
    candidates = [name for name in methods if shares is None or name in KNOW_SHARES]
    if args.method not in ("auto", *methods):
        raise InputError(
            f"{args.method} needs the epochs' predictions that train.py keeps beside oof.csv; name the run's folder, or another --method"
        )

    results = cross_fit_all(methods, truth, oof, epochs, args.repeats, args.seed, progress=True)
    best = max(candidates, key=lambda name: results[name]["cross_fitted"]) if args.method == "auto" else args.method
    chosen = results[best]["thresholds"]
    if shares is not None:
        chosen = methods[best](truth, oof, epochs, shares=shares)
    table = by_class(truth, oof, chosen, results[best], shares)
    drawn = draw(args, truth, oof, chosen, table, classes)
    write_json(out, contents(best, classes, results, table, shares, files, len(oof)))
    report(results, best, truth, classes, epochs)
    report_classes(table, classes, truth, shares)
    for path in [out, *drawn]:
        print(f"-> {path}")


def check_shares(args):
    if args.shares and args.estimate_shares:
        raise InputError("--shares and --estimate-shares both say what the test set's shares are; give one")
    if (args.shares or args.estimate_shares) and args.method not in ("auto", *KNOW_SHARES):
        raise InputError(f"--method {args.method} knows nothing of shares; take {', '.join(sorted(KNOW_SHARES))}")


def find_place(args, inputs):
    """The file to write, after checking that it and the figures can be written and are none of the inputs."""
    runs = [Path(path) for path in args.predictions if Path(path).is_dir()]
    out = args.out if args.out is not None else runs[0] / "thresholds.json" if len(runs) == 1 else None
    if out is None:
        raise InputError("say where to write the thresholds: -o thresholds.json")
    figures = [] if args.figures is None else [Path(args.figures) / name for name in FIGURES]
    check_outputs([out, args.plot, *figures], [*inputs, args.shares, args.estimate_shares])
    return out


def shares_of_test_set(args, truth, oof, classes):
    """(C,) shares of the test set's classes, or None where nothing was said of them."""
    if args.shares:
        return read_class_priors(args.shares, classes)
    if not args.estimate_shares:
        return None
    table = read_predictions(args.estimate_shares, classes)
    check_classes(args.estimate_shares, table, classes)
    if min(len(table), len(truth)) < LEAST:
        raise InputError(
            f"{args.estimate_shares}: shares cannot be told from fewer than {LEAST} rows, here or out of fold; leave it out"
        )
    return estimate_shares(truth, oof, table.to_numpy())


def by_class(truth, oof, chosen, result, shares):
    """What is known of each class's threshold: dict of lists of C."""
    _, found = draws(truth, oof, shares, widths=(0, *WIDTHS))
    found[~truth.any(axis=0)] = np.nan
    low, high = np.percentile(found, [2.5, 97.5], axis=1)
    with np.errstate(invalid="ignore"):
        most, fewest = ((oof >= cut).sum(axis=0) for cut in (low, high))
    return {
        "positives": truth.sum(axis=0).tolist(), "thresholds": chosen.tolist(),
        "called": np.average(oof >= chosen, axis=0, weights=np.where(truth, *class_weights(truth, shares).T[:, None])).tolist(),
        "interval_95": [None if np.isnan(a) else [a, b] for a, b in zip(low.tolist(), high.tolist(), strict=True)],
        "calls_at_interval": np.stack([fewest, most], axis=1).tolist(),
        "loose": (((most >= LOOSE * np.maximum(fewest, 1)) | (truth.sum(axis=0) < FEW)) & truth.any(axis=0)).tolist(),
        "f1_in_sample": result["per_class"], "f1_cross_fitted": result["per_class_cross_fitted"],
        "f1_interval_95": result["per_class_interval_95"],
    }  # fmt: skip


def contents(best, classes, results, table, shares, files, rows):
    """thresholds.json. With shares of a test set, its F1 are those of thresholds fitted without them."""
    short = ("in_sample", "cross_fitted", "cross_fitted_spread", "interval_95")
    macro = {name: {key: result[key] for key in short} for name, result in results.items()}
    return {
        "method": best, "classes": list(classes), "thresholds": table["thresholds"], "macro_f1": macro[best],
        "rows": rows, "per_class": table, "methods": macro, "shares": None if shares is None else shares.tolist(),
        "fitted_on": [str(Path(file).resolve()) for file in files],
    }  # fmt: skip


def draw(args, truth, oof, chosen, table, classes):
    """Draw what was asked for: the paths of the figures."""
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
        decisions.reliability(truth, oof, held_out_calibrated(truth, oof, args.seed), reliability)
        drawn += [curves, precision_recall, reliability]
    return drawn


def held_out_calibrated(truth, oof, seed):
    """Each row's probabilities calibrated on the other four fifths: (N, C)."""
    part, result = deal(truth, 1, seed)[0], np.empty(oof.shape)
    for held in held_out(part):
        result[held] = calibration.apply(oof[held], *calibration.fit(truth[~held], oof[~held]))
    return result


def report(results, best, truth, classes, epochs):
    print(f"macro F1 over {len(truth):,} rows, {len(classes)} classes")
    print(f"{'method':16}{'in sample':>10}{'cross-fitted':>14}{'spread':>9}{'95 % interval':>18}")
    for name, result in results.items():
        low, high = result["interval_95"]
        star = "*" if name == best else " "
        print(f"{name:15}{star}{result['in_sample']:>10.4f}{result['cross_fitted']:>14.4f}{result['cross_fitted_spread']:>9.4f}"
              f"{low:>11.4f}–{high:.4f}")  # fmt: skip
    if epochs is None:
        print("chen_smoothed and epochs_curve need the last epochs beside each oof.csv: left out")
    else:
        print(f"chen_smoothed and epochs_curve smooth over {plural(len(epochs), 'epoch')}")


def report_classes(table, classes, truth, shares):
    print(f"\n{'':3}{'class':20}{'rows':>6}{'threshold':>10}{'95 %':>8}{'F1 in sample':>16}{'held out':>9}{'95 %':>7}")
    for number, name in enumerate(classes):
        interval = table["interval_95"][number]
        span = "none to fit" if interval is None else "–".join(map(_number, interval))
        f1_low, f1_high = table["f1_interval_95"][number]
        print(f"{number:>2} {name if len(name) < 20 else name[:18] + '…':20}{table['positives'][number]:>6,}"
              f"{_number(table['thresholds'][number]):>7} {span:>12}{table['f1_in_sample'][number]:>9.3f}"
              f"{table['f1_cross_fitted'][number]:>9.3f} {f1_low:.2f}–{f1_high:.2f}{' !' if table['loose'][number] else ''}")  # fmt: skip
    calls = table["calls_at_interval"]
    if loose := [
        f"{classes[number]} {calls[number][0]:,} to {calls[number][1]:,}" for number in np.flatnonzero(table["loose"])
    ]:
        told = f"! the data leave open how many images to call: {'; '.join(loose)}"
        print(textwrap.fill(told, 79, subsequent_indent="  "))
    always = [name for name, share in zip(classes, table["called"], strict=True) if share == 1]
    if always:
        print(textwrap.fill(f"called in every image: {', '.join(always)}", 79, subsequent_indent="  "))
    if shares is not None:
        own = truth.mean(axis=0)
        changed = [
            f"{name} {a:.2%} -> {b:.2%}"
            for name, a, b in zip(classes, own, shares, strict=True)
            if f"{a:.2%}" != f"{b:.2%}"
        ]
        print("The thresholds are for other shares of classes than these rows have; all F1")
        print("above are those of thresholds fitted without them.")
        told = ", ".join(changed) or "no share has changed"
        print(textwrap.fill(told, 79, initial_indent="  ", subsequent_indent="  "))


def _number(probability):
    """In five places: 0.123, and where that would be 0.000 as 1e-05."""
    return f"{probability:.3f}" if probability >= 0.0005 or probability == 0 else f"{probability:.0e}"


if __name__ == "__main__":
    run_script(main)
