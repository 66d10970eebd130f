"""The U-Net of diffusion models: one module for DDPM's, ADM's, NCSN++'s and DDPM++'s.

Ho et al. 2020; Dhariwal & Nichol 2021; Song et al. 2021b, appendix H.
"""

import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from genjax.citation import bibtex
from genjax.config import require
from genjax.networks import attention, embeddings, resampling
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
from genjax.networks.remat import check_remat, remat
from genjax.networks.unet_blocks import (
    INIT,
    ZEROS,
    AttentionBlock,
    ResidualBlock,
    downsample,
    join,
    normalize,
    split_heads,
    upsample,
)
from genjax.registry import register

DHARIWAL = bibtex("""
@inproceedings{dhariwal2021diffusion,
  title = {Diffusion Models Beat {GAN}s on Image Synthesis},
  author = {Dhariwal, Prafulla and Nichol, Alex},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2021}
}""")

RESAMPLING = ("residual", "biggan", "conv")
PROGRESSIVE = ("none", "skip", "residual")
UP_ATTENTION = ("every", "last")

_PLAIN: Mapping[str, Any] = dict(
    filtered=False, progressive_input="none", progressive_output="none", up_attention="every"
)
_ADM: Mapping[str, Any] = dict(
    **_PLAIN,
    channels=256,
    blocks_per_level=2,
    attention_resolutions=(32, 16, 8),
    head_channels=64,
    scale_shift=True,
    resampling="residual",
    skip_rescale=False,
    embedding="sinusoidal",
    dropout=0.0,
)
_DDPM: Mapping[str, Any] = dict(
    **_PLAIN,
    channels=128,
    blocks_per_level=2,
    attention_resolutions=(16,),
    heads=1,
    scale_shift=False,
    resampling="conv",
    skip_rescale=False,
    embedding="sinusoidal_endpoint",
    dropout=0.0,
)
_DDPMPP: Mapping[str, Any] = dict(
    channels=128,
    multipliers=(1, 2, 2, 2),
    blocks_per_level=4,
    attention_resolutions=(16,),
    heads=1,
    scale_shift=False,
    resampling="biggan",
    filtered=False,
    progressive_input="none",
    progressive_output="none",
    up_attention="last",
    skip_rescale=True,
    embedding="sinusoidal_endpoint",
    dropout=0.1,
)
_NCSNPP: Mapping[str, Any] = {
    **_DDPMPP,
    "filtered": True,
    "progressive_input": "residual",
    "embedding": "fourier",
    "embedding_channels": 256,
}

# Ho et al. 2020, appendix B; Song et al. 2021b, appendix H and the configs of the released models of CIFAR-10, of which
# the deep ones are trained in continuous time; Dhariwal & Nichol 2021, table 11 and the flags of the models. The class
# conditions and the doubled output (a learned variance) of ADM are `num_classes` and `out_channels`, the data's and the
# parameterization's to say.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "small": {**_ADM, "channels": 64, "multipliers": (1, 2, 2), "attention_resolutions": (), "head_channels": 32},
    "ddpm_cifar10": {**_DDPM, "multipliers": (1, 2, 2, 2), "dropout": 0.1},
    "ddpmpp": _DDPMPP,
    "ddpmpp_deep": {**_DDPMPP, "blocks_per_level": 8},
    "ncsnpp": _NCSNPP,
    "ncsnpp_deep": {**_NCSNPP, "blocks_per_level": 8},
    "ddpm_256": {**_DDPM, "multipliers": (1, 1, 2, 2, 4, 4)},
    "adm_imagenet64": {**_ADM, "channels": 192, "multipliers": (1, 2, 3, 4), "blocks_per_level": 3, "dropout": 0.1},
    "adm_imagenet128": {**_ADM, "multipliers": (1, 1, 2, 3, 4), "head_channels": None, "heads": 4},
    "adm_imagenet256": {**_ADM, "multipliers": (1, 1, 2, 2, 4, 4)},
    "adm_imagenet512": {**_ADM, "multipliers": (0.5, 1, 1, 2, 2, 4, 4)},
}


