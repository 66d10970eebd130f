"""Every parameterization under every process."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import parameterizations, processes, registry
from genjax.parameterizations import denoiser
from tests.processes.test_processes import PROCESSES

PARAMETERIZATIONS = {name: entry.build() for name, entry in registry.entries("parameterization").items()}
PARAMETERIZATIONS["score, unscaled"] = parameterizations.Score(scaled=False)
each = pytest.mark.parametrize("parameterization", PARAMETERIZATIONS.values(), ids=PARAMETERIZATIONS)
each_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


@pytest.fixture(scope="module")
def pair():
    x_0, eps = np.random.default_rng(0).normal(size=(2, 9, 2, 2, 1))
    return jnp.asarray(0.5 * x_0), jnp.asarray(eps)


def noised(process, x_0, eps, t):
    column = (-1, 1, 1, 1)
    return process.alpha(t).reshape(column) * x_0 + process.sigma(t).reshape(column) * eps


@each
@each_process
def test_round_trip_and_scale(parameterization, process, pair):
    with jax.enable_x64(True):
        x_0, eps = (jnp.asarray(np.asarray(values, np.float64)) for values in pair)
        t = jnp.linspace(0.01, 0.99, 9)
        x_t = noised(process, x_0, eps, t)
        target = parameterization.target(x_0, eps, t, process)
        np.testing.assert_allclose(parameterization.to_x0(target, x_t, t, process), x_0, rtol=1e-7, atol=1e-7)
        # The output is affine in x_0: an error in it moves eps_hat by eps_scale.
        moved = parameterization.to_x0(target + 1.0, x_t, t, process) - x_0
        column = (-1, 1, 1, 1)
        eps_moved = jnp.abs(moved) * (process.alpha(t) / process.sigma(t)).reshape(column)
        scale = parameterization.eps_scale(t, process).reshape(column) * jnp.ones_like(eps_moved)
        np.testing.assert_allclose(eps_moved, scale, rtol=1e-6)


@each
@each_process
def test_float32_edges_are_finite(parameterization, process, pair):
    x_0, eps = pair
    t = jnp.array([0.0, 1e-6, 1e-5, 1e-3, 0.5, 1 - 1e-3, 1 - 1e-5, 1 - 1e-6, 1.0], jnp.float32)
    x_t = noised(process, x_0, eps, t)
    x_in, label = parameterization.network_input(x_t, t, process)
    target = parameterization.target(x_0, eps, t, process)
    values = [x_in, label, target, parameterization.to_x0(target, x_t, t, process)]
    values.append(parameterization.eps_scale(t, process))
    assert all(np.all(np.isfinite(value)) and value.dtype == jnp.float32 for value in values)
    assert label.shape == t.shape and x_in.shape == x_t.shape
    assert float(jnp.abs(x_in).max()) < 10.0  # networks see inputs of order one on every process


@pytest.mark.parametrize("name", ["x0", "v", "velocity", "edm"])
@each_process
def test_float32_round_trip_up_to_the_edges(name, process, pair):
    """Where alpha vanishes, eps and the score say nothing about x_0; the others must."""
    x_0, eps = pair
    t = jnp.array([1e-6, 1e-5, 1e-3, 0.1, 0.5, 1 - 1e-3, 1 - 1e-5, 1 - 1e-6, 1.0], jnp.float32)
    parameterization = PARAMETERIZATIONS[name]
    x_t, target = noised(process, x_0, eps, t), parameterization.target(x_0, eps, t, process)
    back = parameterization.to_x0(target, x_t, t, process)
    largest = 1.0 + float(process.sigma(np.float64(1.0)))  # rounding is relative to x_t
    np.testing.assert_allclose(back, x_0, atol=2e-5 * largest)


def test_edm_closed_form():
    """sigma = 1, sigma_data = .5: c_skip .2, c_out .4472136, c_in .8944272 (Karras et al. 2022, table 1)."""
    process, edm = processes.VE(0.01, 100.0), PARAMETERIZATIONS["edm"]
    t = jnp.asarray(process.time_of_log_snr(np.float64(0.0)), jnp.float32)
    one, zero = jnp.ones((1, 1, 1, 1)), jnp.zeros((1, 1, 1, 1))
    x_in, label = edm.network_input(one, t, process)
    assert float(x_in.ravel()[0]) == pytest.approx(0.8944272, rel=1e-5)
    assert float(label) == pytest.approx(0.0, abs=1e-5)
    assert float(edm.to_x0(zero, one, t, process).ravel()[0]) == pytest.approx(0.2, rel=1e-5)
    assert float(edm.to_x0(one, zero, t, process).ravel()[0]) == pytest.approx(0.4472136, rel=1e-5)


def test_velocity_on_the_straight_path_is_eps_minus_x0(pair):
    x_0, eps = pair
    target = PARAMETERIZATIONS["velocity"].target(x_0, eps, jnp.linspace(0, 1, 9), processes.RectifiedFlow())
    np.testing.assert_allclose(target, eps - x_0, rtol=1e-6)


def test_label_of_a_chain_is_its_step():
    parameterization = parameterizations.Eps(time_scale=1000.0, time_offset=-1.0)
    _, label = parameterization.network_input(jnp.ones((1, 2)), jnp.float32(0.5), processes.DiscreteVP())
    assert float(label) == 499.0


def test_denoiser_keeps_the_state_in_float32():
    seen = []

    def network(params, x, label, cond):
        seen.append((x.shape, label.shape))
        return (params * x).astype(jnp.bfloat16)

    denoise = denoiser(network, jnp.float32(0.5), PARAMETERIZATIONS["eps"], processes.LinearVP())
    for t in (0.5, jnp.array([0.1, 0.5, 0.9])):
        assert denoise(jnp.ones((3, 2, 2, 1)), t, None).dtype == jnp.float32
    assert seen == [((3, 2, 2, 1), (3,))] * 2


def test_the_boundary_of_consistency_models():
    """At sigma = 1, sigma_data = 0.5, epsilon = 0.002: c_skip .2006414, c_out .4463192; at epsilon 1 and 0."""
    consistency, process = PARAMETERIZATIONS["consistency"], processes.EDM()
    x, t = jnp.ones((2, 1)), process.time_of_log_snr(jnp.array([0.0, -2 * np.log(0.002)], jnp.float32))
    skip = consistency.to_x0(0.0 * x, x, t, process)
    np.testing.assert_allclose(skip[:, 0], [0.2006414, 1.0], rtol=1e-5)
    np.testing.assert_allclose(
        (consistency.to_x0(x, x, t, process) - skip)[:, 0], [0.4463192, 0.0], rtol=1e-5, atol=1e-6
    )
