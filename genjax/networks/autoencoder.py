"""Encoders, from images to vectors, and decoders, from vectors to images: fully connected, and strided convolutions.

Encoder: `apply({"params": params}, x, cond)` maps images x [B, H, W, C] to [B, features]. Decoder: `apply({"params":
params}, z, cond)` maps vectors z [B, D] to [B, *shape] with shape = (H, W, K). Both give float32. How wide the result
is says the family, not the config: it takes `encoder.clone(features=...)` and `decoder.clone(shape=...)`.

The condition is `{"label": [B] int32}` or None. Classes enter as one-hot vectors, all zero for the label -1, beside
the input of the first fully connected layer. A network without `num_classes` ignores them.
"""

import math
from collections.abc import Callable
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from genjax.citation import bibtex
from genjax.config import require
from genjax.networks.base import (
    Condition,
    ImageShape,
    check_common,
    check_image_shape,
    given_by_family,
    labels,
    require_one_of,
)
from genjax.registry import register

HINTON_2006 = bibtex("""
@article{hinton2006reducing,
  title = {Reducing the Dimensionality of Data with Neural Networks},
  author = {Hinton, Geoffrey E. and Salakhutdinov, Ruslan R.},
  journal = {Science},
  volume = {313},
  year = {2006}
}""")
HIGGINS_2017 = bibtex("""
@inproceedings{higgins2017beta,
  title = {beta-{VAE}: Learning Basic Visual Concepts with a Constrained Variational Framework},
  author = {Higgins, Irina and Matthey, Loic and Pal, Arka and Burgess, Christopher and Glorot, Xavier and Botvinick,
            Matthew and Mohamed, Shakir and Lerchner, Alexander},
  booktitle = {International Conference on Learning Representations},
  year = {2017}
}""")

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "leaky_relu": nn.leaky_relu,
    "tanh": nn.tanh,
    "silu": nn.silu,
    "elu": nn.elu,
}


