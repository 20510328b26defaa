"""Is one judge better than another, or only lucky? Tests of paired results."""

import numpy as np
from scipy import stats


def mcnemar(first, second):
    """McNemar's test of two judges on the same cases: (N,) bool each, was the case judged rightly? -> dict.

    `both`, `only_first`, `only_second`, `neither`: counts. `p`: chi-squared with the continuity correction (Edwards 1948),
    as Rumetshofer et al. computed theirs; `p_exact`: two-sided binomial, for when the two disagree on few cases.
    """
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    differing = only_first + only_second
    statistic = max(abs(only_first - only_second) - 1, 0) ** 2 / differing if differing else 0.0
    return {
        "both": int((first & second).sum()), "only_first": only_first, "only_second": only_second,
        "neither": int((~first & ~second).sum()), "p": float(stats.chi2.sf(statistic, 1)),
        "p_exact": float(stats.binomtest(only_first, differing).pvalue) if differing else 1.0,
    }  # fmt: skip


def wilcoxon(better, other):
    """One-sided paired Wilcoxon signed-rank test: (C,) scores each -> p that `better` is no better than `other`.

    The normal approximation without correction, which gives the p-values printed in Table 1 of Rumetshofer et al. from their
    Table 2. Pairs without a difference are left out (Wilcoxon 1945); without any difference p is 1.
    """
    better, other = np.asarray(better, float), np.asarray(other, float)
    if np.array_equal(better, other):
        return 1.0
    return float(stats.wilcoxon(better, other, alternative="greater", method="approx").pvalue)
