"""Test sets that differ from the training set: other class priors, estimated, or another exposure, matched by count."""

import numpy as np

from utils.scoring import calibration
from utils.scoring.cross_fit import deal, held_out

MAX_ERROR = 0.25  # of a log prior ratio: a quarter too many or too few
MIN_ROWS = 50  # from which class priors can be estimated


def estimate_class_priors(truth, probabilities, unlabelled):
    """Class priors of unlabelled images: (N, C) 0/1 and (N, C) with labels, (M, C) without -> (C,).

    Expectation–maximisation (Saerens et al. 2002) finds priors of common classes well and of rare ones hardly at all. So
    empirical Bayes shrinks each class's log ratio towards 0: the more, the larger its error on held-out fifths of the
    labelled rows and the less the classes seem to have changed. A class with an error above `MAX_ERROR` keeps its prior.
    """
    change = log_prior_ratio(truth, probabilities, unlabelled)
    errors = []
    for held in held_out(deal(truth, 1)[0]):
        with np.errstate(divide="ignore", invalid="ignore"):
            true_change = np.log(truth[held].mean(axis=0) / truth[~held].mean(axis=0))
        errors.append(log_prior_ratio(truth[~held], probabilities[~held], probabilities[held]) - true_change)
    # NaN or infinite if a fifth has no positive, or if the probabilities do not separate a class.
    error = np.maximum(np.sqrt(np.mean(np.square(errors), axis=0)), 1e-6)
    known = error < MAX_ERROR
    weight, changed = error[known] ** -2.0, change[known]
    spread = max(0.0, np.sum(weight * (changed**2 - error[known] ** 2)) / np.sum(weight)) if known.any() else 0.0
    change[~known] = 0
    change[known] *= spread / (spread + error[known] ** 2)
    return np.clip(np.asarray(truth, float).mean(axis=0) * np.exp(change), 0, 1 - 1e-9)


def log_prior_ratio(truth, probabilities, unlabelled, steps=200):
    """log(prior among unlabelled images / prior here) of each class by expectation–maximisation (Saerens et al. 2002,
    section 2.2): (C,), NaN for a class without positives or not separated by its probabilities.

    The fixed point is the prior that equals the mean of the posteriors corrected for it, from `calibration.fit`, each class
    on its own. It assumes that images of a class look as before and only their number changes.
    """
    slope, intercept = calibration.fit(truth, probabilities)
    posterior = calibration.apply(unlabelled, slope, intercept)
    # Platt's smoothed targets lift the mean of a rare class above its frequency: this is the prior the posteriors imply.
    trained = np.clip(calibration.apply(probabilities, slope, intercept).mean(axis=0), 1e-9, 1 - 1e-9)
    priors = trained.copy()
    for _ in range(steps):
        positive, negative = posterior * (priors / trained), (1 - posterior) * ((1 - priors) / (1 - trained))
        before, priors = priors, np.clip((positive / (positive + negative)).mean(axis=0), 1e-9, 1 - 1e-9)
        if np.abs(np.log(priors / before)).max() < 1e-6:
            break
    return np.where(truth.any(axis=0) & (slope > 0), np.log(priors / trained), np.nan)


def match_positives(scores, rates):
    """Thresholds (C,) that predict as large a fraction of positives as out of fold: (N, C) scores, (C,) rates in [0, 1].

    They follow the predictions if test images are darker or brighter than those the thresholds were fitted on, and are
    wrong if class priors differ.
    """
    thresholds = np.full(scores.shape[1], np.inf)
    for column, count in enumerate(np.rint(rates * len(scores)).astype(int)):
        ranked = np.append(np.sort(scores[:, column])[::-1], 0.0)
        if count:  # images of equal score are all positive or all negative: here all positive
            thresholds[column] = (ranked[count - 1] + ranked[count]) / 2
    return thresholds
