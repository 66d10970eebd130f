"""Figures with their confidence intervals."""

import math
from typing import NamedTuple

import numpy as np
import scipy.stats

from genjax.config import require

NORMAL = 1.959963984540054  # the 97.5% point of the normal distribution


class Proportion(NamedTuple):
    """A share with its confidence interval.

    Attributes:
        value: successes / n.
        low: lower end of the interval.
        high: upper end of the interval.
        n: number of trials.
        confidence: nominal coverage of the interval.
    """

    value: float
    low: float
    high: float
    n: int
    confidence: float


class Estimate(NamedTuple):
    """A figure with its confidence interval.

    Attributes:
        value: the estimate.
        low: lower end of the interval; NaN where it cannot be told.
        high: upper end of the interval; NaN as well.
        confidence: nominal coverage of the interval.
    """

    value: float
    low: float
    high: float
    confidence: float = 0.95


def wilson(successes: int, n: int) -> Proportion:
    """Returns a share with its 95% score interval without continuity correction (Wilson 1927; Newcombe 1998, method 3).

    Raises:
        ValueError: no trials, or more successes than trials.
    """
    require(n >= 1 and 0 <= successes <= n, f"{successes} successes in {n} trials")
    z, share = NORMAL, successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Proportion(share, max(0.0, centre - half), min(1.0, centre + half), n, 0.95)


def student(values: np.ndarray) -> Estimate:
    """Returns the mean of independent values [N] with its 95% interval by Student's t; one value has none."""
    values = np.asarray(values, np.float64)
    n = len(values)
    require(n >= 1, "values: there are none")
    half = scipy.stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / math.sqrt(n) if n > 1 else math.nan
    mean = float(values.mean())
    return Estimate(mean, float(mean - half), float(mean + half))


def bootstrap(values: np.ndarray, draws: int = 1000, seed: int = 0) -> Estimate:
    """Returns the mean of independent values [N] with the 95% interval of its percentile bootstrap (Efron 1979)."""
    values = np.asarray(values, np.float64)
    require(len(values) >= 1, "values: there are none")
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(draws)]
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(values.mean()), float(low), float(high))
