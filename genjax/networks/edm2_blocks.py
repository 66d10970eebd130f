"""Layers that preserve the magnitude of what passes through them, and the blocks of EDM2's U-Net (Karras et al. 2024).

Of independent inputs with a root mean square of 1 each operation here makes outputs with one of 1, on expectation.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from genjax.networks import attention
from genjax.networks.dropout import Dropout
from genjax.networks.unet_blocks import downsample, upsample


def normalize(x: Array, axes: int | Sequence[int] = -1) -> Array:
    """Returns x with a root mean square of 1 along axes, in its type; computed in float32 (eq. 53, pixel norm)."""
    square = jnp.mean(jnp.square(x.astype(jnp.float32)), axis=axes, keepdims=True)
    # The root has no derivative at zero.
    return (x / (1e-4 + jnp.sqrt(jnp.maximum(square, 1e-24)))).astype(x.dtype)


def mp_silu(x: Array) -> Array:
    """SiLU over the root mean square that it has for a normal input (eq. 81)."""
    return nn.silu(x) / 0.596


def mp_sum(a: Array, b: Array, t: float) -> Array:
    """Returns (1 - t) a + t b, brought back to unit magnitude (eq. 88)."""
    return ((1 - t) * a + t * b) / math.hypot(1 - t, t)


def mp_cat(a: Array, b: Array, t: float) -> Array:
    """Concatenates the channels of a and b, to which parts 1 - t and t of the magnitude belong (eq. 103)."""
    n_a, n_b = a.shape[-1], b.shape[-1]
    whole = math.sqrt(n_a + n_b) / math.hypot(1 - t, t)
    return jnp.concatenate([whole * (1 - t) / math.sqrt(n_a) * a, whole * t / math.sqrt(n_b) * b], axis=-1)


class MPConv(nn.Module):
    """A convolution or, without a kernel, a product, by weights of unit norm for every output (eq. 47).

    The stored weights are to be normalized after every update too (eq. 66), which the optimizer does:
    `normalize_weights=("weight$",)`.

    Attributes:
        features: channels of the output.
        kernel: () or (k, k).
        dtype: compute type.
    """

    features: int
    kernel: tuple[int, ...] = ()
    dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, x: Array, gain: ArrayLike = 1.0) -> Array:
        """Maps [B, ..., C] to [B, ..., features] in `dtype`, times the gain []."""
        shape = (*self.kernel, x.shape[-1], self.features)
        weight = self.param("weight", nn.initializers.normal(1.0), shape)
        # fan_in weights of root mean square 1 have a norm of sqrt(fan_in).
        weight = normalize(weight, range(len(shape) - 1)) * (gain / math.sqrt(math.prod(shape[:-1])))
        x, weight = x.astype(self.dtype), weight.astype(self.dtype)
        if not self.kernel:
            return x @ weight
        return jax.lax.conv_general_dilated(x, weight, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


class Block(nn.Module):
    """A block of the encoder or the decoder: a residual branch, then self-attention (figure 21).

    Attributes:
        width: channels of the result.
        decoder: whether it is one of the decoder. One of the encoder normalizes its input pixel by pixel.
        heads: attention heads, 0 for no attention.
        resample: None, "down" or "up".
        dropout, dtype, residual_balance, attention_balance, clip: see `genjax.networks.edm2.EDM2UNet`.
        implementation: of attention.
    """

    width: int
    decoder: bool
    heads: int
    dropout: float
    residual_balance: float
    attention_balance: float
    clip: float
    implementation: str
    dtype: str
    resample: str | None = None

    @nn.compact
    def __call__(self, x: Array, emb: Array, dropout: Array | None = None, perturbed: Array | None = None) -> Array:
        """Maps [B, H, W, C] and the conditioning [B, E] to [B, H', W', width] in `dtype`.

        `dropout` are keys [B] or None. The attention map of the samples that are `perturbed` [B] is the identity.
        """
        x = {None: lambda a: a, "down": downsample, "up": upsample}[self.resample](x)
        fits = x.shape[-1] == self.width
        skip = lambda a: a if fits else MPConv(self.width, dtype=self.dtype, name="skip")(a)  # noqa: E731
        if not self.decoder:
            x = normalize(skip(x))

        h = MPConv(self.width, (3, 3), self.dtype, name="conv_0")(mp_silu(x))
        gain = self.param("conditioning_gain", nn.initializers.zeros, ())
        scale = 1 + MPConv(self.width, dtype=self.dtype, name="conditioning")(emb, gain)
        h = mp_silu(h * scale[:, None, None, :])
        h = Dropout(self.dropout, name="dropout")(h, dropout)
        h = MPConv(self.width, (3, 3), self.dtype, name="conv_1")(h)
        x = mp_sum(skip(x) if self.decoder else x, h, self.residual_balance)

        if self.heads:
            h = self._attend(x, perturbed)
            x = mp_sum(x, h, self.attention_balance)
        return jnp.clip(x, -self.clip, self.clip)

    def _attend(self, x: Array, perturbed: Array | None) -> Array:
        """Self-attention between normalized queries and keys: their products are cosines, times sqrt(D)."""
        batch, height, width, channels = x.shape
        qkv = MPConv(3 * channels, dtype=self.dtype, name="qkv")(x.reshape(batch, height * width, channels))
        qkv = normalize(qkv.reshape(batch, height * width, 3, self.heads, -1))
        h = attention.attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], self.implementation, perturbed)
        return MPConv(channels, dtype=self.dtype, name="out")(h.reshape(x.shape))
