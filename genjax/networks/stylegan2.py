"""StyleGAN2: a mapping network, modulated convolutions, and a residual discriminator (Karras et al. 2020).

Every weight is drawn from N(0, 1) and scaled when it is used, by its He constant, so that Adam moves all layers alike
(equalized learning rate, Karras et al. 2018, section 4.1).
"""

import itertools
import math
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from genjax.citation import bibtex
from genjax.config import require
from genjax.networks.base import Condition, ImageShape, labels, require_one_of
from genjax.networks.convolution import convolution
from genjax.networks.resampling import downsample, downsample_conv, upsample, upsample_conv
from genjax.registry import register

KARRAS_2020 = bibtex("""
@inproceedings{karras2020analyzing,
  title = {Analyzing and Improving the Image Quality of {StyleGAN}},
  author = {Karras, Tero and Laine, Samuli and Aittala, Miika and Hellsten, Janne and Lehtinen, Jaakko and Aila, Timo},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2020}
}""")

SIZES = tuple(2**i for i in range(3, 11))  # 8 to 1024


def check_size(image_shape: ImageShape) -> None:
    """Raises ValueError unless the images are square, of a size that is a power of two from 8 to 1024."""
    shape = tuple(image_shape)
    require(
        len(shape) == 3 and shape[0] == shape[1] and shape[0] in SIZES and shape[2] >= 1,
        f"image shape {shape}: must be (n, n, channels) with n one of {', '.join(map(str, SIZES))}",
    )


def _check_fields(module: Any) -> None:
    require_one_of("dtype", module.dtype, ("float32", "bfloat16"))
    require(module.fmaps > 0, f"fmaps = {module.fmaps}: must be above 0")
    for name in ("max_channels", "mapping_layers"):
        require(getattr(module, name) >= 1, f"{name} = {getattr(module, name)}: must be at least 1")
    classes = module.num_classes
    require(classes is None or classes >= 1, f"num_classes = {classes}: must be None or at least 1")


def channels(size: int, fmaps: float, max_channels: int) -> int:
    """Returns the channels of the layers at a size: `32768 fmaps / size`, at least 1 and at most `max_channels`."""
    return max(1, min(int(32768 * fmaps) // size, max_channels))


def normalize(x: Array) -> Array:
    """Returns x [B, d] divided by the root of its mean square."""
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=1, keepdims=True) + 1e-8)


def activate(x: Array) -> Array:
    """Returns leaky ReLU with slope 0.2, times sqrt(2), which keeps the variance of a zero-mean normal input."""
    return nn.leaky_relu(x, 0.2) * math.sqrt(2.0)


def demodulation(kernel: Array, style: Array) -> Array:
    """Returns the factors that give outputs unit variance for inputs of unit variance (eq. 3 of the paper).

    Args:
        kernel: [k, k, C, D] float32.
        style: [B, C] float32, the scales of the input channels.

    Returns:
        [B, D] float32.
    """
    power = jnp.einsum("hwcd,bc->bd", jnp.square(kernel), jnp.square(style))
    return jax.lax.rsqrt(power + 1e-8)


def modulated_conv(x: Array, kernel: Array, style: Array, up: bool = False, demodulate: bool = True) -> Array:
    """Returns the convolution of each example with the kernel that its style modulates (eq. 1 and 3 of the paper).

    A kernel scaled by input channel and by output channel is the same as the activations scaled before and after the
    one kernel that all examples share. Measured on a CPU, grouped convolutions, one kernel an example, take 30 to 600
    times as long.

    Args:
        x: [B, H, W, C], whose type is that of the products.
        kernel: [k, k, C, D] float32.
        style: [B, C] float32.
        up: whether the result has twice the size; then k is 3.
        demodulate: whether the outputs are brought back to unit variance.
    """
    convolve = upsample_conv if up else convolution
    x = convolve(x * style[:, None, None].astype(x.dtype), kernel.astype(x.dtype))
    return x * demodulation(kernel, style)[:, None, None].astype(x.dtype) if demodulate else x


