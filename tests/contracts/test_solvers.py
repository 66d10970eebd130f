"""The contract of a solver, over every registered one: a new solver is tested by being registered."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import citation, registry, sampling
from tests.solvers.targets import DETERMINISTIC, MIXTURE, PROCESSES, SOLVERS, STOCHASTIC

each = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
each_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
VP = PROCESSES["linear_vp"]
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
@each_process
def test_whole_way_from_pure_noise_to_no_noise(solver, process):
    """From t = 1 to t = 0 exactly, with alpha or sigma zero there: finite, and inside the data's range."""
    times = sampling.times.trailing(process, 32)
    x = sampling.sample(jax.random.key(1), MIXTURE.denoiser(process), process, solver, times, (64, 1), final="none")
    assert np.all(np.isfinite(x))
    assert float(jnp.abs(x).max()) < 6.0
    assert float(jnp.abs(x.mean() - 0.25)) < 1.0  # the mixture's mean is .25


@each
def test_half_precision_denoiser_leaves_the_state_in_float32(solver):
    denoise = MIXTURE.denoiser(VP)
    x = sampling.solve(jax.random.key(0), lambda x, t: denoise(x, t).astype(jnp.bfloat16), VP, solver, TIMES, start(2))
    assert x.dtype == jnp.float32 and np.all(np.isfinite(x))


@pytest.mark.parametrize("solver", DETERMINISTIC.values(), ids=DETERMINISTIC)
def test_encode_then_decode_returns(solver):
    denoise = MIXTURE.denoiser(VP)
    times = np.linspace(0.05, 1.0, 201)
    x = start(5)
    latent = sampling.solve(jax.random.key(0), denoise, VP, solver, times, x)
    back = sampling.solve(jax.random.key(0), denoise, VP, solver, times[::-1], latent)
    tolerance = 0.1 if solver.order == 1 else 0.02
    np.testing.assert_allclose(back, x, atol=tolerance)


@pytest.mark.parametrize("solver", STOCHASTIC.values(), ids=STOCHASTIC)
def test_stochastic_solvers_refuse_to_run_backwards(solver):
    with pytest.raises(ValueError, match="must fall"):
        sampling.solve(jax.random.key(0), MIXTURE.denoiser(VP), VP, solver, TIMES[::-1], start(2))
