"""A distillation step costs little more than the passes that it is made of, and they are as many as the table says."""

import functools

import jax
import jax.numpy as jnp
import pytest

from experiments.benchmark import distillation
from genjax.data.base import DataSpec
from genjax.families.base import Keys
from genjax.training.experiment import Experiment
from genjax.training.state import create_state


@pytest.mark.parametrize("name", distillation.PASSES)
def test_the_passes_are_all_there_are(name, monkeypatch):
    """Counted while the losses are traced, on a tiny network in the place of the U-Net."""
    config = distillation.config(name)
    tiny = dict(name="mlp", hidden=8, depth=1)
    config["family"]["network"] = config["family"]["teacher"]["family"]["network"] = tiny
    experiment = Experiment.from_config(config)
    family, calls = experiment.family, 0
    state = jax.eval_shape(functools.partial(create_state, experiment, DataSpec(distillation.SHAPE, None, 4)))
    network, apply = type(family.network), type(family.network).apply

    def counted(self, *args, **kwargs):
        nonlocal calls
        calls += 1
        return apply(self, *args, **kwargs)

    monkeypatch.setattr(network, "apply", counted)
    batch = {"image": jax.ShapeDtypeStruct((4, *distillation.SHAPE), jnp.float32)}
    keys = jax.eval_shape(lambda: Keys.of(jax.random.key(0), 4))
    for phase in family.phases():
        jax.eval_shape(phase.loss, state.params[phase.trains], state, batch, keys)
    assert calls == sum(distillation.PASSES[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", distillation.PASSES)
def test_a_step_costs_at_most_so_much_more_than_its_passes(name):
    forward, both = distillation.PASSES[name]
    step, one, with_gradient = distillation.measure(name)
    assert step <= distillation.BAR * (forward * one + both * with_gradient)
