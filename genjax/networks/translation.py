"""The networks of image-to-image translation: the residual generator and the discriminator of patches."""

import functools
from typing import Any, ClassVar, Protocol

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax

from genjax.citation import bibtex
from genjax.config import require
from genjax.networks.base import DTYPES, Condition, ImageShape, check_image_shape, require_one_of
from genjax.registry import register

JOHNSON_2016 = bibtex("""
@inproceedings{johnson2016perceptual,
  title = {Perceptual Losses for Real-Time Style Transfer and Super-Resolution},
  author = {Johnson, Justin and Alahi, Alexandre and Fei-Fei, Li},
  booktitle = {European Conference on Computer Vision},
  year = {2016}
}""")
ISOLA_2017 = bibtex("""
@inproceedings{isola2017image,
  title = {Image-to-Image Translation with Conditional Adversarial Networks},
  author = {Isola, Phillip and Zhu, Jun-Yan and Zhou, Tinghui and Efros, Alexei A.},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},
  year = {2017}
}""")

_WEIGHTS = nn.initializers.normal(0.02)
_WIDEST = 8  # times the first convolution's channels, in a discriminator


class Translator(Protocol):
    """The contract of a translator. A hashable Linen module with parameters in float32.

    `init(key, x)` gives `{"params": ...}`, and `apply(variables, x)` images of the shape of x [B, H, W, C], float32,
    each a function of its own example alone.
    """

    def check(self, image_shape: ImageShape) -> None:
        """Raises ValueError, in one line and before anything is compiled, unless it takes such images."""
        ...

    def init(self, rngs: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns the initial variables."""
        ...

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns the translated images."""
        ...


@register("translator", "resnet")
class ResNetTranslator(nn.Module):
    """Strided convolutions down, residual blocks, strided convolutions up (Johnson et al. 2016; Zhu et al. 2017).

    Every convolution but the last is followed by instance normalization, and but for the second of each block by ReLU;
    the output is in [-1, 1]. With the default values this is c7s1-64, d128, d256, 9 of R256, u128, u64, c7s1-3 of Zhu
    et al. 2017, appendix 7.2.

    Attributes:
        channels: of the first convolution; each halving of the image doubles them.
        halvings: how often the image is halved.
        blocks: number of residual blocks.
        kernel: size of the first and of the last convolution, an odd number.
        dtype: compute type of the convolutions; everything else is float32.
    """

    channels: int = 64
    halvings: int = 2
    blocks: int = 9
    kernel: int = 7
    dtype: str = "float32"
    reference: ClassVar[str] = JOHNSON_2016

    def __post_init__(self) -> None:
        """Checks the fields."""
        require(self.channels >= 1, f"channels = {self.channels}: must be at least 1")
        require(
            self.halvings >= 0 and self.blocks >= 0,
            f"halvings = {self.halvings}, blocks = {self.blocks}: must be at least 0",
        )
        require(self.kernel >= 1 and self.kernel % 2 == 1, f"kernel = {self.kernel}: must be an odd number")
        require_one_of("dtype", self.dtype, DTYPES)
        super().__post_init__()

    def check(self, image_shape: ImageShape) -> None:
        """Raises ValueError unless the sides can be halved and are large enough for the reflected rims."""
        check_image_shape(image_shape)
        least, factor = min(image_shape[:2]), 2**self.halvings
        require(
            image_shape[0] % factor == 0 and image_shape[1] % factor == 0,
            f"image shape {tuple(image_shape)}: {self.halvings} halvings need sides that {factor} divides",
        )
        require(
            least > self.kernel // 2 and least // factor >= 2,
            f"image shape {tuple(image_shape)}: the sides must be above {self.kernel // 2}, half of the kernel, and "
            f"after {self.halvings} halvings at least 2",
        )

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps images [B, H, W, C] to images of the same shape, float32; see `Translator`."""
        conv = functools.partial(nn.Conv, padding="VALID", kernel_init=_WEIGHTS, dtype=self.dtype)
        ends, inner = (self.kernel, self.kernel), (3, 3)
        h = nn.relu(_normalized(conv(self.channels, ends, name="in")(_reflected(x, self.kernel // 2))))
        width = self.channels
        for i in range(self.halvings):
            width *= 2
            h = conv(width, inner, strides=2, padding=1, name=f"down_{i}")(h)
            h = nn.relu(_normalized(h))
        for i in range(self.blocks):
            inside = nn.relu(_normalized(conv(width, inner, name=f"block_{i}_0")(_reflected(h, 1))))
            h += _normalized(conv(width, inner, name=f"block_{i}_1")(_reflected(inside, 1)))
        for i in range(self.halvings):
            width //= 2
            up = nn.ConvTranspose(width, inner, strides=(2, 2), kernel_init=_WEIGHTS, dtype=self.dtype, name=f"up_{i}")
            h = nn.relu(_normalized(up(h)))
        h = conv(x.shape[-1], ends, name="out")(_reflected(h, self.kernel // 2))
        return jnp.tanh(h.astype(jnp.float32))


@register("discriminator", "patch")
class PatchDiscriminator(nn.Module):
    """PatchGAN: a logit for each of many overlapping patches (Isola et al. 2017; Zhu et al. 2017, appendix 7.2).

    Convolutions of 4 x 4 pixels with leaky ReLU and, but in the first, instance normalization. With the default values
    this is C64-C128-C256-C512, whose patches have 70 x 70 pixels.

    Attributes:
        channels: of the first convolution; each further one doubles them, up to 8 times these.
        halvings: how many convolutions halve the image.
        slope: of the leaky ReLU below zero.
        dtype: compute type of the convolutions; everything else is float32.
    """

    channels: int = 64
    halvings: int = 3
    slope: float = 0.2
    dtype: str = "float32"
    num_classes: ClassVar[None] = None
    reference: ClassVar[str] = ISOLA_2017

    def __post_init__(self) -> None:
        """Checks the fields."""
        require(self.channels >= 1, f"channels = {self.channels}: must be at least 1")
        require(self.halvings >= 1, f"halvings = {self.halvings}: must be at least 1")
        require_one_of("dtype", self.dtype, DTYPES)
        super().__post_init__()

    @property
    def patch(self) -> int:
        """Side in pixels of the patch that a logit sees."""
        size = 7  # of two convolutions of 4 pixels one after another
        for _ in range(self.halvings):
            size = 2 * size + 2
        return size

    def check(self, image_shape: ImageShape) -> None:
        """Raises ValueError unless there is at least one logit."""
        check_image_shape(image_shape)
        # The two last convolutions take a pixel off each side.
        least = 2**self.halvings * 3
        require(
            min(image_shape[:2]) >= least,
            f"image shape {tuple(image_shape)}: {self.halvings} halvings need sides of at least {least}",
        )

    @nn.compact
    def __call__(self, x: Array, cond: Condition = None, train: bool = False) -> Array:
        """Maps images [B, H, W, C] to logits [B, h, w] float32; the condition is ignored; see `Discriminator`."""
        conv = functools.partial(nn.Conv, kernel_size=(4, 4), padding=1, kernel_init=_WEIGHTS, dtype=self.dtype)
        h = x
        for i in range(self.halvings + 1):
            width = self.channels * min(2**i, _WIDEST)
            h = conv(width, strides=2 if i < self.halvings else 1, name=f"conv_{i}")(h)
            h = nn.leaky_relu(h.astype(jnp.float32) if i == 0 else _normalized(h), self.slope)
        return conv(1, name="out")(h).astype(jnp.float32)[..., 0]


def _normalized(h: Array) -> Array:
    """Instance normalization without scale and shift, in float32 (Ulyanov et al. 2016)."""
    h = h.astype(jnp.float32)
    mean = h.mean((1, 2), keepdims=True)
    return (h - mean) * lax.rsqrt(jnp.square(h - mean).mean((1, 2), keepdims=True) + 1e-5)


def _reflected(h: Array, pixels: int) -> Array:
    return jnp.pad(h, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)), mode="reflect")
