"""The diffusion transformer with adaLN-Zero (Peebles & Xie 2023)."""

import functools
from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from genjax.citation import bibtex
from genjax.config import require
from genjax.networks import attention, embeddings
from genjax.networks.base import (
    Condition,
    ImageShape,
    check_common,
    check_image_shape,
    fill_from_preset,
    from_preset,
    require_one_of,
    split_perturbed,
)
from genjax.networks.dropout import Dropout
from genjax.networks.remat import check_remat, remat
from genjax.registry import register

PEEBLES = bibtex("""
@inproceedings{peebles2023scalable,
  title = {Scalable Diffusion Models with Transformers},
  author = {Peebles, William and Xie, Saining},
  booktitle = {IEEE/CVF International Conference on Computer Vision},
  year = {2023}
}""")

# Peebles & Xie 2023, table 1.
SIZES: Mapping[str, Mapping[str, int]] = {
    "S": dict(depth=12, hidden=384, heads=6),
    "B": dict(depth=12, hidden=768, heads=12),
    "L": dict(depth=24, hidden=1024, heads=16),
    "XL": dict(depth=28, hidden=1152, heads=16),
}

_XAVIER = nn.initializers.xavier_uniform()
_NORMAL = nn.initializers.normal(0.02)
_ZEROS = nn.initializers.zeros
_FREQUENCIES = 256  # channels of the sinusoidal embedding of the noise label, whatever the size


@register("network", "dit")
class DiT(nn.Module):
    """Transformer over image patches, conditioned by adaLN-Zero: every block is the identity at the start.

    Depth, hidden and heads come from the size where they are left out.

    Attributes:
        size: a row of `SIZES`.
        patch_size: side of a patch; both sides of the image must be multiples of it.
        depth: number of blocks.
        hidden: channels of a token, a multiple of 4 and of the heads.
        heads: attention heads.
        embedding: of the noise label: "sinusoidal", "sinusoidal_endpoint" or "fourier".
        dropout: rate after attention and after the two-layer network; 0 in the paper.
        num_classes: number of classes; None for an unconditional network, which ignores the condition.
        scalars: names of the condition's numbers that condition it beside the noise label, see `ScalarEmbeddings`.
        out_channels: channels of the output; None for those of the input.
        dtype: compute type of the products. Parameters, normalization, softmax, the embeddings and the last layer are
            float32.
        attention: implementation, see `genjax.networks.attention.resolve`.
        remat: what the backward pass computes again, block by block, see `genjax.networks.remat.remat`; None for
            nothing.
    """

    reference: ClassVar[str] = PEEBLES

    size: str = "S"
    patch_size: int = 2
    depth: int = from_preset()
    hidden: int = from_preset()
    heads: int = from_preset()
    embedding: str = "sinusoidal"
    dropout: float = 0.0
    num_classes: int | None = None
    scalars: tuple[str, ...] = ()
    out_channels: int | None = None
    dtype: str = "float32"
    attention: str = "auto"
    remat: str | None = None

    def __post_init__(self) -> None:
        """Fills the fields from the size and checks them."""
        fill_from_preset(self, SIZES, self.size)
        for field in ("patch_size", "depth", "hidden", "heads"):
            require(getattr(self, field) >= 1, f"{field} = {getattr(self, field)}: must be at least 1")
        require(
            self.hidden % 4 == 0 and self.hidden % self.heads == 0,
            f"hidden = {self.hidden}: must be a multiple of 4 and of heads = {self.heads}",
        )
        require_one_of("embedding", self.embedding, embeddings.KINDS)
        require_one_of("attention", self.attention, attention.IMPLEMENTATIONS)
        check_common(self.dtype, self.dropout, self.num_classes, self.out_channels)
        check_remat(self.remat)
        super().__post_init__()

    def check(self, image_shape: ImageShape) -> None:
        """Raises ValueError, in one line and before anything is compiled, unless the network takes such images."""
        check_image_shape(image_shape)
        height, width, _ = image_shape
        require(
            height % self.patch_size == 0 and width % self.patch_size == 0,
            f"images of {height}x{width} cannot be cut into patches of {self.patch_size}x{self.patch_size}",
        )
        attention.resolve(self.attention, self.hidden // self.heads, self.dtype)

    @nn.compact
    def __call__(self, x: Array, noise_label: Array, cond: Condition = None, dropout: Array | None = None) -> Array:
        """Evaluates the network.

        Args:
            x: [B, H, W, C] float32.
            noise_label: [B] float32.
            cond: `{"label": [B] int32}` with -1 for the null class; None is null for all.
                "perturbed_attention" in it is `{block: [B] bool}`, such as "block_3".
            dropout: one key an example [B], or None for no dropout.

        Returns:
            [B, H, W, C or out_channels] float32.

        Raises:
            ValueError: the network does not take images of this shape, or has no such layer to perturb.
        """
        batch, height, width, channels = x.shape
        self.check((height, width, channels))
        cond, perturbed = split_perturbed(cond, [f"block_{i}" for i in range(self.depth)])
        rows, columns = height // self.patch_size, width // self.patch_size

        emb = embeddings.NoiseEmbedding(
            self.hidden, _FREQUENCIES, self.embedding, kernel_init=_NORMAL, name="noise_embedding"
        )(noise_label)
        if self.num_classes is not None:
            emb += embeddings.ClassEmbedding(self.num_classes, self.hidden, stddev=0.02, name="class_embedding")(
                cond, batch
            )
        if self.scalars:
            emb += embeddings.ScalarEmbeddings(
                self.scalars, self.hidden, _FREQUENCIES, self.embedding, name="scalar_embeddings"
            )(cond)
        emb = nn.silu(emb)

        patches = x.reshape(batch, rows, self.patch_size, columns, self.patch_size, channels)
        patches = patches.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * columns, -1)
        h = nn.Dense(self.hidden, kernel_init=_XAVIER, dtype=self.dtype, name="patches")(patches)
        h += jnp.asarray(positions(rows, columns, self.hidden), h.dtype)[None]
        block = remat(Block, self.remat)
        for i in range(self.depth):
            name = f"block_{i}"
            one = block(self.hidden, self.heads, self.dropout, self.attention, self.dtype, name=name)
            h = one(h, emb, dropout, perturbed.get(name))

        modulation = nn.Dense(2 * self.hidden, kernel_init=_ZEROS, dtype=self.dtype, name="out_modulation")(emb)
        shift, scale = jnp.split(modulation[:, None, :].astype(jnp.float32), 2, axis=-1)
        h = normalize(h) * (1 + scale) + shift
        out_channels = self.out_channels or channels
        h = nn.Dense(self.patch_size**2 * out_channels, kernel_init=_ZEROS, dtype=jnp.float32, name="out")(h)
        h = h.reshape(batch, rows, columns, self.patch_size, self.patch_size, out_channels)
        return h.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height, width, out_channels)


