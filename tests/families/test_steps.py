"""Training steps of the shipped configs: cut batches, and bfloat16."""

import functools
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.data.base import DataSpec
from genjax.families.base import Keys
from genjax.training.experiment import Experiment
from genjax.training.state import build_optimizers, create_state
from genjax.training.step import make_train_step

CONFIGS = pathlib.Path(__file__).parents[2] / "configs" / "digits"
BATCH, STEPS = 16, 6
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def experiment(name, dtype="float32"):
    """The smoke config with dropout switched on."""
    spec = importlib.util.spec_from_file_location(f"digits_{name}", CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config("smoke").copy_and_resolve_references()
    config.family.network.update(dropout=0.1, dtype=dtype)
    return Experiment.from_config(config)


@functools.cache
def start(name, dtype="float32"):
    chosen = experiment(name, dtype)
    return jit(lambda: create_state(chosen, DataSpec((8, 8, 1), 10, BATCH)))()


@functools.cache
def step(name, accumulate=1, dtype="float32"):
    chosen = experiment(name, dtype)
    optimizers = build_optimizers(chosen, start(name, dtype).params)
    return jit(make_train_step(chosen.family, optimizers, chosen.ema, accumulate=accumulate))


@functools.cache
def batch():
    rng = np.random.default_rng(0)
    image = np.clip(rng.normal(0, 0.5, (BATCH, 8, 8, 1)), -1, 1).astype(np.float32)
    return {"image": image, "label": np.arange(BATCH, dtype=np.int32) % 10}


def means(metrics):
    return {name: float(mean.total / mean.weight) for name, mean in metrics.items() if mean.weight}


# What these tests cost is compilation, of which the transformer has least.
SLOW = pytest.mark.slow
NAMES = ["dit", *(pytest.param(name, marks=SLOW) for name in ("ddpm", "edm", "flow_matching"))]


@pytest.mark.parametrize("name", NAMES)
def test_an_accumulated_step_is_that_of_the_whole_batch(name):
    """With dropout, dropped conditions and times that are spread over the batch: each example draws its own."""
    state, rng = start(name), np.random.default_rng(1)
    # Away from the zeros of the start, at which most gradients are zero.
    moved = jax.tree.map(lambda p: p + 0.1 * rng.normal(size=p.shape).astype(np.float32), state.params)
    state = state.replace(params=moved)
    whole, expected = step(name)(state, batch())
    cut, measured = step(name, accumulate=4)(state, batch())
    expected, measured = means(expected), means(measured)
    assert measured == pytest.approx(expected, rel=1e-5)
    assert len([key for key in measured if key.startswith("train/mse_by_noise/")]) > 2
    # Adam's first moment is the clipped gradient times 0.1. Its sums are in another order: some float32 roundings.
    for one, other in zip(jax.tree.leaves(cut.opt), jax.tree.leaves(whole.opt), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-5 * float(jnp.abs(other).max()))
    later, _ = step(name)(state.replace(step=state.step + 1), batch())  # other draws show in the gradient
    assert not np.allclose(later.opt["model"][1][0].mu["out"]["kernel"], whole.opt["model"][1][0].mu["out"]["kernel"])


@pytest.mark.parametrize("name", NAMES[:2])
def test_bfloat16_is_of_the_computation_alone_and_stays_near_float32(name):
    """A number in bfloat16 is off by up to 2^-9 of itself, at random, so a mean over a thousand pixels by far less.

    The tolerance, a thousandth, leaves room for some dozens of such roundings in a row; what six steps have learnt is
    ten times that.
    """
    losses = {}
    for dtype in ("float32", "bfloat16"):
        state, losses[dtype] = start(name, dtype), []
        for _ in range(STEPS):
            state, metrics = step(name, dtype=dtype)(state, batch())
            losses[dtype].append(means(metrics)["train/loss"])
        floats = [leaf for leaf in jax.tree.leaves((state, metrics)) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
        assert {leaf.dtype for leaf in floats} == {jnp.dtype("float32")}
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=1e-3)
    assert losses["bfloat16"] != losses["float32"]
    unlearnt = means(step(name)(start(name).replace(step=jnp.int32(STEPS - 1)), batch())[1])["train/loss"]
    assert losses["float32"][-1] < 0.99 * unlearnt


def test_loss_and_gradient_of_a_bfloat16_network_are_float32():
    family = experiment("dit", "bfloat16").family

    def loss(params, key):
        return family.phases()[0].loss(params, None, batch(), Keys.of(key, BATCH))

    shapes = jax.eval_shape(jax.value_and_grad(loss, has_aux=True), start("dit").params["model"], jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
