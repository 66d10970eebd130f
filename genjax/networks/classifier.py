"""Classifiers of noisy images, for classifier guidance: the half of the ADM U-Net that goes down.

A module of kind "noisy_classifier" is hashable, has its parameters in float32, and fulfils `NoisyClassifier`.
"""

import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from genjax.config import require
from genjax.networks import attention, embeddings
from genjax.networks.base import (
    ImageShape,
    check_common,
    check_image_shape,
    fill_from_preset,
    from_preset,
    require_one_of,
)
from genjax.networks.unet import DHARIWAL
from genjax.networks.unet_blocks import INIT, INIT_QKV, ZEROS, AttentionBlock, ResidualBlock, normalize, split_heads
from genjax.registry import register

_ADM: Mapping[str, Any] = dict(
    channels=128, blocks_per_level=2, attention_resolutions=(32, 16, 8), head_channels=64, embedding="sinusoidal"
)

# Dhariwal & Nichol 2021, table 12.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "small": {
        **_ADM,
        "channels": 32,
        "multipliers": (1, 2),
        "blocks_per_level": 1,
        "attention_resolutions": (),
        "head_channels": 32,
    },
    "adm_imagenet64": {**_ADM, "multipliers": (1, 2, 3, 4), "blocks_per_level": 4},
    "adm_imagenet128": {**_ADM, "multipliers": (1, 1, 2, 3, 4)},
    "adm_imagenet256": {**_ADM, "multipliers": (1, 1, 2, 2, 4, 4)},
    "adm_imagenet512": {**_ADM, "multipliers": (0.5, 1, 1, 2, 2, 4, 4)},
}


