"""How far a row lies from others: the Mahalanobis distance with a shrunken covariance, and a threshold for it."""

from typing import NamedTuple

import numpy as np

LEAST_DEVIATION = 0.05  # of a column, where the others hardly differ
LEAST_SHRINKAGE = 1e-3  # rows of which only two differ have a singular covariance
PARTS = 5  # of the cross-fitting


class Gaussian(NamedTuple):
    """mean, deviation (F,): of the columns. covariance (F, F): of the columns less their mean, over their deviation."""

    mean: np.ndarray
    deviation: np.ndarray
    covariance: np.ndarray

    def standardise(self, values):
        return (values - self.mean) / self.deviation

    def distance(self, values):
        """(N, F) -> (N,), the Mahalanobis distances."""
        return distance(self.standardise(values), self.covariance)


def distance(values, covariance):
    """The Mahalanobis distances of the rows (N, F) from 0: (N,)."""
    return np.sqrt(np.einsum("nf,nf->n", values, np.linalg.solve(covariance, values.T).T))


def fit(values):
    """Fit a `Gaussian` to the rows (N, F). A column that varies less counts as having `LEAST_DEVIATION`."""
    mean, deviation = values.mean(axis=0), np.maximum(values.std(axis=0), LEAST_DEVIATION)
    covariance = ledoit_wolf((values - mean) / deviation)
    np.fill_diagonal(covariance, 1)  # it is less in columns that vary less
    return Gaussian(mean, deviation, covariance)


def ledoit_wolf(values):
    """The covariance (F, F) of rows (N, F) with mean 0, shrunk towards a multiple of the identity (Ledoit & Wolf, J.
    Multivariate Analysis 88, 2004, section 3.2)."""
    count, columns = values.shape
    sample = values.T @ values / count
    target = np.trace(sample) / columns * np.eye(columns)
    apart = ((sample - target) ** 2).sum()
    noise = (((values**2).sum(axis=1) ** 2).mean() - (sample**2).sum()) / count
    shrinkage = min(max(noise / apart, LEAST_SHRINKAGE), 1) if apart else 0
    return (1 - shrinkage) * sample + shrinkage * target


def fit_threshold(values, false_alarm_rate):
    """Fit the distance that a new row like the N rows (N, F) exceeds with about this probability: -> threshold, rate.

    Each row's distance is that from a Gaussian of the rows outside its fifth. Of N distances the k-th largest is exceeded by a
    new one with probability k / (N + 1) (Vovk et al. 2005, conformal prediction), the rate; k is 1 if N is too small for the
    rate asked for. The threshold is at least 1, as rows may be equal.
    """
    part = np.arange(len(values)) % PARTS
    distances = np.concatenate([fit(values[part != k]).distance(values[part == k]) for k in range(PARTS)])
    place = max(1, int(false_alarm_rate * (len(values) + 1)))
    return max(float(np.sort(distances)[-place]), 1.0), place / (len(values) + 1)