class Block(nn.Module):
    """Attention, then a network of two layers, each modulated and gated by the conditioning (figure 3, adaLN-Zero).

    Attributes:
        hidden, heads, dropout, dtype: see `DiT`.
        implementation: of attention, see `genjax.networks.attention.resolve`.
    """

    hidden: int
    heads: int
    dropout: float
    implementation: str
    dtype: str

    @nn.compact
    def __call__(self, x: Array, emb: Array, dropout: Array | None = None, perturbed: Array | None = None) -> Array:
        """Maps the tokens [B, T, hidden] and the conditioning [B, hidden] to [B, T, hidden].

        `dropout` are keys [B] or None. The attention map of the samples that are `perturbed` [B] is the identity.
        """
        dense = functools.partial(nn.Dense, kernel_init=_XAVIER, dtype=self.dtype)
        batch, tokens, _ = x.shape

        modulation = nn.Dense(6 * self.hidden, kernel_init=_ZEROS, dtype=self.dtype, name="modulation")(emb)
        shifts, scales, gates = (
            modulation.reshape(batch, 2, 3, 1, self.hidden).astype(jnp.float32)[:, :, i] for i in range(3)
        )

        h = normalize(x) * (1 + scales[:, 0]) + shifts[:, 0]
        qkv = dense(3 * self.hidden, name="qkv")(h).reshape(batch, tokens, 3, self.heads, -1)
        h = attention.attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], self.implementation, perturbed)
        h = dense(self.hidden, name="out")(h.reshape(batch, tokens, self.hidden))
        h = Dropout(self.dropout, name="dropout_0")(h, dropout)
        x += (gates[:, 0] * h).astype(x.dtype)

        h = normalize(x) * (1 + scales[:, 1]) + shifts[:, 1]
        h = nn.gelu(dense(4 * self.hidden, name="mlp_0")(h), approximate=True)
        h = Dropout(self.dropout, name="dropout_1")(dense(self.hidden, name="mlp_1")(h), dropout)
        return x + (gates[:, 1] * h).astype(x.dtype)


def normalize(x: Array) -> Array:
    """Layer normalization in float32, without parameters of its own: the conditioning gives them."""
    return nn.LayerNorm(epsilon=1e-6, use_bias=False, use_scale=False, dtype=jnp.float32)(x)


def positions(rows: int, columns: int, features: int) -> np.ndarray:
    """Returns the fixed sine-cosine code of every position of a grid, row by row.

    The first half of the features encodes the column and the second half the row, each as sines and then cosines at
    geometric frequencies from 1 to 1/10,000 (Vaswani et al. 2017), in the order of the authors' code.

    Args:
        rows: height of the grid.
        columns: width of the grid.
        features: a multiple of 4.

    Returns:
        [rows * columns, features] float32.
    """
    frequencies = 10_000.0 ** -(np.arange(features // 4) / (features // 4))
    row, column = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    codes = []
    for coordinate in (column, row):
        angles = coordinate.reshape(-1, 1) * frequencies
        codes += [np.sin(angles), np.cos(angles)]
    return np.concatenate(codes, axis=-1).astype(np.float32)
