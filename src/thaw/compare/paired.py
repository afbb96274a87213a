"""Means over seeds and folds, and differences of runs that share them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev
from typing import TypeVar

from scipy.special import stdtr, stdtrit

Key = TypeVar("Key")
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Spread:
    """A mean and its standard deviation.

    Attributes:
        number: of values.
        mean: None without values.
        std: with number - 1 below the line; None with fewer than two values.
    """

    number: int
    mean: float | None
    std: float | None


@dataclass(frozen=True)
class Difference:
    """Mean of the differences between paired values, and how sure it is.

    Attributes:
        pairs: number of them.
        mean: None without pairs.
        low, high: confidence interval of the mean; None with fewer than two pairs.
        p: two-sided; how often a difference as large comes by chance where there is none.
    """

    pairs: int
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation."""
    return Spread(
        len(values),
        fmean(values) if values else None,
        stdev(values) if len(values) > 1 else None,
    )


def paired(
    values: Mapping[Key, float],
    baseline: Mapping[Key, float],
    *,
    folds: int | None = None,
    confidence: float = CONFIDENCE,
) -> Difference:
    """values - baseline over the keys that both have, with Student's t interval.

    Runs of one seed share the drawn photos and their order, so what a lucky seed gives to both
    falls out. In k-fold the runs share most of their training photos, and the plain interval would
    be too narrow: the variance of the mean is taken (1/n + 1/(folds - 1)) instead of 1/n, as
    Nadeau and Bengio (2003, "Inference for the generalization error") correct it.

    Args:
        values, baseline: seed and fold -> metric.
        folds: of k-fold; None: the runs differ in the seed only.
        confidence: share (0-1) of such intervals that hold the true mean.
    """
    differences = [value - baseline[key] for key, value in values.items() if key in baseline]
    number = len(differences)
    if number < 2:
        return Difference(number, *differences)
    mean = fmean(differences)
    error = stdev(differences) * sqrt(1 / number + (1 / (folds - 1) if folds else 0))
    if error == 0:
        return Difference(number, mean, mean, mean, 1.0 if mean == 0 else 0.0)
    half = float(stdtrit(number - 1, (1 + confidence) / 2)) * error
    chance = 2 * float(stdtr(number - 1, -abs(mean) / error))
    return Difference(number, mean, mean - half, mean + half, chance)
