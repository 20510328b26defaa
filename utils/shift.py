"""What if the test set has other shares of classes than the training set?

    python -m utils.shift runs/chen

estimates the shares from predictions alone and decides with them, on halves of
a run's own out-of-fold rows whose shares were changed on purpose, and prints
when that helps and when it harms. What was changed, drawn --repeats times:

nothing        a random half
shares         rows drawn anew so that each class is up to --factor times
               rarer or more frequent
shares, known  the same, with the true shares given instead of estimated
exposure       a random half whose logits are lowered by 1, as a darker
               test set may: no share has changed
"""

import argparse

import numpy as np
from tqdm import tqdm

from utils import calibration
from utils.cutoffs import bagged
from utils.errors import InputError, check_least, run_script
from utils.labels import load_classes, read_table
from utils.metrics import macro_f1
from utils.outoffold import find_predictions, gather
from utils.stratify import stratified_parts

SURE = 0.25  # as a logarithm: a quarter too many or too few


def estimate_shares(truth, probabilities, unlabelled):
    """Each class's share among unlabelled images: (N, C) 0/1 and (N, C) with labels, (M, C) without -> (C,).

    Expectation–maximisation of Saerens et al. 2002, which finds common classes well and rare ones hardly at all. So each
    class's change, as a logarithm, is drawn towards none by empirical Bayes: as much as the method errs about the class
    among the labelled rows, held out by fifths, beside how much the classes seem to have changed. A class about which it
    errs by more than `SURE` keeps its share, and where no class seems to have changed, all do.
    """
    own = np.asarray(truth, float).mean(axis=0)
    change = log_change(truth, probabilities, unlabelled)
    errors = []
    part = stratified_parts(truth, 5, seed=0)
    for held in (part == number for number in range(5)):
        there = truth[held].mean(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            true_change = np.log(there / truth[~held].mean(axis=0))
        errors.append(log_change(truth[~held], probabilities[~held], probabilities[held]) - true_change)
    error = np.sqrt(np.mean(np.square(errors), axis=0))  # NaN or infinite where a fifth has no positive
    sure = error < SURE
    weight, changed = error[sure] ** -2.0, change[sure]
    spread = max(0.0, np.sum(weight * (changed**2 - error[sure] ** 2)) / np.sum(weight)) if sure.any() else 0.0
    change = np.where(sure, change * spread / (spread + error**2), 0)
    return np.clip(own * np.exp(change), 0, 1 - 1e-9)


def log_change(truth, probabilities, unlabelled, steps=200):
    """log(share there / share here) of each class, by expectation–maximisation (Saerens et al. 2002, section 2.2), (C,).

    The share that makes the mean of the posteriors, corrected for it, equal to itself; each class on its own, posteriors
    from `calibration.fit`. It supposes that pictures of a class look as before and only their number changes. 0 for a
    class that has no positives or cannot be told from its probabilities.
    """
    slope, intercept = calibration.fit(truth, probabilities)
    sure = calibration.apply(unlabelled, slope, intercept)
    # Platt's smoothed targets lift the mean of a rare class above its share: this is the share that the posteriors know.
    trained = np.clip(calibration.apply(probabilities, slope, intercept).mean(axis=0), 1e-9, 1 - 1e-9)
    shares = trained.copy()
    for _ in range(steps):
        positive, negative = sure * (shares / trained), (1 - sure) * ((1 - shares) / (1 - trained))
        before, shares = shares, np.clip((positive / (positive + negative)).mean(axis=0), 1e-9, 1 - 1e-9)
        if np.abs(np.log(shares / before)).max() < 1e-6:
            break
    return np.where(truth.any(axis=0) & (slope > 0), np.log(shares / trained), 0.0)


def read_shares(path, classes):
    """(C,) shares from a CSV class,share, where class is a number or a name. Raises InputError unless each class has one."""
    table = read_table(path, ["class", "share"], what="a table of shares")
    numbers = {str(number): number for number in range(len(classes))} | {name: n for n, name in enumerate(classes)}
    shares = np.full(len(classes), np.nan)
    for row, (name, text) in enumerate(zip(table["class"], table["share"], strict=True)):
        number, share = numbers.get(name.strip()), _share(text)
        if number is None or share is None or not np.isnan(shares[number]):
            raise InputError(
                f"{path}: row {row + 2} ({name}, {text}) should be a class, once, and its share of the images, above 0 and below 1"
            )
        shares[number] = share
    if missing := [name for name, value in zip(classes, shares, strict=True) if np.isnan(value)]:
        raise InputError(f"{path} has no share of {missing[0]}; give each of the {len(classes)} classes one")
    return shares


def _share(text):
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < 1 else None


def parse_args():
    parser = argparse.ArgumentParser(
        prog="python -m utils.shift", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arg = parser.add_argument
    arg("predictions", nargs="+", metavar="RUN|CSV", help="a run's folder (all its folds' oof.csv) or prediction files")
    arg("--labels", metavar="CSV", help="Id,Target table (default: the folds.csv that a run was trained on)")
    arg("--classes", help="hpa, cyto or a CSV class,name (default: the run's, or hpa)")
    arg("--factor", type=float, default=3, help="largest change of a class's share (default: %(default)s)")
    arg("--repeats", type=int, default=10, help="simulated test sets of each kind (default: %(default)s)")
    arg("--seed", type=int, default=0, help="of what is drawn (default: %(default)s)")
    return parser.parse_args()


def main():
    args = parse_args()
    check_least(args, repeats=2, seed=0)
    if not 1 < args.factor <= 100:
        raise InputError(f"--factor {args.factor} is out of range; give more than 1, at most 100")
    files, labels, classes = find_predictions(args.predictions, args.labels)
    classes = load_classes(args.classes) if args.classes else classes or load_classes("hpa")
    oof, truth, _ = gather(files, labels, classes)
    table = {}
    for repeat in tqdm(range(args.repeats), desc="simulating", disable=None, leave=False):
        for kind, scores in simulate(truth, oof, args.factor, args.seed + repeat).items():
            table.setdefault(kind, []).append(scores)
    print(f"macro F1 on {args.repeats} simulated test sets of {len(truth) - len(truth) // 2:,} rows; ± standard error")
    print(f"{'changed':16}{'as fitted':>11}{'with shares':>13}{'gain':>17}{'better in':>11}")
    for kind, scores in table.items():
        left, changed = np.array(scores).T
        gain = changed - left
        error = gain.std(ddof=1) / np.sqrt(len(gain))
        print(
            f"{kind:16}{left.mean():>11.4f}{changed.mean():>13.4f}{gain.mean():>+10.4f} ±{error:.4f}{(gain > 0).sum():>8}/{len(gain)}"
        )


def simulate(truth, oof, factor, seed):
    """{what was changed: (macro F1 with the thresholds as fitted, with those for the estimated or known shares)}."""
    rng = np.random.default_rng(seed)
    half = stratified_parts(truth, 2, seed) == 0
    fitted_on = truth[half], oof[half]
    plain, (there, said) = bagged(*fitted_on), (truth[~half], oof[~half])
    rows = resample(there, factor, rng)

    def scores(truth, said, shares=None):
        shares = estimate_shares(*fitted_on, said) if shares is None else shares
        return macro_f1(truth, said >= plain), macro_f1(truth, said >= bagged(*fitted_on, shares=shares))

    return {
        "nothing": scores(there, said),
        "shares": scores(there[rows], said[rows]),
        "shares, known": scores(there[rows], said[rows], there[rows].mean(axis=0)),
        "exposure": scores(there, calibration.sigmoid(calibration.logit(said) - 1)),
    }


def resample(truth, factor, rng):
    """(N,) rows drawn with replacement, each class made up to `factor` times rarer or more frequent (by the product of its
    classes' factors an image is drawn more or less often). A class keeps at least one image."""
    odds = factor ** rng.uniform(-1, 1, truth.shape[1])
    weights = np.exp(truth @ np.log(odds))
    rows = rng.choice(len(truth), len(truth), p=weights / weights.sum())
    lost = np.flatnonzero(truth.any(axis=0) & ~truth[rows].any(axis=0))
    for place, column in enumerate(lost):
        rows[place] = rng.choice(np.flatnonzero(truth[:, column]))
    return rows


if __name__ == "__main__":
    run_script(main)
