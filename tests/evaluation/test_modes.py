"""Modes counted by hand."""

import json
import math

import numpy as np
import pytest

from genjax.evaluation.modes import count_modes

SQUARE = np.array([[0.0, 0.0], [0.0, 10.0], [10.0, 0.0], [10.0, 10.0]])


def test_counts_by_hand():
    samples = np.array([[0, 0], [1, 1], [0, 2.9], [0, 3.1], [10, 1], [5, 5], [np.nan, 0], [10, -3]])
    modes = count_modes(samples, SQUARE, sigma=1.0)
    assert modes.counts.tolist() == [3, 0, 2, 0] and (modes.found, modes.total) == (2, 4)
    assert (modes.within.value, modes.within.n) == (5 / 8, 8)
    assert modes.kl == pytest.approx(0.6 * math.log(0.6 * 4) + 0.4 * math.log(0.4 * 4))
    assert modes.tv == pytest.approx((0.35 + 0.25 + 0.15 + 0.25) / 2)
    assert count_modes(samples, SQUARE, sigma=1.0, least=3).found == 1
    assert count_modes(samples, SQUARE, sigma=1.0, radius=3.2).counts.tolist() == [4, 0, 2, 0]


def test_ends_of_the_divergences():
    assert count_modes(SQUARE, SQUARE, 0.1)[3:5] == (0, 0)
    one = count_modes(np.zeros((5, 2)), SQUARE, 0.1)
    assert one.found == 1 and one.kl == pytest.approx(math.log(4)) and one.tv == pytest.approx(0.75)
    none = count_modes(np.full((5, 2), 5.0), SQUARE, 0.1)
    assert none.found == 0 and none.within.value == 0 and math.isnan(none.kl) and math.isnan(none.tv)
    assert json.loads(json.dumps(one.to_dict()))["counts"] == [5, 0, 0, 0]


def test_the_mixture_itself_has_its_share_within_three_sigma():
    # A Gaussian of two dimensions has 1 - exp(-r^2 / 2) within r.
    rng = np.random.default_rng(0)
    samples = SQUARE[rng.integers(0, 4, 40_000)] + 0.2 * rng.normal(size=(40_000, 2))
    modes = count_modes(samples, SQUARE, 0.2)
    assert modes.within.low < 1 - math.exp(-4.5) < modes.within.high
    assert modes.found == 4 and modes.kl < 1e-3


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="needed"):
        count_modes(np.zeros((0, 2)), SQUARE, 1.0)
    with pytest.raises(ValueError, match="needed"):
        count_modes(np.zeros((3, 3)), SQUARE, 1.0)
    with pytest.raises(ValueError, match="not positive"):
        count_modes(np.zeros((3, 2)), SQUARE, 0.0)
