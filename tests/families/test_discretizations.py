"""How finely paths are divided as training goes on, against the papers' numbers and formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import processes
from genjax.families import discretizations
from genjax.families.base import Keys
from genjax.families.time_samplers import LogNormal, UniformTimes

EDM = processes.EDM()


def test_the_doubling_of_the_paper():
    """With K = 400,000: 11 times at first, 21 from 50,000 on, 81 from 150,000 on, 1281 in the end."""
    doubling = discretizations.Doubling(steps=400_000, start=10, end=1280)
    steps = np.array([0, 49_999, 50_000, 149_999, 150_000, 350_000, 400_000, 10**9])
    found = [float(doubling.points(jnp.int32(step))) for step in steps]
    assert found == [11, 11, 21, 41, 81, 1281, 1281, 1281]


@pytest.mark.parametrize("k", [0, 1, 100, 399_999, 400_000, 799_999, 800_000, 10**9])
def test_the_square_root_of_the_paper(k):
    """N(k) = ceil(sqrt(k / K ((s1 + 1)^2 - s0^2) + s0^2) - 1) + 1 (Song et al. 2023, appendix C), in float64."""
    share = min(k / 800_000, 1.0)
    expected = np.ceil(np.sqrt(share * (151**2 - 2**2) + 2**2) - 1) + 1
    found = float(discretizations.SquareRoot(steps=800_000, start=2, end=150).points(jnp.int32(k)))
    assert found == expected and (k > 0 or found == 2) and (k < 800_000 or found == 151)


def test_on_edm_the_grid_is_karras():
    """Five times of a process from 0.002 to 80, rho = 7: 80, 17.527832, 2.515219, .1697528, .002."""
    t, s = discretizations.Fixed(intervals=4)(jnp.array([0.9, 0.6, 0.3, 0.1]), EDM, jnp.int32(0))
    np.testing.assert_allclose(EDM.sigma(t), [80.0, 17.527832, 2.515219, 0.1697528], rtol=1e-5)
    np.testing.assert_allclose(EDM.sigma(s), [17.527832, 2.515219, 0.1697528, 0.002], rtol=1e-5)


def test_skipped_intervals_end_at_the_end_of_the_path():
    t, s = discretizations.Fixed(intervals=10, skip=3)(jnp.array([0.05, 0.25, 0.35, 1.0]), EDM, jnp.int32(0))
    np.testing.assert_allclose(t, [0.1, 0.3, 0.4, 1.0], rtol=1e-6)
    np.testing.assert_allclose(s, [0.0, 0.0, 0.1, 0.7], rtol=1e-6)


def test_uniform_times_make_intervals_equally_likely():
    keys = Keys.of(jax.random.key(0), 20_000)
    t, s = discretizations.Fixed(intervals=5)(UniformTimes()(keys, EDM), EDM, jnp.int32(0))
    share = np.bincount(np.round(np.asarray(t) * 5).astype(int), minlength=6)[1:] / 20_000
    np.testing.assert_allclose(share, 0.2, atol=5 * np.sqrt(0.2 * 0.8 / 20_000))
    np.testing.assert_allclose(t - s, 0.2, rtol=1e-5)


def test_truncated_log_normal_times_are_the_discrete_distribution_of_the_paper():
    """p(i) ~ erf((log sigma_i+1 - m) / (sqrt(2) s)) - erf((log sigma_i - m) / (sqrt(2) s)), eq. 7."""
    from scipy.special import erf

    n, intervals, mean, std = 40_000, 8, 1.5, 2.0  # so that a tenth of the normal is beyond the process
    times = LogNormal(mean, std, truncated=True)(Keys.of(jax.random.key(1), n), EDM)
    t, _ = discretizations.Fixed(intervals=intervals)(times, EDM, jnp.int32(0))
    share = np.bincount(np.round(np.asarray(t) * intervals).astype(int), minlength=intervals + 1)[1:] / n
    below = erf((np.log(EDM.sigma(np.arange(intervals + 1) / intervals)) - mean) / (np.sqrt(2) * std))
    expected = np.diff(below) / (below[-1] - below[0])
    np.testing.assert_allclose(share, expected, atol=5 * np.sqrt(0.25 / n))
    assert 0.05 < 0.5 - 0.5 * below[-1]
    clipped = LogNormal(mean, std)(Keys.of(jax.random.key(1), n), EDM)
    assert np.mean(np.asarray(clipped) == 1.0) == pytest.approx(0.5 - 0.5 * below[-1], abs=0.01)
    straight = processes.RectifiedFlow()  # which nothing is beyond of
    times = LogNormal(mean, std, truncated=True)(Keys.of(jax.random.key(1), n), straight)
    drawn = -0.5 * np.asarray(straight.log_snr(times), np.float64)
    assert drawn.mean() == pytest.approx(mean, abs=5 * std / np.sqrt(n)) and drawn.std() == pytest.approx(std, rel=0.02)


@pytest.mark.parametrize("process", [EDM, processes.LinearVP(), processes.RectifiedFlow()], ids=["edm", "vp", "rf"])
def test_the_mapping_of_easy_consistency_tuning(process):
    """r = max(0, t (1 - n(t) / q^a)), n(t) = 1 + k sigmoid(-b t), of sigma / alpha, whatever the process."""
    ect = discretizations.ECT(steps_per_stage=100, stages=6, q=2.0, k=8.0, b=1.0)
    noise = np.array([0.05, 0.5, 2.0, 20.0])
    times = process.time_of_log_snr(jnp.asarray(-2.0 * np.log(noise), jnp.float32))
    for step, a in [(0, 1), (99, 1), (100, 2), (299, 3), (300, 4), (599, 6), (10**6, 6)]:
        expected = noise * np.maximum(1.0 - (1.0 + 8.0 / (1.0 + np.exp(noise))) / 2.0**a, 0.0)
        t, s = ect(times, process, jnp.int32(step))
        lowest = np.exp(-0.5 * float(process.log_snr(jnp.float32(0.0))))
        np.testing.assert_array_equal(t, times)
        np.testing.assert_allclose(np.exp(-0.5 * process.log_snr(s)), np.maximum(expected, lowest), rtol=3e-4)
        assert float(ect.points(jnp.int32(step))) == 2**a + 1


def test_wrong_options_are_refused():
    for make, words in [
        (lambda: discretizations.Fixed(intervals=4, skip=5), "skip = 5"),
        (lambda: discretizations.SquareRoot(steps=0), "steps = 0"),
        (lambda: discretizations.SquareRoot(steps=9, start=1), "start = 1"),
        (lambda: discretizations.Doubling(steps=9, start=20, end=10), "end = 10"),
        (lambda: discretizations.ECT(steps_per_stage=0), "steps_per_stage = 0"),
        (lambda: discretizations.ECT(steps_per_stage=1, q=1.0), "q = 1.0"),
        (lambda: discretizations.ECT(steps_per_stage=1, q=256.0), "at most 1e5"),
    ]:
        with pytest.raises(ValueError, match=words):
            make()
