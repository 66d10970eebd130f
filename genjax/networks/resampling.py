"""Resampling by 2 with the filter [1, 3, 3, 1], and the 3x3 convolutions that resample on the way.

The filter removes what a change of size would alias (Karras et al. 2020, appendix B; Zhang 2019). Everything beyond the
border is zero. A constant image stays constant but for its border.
"""

import jax.numpy as jnp
from jax import Array, lax

from genjax.networks.convolution import convolution

_FILTER = (0.125, 0.375, 0.375, 0.125)


def upsample(x: Array, around: int = 0) -> Array:
    """Returns [B, 2 H + 2 a, 2 W + 2 a, C]: zeros between the pixels, then the filter, with a pixels `around` it.

    Args:
        x: [B, H, W, C].
        around: 0 or 1, pixels of the result that are kept beyond each border.
    """
    for axis in (1, 2):
        n = x.shape[axis]
        x = jnp.pad(x, [(2, 2) if a == axis else (0, 0) for a in range(4)])
        before, here, after = (lax.slice_in_dim(x, i, i + n + 2, axis=axis) for i in range(3))
        both = jnp.stack([0.25 * before + 0.75 * here, 0.75 * here + 0.25 * after], axis + 1)
        shape = (*here.shape[:axis], 2 * n + 4, *here.shape[axis + 1 :])
        x = lax.slice_in_dim(both.reshape(shape), 2 - around, 2 * n + 2 + around, axis=axis)
    return x


def downsample(x: Array) -> Array:
    """Returns [B, H / 2, W / 2, C]: the filter, then every second pixel."""
    return _filtered(x, 1, 2)


def upsample_conv(x: Array, kernel: Array) -> Array:
    """Returns [B, 2 H, 2 W, D]: zeros between the pixels, the filter and a 3x3 convolution, in whatever order.

    Args:
        x: [B, H, W, C].
        kernel: [3, 3, C, D].
    """
    return convolution(upsample(x, around=1), kernel, padded=False)


def downsample_conv(x: Array, kernel: Array) -> Array:
    """Returns [B, H / 2, W / 2, D]: the filter and a 3x3 convolution, then every second pixel.

    Args:
        x: [B, H, W, C].
        kernel: [3, 3, C, D].
    """
    return convolution(smooth(x), kernel, stride=2, padded=False)


def smooth(x: Array) -> Array:
    """Returns [B, H + 1, W + 1, C]: the filter, as it is to be before a 3x3 convolution without padding halves."""
    return _filtered(x, 2, 1)


def _filtered(x: Array, padding: int, stride: int) -> Array:
    """The filter along both axes, of x with zeros around it, at every `stride`-th place."""
    for axis in (1, 2):
        x = jnp.pad(x, [(padding, padding) if a == axis else (0, 0) for a in range(4)])
        n = x.shape[axis] - 3
        taps = [w * lax.slice_in_dim(x, i, i + n, stride, axis) for i, w in enumerate(_FILTER)]
        x = taps[0] + taps[1] + taps[2] + taps[3]
    return x