class NoisyClassifier(Protocol):
    """The contract of a classifier of noisy images.

    `init(key, x, noise_label)["params"]` gives the parameters, and
    `apply({"params": params}, x, noise_label, dropout=None)` logits [B, num_classes] float32. `x` is [B, H, W, C]
    float32, `noise_label` [B] float32 is what a parameterization gives, `dropout` one key an example or None.
    """

    num_classes: int

    def check(self, image_shape: ImageShape) -> None:
        """Raises ValueError, in one line and before anything is compiled, unless it takes such images."""
        ...

    def init(self, rngs: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns `{"params": ...}`."""
        ...

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns logits [B, num_classes] float32."""
        ...


@register("noisy_classifier", "unet_encoder")
class UNetEncoder(nn.Module):
    """The half of ADM's U-Net that goes down, its middle, and attention from the mean to all positions for pooling.

    Every field of the architecture that is left out comes from the preset. It begins with equal logits.

    Attributes:
        num_classes: number of classes.
        preset: a row of `PRESETS`.
        channels, multipliers, blocks_per_level, attention_resolutions, head_channels, embedding, dtype, attention: see
            `genjax.networks.unet.UNet`.
        dropout: rate inside the residual blocks; 0 in the paper.
    """

    reference: ClassVar[str] = DHARIWAL

    num_classes: int
    preset: str = "small"
    channels: int = from_preset()
    multipliers: tuple[float, ...] = from_preset()
    blocks_per_level: int = from_preset()
    attention_resolutions: tuple[int, ...] = from_preset()
    head_channels: int = from_preset()
    embedding: str = from_preset()
    dropout: float = 0.0
    dtype: str = "float32"
    attention: str = "auto"

    def __post_init__(self) -> None:
        """Fills the fields from the preset and checks them."""
        fill_from_preset(self, PRESETS, self.preset)
        for field in ("channels", "blocks_per_level", "head_channels"):
            require(getattr(self, field) >= 1, f"{field} = {getattr(self, field)}: must be at least 1")
        require(self.channels % 2 == 0, f"channels = {self.channels}: must be even")
        require(
            len(self.multipliers) > 0 and all(int(self.channels * m) >= 1 for m in self.multipliers),
            f"multipliers = {self.multipliers}: must be one or more numbers that leave every level a channel",
        )
        require_one_of("embedding", self.embedding, embeddings.KINDS)
        require_one_of("attention", self.attention, attention.IMPLEMENTATIONS)
        require(self.num_classes >= 1, f"num_classes = {self.num_classes}: must be at least 1")
        check_common(self.dtype, self.dropout, None, None)
        super().__post_init__()

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of every level."""
        return tuple(int(self.channels * multiplier) for multiplier in self.multipliers)

    def check(self, image_shape: ImageShape) -> None:
        """Raises ValueError, in one line and before anything is compiled, unless it takes such images."""
        check_image_shape(image_shape)
        height, width, _ = image_shape
        factor = 2 ** (len(self.multipliers) - 1)
        require(
            height % factor == 0 and width % factor == 0,
            f"images of {height}x{width}: with {len(self.multipliers)} levels (multipliers) both sides must be "
            f"multiples of {factor}",
        )
        for channels in {self.widths[-1]} | {w for i, w in enumerate(self.widths) if self._attends(height >> i)}:
            split_heads(channels, None, self.head_channels)
            attention.resolve(self.attention, self.head_channels, self.dtype)

    def _attends(self, height: int) -> bool:
        return height in self.attention_resolutions

    @nn.compact
    def __call__(self, x: Array, noise_label: Array, dropout: Array | None = None) -> Array:
        """Maps noisy images [B, H, W, C] float32 and noise labels [B] to logits [B, num_classes] float32.

        Raises:
            ValueError: it does not take images of this shape.
        """
        self.check(x.shape[1:])  # type: ignore[arg-type]
        block = functools.partial(
            ResidualBlock, scale_shift=True, skip_rescale=False, dropout=self.dropout, dtype=self.dtype
        )
        attend = functools.partial(
            AttentionBlock,
            heads=None,
            head_channels=self.head_channels,
            skip_rescale=False,
            implementation=self.attention,
            dtype=self.dtype,
        )
        widths, last = self.widths, len(self.widths) - 1
        emb = embeddings.NoiseEmbedding(
            4 * self.channels, self.channels, self.embedding, kernel_init=INIT, name="noise_embedding"
        )(noise_label)
        emb = nn.silu(emb)

        h = nn.Conv(widths[0], (3, 3), kernel_init=INIT, dtype=self.dtype, name="in")(x)
        for level, width in enumerate(widths):
            for i in range(self.blocks_per_level):
                h = block(width, name=f"down_{level}_block_{i}")(h, emb, dropout)
                if self._attends(h.shape[1]):
                    h = attend(name=f"down_{level}_attention_{i}")(h)
            if level < last:
                h = block(width, resample="down", name=f"down_{level}_resample")(h, emb, dropout)
        h = block(widths[-1], name="middle_block_0")(h, emb, dropout)
        h = attend(name="middle_attention")(h)
        h = block(widths[-1], name="middle_block_1")(h, emb, dropout)
        h = nn.silu(normalize(h, name="out_norm"))
        return AttentionPool(self.num_classes, self.head_channels, self.dtype, name="out")(h)


class AttentionPool(nn.Module):
    """Attention from the mean of all positions to them and to itself, with learnt positions (Radford et al. 2021).

    Attributes:
        features: length of the result.
        head_channels, dtype: see `UNetEncoder`.
    """

    features: int
    head_channels: int
    dtype: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, H, W, C] to [B, features] float32, zero at the start."""
        batch, height, width, channels = x.shape
        tokens = x.reshape(batch, height * width, channels)
        tokens = jnp.concatenate([tokens.mean(1, keepdims=True), tokens], axis=1)
        normal = nn.initializers.normal(channels**-0.5)
        tokens += self.param("positions", normal, (height * width + 1, channels))[None].astype(tokens.dtype)
        qkv = nn.Dense(3 * channels, kernel_init=INIT_QKV, dtype=self.dtype, name="qkv")(tokens)
        heads = (batch, -1, channels // self.head_channels, self.head_channels)
        query, key, value = (a.reshape(heads) for a in jnp.split(qkv, 3, axis=-1))
        pooled = attention.attention(query[:, :1], key, value, "xla").reshape(batch, channels)
        return nn.Dense(self.features, kernel_init=ZEROS, dtype=jnp.float32, name="out")(pooled)
