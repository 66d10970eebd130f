"""Encoders, from images to maps of features, and decoders, from such maps to images: convolutions all the way.

Spatial encoder: `apply({"params": params}, x)` maps images [B, H, W, C] to maps [B, h, w, features]. Spatial decoder:
`apply({"params": params}, z)` maps [B, h, w, D] to [B, H, W, channels]. Both give float32. How many features or
channels there are says the family, not the config: `encoder.clone(features=...)`, `decoder.clone(channels=...)`.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from genjax.citation import bibtex
from genjax.config import require
from genjax.networks.base import ImageShape, check_common, check_image_shape, given_by_family
from genjax.registry import register

VAN_DEN_OORD_2017 = bibtex("""
@inproceedings{vandenoord2017neural,
  title = {Neural Discrete Representation Learning},
  author = {van den Oord, A{\\"a}ron and Vinyals, Oriol and Kavukcuoglu, Koray},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2017}
}""")


def _check(hidden: int, halvings: int, blocks: int, dtype: str) -> None:
    require(hidden >= 1, f"hidden = {hidden}: must be at least 1")
    require(halvings >= 0, f"halvings = {halvings}: must be at least 0")
    require(blocks >= 0, f"blocks = {blocks}: must be at least 0")
    check_common(dtype, 0.0, None, None)


def _check_size(image_shape: ImageShape, halvings: int) -> None:
    check_image_shape(image_shape)
    require(
        all(size % 2**halvings == 0 for size in image_shape[:2]),
        f"images of {tuple(image_shape)}: height and width must be divisible by {2**halvings} to be halved "
        f"{halvings} times",
    )


@register("spatial_encoder", "residual")
class ResidualEncoder(nn.Module):
    """4 x 4 convolutions of stride 2, then residual blocks (van den Oord et al. 2017, section 4.1).

    Attributes:
        hidden: channels of all convolutions but the last, 1 x 1, which gives the features.
        halvings: convolutions of stride 2; each halves height and width.
        blocks: residual blocks.
        dtype: compute type of all but the last layer.
        features: channels of the result, given by the family.
    """

    hidden: int = 256
    halvings: int = 2
    blocks: int = 2
    dtype: str = "float32"
    features: int = given_by_family(1)
    reference = VAN_DEN_OORD_2017

    def __post_init__(self) -> None:
        """Checks the fields."""
        _check(self.hidden, self.halvings, self.blocks, self.dtype)
        super().__post_init__()

    def check(self, image_shape: ImageShape) -> None:
        """Raises ValueError unless height and width can be halved so often."""
        _check_size(image_shape, self.halvings)

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, H, W, C] to [B, h, w, features] float32."""
        h = x
        for i in range(self.halvings):
            h = nn.Conv(self.hidden, (4, 4), strides=2, dtype=self.dtype, name=f"down_{i}")(nn.relu(h) if i else h)
        if self.halvings == 0:
            h = nn.Conv(self.hidden, (3, 3), dtype=self.dtype, name="in")(h)
        for i in range(self.blocks):
            h = ResidualBlock(self.dtype, name=f"block_{i}")(h)
        return nn.Conv(self.features, (1, 1), dtype=jnp.float32, name="out")(nn.relu(h))


@register("spatial_decoder", "residual")
class ResidualDecoder(nn.Module):
    """Residual blocks, then transposed 4 x 4 convolutions of stride 2 (van den Oord et al. 2017, section 4.1).

    Attributes:
        hidden: channels of all convolutions but the last.
        halvings: transposed convolutions; each doubles height and width.
        blocks: residual blocks.
        dtype: compute type of all but the last layer.
        channels: of the result, given by the family.
    """

    hidden: int = 256
    halvings: int = 2
    blocks: int = 2
    dtype: str = "float32"
    channels: int = given_by_family(1)
    reference = VAN_DEN_OORD_2017

    def __post_init__(self) -> None:
        """Checks the fields."""
        _check(self.hidden, self.halvings, self.blocks, self.dtype)
        super().__post_init__()

    def check(self, image_shape: ImageShape) -> None:
        """Raises ValueError unless there are maps that become such images."""
        _check_size(image_shape, self.halvings)

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Maps [B, h, w, D] to [B, H, W, channels] float32."""
        h = nn.Conv(self.hidden, (3, 3), dtype=self.dtype, name="in")(z)
        for i in range(self.blocks):
            h = ResidualBlock(self.dtype, name=f"block_{i}")(h)
        h = nn.relu(h)
        for i in range(self.halvings):
            last = i == self.halvings - 1
            h = nn.ConvTranspose(
                self.channels if last else self.hidden,
                (4, 4),
                strides=(2, 2),
                dtype=jnp.float32 if last else self.dtype,
                name=f"up_{i}",
            )(h)
            h = h if last else nn.relu(h)
        if self.halvings == 0:
            h = nn.Conv(self.channels, (3, 3), dtype=jnp.float32, name="out")(h)
        return h


class ResidualBlock(nn.Module):
    """ReLU, a 3 x 3 convolution, ReLU and a 1 x 1 convolution, with a skip around.

    Attributes:
        dtype: compute type.
    """

    dtype: str

    @nn.compact
    def __call__(self, h: Array) -> Array:
        """Maps [B, h, w, hidden] to the same."""
        conv: Any = lambda size, name: nn.Conv(h.shape[-1], (size, size), dtype=self.dtype, name=name)  # noqa: E731
        return h + conv(1, "conv_1")(nn.relu(conv(3, "conv_0")(nn.relu(h))))
