"""Invertible 1x1 convolutions."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import lu, solve_triangular

from genjax.bijectors.actnorm import KINGMA_2018
from genjax.bijectors.base import FIXED, Bijector, Condition, Params, Shape, constant
from genjax.registry import register


@register("bijector", "invertible_1x1")
@dataclasses.dataclass(frozen=True)
class Invertible1x1(Bijector):
    """A matrix that mixes the channels, W = P L (U + diag(s)), which starts as a rotation (Kingma & Dhariwal 2018).

    Section 3.2: the permutation P and the signs of s stay as they are; L, U and log|s| are trained. So the determinant
    is a sum, and the inverse is two triangular systems.
    """

    reference: ClassVar[str] = KINGMA_2018

    def init(self, key: Array, shape: Shape, cond: Condition = None) -> Params:
        """Returns a random rotation of the channels, which are the last axis."""
        channels = shape[-1]
        rotation, _ = jnp.linalg.qr(jax.random.normal(key, (channels, channels)))
        permutation, lower, upper = lu(rotation)
        diagonal = jnp.diag(upper)
        return {
            "lower": jnp.tril(lower, -1),
            "upper": jnp.triu(upper, 1),
            "log_scale": jnp.log(jnp.abs(diagonal)),
            FIXED: {"permutation": permutation, "sign": jnp.sign(diagonal)},
        }

    def forward(self, params: Params, x: Array, cond: Condition = None) -> tuple[Array, Array]:
        """Maps [B, ..., C] to x W, with log|det dz/dx| [B]."""
        permutation, lower, upper = _factors(params)
        return _mix(_mix(_mix(x, permutation), lower), upper), _log_det(params, x)

    def inverse(self, params: Params, z: Array, cond: Condition = None) -> tuple[Array, Array]:
        """Maps [B, ..., C] to the x with x W = z, with log|det dx/dz| [B]."""
        permutation, lower, upper = _factors(params)
        rows = z.reshape(-1, z.shape[-1])  # x P L U = z, from the right
        rows = solve_triangular(upper, rows.T, trans=1, lower=False)
        rows = solve_triangular(lower, rows, trans=1, lower=True, unit_diagonal=True).T
        return _mix(rows.reshape(z.shape), permutation.T), -_log_det(params, z)


def _factors(params: Params) -> tuple[Array, Array, Array]:
    fixed = jax.lax.stop_gradient(params[FIXED])
    lower = jnp.tril(params["lower"], -1) + jnp.eye(len(params["lower"]))
    upper = jnp.triu(params["upper"], 1) + jnp.diag(fixed["sign"] * jnp.exp(params["log_scale"]))
    return fixed["permutation"], lower, upper


def _mix(x: Array, matrix: Array) -> Array:
    # Some accelerators take products of float32 in fewer digits, and then the inverse is none.
    return jnp.matmul(x, matrix, precision=jax.lax.Precision.HIGHEST)


def _log_det(params: Params, x: Array) -> Array:
    return constant(params["log_scale"].sum() * int(np.prod(x.shape[1:-1])), x)
