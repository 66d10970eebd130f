"""Solvers that mathematics says are equal, plan for plan."""

import numpy as np
import pytest

from genjax import processes, solvers

TIMES = np.linspace(1.0, 0.0, 11)[:-1] ** 1.5
PROCESSES = [
    processes.LinearVP(),
    processes.VE(),
    processes.RectifiedFlow(3.0),
    processes.CosineVP(),
    processes.SubVP(),
]


def result(solver, process, times=TIMES):
    """The coefficients of the next state, by the name of the image."""
    return solver.plan(process, times).result.terms


each_process = pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)


@each_process
def test_euler_in_sigma_is_ddim(process):
    euler, ddim = result(solvers.Euler(), process), result(solvers.DDIM(), process)
    np.testing.assert_allclose(euler["x"], ddim["x"], rtol=1e-10)
    np.testing.assert_allclose(euler["d0"], ddim["d0"], rtol=1e-10)


def test_euler_in_t_on_the_straight_path_is_ddim():
    process = processes.RectifiedFlow()
    euler, ddim = result(solvers.Euler("t"), process), result(solvers.DDIM(), process)
    np.testing.assert_allclose(euler["x"], ddim["x"], rtol=1e-10)
    np.testing.assert_allclose(euler["d0"], ddim["d0"], rtol=1e-10)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_is_the_papers_family(eta):
    """Song et al. 2021a, eq. 12 and 16, written in alpha-bar as there."""
    process = processes.DiscreteVP()
    plan = result(solvers.DDIM(eta), process)
    alpha_bar = process.alpha(TIMES) ** 2
    now, after = alpha_bar[:-1], alpha_bar[1:]
    std = eta * np.sqrt((1 - after) / (1 - now)) * np.sqrt(1 - now / after)
    direction = np.sqrt(1 - after - std**2)  # of eps = (x - sqrt(now) x_0) / sqrt(1 - now)
    np.testing.assert_allclose(plan.get("z0", 0.0), std, rtol=1e-9)
    np.testing.assert_allclose(plan["x"], direction / np.sqrt(1 - now), rtol=1e-9)
    np.testing.assert_allclose(plan["d0"], np.sqrt(after) - direction * np.sqrt(now) / np.sqrt(1 - now), rtol=1e-9)


def test_ddpm_with_the_large_variance_is_reverse_diffusion_sampling_on_ve():
    """Song et al. 2021b, algorithm 2: x + (sigma_t^2 - sigma_s^2) score + sqrt(sigma_t^2 - sigma_s^2) z."""
    process = processes.VE()
    plan, sigma = result(solvers.DDPM("large"), process), process.sigma(TIMES)
    gap = sigma[:-1] ** 2 - sigma[1:] ** 2
    np.testing.assert_allclose(plan["x"], 1 - gap / sigma[:-1] ** 2, rtol=1e-9)  # the score is (D - x) / sigma_t^2
    np.testing.assert_allclose(plan["d0"], gap / sigma[:-1] ** 2, rtol=1e-9)
    np.testing.assert_allclose(plan["z0"], np.sqrt(gap), rtol=1e-9)


def test_ddpm_is_the_papers_posterior():
    """Ho et al. 2020, eq. 7, in betas, over the whole chain."""
    process = processes.DiscreteVP()
    chain = np.arange(1000, 0, -1) / 1000
    plan = result(solvers.DDPM(), process, chain)
    beta = np.linspace(1e-4, 0.02, 1000)
    alpha_bar = np.cumprod(1 - beta)
    beta, bar, before = beta[:0:-1], alpha_bar[:0:-1], alpha_bar[-2::-1]
    np.testing.assert_allclose(plan["x"], np.sqrt(1 - beta) * (1 - before) / (1 - bar), rtol=1e-7)
    np.testing.assert_allclose(plan["d0"], np.sqrt(before) * beta / (1 - bar), rtol=1e-7)
    np.testing.assert_allclose(plan["z0"], np.sqrt((1 - before) / (1 - bar) * beta), rtol=1e-7)
    large = result(solvers.DDPM("large"), process, chain)
    # beta is the variance of q(x_t | x_s); the step's noise has that variance.
    np.testing.assert_allclose(large["z0"], np.sqrt(beta), rtol=1e-7)
