"""Residual generator and discriminator of Gulrajani et al. 2017, appendix F; without normalization as modern ones."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from genjax.config import require
from genjax.networks.base import Condition, ImageShape
from genjax.networks.dcgan import doublings
from genjax.networks.norms import DISCRIMINATOR_NORMS, GENERATOR_NORMS, Layer, Norm
from genjax.networks.players import GULRAJANI_2017, LogitHead, check_player, with_class
from genjax.networks.unet_blocks import downsample, upsample
from genjax.registry import register


class Block(nn.Module):
    """Normalization, ReLU and a convolution of kernel 3, twice, with a skip around.

    Attributes:
        channels: of the output.
        resample: "up" doubles the sides before the first convolution, "down" halves them after the second, "" neither.
        norm: see `Norm`; "spectral" normalizes the weights.
        first: whether the input is an image, which no ReLU must cut.
        zero: whether the second convolution starts at zero, as in networks without normalization (Zhang et al. 2019).
        num_classes: number of classes, of conditional batch normalization.
        dtype: compute type of the convolutions.
    """

    channels: int
    resample: str = ""
    norm: str = "none"
    first: bool = False
    zero: bool = False
    num_classes: int | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Array, train: bool, cond: Condition = None) -> Array:
        """Maps [B, H, W, F] to [B, H', W', channels] in `dtype`."""
        spectral = self.norm == "spectral"

        def conv(kernel: int, name: str, stddev: float | None = None) -> Layer:
            return Layer(self.channels, kernel, spectral=spectral, stddev=stddev, dtype=self.dtype, name=name)

        def activated(h: Array, name: str) -> Array:
            return nn.relu(Norm(self.norm, self.num_classes, name=name)(h, train, cond))

        h = x if self.first else activated(x, "norm_0")
        h, skip = (upsample(h), upsample(x)) if self.resample == "up" else (h, x)
        h = conv(3, "conv_0")(h, train)
        h = conv(3, "conv_1", 0.0 if self.zero else None)(activated(h, "norm_1"), train)
        h, skip = (downsample(h), downsample(skip)) if self.resample == "down" else (h, skip)
        if self.resample or x.shape[-1] != self.channels:
            skip = conv(1, "skip")(skip, train)
        return h + skip.astype(h.dtype)


@register("generator", "resnet")
class ResNetGenerator(nn.Module):
    """Residual generator: a block before each doubling (Gulrajani et al. 2017, appendix F).

    Attributes:
        image_shape: (H, W, C) of the output; the sides are 4 to 7 pixels, doubled at least once.
        channels: of every layer.
        norm: "batch", "none", whose blocks then start as their skips, or "conditional_batch".
        num_classes: number of classes; their learned vector stands beside the latent unless the norm is conditional.
            None for an unconditional generator.
        dtype: compute type of the blocks; everything else is float32.
    """

    image_shape: tuple[int, int, int]
    channels: int = 128
    norm: str = "batch"
    num_classes: int | None = None
    dtype: str = "float32"
    reference: ClassVar[str] = GULRAJANI_2017

    def __post_init__(self) -> None:
        """Checks the fields."""
        doublings(self.image_shape)
        require(self.channels >= 1, f"channels = {self.channels}: must be at least 1")
        check_player(self.dtype, self.num_classes, self.norm, GENERATOR_NORMS)
        super().__post_init__()

    @nn.compact
    def __call__(self, z: Array, cond: Condition = None, train: bool = False) -> Array:
        """Maps latents [B, d] to images [B, *image_shape] in [-1, 1] float32; see `players.Generator`."""
        height, width, colours = self.image_shape
        times = doublings(self.image_shape)
        if self.norm != "conditional_batch":
            z = with_class(z, cond, self.num_classes)
        base = (height >> times, width >> times, self.channels)
        h = Layer(base[0] * base[1] * base[2], dtype=self.dtype, name="in")(z, train).reshape(-1, *base)
        for i in range(times):
            block = Block(
                self.channels,
                "up",
                self.norm,
                zero=self.norm == "none",
                num_classes=self.num_classes,
                dtype=self.dtype,
                name=f"block_{i}",
            )
            h = block(h, train, cond)
        h = nn.relu(Norm(self.norm, self.num_classes, name="norm")(h, train, cond))
        return jnp.tanh(Layer(colours, 3, name="out")(h.astype(jnp.float32), train))


@register("discriminator", "resnet")
class ResNetDiscriminator(nn.Module):
    """Residual discriminator: two blocks that halve the sides, two that do not (Gulrajani et al. 2017, appendix F).

    Attributes:
        channels: of every layer.
        halving: blocks that halve the sides, the first of the image itself.
        plain: blocks after them.
        norm: "none", "spectral" (Miyato et al. 2018) or "layer".
        zero: whether the blocks start as their skips, as modern networks without normalization do.
        num_classes: number of classes, for a projection discriminator; None for an unconditional one.
        dtype: compute type of the blocks; everything else is float32.
    """

    channels: int = 128
    halving: int = 2
    plain: int = 2
    norm: str = "none"
    zero: bool = False
    num_classes: int | None = None
    dtype: str = "float32"
    reference: ClassVar[str] = GULRAJANI_2017

    def __post_init__(self) -> None:
        """Checks the fields."""
        require(self.channels >= 1, f"channels = {self.channels}: must be at least 1")
        require(self.halving >= 1 and self.plain >= 0, f"halving = {self.halving}, plain = {self.plain}: too few")
        check_player(self.dtype, self.num_classes, self.norm, [n for n in DISCRIMINATOR_NORMS if n != "batch"])
        require(not (self.zero and self.norm == "spectral"), "zero: weights that are zero have no spectral norm")
        super().__post_init__()

    def check(self, image_shape: ImageShape) -> None:
        """Raises ValueError unless the image can be halved as often."""
        height, width, _ = image_shape
        require(
            height % 2**self.halving == 0 and width % 2**self.halving == 0,
            f"image shape {tuple(image_shape)}: the sides must be multiples of {2**self.halving}",
        )

    @nn.compact
    def __call__(self, x: Array, cond: Condition = None, train: bool = False) -> Array:
        """Maps images [B, H, W, C] to logits [B] float32; see `players.Discriminator`."""
        h = x.astype(self.dtype)
        for i in range(self.halving + self.plain):
            resample = "down" if i < self.halving else ""
            h = Block(self.channels, resample, self.norm, i == 0, self.zero, None, self.dtype, name=f"block_{i}")(
                h, train
            )
        features = jax.nn.relu(h).astype(jnp.float32).mean((1, 2))
        return LogitHead(self.num_classes, self.norm == "spectral", name="head")(features, cond, train)
