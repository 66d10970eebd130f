"""The blocks of U-Nets: residual blocks, attention, and changes of resolution."""

import functools
import math

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from genjax.config import require
from genjax.networks import attention, resampling
from genjax.networks.dropout import Dropout

# Ho et al. 2020's code; the last layer of every branch starts at zero, so that the network starts at zero.
INIT = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
# The same for three square matrices side by side, whose joint fan_avg is twice that of each.
INIT_QKV = nn.initializers.variance_scaling(2.0, "fan_avg", "uniform")
ZEROS = nn.initializers.zeros


class ResidualBlock(nn.Module):
    """Normalization, SiLU, convolution, twice, with the conditioning between and a skip around.

    Attributes:
        width: channels of the result.
        scale_shift, skip_rescale, dropout, dtype: see `UNet`.
        resample: None, "down" or "up": halves or doubles the resolution of branch and skip before any convolution.
        filtered: whether it does so with the filter [1, 3, 3, 1], and not by averages and repetition.
        skip_layer: whether the skip has a layer of its own wherever the resolution changes, and not only where the
            channels do.
    """

    width: int
    scale_shift: bool
    skip_rescale: bool
    dropout: float
    dtype: str
    resample: str | None = None
    filtered: bool = False
    skip_layer: bool = False

    @nn.compact
    def __call__(self, x: Array, emb: Array, dropout: Array | None = None) -> Array:
        """Maps [B, H, W, C] and the conditioning [B, E] to [B, H', W', width] in `dtype`; `dropout` as in `UNet`."""
        conv = functools.partial(nn.Conv, self.width, (3, 3), dtype=self.dtype)
        halve, double = (resampling.downsample, resampling.upsample) if self.filtered else (downsample, upsample)
        change = {None: lambda a: a, "down": halve, "up": double}[self.resample]

        h = nn.silu(normalize(x, name="norm_0"))
        h, x = change(h), change(x)
        h = conv(kernel_init=INIT, name="conv_0")(h)
        features = (1 + self.scale_shift) * self.width
        shift = nn.Dense(features, kernel_init=INIT, dtype=self.dtype, name="conditioning")(emb)[:, None, None, :]
        if self.scale_shift:
            scale, shift = jnp.split(shift.astype(jnp.float32), 2, axis=-1)
            h = normalize(h, name="norm_1") * (1 + scale) + shift
        else:
            h = normalize(h + shift, name="norm_1")
        h = Dropout(self.dropout, name="dropout")(nn.silu(h), dropout)
        h = conv(kernel_init=ZEROS, name="conv_1")(h)
        if x.shape[-1] != self.width or (self.skip_layer and self.resample is not None):
            x = nn.Dense(self.width, kernel_init=INIT, dtype=self.dtype, name="skip")(x)
        return join(x, h, self.skip_rescale)


class AttentionBlock(nn.Module):
    """Normalization and self-attention over all positions, with a skip around.

    Attributes:
        heads, head_channels: see `UNet`.
        skip_rescale, implementation, dtype: see `UNet`.
    """

    heads: int | None
    head_channels: int | None
    skip_rescale: bool
    implementation: str
    dtype: str

    @nn.compact
    def __call__(self, x: Array, perturbed: Array | None = None) -> Array:
        """Maps [B, H, W, C] to the same in `dtype`; the attention map of `perturbed` samples [B] is the identity."""
        batch, height, width, channels = x.shape
        heads = split_heads(channels, self.heads, self.head_channels)
        tokens = normalize(x, name="norm").reshape(batch, height * width, channels)
        qkv = nn.Dense(3 * channels, kernel_init=INIT_QKV, dtype=self.dtype, name="qkv")(tokens)
        query, key, value = (a.reshape(batch, -1, heads, channels // heads) for a in jnp.split(qkv, 3, axis=-1))
        h = attention.attention(query, key, value, self.implementation, perturbed).reshape(x.shape)
        h = nn.Dense(channels, kernel_init=ZEROS, dtype=self.dtype, name="out")(h)
        return join(x, h, self.skip_rescale)


def split_heads(channels: int, heads: int | None, head_channels: int | None) -> int:
    """Returns the number of heads of a layer, of which one of the last two arguments is given.

    Raises:
        ValueError: the channels cannot be divided so.
    """
    if head_channels is None:
        require(channels % (heads or 1) == 0, f"heads = {heads}: does not divide the {channels} channels of a layer")
        return heads or 1
    require(channels % head_channels == 0, f"head_channels = {head_channels}: does not divide {channels} channels")
    return channels // head_channels


def normalize(x: Array, name: str) -> Array:
    """Group normalization in float32: 32 groups, fewer where a group would have under 4 channels or be uneven."""
    channels = x.shape[-1]
    groups = next(g for g in range(max(min(32, channels // 4), 1), 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, epsilon=1e-6, dtype=jnp.float32, name=name)(x)


def downsample(x: Array) -> Array:
    """Halves the resolution of [B, H, W, C] by averages of 2x2."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))


def upsample(x: Array) -> Array:
    """Doubles the resolution of [B, H, W, C] by repetition."""
    batch, height, width, channels = x.shape
    repeated = jnp.broadcast_to(x[:, :, None, :, None, :], (batch, height, 2, width, 2, channels))
    return repeated.reshape(batch, 2 * height, 2 * width, channels)


def join(x: Array, h: Array, rescale: bool) -> Array:
    """Returns the sum of a skip and a branch, over sqrt(2) where `rescale` (Song et al. 2021b, appendix H)."""
    return (x + h) * math.sqrt(0.5) if rescale else x + h
