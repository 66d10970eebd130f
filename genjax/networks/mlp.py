"""A small fully connected network, for data of few dimensions and for tests."""

import functools
import math

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from genjax.config import require
from genjax.networks import embeddings
from genjax.networks.base import (
    Condition,
    ImageShape,
    check_common,
    check_image_shape,
    require_one_of,
    split_perturbed,
)
from genjax.networks.dropout import Dropout
from genjax.networks.remat import check_remat, remat
from genjax.registry import register


@register("network", "mlp")
class MLP(nn.Module):
    """Residual fully connected network over the flattened image; its output starts at zero.

    Attributes:
        hidden: channels, an even number.
        depth: residual blocks of two layers.
        embedding: of the noise label: "sinusoidal", "sinusoidal_endpoint" or "fourier".
        dropout: rate inside the residual blocks.
        num_classes: number of classes; None for an unconditional network, which ignores the condition.
        scalars: names of the condition's numbers that condition it beside the noise label, see `ScalarEmbeddings`.
        out_channels: channels of the output; None for those of the input.
        dtype: compute type of the products; everything else is float32.
        remat: what the backward pass computes again, block by block, see `genjax.networks.remat.remat`; None for
            nothing.
    """

    hidden: int = 128
    depth: int = 3
    embedding: str = "sinusoidal"
    dropout: float = 0.0
    num_classes: int | None = None
    scalars: tuple[str, ...] = ()
    out_channels: int | None = None
    dtype: str = "float32"
    remat: str | None = None

    def __post_init__(self) -> None:
        """Checks the fields."""
        require(
            self.hidden >= 2 and self.hidden % 2 == 0, f"hidden = {self.hidden}: must be an even number, at least 2"
        )
        require(self.depth >= 1, f"depth = {self.depth}: must be at least 1")
        require_one_of("embedding", self.embedding, embeddings.KINDS)
        check_common(self.dtype, self.dropout, self.num_classes, self.out_channels)
        check_remat(self.remat)
        super().__post_init__()

    def check(self, image_shape: ImageShape) -> None:
        """Raises ValueError unless the shape is that of an image; any size will do."""
        check_image_shape(image_shape)

    @nn.compact
    def __call__(self, x: Array, noise_label: Array, cond: Condition = None, dropout: Array | None = None) -> Array:
        """Evaluates the network.

        Args:
            x: [B, H, W, C] float32.
            noise_label: [B] float32.
            cond: `{"label": [B] int32}` with -1 for the null class; None is null for all.
            dropout: one key an example [B], or None for no dropout.

        Returns:
            [B, H, W, C or out_channels] float32.

        Raises:
            ValueError: the condition asks for perturbed attention, which there is none to perturb.
        """
        batch, height, width, channels = x.shape
        cond, _ = split_perturbed(cond, ())
        emb = embeddings.NoiseEmbedding(self.hidden, self.hidden, self.embedding, name="noise_embedding")(noise_label)
        if self.num_classes is not None:
            emb += embeddings.ClassEmbedding(self.num_classes, self.hidden, name="class_embedding")(cond, batch)
        if self.scalars:
            emb += embeddings.ScalarEmbeddings(
                self.scalars, self.hidden, self.hidden, self.embedding, name="scalar_embeddings"
            )(cond)
        emb = nn.silu(emb)

        h = nn.Dense(self.hidden, dtype=self.dtype, name="in")(x.reshape(batch, -1))
        block = remat(Block, self.remat)
        for i in range(self.depth):
            h = block(self.hidden, self.dropout, self.dtype, name=f"block_{i}")(h, emb, dropout)

        shape = (height, width, self.out_channels or channels)
        h = nn.LayerNorm(dtype=jnp.float32, name="out_norm")(h)
        h = nn.Dense(math.prod(shape), kernel_init=nn.initializers.zeros, dtype=jnp.float32, name="out")(h)
        return h.reshape(batch, *shape)


class Block(nn.Module):
    """Normalization, a layer that the conditioning is added to, SiLU and a layer, with a skip around.

    Attributes:
        hidden, dropout, dtype: see `MLP`.
    """

    hidden: int
    dropout: float
    dtype: str

    @nn.compact
    def __call__(self, x: Array, emb: Array, dropout: Array | None = None) -> Array:
        """Maps [B, hidden] and the conditioning [B, hidden] to [B, hidden] in `dtype`; `dropout` as in `MLP`."""
        dense = functools.partial(nn.Dense, self.hidden, dtype=self.dtype)
        h = nn.LayerNorm(dtype=jnp.float32, name="norm")(x)
        h = dense(name="conditioning")(emb) + dense(name="dense_0")(h)
        h = Dropout(self.dropout, name="dropout")(nn.silu(h), dropout)
        return x + dense(name="dense_1")(h)
