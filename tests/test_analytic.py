"""The exact targets against formulas and integrals that share no code with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import analytic, processes, sampling, solvers
from tests.solvers.targets import MIXTURE

PROCESSES = [processes.LinearVP(), processes.VE(), processes.RectifiedFlow(), processes.SubVP()]
GAUSSIAN = analytic.Gaussian(np.array([0.5, -1.0]), np.array([[1.0, 0.6], [0.6, 0.5]]))


def quadrature(process, x_t, t):
    """E[x_0 | x_t] and log p(x_t) of the mixture by a Riemann sum over x_0."""
    grid = np.linspace(-6, 6, 60001)
    m, s = MIXTURE.means[:, 0], MIXTURE.scales
    prior = (MIXTURE.weights / s * np.exp(-0.5 * ((grid[:, None] - m) / s) ** 2)).sum(1) / np.sqrt(2 * np.pi)
    alpha, sigma = process.alpha(np.float64(t)), process.sigma(np.float64(t))
    joint = prior * np.exp(-0.5 * ((x_t - alpha * grid) / sigma) ** 2) / (np.sqrt(2 * np.pi) * sigma)
    p = joint.sum() * (grid[1] - grid[0])
    return (joint * grid).sum() * (grid[1] - grid[0]) / p, np.log(p)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("t", [0.2, 0.6])
def test_mixture_against_quadrature(process, t):
    with jax.enable_x64(True):
        for x_t in (-0.7, 0.9):
            mean, log_p = quadrature(process, x_t, t)
            x = jnp.full((1, 1), x_t)
            assert float(MIXTURE.denoise(process, x, t)[0, 0]) == pytest.approx(mean, rel=1e-6)
            assert float(MIXTURE.log_prob(x, process, t)[0]) == pytest.approx(log_p, rel=1e-6)


@pytest.mark.parametrize("target", [GAUSSIAN, MIXTURE], ids=["gaussian", "mixture"])
@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_denoiser_is_tweedies_formula_on_the_log_density(target, process):
    """E[x_0 | x_t] = (x_t + sigma^2 grad log p(x_t)) / alpha."""
    with jax.enable_x64(True):
        d = 2 if target is GAUSSIAN else 1
        x, t = jnp.asarray(np.random.default_rng(0).normal(size=(5, d))), jnp.linspace(0.1, 0.9, 5)
        score = jax.grad(lambda x: target.log_prob(x, process, t).sum())(x)
        alpha, sigma = process.alpha(t)[:, None], process.sigma(t)[:, None]
        np.testing.assert_allclose(target.denoise(process, x, t), (x + sigma**2 * score) / alpha, rtol=1e-8, atol=1e-10)


def test_gaussian_density_of_clean_data():
    with jax.enable_x64(True):
        x = np.array([[0.3, 0.2], [1.0, -2.0]])
        residual = x - GAUSSIAN.mean
        inverse = np.linalg.inv(GAUSSIAN.covariance)
        expected = -0.5 * np.einsum("bi,ij,bj->b", residual, inverse, residual)
        expected += -0.5 * np.log(np.linalg.det(2 * np.pi * GAUSSIAN.covariance))
        np.testing.assert_allclose(GAUSSIAN.log_prob(jnp.asarray(x)), expected, rtol=1e-10)


def test_samples_have_the_targets_moments():
    n = 40000
    x = np.asarray(GAUSSIAN.sample(jax.random.key(0), n))
    np.testing.assert_allclose(x.mean(0), GAUSSIAN.mean, atol=4 / np.sqrt(n))
    np.testing.assert_allclose(np.cov(x.T), GAUSSIAN.covariance, atol=6 / np.sqrt(n))
    x, label = MIXTURE.sample(jax.random.key(0), n)
    np.testing.assert_allclose(np.bincount(label, minlength=3) / n, MIXTURE.weights, atol=4 * 0.5 / np.sqrt(n))
    assert float(x[label == 0].mean()) == pytest.approx(-1.0, abs=4 * 0.3 / np.sqrt(0.3 * n))


def test_gaussian_flow_keeps_the_whitened_state_under_ve():
    """(x - mu) / sqrt(s^2 + sigma^2) is constant along a path."""
    process = processes.VE()
    target = analytic.Gaussian(np.array([0.7]), np.array([[0.09]]))
    x = jnp.array([[-3.0], [0.0], [20.0]])
    there = target.flow(process, x, 0.9, 0.2)

    def whitened(x, t):
        return (x - 0.7) / np.sqrt(0.09 + process.sigma(np.float64(t)) ** 2)

    np.testing.assert_allclose(whitened(there, 0.2), whitened(x, 0.9), rtol=1e-5)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_solvers_find_the_gaussian_flow(process):
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(1).normal(size=(4, 2)))
        times = sampling.times.uniform(process, 400, t_max=0.9, t_min=0.1)
        found = sampling.solve(jax.random.key(0), GAUSSIAN.denoiser(process), process, solvers.Heun("angle"), times, x)
        np.testing.assert_allclose(found, GAUSSIAN.flow(process, x, 0.9, 0.1), rtol=1e-3, atol=1e-4)


def test_conditional_mixture():
    process, x = processes.LinearVP(), jnp.array([[0.3], [0.3], [0.3]])
    denoised = MIXTURE.denoise(process, x, 0.4, {"label": jnp.array([1, -1, 1])})
    alone = analytic.GaussianMixture(np.ones(1), MIXTURE.means[1:2], MIXTURE.scales[1:2])
    np.testing.assert_allclose(denoised[0], alone.denoise(process, x, 0.4)[0], rtol=1e-6)
    np.testing.assert_allclose(denoised[1], MIXTURE.denoise(process, x, 0.4)[1], rtol=1e-6)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="covariance has shape"):
        analytic.Gaussian(np.zeros(2), np.eye(3))
    with pytest.raises(ValueError, match="weights sum to"):
        analytic.GaussianMixture(np.ones(2), np.zeros((2, 1)), np.ones(2))
