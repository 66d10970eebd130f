"""DCGAN's generator and discriminator, with the variants of spectral normalization's paper."""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from genjax.citation import bibtex
from genjax.config import require
from genjax.networks.base import Condition, ImageShape, check_image_shape
from genjax.networks.norms import (
    DISCRIMINATOR_NORMS,
    GENERATOR_NORMS,
    Layer,
    Norm,
    UpLayer,
)
from genjax.networks.players import LogitHead, check_player, with_class
from genjax.registry import register

RADFORD_2016 = bibtex("""
@inproceedings{radford2016unsupervised,
  title = {Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks},
  author = {Radford, Alec and Metz, Luke and Chintala, Soumith},
  booktitle = {International Conference on Learning Representations},
  year = {2016}
}""")

STDDEV = 0.02  # of all initial weights, Radford et al. 2016, section 4


def doublings(image_shape: ImageShape) -> int:
    """Returns how often an image is halved until its shorter side is 4 to 7 pixels.

    Raises:
        ValueError: the sides cannot be halved as often, or the image is smaller than 8 pixels.
    """
    check_image_shape(image_shape)
    times = min(image_shape[:2]).bit_length() - 3
    require(
        times >= 1 and all(side % 2**times == 0 for side in image_shape[:2]),
        f"image shape {tuple(image_shape)}: the sides must be 4 to 7 pixels doubled at least once, such as 28 or 32",
    )
    return times


@register("generator", "dcgan")
class DCGANGenerator(nn.Module):
    """DCGAN's generator: transposed convolutions from 4x4 (or 5 to 7) pixels on (Radford et al. 2016, figure 1).

    Attributes:
        image_shape: (H, W, C) of the output; the sides are 4 to 7 pixels, doubled at least once.
        channels: of the last hidden layer; those of each layer before are twice as many. 128 in the paper's figure.
        norm: "batch", "none", or "conditional_batch", whose scale and shift are those of the class.
        smooth: whether a convolution of kernel 3 follows the last doubling, as in table 3 of Miyato et al. 2018.
        num_classes: number of classes; their learned vector stands beside the latent unless the norm is conditional.
            None for an unconditional generator.
        dtype: compute type of the hidden layers' products; everything else is float32.
    """

    image_shape: tuple[int, int, int]
    channels: int = 128
    norm: str = "batch"
    smooth: bool = False
    num_classes: int | None = None
    dtype: str = "float32"
    reference: ClassVar[str] = RADFORD_2016

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
        hidden = times if self.smooth else times - 1  # doublings that end in a hidden layer
        if self.norm != "conditional_batch":
            z = with_class(z, cond, self.num_classes)
        base = (height >> times, width >> times, self.channels << hidden)
        h = Layer(base[0] * base[1] * base[2], stddev=STDDEV, dtype=self.dtype, name="in")(z, train)
        h = h.reshape(-1, *base)
        for i in range(hidden + 1):
            if i:
                h = UpLayer(self.channels << (hidden - i), STDDEV, self.dtype, name=f"up_{i}")(h)
            h = nn.relu(Norm(self.norm, self.num_classes, name=f"norm_{i}")(h, train, cond))
        h = h.astype(jnp.float32)
        out = Layer(colours, 3, stddev=STDDEV, name="out") if self.smooth else UpLayer(colours, STDDEV, name="out")
        return jnp.tanh(out(h))


@register("discriminator", "dcgan")
class DCGANDiscriminator(nn.Module):
    """DCGAN's discriminator: strided convolutions and leaky ReLU (Radford et al. 2016, section 3).

    Attributes:
        channels: of the first layer; twice as many after each halving.
        norm: "batch" (in all layers but the first), "layer" (likewise), "spectral" (Miyato et al. 2018) or "none".
        slope: of the leaky ReLU below zero.
        interleaved: whether a convolution of kernel 3 stands before each halving and after the last, as in table 3 of
            Miyato et al. 2018. Small images have few halvings, and need them.
        num_classes: number of classes, for a projection discriminator; None for an unconditional one.
        dtype: compute type of the convolutions; everything else is float32.
    """

    channels: int = 64
    norm: str = "batch"
    slope: float = 0.2
    interleaved: bool = False
    num_classes: int | None = None
    dtype: str = "float32"
    reference: ClassVar[str] = RADFORD_2016

    def __post_init__(self) -> None:
        """Checks the fields."""
        require(self.channels >= 1, f"channels = {self.channels}: must be at least 1")
        check_player(self.dtype, self.num_classes, self.norm, DISCRIMINATOR_NORMS)
        super().__post_init__()

    def check(self, image_shape: ImageShape) -> None:
        """Raises ValueError unless the sides are 4 to 7 pixels, doubled at least once."""
        doublings(image_shape)

    @nn.compact
    def __call__(self, x: Array, cond: Condition = None, train: bool = False) -> Array:
        """Maps images [B, H, W, C] to logits [B] float32; see `players.Discriminator`."""
        _, height, width, colours = x.shape
        spectral, times = self.norm == "spectral", doublings((height, width, colours))
        # Level, kernel and stride of each layer.
        halvings, plain = [(i, 4, 2) for i in range(times)], [(i, 3, 1) for i in range(times + 1)]
        shapes = sorted(halvings + plain) if self.interleaved else halvings
        h = x
        for i, (level, kernel, stride) in enumerate(shapes):
            layer = Layer(
                self.channels << level,
                kernel,
                stride,
                spectral=spectral,
                stddev=STDDEV,
                dtype=self.dtype,
                name=f"conv_{i}",
            )
            h = layer(h, train)
            if i:
                h = Norm(self.norm, name=f"norm_{i}")(h, train)
            h = nn.leaky_relu(h, self.slope)
        return LogitHead(self.num_classes, spectral, STDDEV, name="head")(h.reshape(len(x), -1), cond, train)
