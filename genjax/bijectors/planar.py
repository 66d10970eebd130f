"""Planar flows."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from genjax.bijectors.base import Bijector, Condition, Params, Shape
from genjax.citation import bibtex
from genjax.registry import register

REZENDE = bibtex("""
@inproceedings{rezende2015variational,
  title = {Variational Inference with Normalizing Flows},
  author = {Rezende, Danilo Jimenez and Mohamed, Shakir},
  booktitle = {International Conference on Machine Learning},
  year = {2015}
}""")

_LEAST = -0.999  # of w.u
_HALVINGS = 24  # as many as float32 has digits; Newton's steps then mend the last ones
_NEWTON = 3


@register("bijector", "planar")
@dataclasses.dataclass(frozen=True)
class Planar(Bijector):
    """Planar flow z = x + u tanh(w.x + b), which bends space along one direction (Rezende & Mohamed 2015, eq. 10).

    Invertible as w.u > -1, whatever the parameters: along w, u is moved by as much as it takes. Appendix A.1 has
    -1 + log(1 + e^(w.u)) in the place of w.u; here w.u itself stays above -1/2, and below that falls to -0.999 along an
    exponential of the same slope. So u = 0 is the identity, w = 0 divides nothing, and rounding does not reach -1.

    The inverse solves one monotone equation for w.x.
    """

    reference: ClassVar[str] = REZENDE

    def init(self, key: Array, shape: Shape, cond: Condition = None) -> Params:
        """Returns small w and u of the example's shape, and b = 0."""
        w, u = jax.random.normal(key, (2, *shape)) / math.sqrt(math.prod(shape))
        return {"w": w, "u": 0.1 * u, "b": jnp.zeros(())}

    def forward(self, params: Params, x: Array, cond: Condition = None) -> tuple[Array, Array]:
        """Maps [B, ...] to the same, with log|det dz/dx| [B]."""
        flat = x.reshape(len(x), -1)
        w, u, slope = _constrained(params)
        bent = jnp.tanh(flat @ w + params["b"])
        return (flat + bent[:, None] * u[None, :]).reshape(x.shape), _log_det(bent, slope)

    def inverse(self, params: Params, z: Array, cond: Condition = None) -> tuple[Array, Array]:
        """Maps [B, ...] to the same, with log|det dx/dz| [B]."""
        flat = z.reshape(len(z), -1)
        w, u, slope = _constrained(params)
        bent = jnp.tanh(_solve(flat @ w + params["b"], slope))
        return (flat - bent[:, None] * u[None, :]).reshape(z.shape), -_log_det(bent, slope)


def _constrained(params: Params) -> tuple[Array, Array, Array]:
    """Returns w [D], the u [D] that keeps the flow invertible, and w.u of that, above `_LEAST`."""
    w, u = params["w"].ravel(), params["u"].ravel()
    free = w @ u
    # Below -1/2 the length of w is no matter of rounding, unless u is beyond all measure.
    low = free < -0.5
    bounded = _LEAST + (-0.5 - _LEAST) * jnp.exp((jnp.where(low, free, -0.5) + 0.5) / (-0.5 - _LEAST))
    slope = jnp.where(low, bounded, free)
    square = jnp.where(low, w @ w, 1.0)
    return w, u + (slope - free) / square * w, slope


def _log_det(bent: Array, slope: Array) -> Array:
    """log(1 + w.u (1 - tanh^2)) [B], without cancellation where the product is small."""
    return jnp.log1p(slope * (1.0 - bent) * (1.0 + bent))


def _solve(target: Array, slope: Array) -> Array:
    """Returns the a [B] with a + slope tanh(a) = target, for a slope above -1; differentiable in both."""

    def value(a: Array) -> Array:
        return a + slope * jnp.tanh(a) - target

    def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = 0.5 * (low + high)
        above = value(middle) > 0
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    def newton(a: Array) -> Array:
        return a - value(a) / (1.0 + slope * (1.0 - jnp.tanh(a) ** 2))

    reach = jnp.abs(slope)  # for |tanh| is below 1
    low, high = jax.lax.fori_loop(0, _HALVINGS, halve, (target - reach, target + reach))
    a = 0.5 * (low + high)
    for _ in range(_NEWTON - 1):
        a = jnp.clip(newton(a), low, high)
    # A step of Newton's from the root, held still, has the root's derivative.
    return newton(jax.lax.stop_gradient(a))
