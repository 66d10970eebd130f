"""The contract of a solver, over every registered one: a new solver is tested by being registered."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import citation, processes, registry, sampling
from tests.solvers.targets import DETERMINISTIC, MIXTURE, PROCESSES, SOLVERS, STOCHASTIC

each = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
VP = PROCESSES["linear_vp"]
WITH_EDGES = PROCESSES | {
    "cosine_vp": processes.CosineVP(),
    "discrete_vp, zero terminal SNR": processes.DiscreteVP("scaled_linear", 100, 0.0085, 0.12, zero_terminal_snr=True),
}
TIMES = np.array([1.0, 0.7, 0.45, 0.2, 0.05])


@functools.cache
def compiled(name):
    """One compiled sampler a solver, shared by the tests of this file: (key, x) -> x."""
    denoise = MIXTURE.denoiser(VP)
    return jax.jit(lambda key, x: sampling.solve(key, denoise, VP, SOLVERS[name], TIMES, x))


def start(n):
    return jnp.linspace(-1.0, 1.0, n)[:, None] if n > 1 else jnp.zeros((1, 1))


@each
def test_declares_itself(solver):
    assert solver.order >= 1 and solver.nfe_per_step >= 1
    assert solver.stochastic in (True, False)
    assert citation.entry(solver.reference).startswith("@")
    hash(solver)  # a static argument of jit


def test_every_entry_has_a_summary_and_its_paper():
    for kind in registry.KINDS:
        for entry in registry.entries(kind).values():
            assert entry.summary.endswith((".", ")", ":")), f"{kind} {entry.name}: {entry.summary!r}"
            if entry.reference is not None:
                assert citation.entry(entry.reference)


@each
def test_evaluations_a_step_are_as_declared(solver):
    calls = []

    def denoise(x, t):
        calls.append(t)
        return 0.5 * x

    plan = solver.plan(VP, TIMES)
    x = start(3)
    keys = jax.random.split(jax.random.key(0), 3)
    x_s, carry = solver.step(denoise, x, jax.tree.map(lambda leaf: jnp.float32(leaf[1]), plan), solver.init(x), keys)
    assert len(calls) == solver.nfe_per_step
    assert float(calls[0]) == pytest.approx(TIMES[1])  # the trace relies on it
    assert jax.tree.structure(carry) == jax.tree.structure(solver.init(x))
    assert all(len(leaf) == len(TIMES) - 1 for leaf in jax.tree.leaves(plan))


@pytest.mark.parametrize("name", SOLVERS)
def test_jit_vmap_dtype_and_determinism(name):
    key, x, run = jax.random.key(3), start(4), compiled(name)
    once = run(key, x)
    assert once.shape == x.shape and once.dtype == jnp.float32
    np.testing.assert_array_equal(once, run(key, x))
    keys = jnp.stack([key, jax.random.key(4)])
    mapped = jax.vmap(run, (0, None))(keys, x)
    np.testing.assert_allclose(mapped[0], once, rtol=1e-5, atol=1e-6)
    differs = bool(jnp.any(jnp.abs(mapped[1] - mapped[0]) > 1e-4))
    assert differs == SOLVERS[name].stochastic


@pytest.mark.parametrize("name", SOLVERS)
def test_a_sample_does_not_depend_on_its_batch(name):
    key, x = jax.random.key(5), start(4)
    np.testing.assert_allclose(compiled(name)(key, x[:2]), compiled(name)(key, x)[:2], rtol=1e-5, atol=1e-6)


@each
def test_gradients_to_state_and_times(solver):
    denoise = MIXTURE.denoiser(VP)

    def loss(x, times):
        return jnp.sum(sampling.solve(jax.random.key(0), denoise, VP, solver, times, x) ** 2)

    value_and_grads = jax.jit(jax.value_and_grad(loss, (0, 1)))
    with jax.enable_x64(True):
        x = jnp.asarray(np.linspace(-1, 1, 3)[:, None])
        h = 1e-6 * np.eye(len(TIMES))[2]
        (above, _), (below, _) = value_and_grads(x, TIMES + h), value_and_grads(x, TIMES - h)
        _, (by_x, by_times) = value_and_grads(x, TIMES)
    assert np.all(np.isfinite(by_x)) and np.any(by_x != 0)
    assert np.all(np.isfinite(by_times))
    np.testing.assert_allclose(by_times[2], (above - below) / 2e-6, rtol=1e-4, atol=1e-6)


@each
@pytest.mark.parametrize("process", WITH_EDGES.values(), ids=WITH_EDGES)
def test_whole_way_from_pure_noise_to_no_noise(solver, process):
    """From t = 1 to t = 0 exactly, with alpha or sigma zero there: the samples have the mixture's moments."""
    if getattr(solver, "coordinate", None) == "log_snr" and process.alpha(np.float64(1.0)) == 0.0:
        pytest.skip("by its docstring it does not converge towards alpha = 0")
    times, n = sampling.times.trailing(process, 64), 4096
    run = jax.jit(
        lambda key: sampling.sample(key, MIXTURE.denoiser(process), process, solver, times, (n, 1), final="denoise")
    )
    x = np.asarray(run(jax.random.key(1)), np.float64)
    mean = (MIXTURE.weights[:, None] * MIXTURE.means).sum()
    std = np.sqrt((MIXTURE.weights * (MIXTURE.scales**2 + MIXTURE.means[:, 0] ** 2)).sum() - mean**2)
    assert np.all(np.isfinite(x))
    # Prior error on VE and VP, and that of 64 steps of the first order, beside four standard errors.
    assert x.mean() == pytest.approx(mean, abs=0.05 + 4 * std / np.sqrt(n))
    assert x.std() == pytest.approx(std, rel=0.1 if solver.order == 1 else 0.05)