@register("network", "unet")
class UNet(nn.Module):
    """U-Net with residual blocks, attention at named resolutions, and noise and class conditioning.

    Every field of the architecture that is left out comes from the preset. The middle of the network always has one
    attention layer, as in both papers.

    Attributes:
        preset: a row of `PRESETS`.
        channels: base width.
        multipliers: width of each level by the base width; the resolution halves from level to level.
        blocks_per_level: residual blocks of a level on the way down; there is one more on the way up.
        attention_resolutions: heights of the feature maps that have attention after every residual block.
        heads: attention heads in every layer. Give this or `head_channels`.
        head_channels: channels of a head.
        scale_shift: whether the conditioning scales and shifts after the second normalization (ADM) or is added
            before it (DDPM).
        resampling: "residual": inside residual blocks, by average and repetition (ADM); "biggan": so, with a layer in
            the skip as well (NCSN++); "conv": by a strided convolution, and repetition with a convolution (DDPM).
        filtered: whether resolutions change through the filter [1, 3, 3, 1] against aliasing (NCSN++), instead.
        progressive_input: how every level hears of the image itself (Song et al. 2021b, appendix H.1): "none"; "skip":
            of the image at its resolution, through a layer; "residual": of the level above, through convolutions.
        progressive_output: how every level contributes to the output: "none"; "skip": the output is a sum of the
            levels' own outputs; "residual": of a path of its own, through convolutions.
        up_attention: whether on the way up "every" block of a level has attention or the "last" alone (NCSN++).
        skip_rescale: whether sums of branch and skip are divided by sqrt(2) (Song et al. 2021b).
        embedding: of the noise label: "sinusoidal", "sinusoidal_endpoint" or "fourier".
        embedding_channels: of that embedding; the base width where neither the config nor the preset says it.
        dropout: rate inside the residual blocks.
        num_classes: number of classes; None for an unconditional network, which ignores the condition.
        scalars: names of the condition's numbers that condition it beside the noise label, see `ScalarEmbeddings`.
        out_channels: channels of the output; None for those of the input.
        dtype: compute type of convolutions and products. Parameters, normalization, softmax, the embeddings and the
            last convolution are float32.
        attention: implementation, see `genjax.networks.attention.resolve`.
        remat: what the backward pass computes again, block by block, see `genjax.networks.remat.remat`; None for
            nothing.
    """

    reference: ClassVar[str] = DHARIWAL

    preset: str = "small"
    channels: int = from_preset()
    multipliers: tuple[float, ...] = from_preset()
    blocks_per_level: int = from_preset()
    attention_resolutions: tuple[int, ...] = from_preset()
    heads: int | None = None
    head_channels: int | None = None
    scale_shift: bool = from_preset()
    resampling: str = from_preset()
    filtered: bool = from_preset()
    progressive_input: str = from_preset()
    progressive_output: str = from_preset()
    up_attention: str = from_preset()
    skip_rescale: bool = from_preset()
    embedding: str = from_preset()
    embedding_channels: int | None = None
    dropout: float = from_preset()
    num_classes: int | None = None
    scalars: tuple[str, ...] = ()
    out_channels: int | None = None
    dtype: str = "float32"
    attention: str = "auto"
    remat: str | None = None

    def __post_init__(self) -> None:
        """Fills the fields from the preset and checks them."""
        heads, head_channels = self.heads, self.head_channels
        fill_from_preset(self, PRESETS, self.preset)
        if heads is not None or head_channels is not None:
            self.heads, self.head_channels = heads, head_channels  # either replaces both of the preset
        require(
            (self.heads is None) != (self.head_channels is None),
            f"heads = {self.heads} and head_channels = {self.head_channels}: give one of them",
        )
        for field in ("channels", "blocks_per_level", "heads", "head_channels"):
            value = getattr(self, field)
            require(value is None or value >= 1, f"{field} = {value}: must be at least 1")
        require(self.channels % 2 == 0, f"channels = {self.channels}: must be even")
        require(
            len(self.multipliers) > 0 and all(int(self.channels * m) >= 1 for m in self.multipliers),
            f"multipliers = {self.multipliers}: must be one or more numbers that leave every level a channel",
        )
        emb = self.embedding_channels
        require(emb is None or (emb >= 2 and emb % 2 == 0), f"embedding_channels = {emb}: must be even")
        require_one_of("resampling", self.resampling, RESAMPLING)
        require_one_of("progressive_input", self.progressive_input, PROGRESSIVE)
        require_one_of("progressive_output", self.progressive_output, PROGRESSIVE)
        require_one_of("up_attention", self.up_attention, UP_ATTENTION)
        require_one_of("embedding", self.embedding, embeddings.KINDS)
        require_one_of("attention", self.attention, attention.IMPLEMENTATIONS)
        check_common(self.dtype, self.dropout, self.num_classes, self.out_channels)
        check_remat(self.remat)
        super().__post_init__()

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of every level."""
        return tuple(int(self.channels * multiplier) for multiplier in self.multipliers)

    def check(self, image_shape: ImageShape) -> None:
        """Raises ValueError, in one line and before anything is compiled, unless the network takes such images."""
        check_image_shape(image_shape)
        height, width, _ = image_shape
        levels = len(self.multipliers)
        factor = 2 ** (levels - 1)
        require(
            height % factor == 0 and width % factor == 0,
            f"images of {height}x{width} cannot be halved {levels - 1} times: with {levels} levels (multipliers) both "
            f"sides must be multiples of {factor}",
        )
        heights = [height >> level for level in range(levels)]
        absent = [r for r in self.attention_resolutions if r not in heights]
        require(
            not absent,
            f"attention_resolutions = {tuple(self.attention_resolutions)}: the feature maps of images of "
            f"{height}x{width} are {', '.join(map(str, heights))} high, none is {', '.join(map(str, absent))}",
        )
        attending = {w for h, w in zip(heights, self.widths, strict=True) if h in self.attention_resolutions}
        for channels in sorted(attending | {self.widths[-1]}):
            heads = split_heads(channels, self.heads, self.head_channels)
            attention.resolve(self.attention, channels // heads, self.dtype)

    def attention_layers(self, height: int) -> list[str]:
        """Returns the names of the self-attention layers for images of a height, in the order of evaluation."""
        levels = [i for i in range(len(self.multipliers)) if height >> i in self.attention_resolutions]
        down = [f"down_{level}_attention_{i}" for level in levels for i in range(self.blocks_per_level)]
        first = 0 if self.up_attention == "every" else self.blocks_per_level
        up = [
            f"up_{level}_attention_{i}" for level in reversed(levels) for i in range(first, self.blocks_per_level + 1)
        ]
        return [*down, "middle_attention", *up]

    @nn.compact
    def __call__(self, x: Array, noise_label: Array, cond: Condition = None, dropout: Array | None = None) -> Array:
        """Evaluates the network.

        Args:
            x: [B, H, W, C] float32.
            noise_label: [B] float32.
            cond: `{"label": [B] int32}` with -1 for the null class; None is null for all.
                "perturbed_attention" in it is `{layer: [B] bool}`, see `attention_layers`.
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
        conv = functools.partial(nn.Conv, kernel_size=(3, 3), kernel_init=INIT, dtype=self.dtype)
        block = functools.partial(
            remat(ResidualBlock, self.remat),
            scale_shift=self.scale_shift,
            skip_rescale=self.skip_rescale,
            dropout=self.dropout,
            dtype=self.dtype,
            filtered=self.filtered,
            skip_layer=self.resampling == "biggan",
        )
        attention_block = functools.partial(
            remat(AttentionBlock, self.remat),
            heads=self.heads,
            head_channels=self.head_channels,
            skip_rescale=self.skip_rescale,
            implementation=self.attention,
            dtype=self.dtype,
        )

        def attend(name: str, h: Array) -> Array:
            return attention_block(name=name)(h, perturbed.get(name)) if name in attending else h

        def halve(h: Array, features: int, name: str) -> Array:
            if self.filtered:
                return conv(features, strides=(2, 2), padding="VALID", name=name)(resampling.smooth(h))
            return conv(features, strides=(2, 2), name=name)(h)

        def double(h: Array, features: int, name: str) -> Array:
            if self.filtered:
                return conv(features, padding="VALID", name=name)(resampling.upsample(h, around=1))
            return conv(features, name=name)(upsample(h))

        frequencies = self.embedding_channels or self.channels
        emb = embeddings.NoiseEmbedding(
            4 * self.channels, frequencies, self.embedding, kernel_init=INIT, name="noise_embedding"
        )(noise_label)
        if self.num_classes is not None:
            emb += embeddings.ClassEmbedding(self.num_classes, 4 * self.channels, name="class_embedding")(cond, batch)
        if self.scalars:
            emb += embeddings.ScalarEmbeddings(
                self.scalars, 4 * self.channels, frequencies, self.embedding, name="scalar_embeddings"
            )(cond)
        emb = nn.silu(emb)

        h, pyramid = conv(widths[0], name="in")(x), x
        skips = [h]
        for level, width in enumerate(widths):
            for i in range(self.blocks_per_level):
                h = block(width, name=f"down_{level}_block_{i}")(h, emb, dropout)
                h = attend(f"down_{level}_attention_{i}", h)
                skips.append(h)
            if level < last:
                if self.resampling == "conv":
                    h = halve(h, width, f"down_{level}_resample")
                else:
                    h = block(width, resample="down", name=f"down_{level}_resample")(h, emb, dropout)
                if self.progressive_input == "skip":
                    pyramid = resampling.downsample(pyramid) if self.filtered else downsample(pyramid)
                    h += nn.Dense(width, kernel_init=INIT, dtype=self.dtype, name=f"down_{level}_pyramid")(pyramid)
                elif self.progressive_input == "residual":
                    h = pyramid = join(halve(pyramid, width, f"down_{level}_pyramid"), h, self.skip_rescale)
                skips.append(h)

        h = block(widths[-1], name="middle_block_0")(h, emb, dropout)
        h = attend("middle_attention", h)
        h = block(widths[-1], name="middle_block_1")(h, emb, dropout)

        out_conv = functools.partial(
            nn.Conv, self.out_channels or channels, (3, 3), kernel_init=ZEROS, dtype=jnp.float32
        )
        for level, width in reversed(list(enumerate(widths))):
            for i in range(self.blocks_per_level + 1):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = block(width, name=f"up_{level}_block_{i}")(h, emb, dropout)
                h = attend(f"up_{level}_attention_{i}", h)
            if self.progressive_output == "skip":
                part = out_conv(name=f"up_{level}_pyramid")(nn.silu(normalize(h, name=f"up_{level}_pyramid_norm")))
                grown = resampling.upsample if self.filtered else upsample
                pyramid = part if level == last else grown(pyramid) + part
            elif self.progressive_output == "residual" and level == last:
                pyramid = conv(width, name=f"up_{level}_pyramid")(
                    nn.silu(normalize(h, name=f"up_{level}_pyramid_norm"))
                )
            elif self.progressive_output == "residual":
                h = pyramid = join(double(pyramid, width, f"up_{level}_pyramid"), h, self.skip_rescale)
            if level > 0:
                if self.resampling == "conv":
                    h = double(h, width, f"up_{level}_resample")
                else:
                    h = block(width, resample="up", name=f"up_{level}_resample")(h, emb, dropout)

        if self.progressive_output == "skip":
            return pyramid
        return out_conv(name="out")(nn.silu(normalize(h, name="out_norm")))
