"""Bijectors with parameters of its own for every example, which a network gives: flows as a VAE's posterior.

For such a posterior:

flow = Repeat(layer=Planar(), times=8)
start = flow.init(key, (d,))                                   # a tree to train with the encoder
mean, std, flat = encoder(x)                                   # flat [B, size(flow, (d,))]
params = unflatten(flow, (d,), flat, start)                    # every leaf with a leading axis B
z_0 = mean + std * eps
z, log_det = forward_each(flow, params, z_0)
log_q = log_normal(z_0, mean, std) - log_det                   # Rezende & Mohamed 2015, eq. 13
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from genjax.bijectors.base import Bijector, Condition, Params, Shape, split_fixed
from genjax.config import require


def size(bijector: Bijector, shape: Shape) -> int:
    """Returns how many parameters the bijector has for examples of a shape.

    Raises:
        ValueError: the bijector does not take this shape, or keeps parameters that nothing trains.
    """
    return _flatten(bijector, shape)[0].size


def unflatten(bijector: Bijector, shape: Shape, flat: Array, start: Params | None = None) -> Params:
    """Returns the parameters of each example from vectors of numbers.

    Args:
        bijector: the bijector.
        shape: of one example.
        flat: [B, size], unconstrained; such as a network's output.
        start: parameters without a leading axis that are added to those of every example. An output of 0 then is the
            bijector of `start`; all parameters 0 are a point from which a planar flow does not learn.

    Returns:
        The tree of `bijector.init`, every leaf with a leading axis B.

    Raises:
        ValueError: there are too few numbers, or too many.
    """
    example, unravel = _flatten(bijector, shape)
    require(
        flat.shape[1:] == example.shape,
        f"{flat.shape[1:]} numbers an example: {type(bijector).__name__} takes ({example.size},) for shape {shape}",
    )
    params = jax.vmap(unravel)(flat)
    return params if start is None else jax.tree.map(lambda p, s: p + s[None], params, start)


def forward_each(bijector: Bijector, params: Params, x: Array, cond: Condition = None) -> tuple[Array, Array]:
    """`bijector.forward` with parameters of its own for every example.

    Args:
        bijector: the bijector.
        params: the tree of `bijector.init`, every leaf with a leading axis B.
        x: [B, ...].
        cond: the condition, or None.

    Returns:
        z [B, ...] and log|det dz/dx| [B].
    """
    return _each(bijector.forward, params, x, cond)


def inverse_each(bijector: Bijector, params: Params, z: Array, cond: Condition = None) -> tuple[Array, Array]:
    """`bijector.inverse` with parameters of its own for every example, as `forward_each`."""
    return _each(bijector.inverse, params, z, cond)


def _each(function: Callable[..., Any], params: Params, x: Array, cond: Condition) -> tuple[Array, Array]:
    def one(params: Params, x: Array, cond: Condition) -> tuple[Array, Array]:
        y, log_det = function(params, *jax.tree.map(lambda leaf: leaf[None], (x, cond)))
        return y[0], log_det[0]

    return jax.vmap(one)(params, x, cond)


def _flatten(bijector: Bijector, shape: Shape) -> tuple[Array, Callable[[Array], Params]]:
    """Returns parameters as one vector, of which only the size is of use, and the function that makes a tree of one."""
    shapes = jax.eval_shape(lambda: bijector.init(jax.random.key(0), shape))
    require(not split_fixed(shapes)[1], f"{type(bijector).__name__} has parameters that no network can give")
    return ravel_pytree(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes))
