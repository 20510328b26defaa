"""Significance tests of paired results."""

import numpy as np
from scipy import stats


def mcnemar(first, second):
    """McNemar's test of two judges on the same cases: (N,) bool each, True where right -> dict.

    `both`, `only_first`, `only_second`, `neither`: counts. `p`: chi-squared with continuity correction (Edwards 1948),
    as in Rumetshofer et al.; `p_exact`: two-sided binomial, for few disagreements.
    """
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    cases = {"both": first & second, "only_first": first & ~second, "only_second": second & ~first}
    counts = {name: int(part.sum()) for name, part in (cases | {"neither": ~first & ~second}).items()}
    one, two = counts["only_first"], counts["only_second"]
    statistic = max(abs(one - two) - 1, 0) ** 2 / (one + two) if one + two else 0.0
    exact = float(stats.binomtest(one, one + two).pvalue) if one + two else 1.0
    return counts | {"p": float(stats.chi2.sf(statistic, 1)), "p_exact": exact}


def wilcoxon(better, other):
    """One-sided paired Wilcoxon signed-rank test: (C,) scores each -> p of the null that `better` is no better than
    `other`.

    Normal approximation without correction, which reproduces Table 1 of Rumetshofer et al. from their Table 2. Pairs
    without a difference are dropped (Wilcoxon 1945); if no pair differs, p is 1.
    """
    better, other = np.asarray(better, float), np.asarray(other, float)
    if np.array_equal(better, other):
        return 1.0
    return float(stats.wilcoxon(better, other, alternative="greater", method="approx").pvalue)


def paired_difference(first, second):
    """Mean of the differences `first` − `second` of (N,) paired scores, and its standard error: NaN for a single pair.

    Their ratio is the t of the paired t-test, with N − 1 degrees of freedom.
    """
    differences = np.subtract(first, second, dtype=float)
    count = len(differences)
    return float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(count)) if count > 1 else np.nan
