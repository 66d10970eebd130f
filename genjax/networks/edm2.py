"""EDM2's U-Net, whose activations and weights keep their magnitude (Karras et al. 2024, configuration G)."""

import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from genjax.config import require
from genjax.networks import attention, embeddings
from genjax.networks.base import (
    Condition,
    ImageShape,
    check_common,
    check_image_shape,
    fill_from_preset,
    from_preset,
    labels,
    require_one_of,
    split_perturbed,
)
from genjax.networks.edm2_blocks import Block, MPConv, mp_cat, mp_silu, mp_sum
from genjax.networks.remat import check_remat, remat
from genjax.networks.uncertainty import KARRAS_2024
from genjax.registry import register

_IMAGENET: Mapping[str, Any] = dict(
    multipliers=(1, 2, 3, 4), blocks_per_level=3, attention_resolutions=(16, 8), head_channels=64
)

# Karras et al. 2024, table 6: for ImageNet at 64x64, and for 64x64 latents of ImageNet at 512x512.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "small": dict(
        channels=32,
        multipliers=(1, 2),
        blocks_per_level=1,
        attention_resolutions=(),
        head_channels=32,
        dropout=0.0,
    ),
    "xs": {**_IMAGENET, "channels": 128, "dropout": 0.0},
    "s": {**_IMAGENET, "channels": 192, "dropout": 0.0},
    "m": {**_IMAGENET, "channels": 256, "dropout": 0.1},
    "l": {**_IMAGENET, "channels": 320, "dropout": 0.1},
    "xl": {**_IMAGENET, "channels": 384, "dropout": 0.1},
    "xxl": {**_IMAGENET, "channels": 448, "dropout": 0.1},
}


