"""Intervals against tables, by hand, and by how often they cover."""

import math

import numpy as np
import pytest

from genjax.evaluation.intervals import bootstrap, student, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson(successes, n, low, high):
    result = wilson(successes, n)
    assert result.value == successes / n
    assert result.low == pytest.approx(low, abs=5e-5)
    assert result.high == pytest.approx(high, abs=5e-5)


def test_wilson_at_the_ends():
    with pytest.raises(ValueError, match="0 trials"):
        wilson(0, 0)
    assert math.isclose(wilson(5, 5).high, 1.0)


def test_student():
    # t with 2 degrees of freedom has its 97.5% point at 4.302653 (any table); the deviation of 1, 2, 3 is 1.
    estimate = student(np.array([1.0, 2.0, 3.0]))
    assert estimate.value == 2.0 and estimate.confidence == 0.95
    assert (estimate.high - 2.0, 2.0 - estimate.low) == pytest.approx((4.302653 / math.sqrt(3),) * 2, rel=1e-6)
    one = student(np.array([4.0]))
    assert one.value == 4.0 and math.isnan(one.low) and math.isnan(one.high)


def test_the_bootstrap_covers():
    rng = np.random.default_rng(0)
    found = [bootstrap(rng.exponential(size=100), draws=400, seed=seed) for seed in range(200)]
    share = np.mean([estimate.low < 1.0 < estimate.high for estimate in found])
    assert 0.88 < share < 0.99  # of 200, with an expectation of 0.94 for so skew a distribution
    width = np.mean([estimate.high - estimate.low for estimate in found])
    assert width == pytest.approx(2 * 1.96 / 10, rel=0.05)
    assert bootstrap(np.full(7, 3.0))[:3] == (3.0, 3.0, 3.0)
