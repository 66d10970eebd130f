"""Precision, recall, density and coverage of sets whose balls can be worked out by hand."""

import math

import numpy as np
import pytest

from genjax.evaluation import neighbours as module
from genjax.evaluation.neighbours import neighbours, radii_of


def line(*values):
    return np.array(values, float)[:, None]


def values(real, samples, **options):
    return tuple(figure.value for figure in neighbours(real, samples, **options))


def test_radii_are_distances_to_the_kth_other_point():
    first, second = radii_of(line(0, 1, 3, 7), (1, 2))
    assert first.tolist() == [1, 1, 2, 4] and second.tolist() == [3, 2, 3, 6]
    assert radii_of(line(5, 5, 5, 6), (2,))[0].tolist() == [0, 0, 0, 1]  # a copy is another point


def test_equal_disjoint_and_half_covered_sets():
    rng = np.random.default_rng(0)
    near, far = rng.normal(size=(2, 60, 3))
    far += 100
    assert values(near, near)[:2] == (1, 1) and values(near, near)[3] == 1
    assert values(near, far) == (0, 0, 0, 0)
    both = np.concatenate([near, far])
    # Samples that are half of the real images: all of them are right, half of the real ones are found.
    precision, recall, _, coverage = values(both, near)
    assert (precision, recall, coverage) == (1, 0.5, 0.5)
    precision, recall, _, coverage = values(near, both)
    assert (precision, recall, coverage) == (0.5, 1, 1)


def test_hand_built_points():
    # Balls of the real points at k = 1: [-1, 1], [0, 2], [6, 14], [10, 18]; radii of the samples: 0.4, 0.4, 8.6, 90.
    real, samples = line(0, 1, 10, 14), line(0.5, 0.9, 9.5, 99.5)
    assert radii_of(real, (1,))[0].tolist() == [1, 1, 4, 4]
    result = neighbours(real, samples, k=1, k_density=1)
    assert result.precision.value == 3 / 4
    assert result.recall.value == 3 / 4  # 0 is 0.5 from the first sample and 9.5 from the third
    # In how many of the real balls the samples lie, one after another.
    assert result.density.value == (2 + 2 + 1 + 0) / 4
    assert result.coverage.value == 3 / 4  # none is within 4 of 14
    tight = neighbours(real, line(0.5, 0.9, 1.2, 1.3), k=1, k_density=1)
    assert tight.recall.value == 1 / 4  # radii 0.4, 0.3, 0.1, 0.1: only the real 1 is within one


def test_expectations_for_equal_distributions():
    # Naeem et al. 2020, lemmas 1 and 2: for any distribution the density is 1 on average, and the coverage
    # 1 - (N - 1)...(N - k) / ((M + N - 1)...(M + N - k)).
    rng = np.random.default_rng(1)
    n, m, k, rounds = 30, 20, 5, 400
    found = np.array([values(*(rng.normal(size=(size, 2)) for size in (n, m)), k_density=k) for _ in range(rounds)])
    coverage = 1 - math.prod(n - i for i in range(1, k + 1)) / math.prod(m + n - i for i in range(1, k + 1))
    error = found.std(0) / math.sqrt(rounds)
    assert abs(found[:, 2].mean() - 1) < 4 * error[2] < 0.05
    assert abs(found[:, 3].mean() - coverage) < 4 * error[3] < 0.05


def test_blocks_change_nothing(monkeypatch):
    real, samples = (np.random.default_rng(seed).normal(size=(size, 4)) for seed, size in ((0, 41), (1, 23)))
    whole = neighbours(real, samples)
    monkeypatch.setattr(module, "_BLOCK", 100)
    assert neighbours(real, samples) == whole


def test_intervals():
    real, samples = line(0, 1, 10, 14), line(0.5, 0.9, 9.5, 99.5)
    result = neighbours(real, samples, k=1, k_density=1)
    assert (result.precision.low, result.precision.n) == (pytest.approx(0.3006, abs=1e-4), 4)  # Wilson, 3 of 4
    assert result.density.low <= 0.5 < result.density.value < 2 >= result.density.high
    copies = neighbours(np.repeat(real, 200, 0), np.repeat(samples, 200, 0), k=1, k_density=1)
    assert copies.density.high - copies.density.low < 0.3


def test_what_has_no_neighbours_is_refused():
    with pytest.raises(ValueError, match="5 features have no 5th"):
        neighbours(line(0, 1, 2, 3, 4), line(0, 1, 2, 3, 4))
    with pytest.raises(ValueError, match="not finite"):
        neighbours(np.full((9, 2), np.nan), np.zeros((9, 2)))
    with pytest.raises(ValueError, match="2 and 3 dimensions"):
        neighbours(np.zeros((9, 2)), np.zeros((9, 3)))
    with pytest.raises(ValueError, match="k = 0"):
        radii_of(np.zeros((9, 2)), (0,))
