"""Convolutions whose derivatives are fast on a CPU too, wherever they stand in a program.

XLA on a CPU has a fast path for convolutions in one layout, and rewrites others into it outside of loops and
conditionals only (jax-ml/jax#12868); inside, as in a repeated phase of a training step, the derivatives that JAX would
derive take forty times as long. So does the weights' gradient of a dilated convolution, anywhere. The rules here name
the same derivatives in the fast layout. On other platforms the convolutions are JAX's own.

On a CPU they are to be differentiated in reverse mode alone, as often as one likes.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def convolution(x: Array, weights: Array, stride: int = 1, padded: bool = True) -> Array:
    """Returns the convolution with padding to `1 / stride` of the sides, what JAX calls "SAME"; or with none, "VALID".

    Args:
        x: [B, H, W, I]. The stride divides H and W; without padding, it divides H - k and W - k.
        weights: [k, k, I, O].
        stride: at most k.
        padded: whether there is padding.

    Returns:
        [B, H / stride, W / stride, O]; without padding, [B, (H - k) / stride + 1, (W - k) / stride + 1, O].
    """
    return (_forward if _cpu() else _plain)(x, weights, (weights.shape[0], stride, padded))


def transposed(y: Array, weights: Array, stride: int = 2) -> Array:
    """Returns the adjoint of `convolution` with these weights, a transposed convolution.

    Args:
        y: [B, H, W, O].
        weights: [k, k, I, O].
        stride: as in `convolution`.

    Returns:
        [B, stride H, stride W, I].
    """
    return (_adjoint if _cpu() else _plain_adjoint)(y, weights, (weights.shape[0], stride, True))


def _cpu() -> bool:
    return jax.default_backend() == "cpu"


Form = tuple[int, int, bool]  # k, stride, whether padded


def _padding(form: Form) -> tuple[int, int]:
    """Pixels before and after."""
    k, stride, padded = form
    return ((k - stride) // 2, (k - stride + 1) // 2) if padded else (0, 0)


def _conv(x: Array, weights: Array, padding: tuple[int, int], **how: Any) -> Array:
    """A convolution in the fast layout."""
    how = {"window_strides": (1, 1), "padding": [padding] * 2, "dimension_numbers": ("NHWC", "HWIO", "NHWC")} | how
    return jax.lax.conv_general_dilated(x, weights, **how)


def _plain(x: Array, weights: Array, form: Form) -> Array:
    return _conv(x, weights, _padding(form), window_strides=(form[1], form[1]))


def _plain_adjoint(y: Array, weights: Array, form: Form) -> Array:
    (k, stride, _), (before, after) = form, _padding(form)
    turned = jnp.flip(weights, (0, 1)).swapaxes(2, 3)
    return _conv(y, turned, (k - 1 - before, k - 1 - after), lhs_dilation=(stride, stride))


# The convolution, its adjoint in x and its adjoint in the weights are linear in two arguments each, and each other's
# derivatives, to any order.


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _forward(x: Array, weights: Array, form: Form) -> Array:
    return _plain(x, weights, form)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _adjoint(y: Array, weights: Array, form: Form) -> Array:
    return _plain_adjoint(y, weights, form)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _of_weights(x: Array, y: Array, form: Form) -> Array:
    _, stride, _ = form
    found = _conv(x.transpose(3, 1, 2, 0), y.transpose(1, 2, 0, 3), _padding(form), rhs_dilation=(stride, stride))
    return found.transpose(1, 2, 0, 3)


def _kept(function: Callable[[Array, Array, Form], Array]) -> Callable[..., Any]:
    return lambda a, b, form: (function(a, b, form), (a, b))


_forward.defvjp(_kept(_forward), lambda form, kept, g: (_adjoint(g, kept[1], form), _of_weights(kept[0], g, form)))
_adjoint.defvjp(_kept(_adjoint), lambda form, kept, g: (_forward(g, kept[1], form), _of_weights(g, kept[0], form)))
_of_weights.defvjp(_kept(_of_weights), lambda form, kept, g: (_adjoint(kept[1], g, form), _forward(kept[0], g, form)))
