"""Normalizations of generators and discriminators, and the layers that can have their weights normalized."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from genjax.citation import bibtex
from genjax.networks.base import Condition
from genjax.networks.convolution import convolution, transposed
from genjax.networks.embeddings import ClassEmbedding

MIYATO_2018_SPECTRAL = bibtex("""
@inproceedings{miyato2018spectral,
  title = {Spectral Normalization for Generative Adversarial Networks},
  author = {Miyato, Takeru and Kataoka, Toshiki and Koyama, Masanori and Yoshida, Yuichi},
  booktitle = {International Conference on Learning Representations},
  year = {2018}
}""")

SPECTRAL = "spectral"  # the collection of the vectors u
GENERATOR_NORMS = ("none", "batch", "conditional_batch")
DISCRIMINATOR_NORMS = ("none", "batch", "layer", "spectral")
MOMENTUM = 0.9  # of the running statistics


class Norm(nn.Module):
    """Normalization of activations over all but the channels, in float32, or nothing.

    Attributes:
        kind: "batch"; "conditional_batch", whose scale and shift are learned for each class (de Vries et al. 2017);
            "layer", over all of an example; else nothing.
        num_classes: number of classes, of conditional batch normalization.
    """

    kind: str
    num_classes: int | None = None

    @nn.compact
    def __call__(self, h: Array, train: bool, cond: Condition = None) -> Array:
        """Maps [B, ..., C] to the same; batch statistics in training, running ones else."""
        if self.kind == "layer":
            axes = tuple(range(1, h.ndim))
            return nn.LayerNorm(dtype=jnp.float32, reduction_axes=axes, name="norm")(h)
        if self.kind not in ("batch", "conditional_batch"):
            return h
        plain = self.kind == "batch"
        init = nn.initializers.normal(0.02)  # of the scale around 1, as DCGAN's code has it
        h = nn.BatchNorm(
            use_running_average=not train,
            momentum=MOMENTUM,
            dtype=jnp.float32,
            use_scale=plain,
            use_bias=plain,
            scale_init=lambda *args: 1.0 + init(*args),
            name="norm",
        )(h)
        if plain:
            return h
        assert self.num_classes is not None
        shape = (len(h), *[1] * (h.ndim - 2), h.shape[-1])
        scale, shift = (
            ClassEmbedding(self.num_classes, h.shape[-1], stddev, name=name)(cond, len(h)).reshape(shape)
            for name, stddev in (("scale", 0.02), ("shift", 0.0))
        )
        return h * (1.0 + scale) + shift


class Layer(nn.Module):
    """A dense layer or a convolution, whose weights may have spectral normalization.

    Attributes:
        features: channels of the output.
        kernel: size of a square kernel; None for a dense layer.
        stride: of the convolution.
        bias: whether there is one.
        spectral: whether the weights are divided by their largest singular value, see `spectrally_normalized`.
        stddev: standard deviation of the initial weights; None for that of He et al. 2015.
        spread: whether initial biases are uniform within one over the root of the number of inputs, and not zero. With
            zeros, all kinks of a first layer's ReLUs go through the origin, which points of the plane cannot afford.
        dtype: compute type of the product.
    """

    features: int
    kernel: int | None = None
    stride: int = 1
    bias: bool = True
    spectral: bool = False
    stddev: float | None = None
    spread: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Maps [B, F] or, where there is a kernel, [B, H, W, F] to `features` channels; H and W over the stride."""
        size = () if self.kernel is None else (self.kernel, self.kernel)
        init = nn.initializers.he_normal() if self.stddev is None else nn.initializers.normal(self.stddev)
        weights = self.param("kernel", init, (*size, x.shape[-1], self.features))
        if self.spectral:
            weights = spectrally_normalized(self, weights, train)
        x, weights = x.astype(self.dtype), weights.astype(self.dtype)
        if self.kernel is None:
            out = x @ weights
        else:
            out = convolution(x, weights, self.stride)
        if not self.bias:
            return out
        width = math.prod(weights.shape[:-1]) ** -0.5 if self.spread else 0.0
        bias = self.param("bias", lambda key: jax.random.uniform(key, (self.features,), minval=-width, maxval=width))
        return out + bias.astype(self.dtype).reshape(*[1] * (out.ndim - 1), -1)


class UpLayer(nn.Module):
    """A transposed convolution of kernel 4 and stride 2: twice the height and width.

    Attributes:
        features: channels of the output.
        stddev: standard deviation of the initial weights.
        dtype: compute type of the product.
    """

    features: int
    stddev: float = 0.02
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, H, W, F] to [B, 2 H, 2 W, features]."""
        init = nn.initializers.normal(self.stddev)
        weights = self.param("kernel", init, (4, 4, self.features, x.shape[-1]))
        out = transposed(x.astype(self.dtype), weights.astype(self.dtype))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return out + bias.astype(self.dtype).reshape(1, 1, 1, -1)


def spectrally_normalized(module: nn.Module, weights: Array, train: bool) -> Array:
    """Returns weights over an estimate of their largest singular value (Miyato et al. 2018, algorithm 1).

    Of a convolution's kernel it is the singular value of the matrix from patches to channels. In training one step of
    power iteration improves the vector u, which the module keeps; the gradient takes u and v as constants.

    Args:
        module: the layer, whose method calls this.
        weights: [..., F].
        train: whether u takes a step.
    """
    matrix = weights.reshape(-1, weights.shape[-1])

    def start() -> Array:
        return jax.random.normal(module.make_rng("params"), matrix.shape[-1:])

    u = module.variable(SPECTRAL, "u", start)
    fixed = jax.lax.stop_gradient(matrix)
    v = _unit(fixed @ _unit(u.value))
    new = _unit(v @ fixed)
    if train and module.is_mutable_collection(SPECTRAL) and not module.is_initializing():
        u.value = new
    return weights / (v @ matrix @ new)


def _unit(x: Array) -> Array:
    return x / jnp.maximum(jnp.linalg.norm(x), 1e-12)
