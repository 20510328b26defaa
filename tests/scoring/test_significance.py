"""Tests of paired results against published numbers and by hand."""

import numpy as np
import pytest
from scipy import stats

from utils.scoring.significance import mcnemar, paired_difference, wilcoxon


def cases(both, first, second, neither):
    counts = [both, first, second, neither]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


def test_mcnemar_is_that_of_the_published_comparison():
    """Rumetshofer et al. 2019: both right on 121 of 200, network alone 60, expert alone 7, neither 12: p = 2e-10."""
    found = mcnemar(*cases(121, 60, 7, 12))
    assert [found[key] for key in ("both", "only_first", "only_second", "neither")] == [121, 60, 7, 12]
    assert float(f"{found['p']:.0e}") == 2e-10
    assert mcnemar(*cases(121, 7, 60, 12))["p"] == pytest.approx(found["p"])


def test_mcnemar_exact_by_hand_and_without_disagreement():
    assert mcnemar(*cases(5, 5, 0, 3))["p_exact"] == pytest.approx(2 / 2**5)
    assert mcnemar(*cases(5, 1, 1, 3))["p"] == pytest.approx(1) and mcnemar(*cases(9, 0, 0, 1))["p_exact"] == 1


def test_wilcoxon_of_an_equal_a_better_and_a_worse_method():
    assert wilcoxon([0.1, 0.5, 0.3], [0.1, 0.5, 0.3]) == 1.0
    assert wilcoxon([0.2, 0.6, 0.4, 0.9], [0.1, 0.4, 0.1, 0.5]) < 0.05 < wilcoxon([0.1, 0.4, 0.1], [0.2, 0.6, 0.4])


def test_a_paired_difference_over_its_standard_error_is_the_t_of_the_paired_t_test():
    first, second = np.random.default_rng(0).normal(size=(2, 7))
    mean, error = paired_difference(first, second)
    assert mean / error == pytest.approx(stats.ttest_rel(first, second).statistic)
    assert mean == pytest.approx(np.mean(first) - np.mean(second))
    assert paired_difference([0.5], [0.25])[0] == 0.25 and np.isnan(paired_difference([0.5], [0.25])[1])