@register("network", "edm2_unet")
class EDM2UNet(nn.Module):
    """Magnitude-preserving U-Net without biases or normalization of groups.

    Every field of the architecture that is left out comes from the preset. Inputs and labels are to be of the order
    of 1, as those of the parameterization "edm". Train it with `normalize_weights=("weight$",)` in its optimizer, which
    the paper calls forced weight normalization, and a learning rate that falls, such as the schedule "inverse_sqrt".
    The middle of the network always has one attention layer.

    Attributes:
        preset: a row of `PRESETS`.
        channels: base width.
        multipliers: width of each level by the base width; the resolution halves from level to level.
        blocks_per_level: blocks of a level of the encoder; the decoder has one more.
        attention_resolutions: heights of the feature maps whose blocks have self-attention.
        head_channels: channels of an attention head.
        dropout: rate inside the residual branches.
        residual_balance: the branch's part in the sum of skip and residual branch.
        attention_balance: the same of attention.
        class_balance: the class's part in the conditioning.
        skip_balance: the encoder's part where the decoder takes its feature maps.
        clip: the largest absolute value of a block's outputs.
        num_classes: number of classes; None for an unconditional network, which ignores the condition.
        scalars: names of the condition's numbers that condition it beside the noise label; it begins as the network
            without them, whose weights it may take.
        out_channels: channels of the output; None for those of the input.
        dtype: compute type of convolutions and products. Parameters, norms, softmax, the embeddings and the last
            convolution are float32.
        attention: implementation, see `genjax.networks.attention.resolve`.
        remat: what the backward pass computes again, block by block, see `genjax.networks.remat.remat`; None for
            nothing.
    """

    reference: ClassVar[str] = KARRAS_2024

    preset: str = "small"
    channels: int = from_preset()
    multipliers: tuple[int, ...] = from_preset()
    blocks_per_level: int = from_preset()
    attention_resolutions: tuple[int, ...] = from_preset()
    head_channels: int = from_preset()
    dropout: float = from_preset()
    residual_balance: float = 0.3
    attention_balance: float = 0.3
    class_balance: float = 0.5
    skip_balance: float = 0.5
    clip: float = 256.0
    num_classes: int | None = None
    scalars: tuple[str, ...] = ()
    out_channels: int | None = None
    dtype: str = "float32"
    attention: str = "auto"
    remat: str | None = None

    def __post_init__(self) -> None:
        """Fills the fields from the preset and checks them."""
        fill_from_preset(self, PRESETS, self.preset)
        for field in ("channels", "blocks_per_level", "head_channels"):
            require(getattr(self, field) >= 1, f"{field} = {getattr(self, field)}: must be at least 1")
        require(
            len(self.multipliers) > 0 and min(self.multipliers) >= 1,
            f"multipliers = {self.multipliers}: must be one or more numbers of at least 1",
        )
        for field in ("residual_balance", "attention_balance", "class_balance", "skip_balance"):
            require(0 <= getattr(self, field) <= 1, f"{field} = {getattr(self, field)}: must be in [0, 1]")
        require(self.clip > 0, f"clip = {self.clip}: must be positive")
        require_one_of("attention", self.attention, attention.IMPLEMENTATIONS)
        check_common(self.dtype, self.dropout, self.num_classes, self.out_channels)
        check_remat(self.remat)
        super().__post_init__()

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of every level."""
        return tuple(self.channels * multiplier for multiplier in self.multipliers)

    def check(self, image_shape: ImageShape) -> None:
        """Raises ValueError, in one line and before anything is compiled, unless the network takes such images."""
        check_image_shape(image_shape)
        height, width, _ = image_shape
        factor = 2 ** (len(self.multipliers) - 1)
        require(
            height % factor == 0 and width % factor == 0,
            f"images of {height}x{width}: with {len(self.multipliers)} levels (multipliers) both sides must be "
            f"multiples of {factor}",
        )
        heights = [height >> level for level in range(len(self.widths))]
        absent = [r for r in self.attention_resolutions if r not in heights]
        require(
            not absent,
            f"attention_resolutions = {tuple(self.attention_resolutions)}: the feature maps of images of "
            f"{height}x{width} are {', '.join(map(str, heights))} high, none is {', '.join(map(str, absent))}",
        )
        attending = {w for h, w in zip(heights, self.widths, strict=True) if h in self.attention_resolutions}
        for channels in sorted(attending | {self.widths[-1]}):
            require(
                channels % self.head_channels == 0,
                f"head_channels = {self.head_channels}: does not divide {channels} channels",
            )
        attention.resolve(self.attention, self.head_channels, self.dtype)

    def attention_layers(self, height: int) -> list[str]:
        """Returns the names of the blocks with self-attention, for images of a height, in the order of evaluation."""
        levels = [i for i in range(len(self.multipliers)) if height >> i in self.attention_resolutions]
        down = [f"down_{level}_block_{i}" for level in levels for i in range(self.blocks_per_level)]
        up = [f"up_{level}_block_{i}" for level in reversed(levels) for i in range(self.blocks_per_level + 1)]
        return [*down, "middle_block_0", *up]

    @nn.compact
    def __call__(self, x: Array, noise_label: Array, cond: Condition = None, dropout: Array | None = None) -> Array:
        """Evaluates the network.

        Args:
            x: [B, H, W, C] float32.
            noise_label: [B] float32.
            cond: `{"label": [B] int32}` with -1 for the null class; None is null for all.
                "perturbed_attention" in it is `{block: [B] bool}`, such as "middle_block_0".
            dropout: one key an example [B], or None for no dropout.

        Returns:
            [B, H, W, C or out_channels] float32.

        Raises:
            ValueError: the network does not take images of this shape, or has no such layer to perturb.
        """
        batch, height, width, channels = x.shape
        self.check((height, width, channels))
        attending = self.attention_layers(height)
        cond, perturbed = split_perturbed(cond, attending)
        widths, last = self.widths, len(self.widths) - 1
        emb = self._embed(noise_label, cond, batch)
        kind = functools.partial(
            remat(Block, self.remat),
            dropout=self.dropout,
            residual_balance=self.residual_balance,
            attention_balance=self.attention_balance,
            clip=self.clip,
            implementation=self.attention,
            dtype=self.dtype,
        )

        def block(h: Array, features: int, name: str, resample: str | None = None) -> Array:
            heads = features // self.head_channels if name in attending else 0
            decoder = not name.startswith("down")
            one = kind(width=features, decoder=decoder, heads=heads, resample=resample, name=name)
            return one(h, emb, dropout, perturbed.get(name))

        # Without biases, a channel of ones is what a constant can come from.
        h = jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1)
        h = MPConv(widths[0], (3, 3), self.dtype, name="in")(h)
        skips = [h]
        for level, features in enumerate(widths):
            if level > 0:
                h = block(h, widths[level - 1], f"down_{level}_resample", "down")
                skips.append(h)
            for i in range(self.blocks_per_level):
                h = block(h, features, f"down_{level}_block_{i}")
                skips.append(h)

        for i in range(2):
            h = block(h, widths[last], f"middle_block_{i}")
        for level in reversed(range(len(widths))):
            if level < last:
                h = block(h, widths[level + 1], f"up_{level}_resample", "up")
            for i in range(self.blocks_per_level + 1):
                h = block(mp_cat(h, skips.pop(), self.skip_balance), widths[level], f"up_{level}_block_{i}")

        gain = self.param("out_gain", nn.initializers.zeros, ())
        return MPConv(self.out_channels or channels, (3, 3), name="out")(h.astype(jnp.float32), gain)

    def _embed(self, noise_label: Array, cond: Condition, batch: int) -> Array:
        """The conditioning [B, E] float32, of the noise label, the class and the scalars."""
        features = max(self.widths)
        waves = functools.partial(embeddings.mp_fourier, features=self.channels * self.multipliers[0])
        emb = MPConv(features, name="noise_embedding")(waves(noise_label))
        if self.num_classes is not None:
            # The null class, -1, is the vector of zeros.
            one_hot = jax.nn.one_hot(labels(cond, batch), self.num_classes) * self.num_classes**0.5
            emb = mp_sum(emb, MPConv(features, name="class_embedding")(one_hot), self.class_balance)
        if self.scalars:
            given = embeddings.scalars_of(cond, self.scalars)
            gain = self.param("scalar_gain", nn.initializers.zeros, ())
            emb += MPConv(features, name="scalar_embeddings")(jnp.concatenate([*map(waves, given)], axis=-1), gain)
        return mp_silu(emb)
