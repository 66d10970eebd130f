"""Radial flows."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from genjax.bijectors.base import Bijector, Condition, Params, Shape
from genjax.bijectors.planar import REZENDE
from genjax.registry import register


@register("bijector", "radial")
@dataclasses.dataclass(frozen=True)
class Radial(Bijector):
    """Radial flow z = x + beta (x - c) / (alpha + |x - c|), which moves mass from or to c (Rezende & Mohamed 2015).

    Equation 14 and appendix A.2: alpha = softplus(a) and beta = -alpha + softplus(b), so it is invertible whatever the
    parameters. a = b is the identity. The inverse is a quadratic equation for the distance from c.
    """

    reference: ClassVar[str] = REZENDE

    def init(self, key: Array, shape: Shape, cond: Condition = None) -> Params:
        """Returns a centre near 0 of the example's shape, and a = b = 0."""
        return {"centre": 0.1 * jax.random.normal(key, shape), "a": jnp.zeros(()), "b": jnp.zeros(())}

    def forward(self, params: Params, x: Array, cond: Condition = None) -> tuple[Array, Array]:
        """Maps [B, ...] to the same, with log|det dz/dx| [B]."""
        offset = x.reshape(len(x), -1) - params["centre"].reshape(1, -1)
        alpha, total = jax.nn.softplus(params["a"]), jax.nn.softplus(params["b"])
        r = _length(offset)
        stretch = (total + r) / (alpha + r)  # 1 + beta / (alpha + r)
        z = params["centre"].reshape(1, -1) + stretch[:, None] * offset
        return z.reshape(x.shape), _log_det(r, alpha, total, offset.shape[1])

    def inverse(self, params: Params, z: Array, cond: Condition = None) -> tuple[Array, Array]:
        """Maps [B, ...] to the same, with log|det dx/dz| [B]."""
        offset = z.reshape(len(z), -1) - params["centre"].reshape(1, -1)
        alpha, total = jax.nn.softplus(params["a"]), jax.nn.softplus(params["b"])
        # r (total + r) / (alpha + r) = the length: r^2 + q r - alpha length = 0, by the root that does not cancel.
        length = _length(offset)
        q = total - length
        root = jnp.sqrt(q**2 + 4.0 * alpha * length)
        r = jnp.where(q > 0, 2.0 * alpha * length / (jnp.abs(q) + root), 0.5 * (root - q))
        x = params["centre"].reshape(1, -1) + ((alpha + r) / (total + r))[:, None] * offset
        return x.reshape(z.shape), -_log_det(r, alpha, total, offset.shape[1])


def _length(offset: Array) -> Array:
    """Euclidean length [B] of [B, D]; its derivative at 0 is 0."""
    square = (offset**2).sum(1)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def _log_det(r: Array, alpha: Array, total: Array, dimensions: int) -> Array:
    """(D - 1) log(1 + beta h) + log(1 + beta h + beta h' r), eq. 14, with h = 1 / (alpha + r) and total = alpha + beta.

    Both are written as quotients of sums of positive numbers.
    """
    across = jnp.log(total + r) - jnp.log(alpha + r)
    along = jnp.log(r * (r + 2.0 * alpha) + alpha * total) - 2.0 * jnp.log(alpha + r)
    return (dimensions - 1) * across + along
