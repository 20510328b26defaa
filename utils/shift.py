"""What if the test set has other shares of classes than the training set?

    python -m utils.shift runs/chen

decides about halves of a run's own out-of-fold rows that were changed on
purpose, with thresholds fitted on the other half, and prints what is won or
lost (macro F1, mean and standard error of --repeats draws) by

EM            shares of classes estimated from the predictions by
              expectation–maximisation, each class on its own
estimated     the same, changed only as far as it can be trusted: what
              threshold.py --estimate-shares does
known         the true shares, as threshold.py --shares is given them
calls         as many called as out of fold: ensemble.py --match-calls

What was changed: nothing; the classes' shares, by drawing each image as often
as the product of its classes' factors says, which go up to --factor; the
exposure, all logits 1 lower.
"""

import argparse

import numpy as np
from tqdm import tqdm

from utils import calibration
from utils.crossfit import deal, held_out
from utils.cutoffs import bagged
from utils.errors import InputError, check_least, plural, run_script
from utils.labels import as_number, load_classes, read_table
from utils.metrics import macro_f1
from utils.outoffold import find_predictions, gather

SURE = 0.25  # as a logarithm: a quarter too many or too few
LEAST = 50  # rows from which shares can be told at all


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
    part = deal(truth, 1)[0]
    for held in held_out(part):
        there = truth[held].mean(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            true_change = np.log(there / truth[~held].mean(axis=0))
        errors.append(log_change(truth[~held], probabilities[~held], probabilities[held]) - true_change)
    # NaN or infinite where a fifth has no positive, or a class cannot be told.
    error = np.maximum(np.sqrt(np.mean(np.square(errors), axis=0)), 1e-6)
    sure = error < SURE
    weight, changed = error[sure] ** -2.0, change[sure]
    spread = max(0.0, np.sum(weight * (changed**2 - error[sure] ** 2)) / np.sum(weight)) if sure.any() else 0.0
    change[~sure] = 0
    change[sure] *= spread / (spread + error[sure] ** 2)
    return np.clip(own * np.exp(change), 0, 1 - 1e-9)


def log_change(truth, probabilities, unlabelled, steps=200):
    """log(share there / share here) of each class, by expectation–maximisation (Saerens et al. 2002, section 2.2), (C,).

    The share that makes the mean of the posteriors, corrected for it, equal to itself; each class on its own, posteriors
    from `calibration.fit`. It supposes that pictures of a class look as before and only their number changes. NaN for a
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
    return np.where(truth.any(axis=0) & (slope > 0), np.log(shares / trained), np.nan)


def match_calls(scores, called):
    """Thresholds (C,) at which as large a part of the images is called as out of fold: (N, C) scores, (C,) shares.

    They follow the predictions where test images are darker or brighter than those thresholds were fitted on, and are
    wrong where the classes' shares have changed.
    """
    wanted = np.rint(called * len(scores)).astype(int)
    thresholds = np.full(scores.shape[1], np.inf)
    for column, count in enumerate(wanted):
        ranked = np.sort(scores[:, column])[::-1]
        if count:  # of images that are alike all or none can be called: here all
            below = ranked[count] if count < len(ranked) else 0.0
            thresholds[column] = (ranked[count - 1] + below) / 2
    return thresholds


def read_shares(path, classes):
    """(C,) shares from a CSV class,share, where class is a number or a name. Raises InputError unless each class has one."""
    table = read_table(path, ["class", "share"], what="a table of shares")
    numbers = {str(number): number for number in range(len(classes))} | {name: n for n, name in enumerate(classes)}
    shares = np.full(len(classes), np.nan)
    for row, (name, text) in enumerate(zip(table["class"], table["share"], strict=True)):
        number, share = numbers.get(name.strip()), as_number(text)
        if number is None or share is None or not 0 < share < 1 or not np.isnan(shares[number]):
            raise InputError(
                f"{path}: row {row + 2} ({name}, {text}) should be a class, once, and its share of the images, above 0 and below 1"
            )
        shares[number] = share
    if missing := [name for name, value in zip(classes, shares, strict=True) if np.isnan(value)]:
        raise InputError(f"{path} has no share of {missing[0]}; give each of the {len(classes)} classes one")
    return shares


def parse_args():
    parser = argparse.ArgumentParser(
        prog="python -m utils.shift", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arg = parser.add_argument
    arg("predictions", nargs="+", metavar="RUN|CSV", help="a run's folder (all its folds' oof.csv) or prediction files")
    arg("--labels", metavar="CSV", help="Id,Target table (default: the folds.csv that a run was trained on)")
    arg("--classes", help="hpa, cyto or a CSV class,name (default: the run's, or hpa)")
    arg("--factor", type=float, default=3, help="largest factor of a class (default: %(default)s)")
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
    if len(truth) < 2 * LEAST:
        raise InputError(
            f"{plural(len(truth), 'row')} are too few to simulate test sets with; give {2 * LEAST} or more"
        )
    table = {}
    for repeat in tqdm(range(args.repeats), desc="simulating", disable=None, leave=False):
        for kind, scores in simulate(truth, oof, args.factor, args.seed + repeat).items():
            table.setdefault(kind, []).append(list(scores.values()))
    print(f"macro F1 on {args.repeats} simulated test sets of {len(truth) - len(truth) // 2:,} rows")
    print(f"{'changed':9}{'as fitted':>9}" + "".join(f"{name:>15}" for name in list(scores)[1:]))
    for kind, scores in table.items():
        plain, *others = np.array(scores).T
        gains = [other - plain for other in others]
        errors = [gain.std(ddof=1) / np.sqrt(len(gain)) for gain in gains]
        print(f"{kind:9}{plain.mean():>9.3f}"
              + "".join(f"{gain.mean():>+9.3f} ±{error:.3f}" for gain, error in zip(gains, errors, strict=True)))  # fmt: skip


def simulate(truth, oof, factor, seed):
    """{what was changed: {way to decide: macro F1}}, the first way with the thresholds as they were fitted."""
    rng = np.random.default_rng(seed)
    half = rng.permutation(len(truth)) < len(truth) // 2  # not stratified: real test sets are not
    fitted_on = truth[half], oof[half]
    plain, (there, said) = bagged(*fitted_on), (truth[~half], oof[~half])
    called = (fitted_on[1] >= plain).mean(axis=0)
    rows = resample(there, factor, rng)

    def scores(truth, said):
        em = np.clip(fitted_on[0].mean(axis=0) * np.exp(np.nan_to_num(log_change(*fitted_on, said))), 0, 1 - 1e-9)
        cuts = {
            "as fitted": plain,
            "EM": bagged(*fitted_on, shares=em),
            "estimated": bagged(*fitted_on, shares=estimate_shares(*fitted_on, said)),
            "known": bagged(*fitted_on, shares=truth.mean(axis=0)),
            "calls": match_calls(said, called),
        }
        return {name: macro_f1(truth, said >= cut) for name, cut in cuts.items()}

    return {
        "nothing": scores(there, said),
        "shares": scores(there[rows], said[rows]),
        "exposure": scores(there, calibration.sigmoid(calibration.logit(said) - 1)),
    }


def resample(truth, factor, rng):
    """Rows drawn with replacement, an image by the product of its classes' factors more or less often, each from 1/factor to
    factor: (N,) and one more for each class that would be lost."""
    odds = factor ** rng.uniform(-1, 1, truth.shape[1])
    weights = np.exp(truth @ np.log(odds))
    rows = rng.choice(len(truth), len(truth), p=weights / weights.sum())
    lost = np.flatnonzero(truth.any(axis=0) & ~truth[rows].any(axis=0))
    added = [rng.choice(np.flatnonzero(truth[:, column])) for column in lost]
    return np.concatenate([rows, added]).astype(int)


if __name__ == "__main__":
    run_script(main)
