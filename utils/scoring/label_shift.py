"""Label shift: estimate a test set's class priors; for another exposure, match the number of predicted positives."""

import numpy as np

from utils.scoring import calibration
from utils.scoring.cross_fit import deal, held_out

MAX_ERROR = 0.25  # largest usable error of a log prior ratio, about 25 % of the prior
MIN_ROWS = 50  # fewest rows to estimate class priors from


def estimate_class_priors(truth, probabilities, unlabelled):
    """Estimate class priors of unlabelled images: (N, C) 0/1 and (N, C) with labels, (M, C) without -> (C,).

    Expectation–maximisation (Saerens et al. 2002) is accurate for common classes and poor for rare ones. So empirical
    Bayes shrinks each class's log ratio towards 0: more if its error on held-out fifths of the labelled rows is large
    or if all classes seem to have changed little. A class with an error above `MAX_ERROR` keeps its prior.
    """
    change = log_prior_ratio(truth, probabilities, unlabelled)
    errors = []
    for held in held_out(deal(truth, 1)[0]):
        with np.errstate(divide="ignore", invalid="ignore"):
            true_change = np.log(truth[held].mean(axis=0) / truth[~held].mean(axis=0))
        errors.append(log_prior_ratio(truth[~held], probabilities[~held], probabilities[held]) - true_change)
    # NaN or infinite if a fifth has no positive or the probabilities do not separate a class.
    error = np.maximum(np.sqrt(np.mean(np.square(errors), axis=0)), 1e-6)
    known = error < MAX_ERROR
    weight, changed = error[known] ** -2.0, change[known]
    spread = max(0.0, np.sum(weight * (changed**2 - error[known] ** 2)) / np.sum(weight)) if known.any() else 0.0
    change[~known] = 0
    change[known] *= spread / (spread + error[known] ** 2)
    return np.clip(np.asarray(truth, float).mean(axis=0) * np.exp(change), 0, 1 - 1e-9)


def log_prior_ratio(truth, probabilities, unlabelled, steps=200):
    """Estimate log(prior of unlabelled / prior of labelled images) per class by expectation–maximisation (Saerens et
    al. 2002, section 2.2): -> (C,), NaN for a class without positives or not separated by its probabilities.

    The prior becomes the mean of the calibrated posteriors corrected for it, each class separately. This assumes that
    only the number of a class's images changes, not their look.
    """
    slope, intercept = calibration.fit(truth, probabilities)
    posterior = calibration.apply(unlabelled, slope, intercept)
    # Platt's smoothed targets raise a rare class's mean above its frequency, so the prior is taken from the posteriors.
    trained = np.clip(calibration.apply(probabilities, slope, intercept).mean(axis=0), 1e-9, 1 - 1e-9)
    priors = trained.copy()
    for _ in range(steps):
        positive, negative = posterior * (priors / trained), (1 - posterior) * ((1 - priors) / (1 - trained))
        before, priors = priors, np.clip((positive / (positive + negative)).mean(axis=0), 1e-9, 1 - 1e-9)
        if np.abs(np.log(priors / before)).max() < 1e-6:
            break
    return np.where(truth.any(axis=0) & (slope > 0), np.log(priors / trained), np.nan)


def match_positives(scores, rates):
    """Choose thresholds (C,) that predict given fractions of positives: (N, C) scores, (C,) rates in [0, 1].

    This adapts to darker or brighter test images, and is wrong if class priors differ.
    """
    thresholds = np.full(scores.shape[1], np.inf)
    for column, count in enumerate(np.rint(rates * len(scores)).astype(int)):
        ranked = np.append(np.sort(scores[:, column])[::-1], 0.0)
        if count:  # tied images are all positive
            thresholds[column] = (ranked[count - 1] + ranked[count]) / 2
    return thresholds
