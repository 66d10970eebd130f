"""What a denoising autoencoder sees in place of an image (Vincent et al. 2010, section 3.3)."""

import dataclasses
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from genjax.citation import bibtex
from genjax.config import require
from genjax.registry import register
from genjax.sampling.keys import normal_like

VINCENT_2010 = bibtex(
    """
    @article{vincent2010stacked,
      title = {Stacked Denoising Autoencoders: Learning Useful Representations in a Deep Network with a Local Denoising
               Criterion},
      author = {Vincent, Pascal and Larochelle, Hugo and Lajoie, Isabelle and Bengio, Yoshua and Manzagol,
                Pierre-Antoine},
      journal = {Journal of Machine Learning Research},
      volume = {11},
      year = {2010}
    }
    """
)


class Corruption(Protocol):
    """The contract of a corruption."""

    def __call__(self, keys: Array, x: Array) -> Array:
        """Returns corrupted images, for images [B, H, W, C] in [-1, 1] and one key an example [B]."""
        ...


@register("corruption", "none")
@dataclasses.dataclass(frozen=True)
class Clean:
    """Images as they are."""

    def __call__(self, keys: Array, x: Array) -> Array:
        """Returns x."""
        return x


@register("corruption", "gaussian")
@dataclasses.dataclass(frozen=True)
class GaussianNoise:
    """Normal noise on every pixel.

    Attributes:
        std: its standard deviation, in units of images in [-1, 1].
    """

    std: float = 0.5
    reference: ClassVar[str] = VINCENT_2010

    def __post_init__(self) -> None:
        require(self.std >= 0, f"std = {self.std}: must be at least 0")

    def __call__(self, keys: Array, x: Array) -> Array:
        """Returns x + std * noise."""
        return x + self.std * normal_like(keys, x)


@register("corruption", "masking")
@dataclasses.dataclass(frozen=True)
class Masking:
    """Pixels at random, with all their channels, are black.

    Attributes:
        share: chance of each pixel.
    """

    share: float = 0.25
    reference: ClassVar[str] = VINCENT_2010

    def __post_init__(self) -> None:
        _check_share(self.share)

    def __call__(self, keys: Array, x: Array) -> Array:
        """Returns x with -1 where a pixel is hit."""
        return jnp.where(_uniform(keys, x) < self.share, -1.0, x)


@register("corruption", "salt_and_pepper")
@dataclasses.dataclass(frozen=True)
class SaltAndPepper:
    """Pixels at random, with all their channels, are black or white, either with the same chance.

    Attributes:
        share: chance of each pixel to be one of the two.
    """

    share: float = 0.25
    reference: ClassVar[str] = VINCENT_2010

    def __post_init__(self) -> None:
        _check_share(self.share)

    def __call__(self, keys: Array, x: Array) -> Array:
        """Returns x with -1 or 1 where a pixel is hit."""
        drawn = _uniform(keys, x)
        return jnp.where(drawn < self.share / 2.0, -1.0, jnp.where(drawn < self.share, 1.0, x))


def _check_share(share: float) -> None:
    require(0 <= share <= 1, f"share = {share}: must be in [0, 1]")


def _uniform(keys: Array, x: Array) -> Array:
    """A number in [0, 1) for each pixel, [B, H, W, 1]."""
    return jax.vmap(lambda key: jax.random.uniform(key, (*x.shape[1:3], 1)))(keys)
