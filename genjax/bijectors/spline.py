"""The monotone rational-quadratic spline of Gregory & Delbourgo (1982), as in Durkan et al. 2019, section 3."""

import math

import jax
import jax.numpy as jnp
from jax import Array

MIN_SIZE = 1e-3  # of a bin, as a share of the interval
MIN_DERIVATIVE = 1e-3
_AXIS = -2  # of the bins
_ONE = math.log(math.expm1(1.0 - MIN_DERIVATIVE))  # what softplus makes a derivative of 1 of


def rational_quadratic(x: Array, h: Array, bound: float, inverse: bool = False) -> tuple[Array, Array]:
    """Maps numbers by monotone splines from [-bound, bound] onto itself, and by the identity elsewhere.

    The derivative at both ends is 1, so it is continuous (linear tails). h = 0 is the identity.

    Args:
        x: [..., C].
        h: for K bins [..., 3 K - 1, C], unconstrained: K widths and K heights, before a softmax, and K - 1 derivatives
            between the bins, before a softplus.
        bound: half the length of the interval.
        inverse: whether the inverse is wanted.

    Returns:
        The mapped numbers [..., C], and the logarithms of the derivatives of the map that was applied [..., C].
    """
    bins = (h.shape[_AXIS] + 1) // 3
    widths, heights, inner = jnp.split(h, (bins, 2 * bins), axis=_AXIS)
    knots_x, knots_y = _knots(widths, bound), _knots(heights, bound)
    slopes = MIN_DERIVATIVE + jax.nn.softplus(inner + _ONE)
    end = jnp.ones_like(slopes[..., :1, :])
    slopes = jnp.concatenate([end, slopes, end], _AXIS)

    inside = jnp.abs(x) < bound
    point = jnp.expand_dims(jnp.where(inside, x, 0.0), _AXIS)
    knots = knots_y if inverse else knots_x
    place = (point >= knots[..., 1:-1, :]).sum(_AXIS, keepdims=True)
    here = place == jnp.arange(bins)[(None,) * (x.ndim - 1) + (slice(None), None)]

    def at(values: Array) -> Array:
        return jnp.where(here, values, 0.0).sum(_AXIS)

    x_k, y_k = at(knots_x[..., :-1, :]), at(knots_y[..., :-1, :])
    width, height = at(jnp.diff(knots_x, axis=_AXIS)), at(jnp.diff(knots_y, axis=_AXIS))
    d_k, d_next = at(slopes[..., :-1, :]), at(slopes[..., 1:, :])
    s = height / width
    curve = d_next + d_k - 2.0 * s

    point = point.squeeze(_AXIS)
    if inverse:  # equations 6 to 8, and the root that does not cancel
        rise = point - y_k
        a, b, c = height * (s - d_k) + rise * curve, height * d_k - rise * curve, -s * rise
        xi = 2.0 * c / (-b - jnp.sqrt(jnp.maximum(b**2 - 4.0 * a * c, 0.0)))
    else:
        xi = (point - x_k) / width
    across = xi * (1.0 - xi)
    denominator = s + curve * across
    if inverse:
        mapped = x_k + xi * width
    else:
        mapped = y_k + height * (s * xi**2 + d_k * across) / denominator  # equation 4
    slope = d_next * xi**2 + 2.0 * s * across + d_k * (1.0 - xi) ** 2
    log_slope = 2.0 * jnp.log(s) + jnp.log(slope) - 2.0 * jnp.log(denominator)  # equation 5
    sign = -1.0 if inverse else 1.0
    return jnp.where(inside, mapped, x), jnp.where(inside, sign * log_slope, 0.0)


def _knots(sizes: Array, bound: float) -> Array:
    """Ends of bins that fill [-bound, bound], [..., K + 1, C], from unconstrained sizes [..., K, C]."""
    bins = sizes.shape[_AXIS]
    shares = MIN_SIZE + (1.0 - MIN_SIZE * bins) * jax.nn.softmax(sizes, axis=_AXIS)
    inner = bound * (2.0 * jnp.cumsum(shares[..., :-1, :], axis=_AXIS) - 1.0)
    end = jnp.full_like(inner[..., :1, :], bound)
    return jnp.concatenate([-end, inner, end], _AXIS)
