"""Simulate test sets whose class priors or exposure differ from the training set.

    python -m utils.tools.class_priors runs/chen

fits thresholds on half of a run's out-of-fold rows and decides the other half,
which is modified. It prints the change in macro F1 (mean and standard error of
--repeats draws) with

EM            class priors estimated from the predictions by
              expectation–maximisation, each class separately
estimated     the same, shrunk according to its uncertainty:
              threshold.py --estimate-class-priors
known         the true priors: threshold.py --class-priors
matched       the out-of-fold rate of predicted positives:
              ensemble.py --match-positives

Modifications: none; class priors, by drawing each image with odds that are the
product of its classes' random factors, at most --factor each; exposure, by
lowering all logits by 1.
"""

import numpy as np
from tqdm import tqdm

from utils.cli import check_least, option_parser, run_script
from utils.data.labels import load_classes
from utils.errors import InputError, plural
from utils.runs.oof import add_oof_options, find_predictions, read_oof
from utils.scoring import calibration
from utils.scoring.label_shift import MIN_ROWS, estimate_class_priors, log_prior_ratio, match_positives
from utils.scoring.metrics import macro_f1
from utils.scoring.thresholds.bagging import bagged


def parse_args():
    parser = option_parser(__doc__, "utils.tools.class_priors")
    add_oof_options(parser)
    arg = parser.add_argument
    arg("--factor", type=float, default=3, help="largest factor of a class (default: %(default)s)")
    arg("--repeats", type=int, default=10, help="simulated test sets of each kind (default: %(default)s)")
    arg("--seed", type=int, default=0, help="seed of the draws (default: %(default)s)")
    return parser.parse_args()


def main():
    args = parse_args()
    check_least(args, repeats=2, seed=0)
    if not 1 < args.factor <= 100:
        raise InputError(f"--factor {args.factor} is out of range; give more than 1, at most 100")
    files, labels, classes = find_predictions(args.predictions, args.labels)
    classes = load_classes(args.classes) if args.classes else classes or load_classes("hpa")
    oof, truth, _ = read_oof(files, labels, classes)
    if len(truth) < 2 * MIN_ROWS:
        rows = plural(len(truth), "row")
        raise InputError(f"{rows} are too few to simulate test sets with; give {2 * MIN_ROWS} or more")
    draws = tqdm(range(args.seed, args.seed + args.repeats), desc="simulating", disable=None, leave=False)
    found = [simulate(truth, oof, args.factor, seed) for seed in draws]
    print(f"macro F1 on {args.repeats} simulated test sets of {len(truth) - len(truth) // 2:,} rows")
    first, *others = found[0]["nothing"]
    print(f"{'changed':9}{first:>9}" + "".join(f"{name:>15}" for name in others))
    for kind in found[0]:
        scores = np.array([list(one[kind].values()) for one in found])
        gains = scores[:, 1:] - scores[:, :1]
        errors = gains.std(axis=0, ddof=1) / np.sqrt(len(gains))
        cells = [f"{gain:>+9.3f} ±{error:.3f}" for gain, error in zip(gains.mean(axis=0), errors, strict=True)]
        print(f"{kind:9}{scores[:, 0].mean():>9.3f}{''.join(cells)}")


def simulate(truth, oof, factor, seed):
    """Score one draw: -> {modification: {method: macro F1}}; the first method uses the thresholds as fitted."""
    rng = np.random.default_rng(seed)
    half = rng.permutation(len(truth)) < len(truth) // 2  # not stratified: real test sets are not
    fitted_on, (labels, probabilities) = (truth[half], oof[half]), (truth[~half], oof[~half])
    plain = bagged(*fitted_on)
    rates = (fitted_on[1] >= plain).mean(axis=0)
    rows = resample(labels, factor, rng)

    def scores(truth, probabilities):
        ratio = np.exp(np.nan_to_num(log_prior_ratio(*fitted_on, probabilities)))
        priors = {
            "EM": np.clip(fitted_on[0].mean(axis=0) * ratio, 0, 1 - 1e-9),
            "estimated": estimate_class_priors(*fitted_on, probabilities),
            "known": truth.mean(axis=0),
        }
        thresholds = {"as fitted": plain} | {name: bagged(*fitted_on, class_priors=own) for name, own in priors.items()}
        thresholds["matched"] = match_positives(probabilities, rates)
        return {name: macro_f1(truth, probabilities >= one) for name, one in thresholds.items()}

    return {
        "nothing": scores(labels, probabilities),
        "priors": scores(labels[rows], probabilities[rows]),
        "exposure": scores(labels, calibration.sigmoid(calibration.logit(probabilities) - 1)),
    }


def resample(truth, factor, rng):
    """Draw rows with replacement, with odds that are the product of the image's class factors (1/factor to factor): ->
    (N,), plus one row for each class that would be lost."""
    odds = factor ** rng.uniform(-1, 1, truth.shape[1])
    weights = np.exp(truth @ np.log(odds))
    rows = rng.choice(len(truth), len(truth), p=weights / weights.sum())
    lost = np.flatnonzero(truth.any(axis=0) & ~truth[rows].any(axis=0))
    added = [rng.choice(np.flatnonzero(truth[:, column])) for column in lost]
    return np.concatenate([rows, added]).astype(int)


if __name__ == "__main__":
    run_script(main)
