"""Brownian paths shared by step counts and solvers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import processes, sampling, solvers
from genjax.sampling import analysis
from tests.compiling import optimized
from tests.solvers.targets import MIXTURE, PROCESSES, geometric_times

EACH = PROCESSES | {"edm": processes.EDM()}
N = 2000


@functools.cache
def path(name):
    """Draws along one path a sample, compiled once for all processes: (from, to) -> z [N]."""
    clock = sampling.brownian_path(EACH[name]).clock
    return lambda start, end: compiled()(clock(np.float64(start)), clock(np.float64(end)))


@functools.cache
def compiled():
    draw = sampling.brownian_path(EACH["ve"]).draw
    keys = sampling.sample_keys(jax.random.key(7), N)
    run = jax.jit(lambda start, end: draw(keys, start, end, jnp.zeros((N, 1)))[:, 0])
    with optimized():
        run(np.float64(0.1), np.float64(1.0))  # compiles
    return run


def snr(process, t):
    return np.exp(process.log_snr(np.float64(t)))


@pytest.mark.parametrize("name", EACH)
def test_draws_are_standard_normal_and_independent(name):
    """Over spans in SNR below 1, across 1, above 1."""
    process = EACH[name]
    middle = process.time_of_log_snr(np.float64(0.0))
    times = np.array([0.5 + 0.5 * middle, 0.2 + 0.8 * middle, 0.9 * middle, 0.2 * middle, 0.1 * middle])
    z = np.stack([path(name)(start, end) for start, end in zip(times, times[1:], strict=False)])
    bound = 4.0 / np.sqrt(N)
    assert np.all(np.abs(z.mean(1)) < bound)
    assert np.all(np.abs(z.var(1) - 1.0) < bound * np.sqrt(2.0))
    assert np.all(np.abs(np.corrcoef(z) - np.eye(len(z))) < bound)


@pytest.mark.parametrize("name", EACH)
def test_a_long_draw_is_the_sum_of_short_ones(name):
    process, times = EACH[name], [0.95, 0.6, 0.3, 0.05]
    parts = [
        np.sqrt(snr(process, end) - snr(process, start)) * np.asarray(path(name)(start, end))
        for start, end in zip(times, times[1:], strict=False)
    ]
    whole = np.sqrt(snr(process, times[-1]) - snr(process, times[0])) * np.asarray(path(name)(times[0], times[-1]))
    np.testing.assert_allclose(sum(parts), whole, atol=1e-4 * np.abs(whole).max())


def test_no_noise_left_gives_finite_draws():
    for name in ("linear_vp", "rectified_flow"):
        assert np.all(np.isfinite(path(name)(1.0, 0.3))) and np.all(np.isfinite(path(name)(0.1, 0.0)))


def test_runs_of_all_lengths_approach_one_solution():
    """The strong error against a fine run falls with the steps, at order 1: the noise of the SDE is additive."""
    process = PROCESSES["linear_vp"]
    x = np.random.default_rng(0).normal(size=(N, 1)) * 10.0 * process.alpha(geometric_times(process, 1)[0])

    def run(steps, noise):
        times = geometric_times(process, steps)
        return analysis.follow(solvers.DDPM(), MIXTURE.denoiser(process), process, times, x, noise)

    def shared(i):
        def draw(j, span):
            with jax.disable_jit(False):  # `follow` runs without
                return np.asarray(path("linear_vp")(*span), np.float64)[:, None]

        return draw

    fine = run(256, shared)
    errors = [np.sqrt(np.mean((run(steps, shared) - fine) ** 2)) for steps in (8, 16, 32)]
    slope = -np.polyfit(np.log([8, 16, 32]), np.log(errors), 1)[0]
    assert slope == pytest.approx(1.0, abs=0.3), errors
    # Independent draws have nothing to approach.
    apart = run(32, lambda i: lambda j, span: np.random.default_rng([i, j]).normal(size=(N, 1)))
    assert np.sqrt(np.mean((apart - fine) ** 2)) > 5 * errors[-1]


def test_solve_takes_a_path():
    """Inside the scan: for a constant denoiser the result depends on the path alone, not on the number of steps."""
    process = EACH["linear_vp"]

    def run(times):
        noise = sampling.brownian_path(process)
        return sampling.solve(
            jax.random.key(7), lambda x, t: 0 * x + 0.3, process, solvers.DDPM(), times, jnp.ones((4, 1)), noise=noise
        )

    one, many = jax.jit(lambda: (run([0.9, 0.1]), run([0.9, 0.6, 0.4, 0.2, 0.1])))()
    np.testing.assert_allclose(one, many, rtol=2e-5)
    assert float(jnp.std(one)) > 0


def test_the_path_of_a_sample_does_not_depend_on_its_batch():
    process = EACH["ve"]
    keys = sampling.sample_keys(jax.random.key(7), N)[5:7]
    noise = sampling.brownian_path(process)
    start, end = (jnp.float32(noise.clock(np.float64(t))) for t in (0.6, 0.3))
    part = noise.draw(keys, start, end, jnp.zeros((2, 1)))[:, 0]
    np.testing.assert_allclose(part, path("ve")(0.6, 0.3)[5:7], rtol=1e-4, atol=1e-5)


def test_a_wrong_tolerance_is_named():
    with pytest.raises(ValueError, match="tolerance = 0"):
        sampling.brownian_path(PROCESSES["ve"], 0.0)
