"""Likelihoods of a score model that was trained on digits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

from genjax import processes
from genjax.families import ScoreModel, time_samplers, weightings
from genjax.families.base import Keys
from genjax.families.likelihood_figures import Likelihood
from genjax.networks.mlp import MLP

T_MIN = 1e-4


def trained(images, steps=2000, batch=128):
    """A model of the VP SDE, trained for likelihood, and its averaged parameters."""
    family = ScoreModel(
        image_shape=(8, 8, 1),
        network=MLP(hidden=128, depth=3),
        process=processes.LinearVP(),
        weighting=weightings.LikelihoodWeighting(),
        time_sampler=time_samplers.ImportanceTimes(T_MIN),
        dequantize=True,
    )
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-3, steps))

    def step(carry, key):
        params, state, mean = carry
        data = images[jax.random.randint(key, (batch,), 0, len(images))]
        loss = lambda p: family.phases()[0].loss(p, None, {"image": data}, Keys.of(key, batch))[0]  # noqa: E731
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        params = optax.apply_updates(params, updates)
        return (params, state, optax.incremental_update(params, mean, 0.005)), None

    @jax.jit
    def run(key):
        example = family._example(1)
        params = family.network.init(key, *example)["params"]
        start = (params, optimizer.init(params), params)
        return jax.lax.scan(step, start, jax.random.split(key, steps))[0][2]

    return family, {"model": run(jax.random.key(0))}


@pytest.mark.slow
def test_bits_a_dimension_stand_in_the_order_that_theory_demands():
    """The estimate of the flow's bits/dim agrees with the exact flow's and is below the variational bound.

    All are of the same dequantized pixels of held-out digits. What theory demands: Hutchinson's estimate is unbiased,
    so it is the exact divergence's figure within its standard error. The bound is one of the model of the reverse SDE
    (Song et al. 2021c, theorem 3), so it is at least that model's cross-entropy. The ODE's model is the same one for an
    exact score alone; of a learnt score its cross-entropy may in principle lie on either side of the bound, by as much
    as the score is wrong, and lies below for a model whose bound is not tight, which is what is tested here.
    """
    digits = load_digits().images[..., None]
    images = jnp.asarray(np.round(digits * 255 / 16) / 127.5 - 1, jnp.float32)
    family, params = trained(images[:1500])
    held_out = images[1500:1560]
    exact = Likelihood(flow_steps=60, bound_nodes=60, probes="exact", t_min=T_MIN, decoder="dequantization")

    def figures(likelihood):
        model = dataclasses.replace(family, likelihood=likelihood)
        found = jax.jit(model.evaluate)(params, {"image": held_out}, jax.random.key(1))
        return {name: np.asarray(value, np.float64) for name, value in found.items()}

    found = figures(exact)
    flow, bound = found["nll_bpd"], found["elbo_bpd"]
    estimated = figures(dataclasses.replace(exact, probes="rademacher", bound_nodes=0))["nll_bpd"]
    finer = figures(dataclasses.replace(exact, probes="rademacher", bound_nodes=0, flow_steps=120))["nll_bpd"]

    def error(difference):
        return difference.std(ddof=1) / np.sqrt(len(difference))

    assert abs((finer - estimated).mean()) < 0.02  # the solver has converged
    assert abs((estimated - flow).mean()) < 4 * error(estimated - flow)
    assert (bound - flow).mean() > -4 * error(bound - flow)
    assert (bound - estimated).mean() > -4 * error(bound - estimated)
    assert flow.mean() < 7.0  # uniform pixels cost 8: it has learnt something
