"""Conditioners: the networks inside coupling layers, which say how one part of an example moves another.

A conditioner maps [B, ..., C] and the condition to [B, ..., features] float32, all zero at the start, so that a flow
starts simple. It need not be invertible.
"""

import functools
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from genjax.bijectors.actnorm import KINGMA_2018
from genjax.config import require
from genjax.networks.base import Condition, check_common
from genjax.networks.embeddings import ClassEmbedding
from genjax.registry import register

_ZEROS = nn.initializers.zeros
_SMALL = nn.initializers.normal(0.05)  # as in Glow's published code


@register("conditioner", "residual_mlp")
class ResidualMLP(nn.Module):
    """Residual fully connected network of ReLUs over the flattened example.

    Attributes:
        hidden: channels.
        depth: residual blocks of two layers.
        num_classes: number of classes; None for an unconditional network, which ignores the condition.
        dtype: compute type of the products but for the last one.
    """

    hidden: int = 128
    depth: int = 2
    num_classes: int | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Checks the fields."""
        require(self.hidden >= 1, f"hidden = {self.hidden}: must be at least 1")
        require(self.depth >= 0, f"depth = {self.depth}: must be at least 0")
        check_common(self.dtype, 0.0, self.num_classes, None)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, cond: Condition, features: int) -> Array:
        """Maps [B, ..., C] to [B, ..., features] float32."""
        dense = functools.partial(nn.Dense, self.hidden, dtype=self.dtype)
        h = dense(name="in")(x.reshape(len(x), -1))
        if self.num_classes is not None:
            emb = ClassEmbedding(self.num_classes, self.hidden, name="class_embedding")(cond, len(x))
            h += emb.astype(h.dtype)
        for i in range(self.depth):
            inner = dense(name=f"block_{i}_0")(nn.relu(h))
            h += dense(name=f"block_{i}_1")(nn.relu(inner))
        shape = (*x.shape[1:-1], features)
        h = nn.DenseGeneral(shape, kernel_init=_ZEROS, dtype=jnp.float32, name="out")(h.astype(jnp.float32))
        return h.reshape(len(x), *shape)


@register("conditioner", "convnet")
class ConvNet(nn.Module):
    """Convolutions of 3x3, 1x1 and 3x3 with ReLUs between them (Kingma & Dhariwal 2018, section 4).

    Without the activation normalization that the published code has within.

    Attributes:
        hidden: channels.
        num_classes: number of classes; None for an unconditional network, which ignores the condition.
        dtype: compute type of the convolutions but for the last one.
    """

    reference: ClassVar[str] = KINGMA_2018

    hidden: int = 512
    num_classes: int | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Checks the fields."""
        require(self.hidden >= 1, f"hidden = {self.hidden}: must be at least 1")
        check_common(self.dtype, 0.0, self.num_classes, None)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, cond: Condition, features: int) -> Array:
        """Maps [B, H, W, C] to [B, H, W, features] float32.

        Raises:
            ValueError: these are no images.
        """
        require(x.ndim == 4, f"convnet: takes images, not {x.shape[1:]}; with mask = 'channel' or 'checkerboard'")
        h = nn.Conv(self.hidden, (3, 3), kernel_init=_SMALL, dtype=self.dtype, name="in")(x)
        if self.num_classes is not None:
            emb = ClassEmbedding(self.num_classes, self.hidden, name="class_embedding")(cond, len(x))
            h += emb.astype(h.dtype)[:, None, None, :]
        h = nn.Dense(self.hidden, kernel_init=_SMALL, dtype=self.dtype, name="middle")(nn.relu(h))  # the 1x1 one
        h = nn.relu(h).astype(jnp.float32)
        return nn.Conv(features, (3, 3), kernel_init=_ZEROS, dtype=jnp.float32, name="out")(h)
