"""Rematerialization changes memory and nothing else."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import config
from genjax.networks import param_shapes
from genjax.networks.remat import POLICIES
from genjax.training.flops import step_flops

SHAPE, BATCH = (4, 4, 1), 16
SPECS = {
    "dit": dict(depth=5, hidden=16, heads=2),
    "unet": dict(channels=8, multipliers=(1,), blocks_per_level=2, attention_resolutions=(), heads=1),
    "mlp": dict(hidden=64, depth=8),
}
PERTURBED = {"dit": "block_1", "unet": "middle_attention"}
DEFAULT = {("dit", policy) for policy in POLICIES} | {("unet", "nothing_saveable")}
CASES = [
    pytest.param(name, policy, marks=[pytest.mark.slow] * ((name, policy) not in DEFAULT))
    for name in SPECS
    for policy in POLICIES
]


def build(name, policy):
    return config.build("network", {"name": name, **SPECS[name], "num_classes": 3, "dropout": 0.2, "remat": policy})


def setting(name, policy):
    """A loss of parameters and keys, parameters away from the zeros of the start, and keys."""
    network = build(name, policy)
    leaves, tree = jax.tree.flatten(param_shapes(network, SHAPE))
    rng = np.random.default_rng(0)
    params = tree.unflatten([jnp.asarray(rng.normal(0, 0.2, leaf.shape), leaf.dtype) for leaf in leaves])
    x = jnp.asarray(rng.normal(size=(BATCH, *SHAPE)), jnp.float32)
    cond = {"label": jnp.arange(BATCH) % 4 - 1}
    if name in PERTURBED:
        cond["perturbed_attention"] = {PERTURBED[name]: jnp.arange(BATCH) % 2 == 0}

    def loss(params, keys):
        return jnp.square(network.apply({"params": params}, x, jnp.arange(BATCH) * 60.0, cond, dropout=keys)).mean()

    return loss, params, jax.random.split(jax.random.key(1), BATCH)


@functools.cache
def run(name, policy):
    """Loss and gradient, and the bytes that the program needs beside its arguments and results."""
    loss, params, keys = setting(name, policy)
    # On CPU, XLA takes out the barriers that keep the two computations of a value apart, and then makes them one.
    options = {"xla_disable_hlo_passes": "cse_barrier_expander", "xla_backend_optimization_level": 0}
    program = jax.jit(jax.value_and_grad(loss)).lower(params, keys).compile(compiler_options=options)
    return program(params, keys), program.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize(("name", "policy"), CASES)
def test_same_loss_and_gradient_in_less_memory(name, policy):
    (loss, gradient), memory = run(name, policy)
    (expected, full), most = run(name, None)
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    assert jax.tree.structure(gradient) == jax.tree.structure(full)
    for one, other in zip(jax.tree.leaves(gradient), jax.tree.leaves(full), strict=True):
        # The same operations, in which XLA may fuse or order sums otherwise: some hundreds of float32 roundings.
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-5 * float(jnp.abs(other).max()))
    assert memory < 0.7 * most


def test_the_less_is_kept_the_less_memory_it_takes():
    order = ("nothing_saveable", "dots_with_no_batch_dims_saveable", "dots_saveable")
    memory = [run("dit", policy)[1] for policy in order]
    assert memory[0] < memory[1] < memory[2]


@pytest.mark.parametrize("name", SPECS)
def test_parameters_are_those_without_it(name):
    plain = param_shapes(build(name, None), SHAPE)
    for policy in POLICIES:
        assert param_shapes(build(name, policy), SHAPE) == plain
        network = build(name, policy)
        args = jnp.zeros((1, *SHAPE)), jnp.zeros(1)
        started = jax.eval_shape(lambda key, n=network, a=args: n.init(key, *a), jax.random.key(0))
        assert started["params"] == plain


def test_it_does_not_add_to_the_models_operations():
    counts = []
    for policy in (None, "nothing_saveable"):
        loss, params, keys = setting("mlp", policy)
        counts.append(step_flops(jax.grad(loss), params, keys))
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("name", SPECS)
def test_an_unknown_policy_is_answered_with_the_valid_ones(name):
    with pytest.raises(config.ConfigError, match="remat = 'dots'.*valid: dots_saveable, dots_with.*nothing_saveable"):
        build(name, "dots")
