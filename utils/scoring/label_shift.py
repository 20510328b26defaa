"""Class priors of a test set that differ from those of the training set: estimated, read, or matched by count."""

import numpy as np

from utils.scoring import calibration
from utils.scoring.cross_fit import deal, held_out

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