class Dense(nn.Module):
    """A fully connected layer with equalized learning rate, in float32.

    Attributes:
        features: outputs.
        rate: factor of the learning rate; the initial function does not depend on it.
        bias: initial value of the biases.
    """

    features: int
    rate: float = 1.0
    bias: float = 0.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, C] to [B, features]."""
        kernel = self.param("kernel", nn.initializers.normal(1.0 / self.rate), (x.shape[1], self.features))
        bias = self.param("bias", nn.initializers.constant(self.bias / self.rate), (self.features,))
        return x @ (kernel * (self.rate / math.sqrt(x.shape[1]))) + (self.rate * bias)[None]


class Conv(nn.Module):
    """A convolution with equalized learning rate, leaky ReLU and, where wanted, half the size.

    Attributes:
        features: channels of the output.
        size: of the kernel, 1 or 3.
        down: whether the output has half the size.
        linear: whether it has neither bias nor nonlinearity.
    """

    features: int
    size: int
    down: bool = False
    linear: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, H, W, C] to [B, H, W, features] of the same type, or half that size."""
        shape = (self.size, self.size, x.shape[3], self.features)
        kernel = self.param("kernel", nn.initializers.normal(1.0), shape) / math.sqrt(math.prod(shape[:3]))
        kernel = kernel.astype(x.dtype)
        if not self.down:
            x = convolution(x, kernel)
        else:
            x = convolution(downsample(x), kernel) if self.size == 1 else downsample_conv(x, kernel)
        if self.linear:
            return x
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return activate(x + bias[None, None, None].astype(x.dtype))


class Mapping(nn.Module):
    """From latents, classes or both to styles: normalized inputs, then fully connected layers.

    Attributes:
        features: channels of the styles and of every layer.
        layers: how many there are.
        rate: factor of their learning rate.
        num_classes: number of classes, or None.
    """

    features: int
    layers: int
    rate: float
    num_classes: int | None

    @nn.compact
    def __call__(self, z: Array | None, label: Array | None) -> Array:
        """Maps latents [B, d] and labels [B] int32, -1 for none, to styles [B, features] float32."""
        parts = [] if z is None else [normalize(z.astype(jnp.float32))]
        if self.num_classes is not None and label is not None:
            classes = jax.nn.one_hot(label, self.num_classes)
            parts.append(normalize(Dense(self.features, name="embedding")(classes)))
        h = jnp.concatenate(parts, axis=1)
        for i in range(self.layers):
            h = activate(Dense(self.features, self.rate, name=f"layer_{i}")(h))
        return h


class StyledConv(nn.Module):
    """A modulated 3x3 convolution with a noise input and leaky ReLU.

    Attributes:
        features: channels of the output.
        up: whether the output has twice the size.
    """

    features: int
    up: bool = False

    @nn.compact
    def __call__(self, x: Array, w: Array, noise: Array | None = None) -> Array:
        """Maps [B, H, W, C] to [B, H, W, features], or twice that size.

        Args:
            x: [B, H, W, C].
            w: styles [B, d] float32.
            noise: standard normal, of the output's size [B, H, W, 1], or None for none.
        """
        style = Dense(x.shape[3], bias=1.0, name="style")(w)
        kernel = self.param("kernel", nn.initializers.normal(1.0), (3, 3, x.shape[3], self.features))
        strength = self.param("noise_strength", nn.initializers.zeros, ())
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x = modulated_conv(x, kernel, style, self.up)
        if noise is not None:
            x = x + (strength * noise).astype(x.dtype)
        return activate(x + bias[None, None, None].astype(x.dtype))


