"""What if the test set has other shares of classes than the training set?

    python -m utils.tools.class_priors runs/chen

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

from utils.cli import check_least, run_script
from utils.data.labels import load_classes
from utils.errors import InputError, plural
from utils.runs.oof import find_predictions, read_oof
from utils.scoring import calibration
from utils.scoring.label_shift import LEAST, estimate_shares, log_change, match_calls
from utils.scoring.metrics import macro_f1
from utils.scoring.thresholds import bagged


def parse_args():
    parser = argparse.ArgumentParser(
        prog="python -m utils.tools.class_priors",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
    oof, truth, _ = read_oof(files, labels, classes)
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
