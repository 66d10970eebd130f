"""Training of a family of one phase on the exact mixture, in one compiled scan."""

import types

import jax
import jax.numpy as jnp
import optax

from genjax.families.base import Keys
from tests.families import exact


def train(family, steps, batch, learning_rate, decay=0.998):
    """Returns the averaged weights, and what the family reads beside them, after training by Adam."""
    params, extra = family.init(jax.random.key(0), None)
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    loss = family.phases()[0].loss

    def step(carry, i):
        weights, average, moments = carry
        key_data, key = jax.random.split(jax.random.fold_in(jax.random.key(1), i))
        data = {"image": exact.images(key_data, batch)}
        state = types.SimpleNamespace(step=i, params={"model": weights}, ema={"model": average}, extra=extra)
        gradient = jax.grad(loss, has_aux=True)(weights, state, data, Keys.of(key, batch))[0]
        updates, moments = optimizer.update(gradient, moments, weights)
        weights = optax.apply_updates(weights, updates)
        keep = jnp.minimum(decay, (1 + i) / (10 + i))
        average = jax.tree.map(lambda a, w: keep * a + (1 - keep) * w, average, weights)
        return (weights, average, moments), None

    @jax.jit
    def run(weights):
        return jax.lax.scan(step, (weights, weights, optimizer.init(weights)), jnp.arange(steps))[0][1]

    return {"model": run(params["model"]), **extra}


def relative(found, right):
    """Returns the distance over the length of what is right."""
    return float(jnp.linalg.norm(found - right) / jnp.linalg.norm(right))