class ToImage(nn.Module):
    """A modulated 1x1 convolution without demodulation, to the channels of the image, in float32.

    Attributes:
        features: channels of the image.
    """

    features: int

    @nn.compact
    def __call__(self, x: Array, w: Array) -> Array:
        """Maps [B, H, W, C] and styles [B, d] to [B, H, W, features]."""
        style = Dense(x.shape[3], bias=1.0, name="style")(w) / math.sqrt(x.shape[3])
        kernel = self.param("kernel", nn.initializers.normal(1.0), (1, 1, x.shape[3], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return modulated_conv(x, kernel, style, demodulate=False).astype(jnp.float32) + bias[None, None, None]


class Synthesis(nn.Module):
    """From one style a layer to an image: a learned 4x4 constant, blocks of two layers, images summed over the sizes.

    Attributes:
        image_shape, fmaps, max_channels, dtype: see `StyleGAN2Generator`.
    """

    image_shape: ImageShape
    fmaps: float
    max_channels: int
    dtype: str

    @nn.compact
    def __call__(self, styles: Array, noise: Array | None) -> Array:
        """Maps styles [B, layers, d] to images; see `StyleGAN2Generator.synthesize`."""
        width = lambda size: channels(size, self.fmaps, self.max_channels)  # noqa: E731
        sizes = [2**i for i in range(3, self.image_shape[0].bit_length())]
        inputs = [None] * (1 + 2 * len(sizes)) if noise is None else _noise(noise, [4, *sizes, *sizes])

        constant = self.param("constant", nn.initializers.normal(1.0), (4, 4, width(4)))
        h = jnp.broadcast_to(constant[None].astype(self.dtype), (len(styles), *constant.shape))
        h = StyledConv(width(4), name="size_4_conv")(h, styles[:, 0], inputs[0])
        image = ToImage(self.image_shape[2], name="size_4_image")(h, styles[:, 1])
        for i, size in enumerate(sizes):
            up, convolution = inputs[1 + i], inputs[1 + i + len(sizes)]
            h = StyledConv(width(size), up=True, name=f"size_{size}_up")(h, styles[:, 2 * i + 1], up)
            h = StyledConv(width(size), name=f"size_{size}_conv")(h, styles[:, 2 * i + 2], convolution)
            image = upsample(image) + ToImage(self.image_shape[2], name=f"size_{size}_image")(h, styles[:, 2 * i + 3])
        return image


def _noise(keys: Array, sizes: list[int]) -> list[Array]:
    """Standard normal planes [B, n, n, 1] of these sizes, from one key an example: one draw, for each compiles anew."""
    ends = list(itertools.accumulate(n * n for n in sizes))
    drawn = jax.vmap(lambda key: jax.random.normal(key, (ends[-1],)))(keys)
    return [drawn[:, end - n * n : end].reshape(-1, n, n, 1) for n, end in zip(sizes, ends, strict=True)]


@register("generator", "stylegan2")
class StyleGAN2Generator(nn.Module):
    """Mapping network and skip generator with modulated convolutions of StyleGAN2.

    The mapping and the synthesis can be called apart: `apply(variables, z, cond, method="map")` and
    `apply(variables, styles, noise, method="synthesize")`.

    Attributes:
        image_shape: (n, n, C) with n a power of two from 8 to 1024.
        style: channels of the styles w, and of the layers of the mapping.
        mapping_layers: 8 in the paper, 2 in some settings of Karras et al. 2020a (ADA).
        mapping_rate: factor of the mapping's learning rate.
        fmaps: factor of the numbers of channels, see `channels`; 1 is configuration F of the paper, 0.5 its
            configuration E and the setting of Karras et al. 2020a at 256x256.
        max_channels: the most channels of a layer.
        num_classes: number of classes, whose embedding stands beside the latent; None for an unconditional one.
        dtype: compute type of the convolutions, "float32" or "bfloat16"; everything else is float32.
    """

    image_shape: tuple[int, int, int]
    style: int = 512
    mapping_layers: int = 8
    mapping_rate: float = 0.01
    fmaps: float = 1.0
    max_channels: int = 512
    num_classes: int | None = None
    dtype: str = "float32"
    reference: ClassVar[str] = KARRAS_2020

    def __post_init__(self) -> None:
        """Checks the fields."""
        check_size(self.image_shape)
        _check_fields(self)
        require(self.style >= 1, f"style = {self.style}: must be at least 1")
        require(self.mapping_rate > 0, f"mapping_rate = {self.mapping_rate}: must be above 0")
        super().__post_init__()

    @property
    def num_styles(self) -> int:
        """How many styles an image takes: one a convolution, and one for the last projection to an image."""
        return 2 * self.image_shape[0].bit_length() - 4

    def setup(self) -> None:
        """Declares the two networks."""
        self.mapping = Mapping(self.style, self.mapping_layers, self.mapping_rate, self.num_classes)
        self.synthesis = Synthesis(self.image_shape, self.fmaps, self.max_channels, self.dtype)

    def map(self, z: Array, cond: Condition = None) -> Array:
        """Maps latents [B, d] to styles w [B, style] float32; `cond` is `{"label": [B] int32}` or None."""
        return self.mapping(z, labels(cond, len(z)))

    def synthesize(self, styles: Array, noise: Array | None = None) -> Array:
        """Maps styles to images [B, *image_shape] float32.

        Args:
            styles: [B, num_styles, style] float32, one a layer; of one w, each is w.
            noise: one key an example [B], from which the noise inputs are drawn; None leaves them out.
        """
        return self.synthesis(styles, noise)

    def __call__(self, z: Array, cond: Condition = None, train: bool = False, noise: Array | None = None) -> Array:
        """Maps latents [B, d] to images [B, *image_shape] float32, alike in training; `noise` as in `synthesize`."""
        w = self.map(z, cond)
        return self.synthesize(jnp.broadcast_to(w[:, None], (len(w), self.num_styles, self.style)), noise)


def minibatch_deviation(x: Array, group: int) -> Array:
    """Returns x with one more channel: the standard deviation over a group of examples, averaged over all features.

    Karras et al. 2018, section 3. Group j has the examples j, j + n, j + 2 n, ... of n groups.

    Args:
        x: [B, H, W, C].
        group: examples in a group; the largest divisor of B up to this is taken.
    """
    batch, height, width, features = x.shape
    size = next(g for g in range(min(group, batch), 0, -1) if batch % g == 0)
    groups = x.reshape(size, batch // size, height, width, features)
    deviation = jnp.sqrt(jnp.mean(jnp.square(groups - groups.mean(0, keepdims=True)), 0) + 1e-8).mean((1, 2, 3))
    plane = jnp.broadcast_to(jnp.tile(deviation, size)[:, None, None, None], (batch, height, width, 1))
    return jnp.concatenate([x, plane], axis=3)


@register("discriminator", "stylegan2")
class StyleGAN2Discriminator(nn.Module):
    """Residual discriminator of StyleGAN2, with the minibatch standard deviation and the projection of a class.

    Attributes:
        fmaps, max_channels, dtype: as in `StyleGAN2Generator`. The layers at 4x4 are float32.
        group: examples whose standard deviation is measured together.
        residual: whether the blocks have skip connections; Karras et al. 2020a (ADA) leave them out on CIFAR-10.
        num_classes: number of classes, for a projection discriminator; None for an unconditional one.
        mapping_layers: of the mapping from a class to the vector that the features are projected on.
    """

    fmaps: float = 1.0
    max_channels: int = 512
    group: int = 4
    residual: bool = True
    num_classes: int | None = None
    mapping_layers: int = 8
    dtype: str = "float32"
    reference: ClassVar[str] = KARRAS_2020

    def __post_init__(self) -> None:
        """Checks the fields."""
        _check_fields(self)
        require(self.group >= 1, f"group = {self.group}: must be at least 1")
        super().__post_init__()

    def check(self, image_shape: ImageShape) -> None:
        """Raises ValueError unless the images are square, of a size that is a power of two from 8 to 1024."""
        check_size(image_shape)

    @nn.compact
    def __call__(self, x: Array, cond: Condition = None, train: bool = False) -> Array:
        """Maps images [B, H, W, C] to logits [B] float32, alike in training; `cond` as in `StyleGAN2Generator`."""
        size, label = x.shape[1], labels(cond, len(x))
        width = lambda size: channels(size, self.fmaps, self.max_channels)  # noqa: E731
        h = Conv(width(size), 1, name="from_image")(x.astype(self.dtype))
        while size > 4:
            out = width(size // 2)
            y = Conv(width(size), 3, name=f"size_{size}_conv")(h)
            y = Conv(out, 3, down=True, name=f"size_{size}_down")(y)
            if self.residual:
                y = (y + Conv(out, 1, down=True, linear=True, name=f"size_{size}_skip")(h)) * math.sqrt(0.5)
            h, size = y, size // 2
        h = minibatch_deviation(h.astype(jnp.float32), self.group)
        h = Conv(width(4), 3, name="size_4_conv")(h).reshape(len(x), -1)
        h = activate(Dense(width(4), name="features")(h))
        if self.num_classes is None:
            return Dense(1, name="logit")(h)[:, 0]
        vector = Mapping(width(4), self.mapping_layers, 0.01, self.num_classes, name="mapping")(None, label)
        return jnp.sum(Dense(width(4), name="logit")(h) * vector, axis=1) / math.sqrt(width(4))