@pytest.mark.parametrize("solver", DETERMINISTIC.values(), ids=DETERMINISTIC)
@pytest.mark.parametrize("process", WITH_EDGES.values(), ids=WITH_EDGES)
def test_plans_and_their_derivatives_at_the_edges(solver, process):
    """Plans to and from alpha = 0 and to sigma = 0 are finite; gradients are, save where sigma's slope is infinite."""
    down = np.array([1.0, 0.7, 0.4, 0.0])
    for times in (down, down[::-1][1:]):
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(solver.plan(process, times)))
    with jax.enable_x64(True):
        slopes = jax.jacrev(lambda times: solver.plan(process, times))(jnp.asarray(down))
    steep = isinstance(process, type(VP))  # sigma goes as sqrt(t)
    for leaf in jax.tree.leaves(slopes):
        assert np.all(np.isfinite(leaf[..., :-1] if steep else leaf))


@each
def test_half_precision_denoiser_leaves_the_state_in_float32(solver):
    denoise = MIXTURE.denoiser(VP)
    x = sampling.solve(jax.random.key(0), lambda x, t: denoise(x, t).astype(jnp.bfloat16), VP, solver, TIMES, start(2))
    assert x.dtype == jnp.float32 and np.all(np.isfinite(x))


@pytest.mark.parametrize("solver", DETERMINISTIC.values(), ids=DETERMINISTIC)
@pytest.mark.parametrize("name", ["linear_vp", "rectified_flow"])
def test_encode_then_decode_returns(solver, name):
    """Up to t = 1, where one of the two has no signal left, and back."""
    if getattr(solver, "coordinate", None) == "log_snr" and name == "rectified_flow":
        pytest.skip("by its docstring it does not converge towards alpha = 0")
    process = WITH_EDGES[name]
    times = np.linspace(0.05, 1.0, 201)
    run = functools.partial(sampling.solve, jax.random.key(0), MIXTURE.denoiser(process), process, solver)
    with jax.enable_x64(True):
        x = jnp.asarray(np.linspace(-1, 1, 5)[:, None])
        latent = jax.jit(lambda x: run(times, x))(x)
        back = jax.jit(lambda x: run(times[::-1], x))(latent)
    np.testing.assert_allclose(back, x, atol=0.1 if solver.order == 1 else 0.02)


@pytest.mark.parametrize("solver", STOCHASTIC.values(), ids=STOCHASTIC)
def test_stochastic_solvers_refuse_to_run_backwards(solver):
    with pytest.raises(ValueError, match="must fall"):
        sampling.solve(jax.random.key(0), MIXTURE.denoiser(VP), VP, solver, TIMES[::-1], start(2))