class Encoder(Protocol):
    """The contract of an encoder; a Linen module, hashable, with parameters in float32."""

    features: int
    num_classes: int | None

    def check(self, image_shape: ImageShape) -> None:
        """Raises ValueError unless it takes such images; compiles nothing."""
        ...

    def clone(self, *, features: int) -> "Encoder":
        """Returns the encoder whose result has so many features."""
        ...

    def init(self, rngs: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns `{"params": ...}`."""
        ...

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        """Maps [B, H, W, C] and a condition to [B, features] float32."""
        ...


class Decoder(Protocol):
    """The contract of a decoder; a Linen module, hashable, with parameters in float32."""

    shape: ImageShape
    num_classes: int | None

    def check(self, image_shape: ImageShape) -> None:
        """Raises ValueError unless it gives such images; compiles nothing."""
        ...

    def clone(self, *, shape: ImageShape) -> "Decoder":
        """Returns the decoder whose result has this shape (H, W, K)."""
        ...

    def init(self, rngs: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns `{"params": ...}`."""
        ...

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        """Maps [B, D] and a condition to [B, H, W, K] float32."""
        ...


class _FullyConnected(nn.Module):
    """Layers with an activation, then a linear one in float32."""

    widths: tuple[int, ...]
    features: int
    activation: str
    dtype: str

    @nn.compact
    def __call__(self, h: Array) -> Array:
        """Maps [B, D] to [B, features]."""
        for i, width in enumerate(self.widths):
            h = ACTIVATIONS[self.activation](nn.Dense(width, dtype=self.dtype, name=f"dense_{i}")(h))
        return nn.Dense(self.features, dtype=jnp.float32, name="out")(h)


def _with_class(h: Array, cond: Condition, num_classes: int | None) -> Array:
    """Puts a one-hot class beside the features [B, D]."""
    if num_classes is None:
        return h
    return jnp.concatenate([h, jax.nn.one_hot(labels(cond, len(h)), num_classes, dtype=h.dtype)], axis=-1)


def _check_layers(hidden: int, depth: int, activation: str, dtype: str, num_classes: int | None) -> None:
    require(hidden >= 1, f"hidden = {hidden}: must be at least 1")
    require(depth >= 0, f"depth = {depth}: must be at least 0")
    require_one_of("activation", activation, ACTIVATIONS)
    check_common(dtype, 0.0, num_classes, None)


def _check_stages(channels: tuple[int, ...]) -> None:
    require(len(channels) >= 1 and min(channels) >= 1, f"channels = {channels}: must be one or more positive numbers")


def _check_size(shape: ImageShape, stages: int) -> None:
    check_image_shape(shape)
    require(min(shape[:2]) > 2 ** (stages - 1), f"images of {tuple(shape)} are too small to be halved {stages} times")


@register("encoder", "mlp")
class MLPEncoder(nn.Module):
    """Fully connected layers over the flattened image (Hinton & Salakhutdinov 2006).

    Attributes:
        hidden: width of a hidden layer.
        depth: hidden layers; with 0 the encoder is a linear map and a bias.
        activation: one of relu, leaky_relu, tanh, silu, elu.
        num_classes: number of classes; None for an encoder without condition.
        dtype: compute type of the hidden layers; everything else is float32.
        features: width of the result, given by the family.
    """

    hidden: int = 256
    depth: int = 2
    activation: str = "relu"
    num_classes: int | None = None
    dtype: str = "float32"
    features: int = given_by_family(1)
    reference = HINTON_2006

    def __post_init__(self) -> None:
        """Checks the fields."""
        _check_layers(self.hidden, self.depth, self.activation, self.dtype, self.num_classes)
        super().__post_init__()

    def check(self, image_shape: ImageShape) -> None:
        """Raises ValueError unless the shape is that of an image; any size will do."""
        check_image_shape(image_shape)

    @nn.compact
    def __call__(self, x: Array, cond: Condition = None) -> Array:
        """Maps [B, H, W, C] to [B, features] float32."""
        h = _with_class(x.reshape(len(x), -1), cond, self.num_classes)
        widths = (self.hidden,) * self.depth
        return _FullyConnected(widths, self.features, self.activation, self.dtype, name="layers")(h)


@register("decoder", "mlp")
class MLPDecoder(nn.Module):
    """Fully connected layers to the flattened image (Hinton & Salakhutdinov 2006).

    Attributes:
        hidden: width of a hidden layer.
        depth: hidden layers; with 0 the decoder is a linear map and a bias.
        activation: one of relu, leaky_relu, tanh, silu, elu.
        num_classes: number of classes; None for a decoder without condition.
        dtype: compute type of the hidden layers; everything else is float32.
        shape: (H, W, K) of the result, given by the family.
    """

    hidden: int = 256
    depth: int = 2
    activation: str = "relu"
    num_classes: int | None = None
    dtype: str = "float32"
    shape: ImageShape = given_by_family((1, 1, 1))
    reference = HINTON_2006

    def __post_init__(self) -> None:
        """Checks the fields."""
        _check_layers(self.hidden, self.depth, self.activation, self.dtype, self.num_classes)
        super().__post_init__()

    def check(self, image_shape: ImageShape) -> None:
        """Raises ValueError unless the shape is that of an image; any size will do."""
        check_image_shape(image_shape)

    @nn.compact
    def __call__(self, z: Array, cond: Condition = None) -> Array:
        """Maps [B, D] to [B, H, W, K] float32."""
        h = _with_class(z, cond, self.num_classes)
        layers = _FullyConnected(
            (self.hidden,) * self.depth, math.prod(self.shape), self.activation, self.dtype, name="layers"
        )
        return layers(h).reshape(len(z), *self.shape)


@register("encoder", "conv")
class ConvEncoder(nn.Module):
    """4 x 4 convolutions of stride 2, then fully connected layers (Higgins et al. 2017, table 1).

    A size that is odd is rounded up when it is halved, so any size will do: 28 becomes 14, 7, 4.

    Attributes:
        channels: of each convolution; each halves height and width.
        hidden: width of a fully connected layer.
        depth: fully connected hidden layers.
        activation: one of relu, leaky_relu, tanh, silu, elu.
        num_classes: number of classes; None for an encoder without condition.
        dtype: compute type of all but the last layer.
        features: width of the result, given by the family.
    """

    channels: tuple[int, ...] = (32, 32, 64)
    hidden: int = 256
    depth: int = 1
    activation: str = "relu"
    num_classes: int | None = None
    dtype: str = "float32"
    features: int = given_by_family(1)
    reference = HIGGINS_2017

    def __post_init__(self) -> None:
        """Checks the fields."""
        _check_layers(self.hidden, self.depth, self.activation, self.dtype, self.num_classes)
        _check_stages(self.channels)
        super().__post_init__()

    def check(self, image_shape: ImageShape) -> None:
        """Raises ValueError unless the image is large enough to be halved by every convolution."""
        _check_size(image_shape, len(self.channels))

    @nn.compact
    def __call__(self, x: Array, cond: Condition = None) -> Array:
        """Maps [B, H, W, C] to [B, features] float32."""
        h = x
        for i, channels in enumerate(self.channels):
            convolution = nn.Conv(channels, (4, 4), strides=2, padding="SAME", dtype=self.dtype, name=f"conv_{i}")
            h = ACTIVATIONS[self.activation](convolution(h))
        h = _with_class(h.reshape(len(x), -1), cond, self.num_classes)
        widths = (self.hidden,) * self.depth
        return _FullyConnected(widths, self.features, self.activation, self.dtype, name="layers")(h)


@register("decoder", "conv")
class ConvDecoder(nn.Module):
    """Fully connected layers, then transposed 4 x 4 convolutions of stride 2 (Higgins et al. 2017, table 1).

    The mirror image of the encoder "conv": a transposed convolution doubles height and width, and what is more than the
    encoder had there is cut off.

    Attributes:
        channels: of the input of each transposed convolution; each doubles height and width.
        hidden: width of a fully connected layer.
        depth: fully connected hidden layers, before the one that gives the first convolution its input.
        activation: one of relu, leaky_relu, tanh, silu, elu.
        num_classes: number of classes; None for a decoder without condition.
        dtype: compute type of all but the last layer.
        shape: (H, W, K) of the result, given by the family.
    """

    channels: tuple[int, ...] = (64, 32, 32)
    hidden: int = 256
    depth: int = 1
    activation: str = "relu"
    num_classes: int | None = None
    dtype: str = "float32"
    shape: ImageShape = given_by_family((1, 1, 1))
    reference = HIGGINS_2017

    def __post_init__(self) -> None:
        """Checks the fields."""
        _check_layers(self.hidden, self.depth, self.activation, self.dtype, self.num_classes)
        _check_stages(self.channels)
        super().__post_init__()

    def check(self, image_shape: ImageShape) -> None:
        """Raises ValueError unless the image is large enough to be halved for every convolution."""
        _check_size(image_shape, len(self.channels))

    @nn.compact
    def __call__(self, z: Array, cond: Condition = None) -> Array:
        """Maps [B, D] to [B, H, W, K] float32."""
        height, width, out = self.shape
        sizes = [(-(-height // 2**i), -(-width // 2**i)) for i in reversed(range(len(self.channels) + 1))]
        act = ACTIVATIONS[self.activation]
        start = (*sizes[0], self.channels[0])
        widths = (self.hidden,) * self.depth
        layers = _FullyConnected(widths, math.prod(start), self.activation, self.dtype, name="layers")
        h = act(layers(_with_class(z, cond, self.num_classes)).reshape(len(z), *start))
        for i, channels in enumerate((*self.channels[1:], out)):
            last = i == len(self.channels) - 1
            dtype = jnp.float32 if last else self.dtype
            h = nn.ConvTranspose(channels, (4, 4), strides=(2, 2), padding="SAME", dtype=dtype, name=f"conv_{i}")(h)
            h = h[:, : sizes[i + 1][0], : sizes[i + 1][1]]
            h = h if last else act(h)
        return h
