"""Paired differences, against scipy and against the formula worked by hand."""

from math import sqrt

import numpy as np
import pytest
from scipy import stats

from thaw.compare.paired import Difference, paired, spread


@pytest.mark.parametrize("number", [2, 3, 5, 20])
@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_the_interval_is_that_of_a_paired_t_test(number: int, confidence: float) -> None:
    generator = np.random.default_rng(number)
    a, b = generator.normal(0.8, 0.1, (2, number))
    found = paired(dict(enumerate(a)), dict(enumerate(b)), confidence=confidence)
    expected = stats.ttest_rel(a, b)
    interval = expected.confidence_interval(confidence)
    assert found.pairs == number
    assert found.mean == pytest.approx((a - b).mean())
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_pairs_are_made_by_key_and_not_by_order() -> None:
    a = {"x": 1.0, "y": 5.0, "z": 4.0, "only a": 9.0}
    b = {"only b": -9.0, "z": 3.0, "x": 0.5, "y": 3.5}
    found = paired(a, b)
    assert (found.pairs, found.mean) == (3, pytest.approx(1.0))  # 0.5, 1.5, 1.0
    # standard deviation 0.5, t(0.975, 2) = 4.302653
    assert found.high == pytest.approx(1 + 4.302653 * 0.5 / sqrt(3), abs=1e-6)


def test_folds_widen_the_interval() -> None:
    """0.02, 0.04, 0.00, 0.03, 0.01 over five folds: mean 0.02, variance 0.00025; Nadeau and Bengio
    take 1/5 + 1/4 of it (a test part is a quarter of a training part), and t(0.975, 4) = 2.776445.
    """
    a = {0: 0.92, 1: 0.94, 2: 0.90, 3: 0.93, 4: 0.91}
    found = paired(a, dict.fromkeys(a, 0.90), folds=5)
    half = 2.776445 * sqrt(0.00025 * 0.45)
    assert (found.low, found.high) == pytest.approx((0.02 - half, 0.02 + half), abs=1e-7)
    assert found.p == pytest.approx(2 * stats.t.sf(0.02 / sqrt(0.00025 * 0.45), 4))
    plain = paired(a, dict.fromkeys(a, 0.90))
    assert plain.low is not None
    assert plain.low > 0 > found.low  # the plain one would have called it clear


def test_too_few_pairs_have_no_interval() -> None:
    assert paired({0: 0.5}, {1: 0.5}) == Difference(0)
    assert paired({0: 0.75}, {0: 0.5}) == Difference(1, 0.25)
    assert paired({}, {}) == Difference(0)


def test_equal_differences() -> None:
    same = paired({0: 0.5, 1: 0.75}, {0: 0.5, 1: 0.75})
    assert same == Difference(2, 0.0, 0.0, 0.0, 1.0)
    shifted = paired({0: 0.75, 1: 1.0}, {0: 0.5, 1: 0.75})
    assert shifted == Difference(2, 0.25, 0.25, 0.25, 0.0)


def test_spread_of_none_one_and_many() -> None:
    assert (spread([]).mean, spread([]).std) == (None, None)
    assert (spread([0.5]).number, spread([0.5]).mean, spread([0.5]).std) == (1, 0.5, None)
    values = [0.1, 0.4, 0.2]
    assert spread(values).std == pytest.approx(np.std(values, ddof=1))
