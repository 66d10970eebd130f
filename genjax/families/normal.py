"""Densities and divergences of independent normal variables, in nats and entry by entry."""

import math

import jax.numpy as jnp
from jax import Array


def log_density(x: Array, mean: Array | float = 0.0, log_std: Array | float = 0.0) -> Array:
    """Returns log N(x; mean, std^2) of each entry, in the shape of x; of the standard normal where no more is given."""
    return -0.5 * ((x - mean) * jnp.exp(-log_std)) ** 2 - log_std - 0.5 * math.log(2.0 * math.pi)


def divergence(mean: Array, log_std: Array, to_mean: Array | float = 0.0, to_log_std: Array | float = 0.0) -> Array:
    """Returns KL(N(mean, std^2) || N(to_mean, to_std^2)) of each entry (Kingma & Welling 2014, appendix B).

    Args:
        mean: of the first variable.
        log_std: of the first variable, in the same shape.
        to_mean: of the second variable, in that shape or one number for all.
        to_log_std: of the second variable, the same.
    """
    ratio = 2.0 * (log_std - to_log_std)
    distance = ((mean - to_mean) * jnp.exp(-to_log_std)) ** 2
    return 0.5 * (jnp.expm1(ratio) - ratio + distance)
