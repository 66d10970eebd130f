"""The order that every solver declares, measured on a mixture with its exact denoiser, on three processes."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import analytic, sampling, solvers
from tests.solvers.targets import DETERMINISTIC, PROCESSES, STOCHASTIC, error, exact_solution, geometric_times

each_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


@pytest.fixture(scope="session")
def exact():
    return exact_solution()


@pytest.mark.parametrize("solver", DETERMINISTIC.values(), ids=DETERMINISTIC)
@each_process
def test_deterministic_order(solver, process, exact):
    with jax.enable_x64(True):
        steps = np.array([80, 160, 320])
        errors = [error(solver, process, n, exact) for n in steps]
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert abs(slope - solver.order) < 0.2, (slope, errors)


# Measured outside this project; REFERENCE: largest error at 320 steps against RK4 with 20,000.
@pytest.mark.parametrize(
    "solver, expected",
    [(solvers.DDIM(), 6.54e-3), (solvers.Euler(), 6.54e-3), (solvers.Heun(), 3.68e-5), (solvers.DPMpp2M(), 1.66e-5)],
    ids=str,
)
@each_process
def test_published_error(solver, expected, process, exact):
    """These methods compute the same on every process, since log-SNR alone enters."""
    with jax.enable_x64(True):
        assert error(solver, process, 320, exact) == pytest.approx(expected, rel=2e-3 + 5e-3 * (expected < 1e-4))


def moments(solver, process, target, times):
    """Exact mean and variance of a solver's result on a one-dimensional Gaussian target, without sampling.

    There a step is affine in the state, in the history and in the noise, so Jacobians carry the moments along. The
    noise becomes an argument by standing in for `jax.random.normal`.
    """
    denoise, keys = target.denoiser(process), jax.random.split(jax.random.key(0), 1)
    x = jnp.zeros((1, 1))
    flat, unravel = jax.flatten_util.ravel_pytree((x, solver.init(x)))
    plan = jax.tree.map(jnp.asarray, solver.plan(process, times))
    most_draws = 4

    def step(flat, noise, plan_i):
        draws = iter(noise)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jax.random, "normal", lambda key, shape, dtype: jnp.full(shape, next(draws), dtype))
            x, carry = solver.step(denoise, unravel(flat)[0], plan_i, unravel(flat)[1], keys)
        return jax.flatten_util.ravel_pytree((x, carry))[0]

    affine = jax.jit(
        lambda flat, plan_i: (
            step(flat, jnp.zeros(most_draws), plan_i),
            *jax.jacfwd(step, (0, 1))(flat, jnp.zeros(most_draws), plan_i),
        )
    )
    alpha, sigma = process.alpha(times[0]), process.sigma(times[0])
    mean, covariance = np.zeros(len(flat)), np.zeros((len(flat), len(flat)))
    mean[0] = alpha * target.mean[0]
    covariance[0, 0] = alpha**2 * target.covariance[0, 0] + sigma**2
    for i in range(len(times) - 1):
        mean, a, b = map(np.asarray, affine(jnp.asarray(mean), jax.tree.map(lambda leaf, i=i: leaf[i], plan)))
        covariance = a @ covariance @ a.T + b @ b.T
    return mean[0], covariance[0, 0]


@pytest.mark.parametrize("solver", STOCHASTIC.values(), ids=STOCHASTIC)
@each_process
def test_stochastic_order_by_moments(solver, process):
    """Weak order on N(0.5, 0.5^2): mean and variance, exactly, against those of the noised target."""
    target = analytic.Gaussian(np.array([0.5]), np.array([[0.25]]))
    steps, errors = np.array([80, 160, 320]), []
    with jax.enable_x64(True):
        for count in steps:
            times = geometric_times(process, count)
            mean, variance = moments(solver, process, target, times)
            alpha, sigma = process.alpha(times[-1]), process.sigma(times[-1])
            exact = alpha**2 * 0.25 + sigma**2
            errors.append(max(abs(mean / alpha - 0.5), abs(variance / exact - 1.0)))
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert abs(slope - solver.order) < 0.2, (slope, errors)


def test_moments_agree_with_samples():
    """The exact propagation above against plain sampling."""
    process, solver = PROCESSES["linear_vp"], solvers.DDPM()
    target, n = analytic.Gaussian(np.array([0.5]), np.array([[0.25]])), 100_000
    times = geometric_times(process, 8)
    with jax.enable_x64(True):
        mean, variance = moments(solver, process, target, times)
        alpha, sigma = process.alpha(times[0]), process.sigma(times[0])
        x = alpha * 0.5 + np.sqrt(alpha**2 * 0.25 + sigma**2) * jax.random.normal(jax.random.key(0), (n, 1))
        x = sampling.solve(jax.random.key(1), target.denoiser(process), process, solver, times, x)
    x = np.asarray(x)
    assert float(x.mean()) == pytest.approx(mean, abs=4 * np.sqrt(variance / n))
    assert float(x.var()) == pytest.approx(variance, rel=4 * np.sqrt(2 / n))
