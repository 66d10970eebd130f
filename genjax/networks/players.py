"""What a generator and a discriminator are to the rest of the library, and the two as small MLPs.

Both may keep variables beside their parameters, such as the running statistics of batch normalization or the vectors of
spectral normalization. They lie in collections of their own, come out of `init` with the parameters, and change only
in a call with `train=True` and `mutable`.
"""

import math
from collections.abc import Collection
from typing import Any, ClassVar, Protocol

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from genjax.citation import bibtex
from genjax.config import require
from genjax.networks.base import DTYPES, Condition, ImageShape, check_image_shape, labels, require_one_of
from genjax.networks.embeddings import ClassEmbedding
from genjax.networks.norms import DISCRIMINATOR_NORMS, GENERATOR_NORMS, Layer, Norm
from genjax.registry import register

GULRAJANI_2017 = bibtex("""
@inproceedings{gulrajani2017improved,
  title = {Improved Training of {W}asserstein {GAN}s},
  author = {Gulrajani, Ishaan and Ahmed, Faruk and Arjovsky, Martin and Dumoulin, Vincent and Courville, Aaron},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2017}
}""")
MIYATO_2018_PROJECTION = bibtex("""
@inproceedings{miyato2018cgans,
  title = {c{GAN}s with Projection Discriminator},
  author = {Miyato, Takeru and Koyama, Masanori},
  booktitle = {International Conference on Learning Representations},
  year = {2018}
}""")


class Generator(Protocol):
    """The contract of a generator. A hashable Linen module with parameters in float32.

    `init(key, z, cond)` gives `{"params": ..., collection: ...}`, and `apply(variables, z, cond, train=False)` images
    [B, *image_shape] float32. `z` is [B, d] float32; `cond` is `{"label": [B] int32}`, -1 for the null class, or None,
    which is null for all. Without `train` an image depends on its own latent and label alone.
    """

    image_shape: ImageShape
    num_classes: int | None

    def init(self, rngs: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns the initial variables."""
        ...

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns images, with `mutable` the pair of them and the new collections."""
        ...


class Discriminator(Protocol):
    """The contract of a discriminator, or critic. A hashable Linen module with parameters in float32.

    `init(key, x, cond)` gives `{"params": ..., collection: ...}`, and `apply(variables, x, cond, train=False)` logits
    [B] float32. `x` is [B, H, W, C] float32; `cond` as in `Generator`.
    """

    num_classes: int | None

    def check(self, image_shape: ImageShape) -> None:
        """Raises ValueError, in one line and before anything is compiled, unless it takes such images."""
        ...

    def init(self, rngs: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns the initial variables."""
        ...

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns logits, with `mutable` the pair of them and the new collections."""
        ...


def check_player(dtype: str, num_classes: int | None, norm: str, norms: Collection[str]) -> None:
    """Checks the fields that all players have.

    Raises:
        ValueError: one of them is out of range.
    """
    require_one_of("dtype", dtype, DTYPES)
    require_one_of("norm", norm, norms)
    require(num_classes is None or num_classes >= 1, f"num_classes = {num_classes}: must be None or at least 1")
    require(norm != "conditional_batch" or num_classes is not None, "norm = 'conditional_batch': give num_classes")


class LogitHead(nn.Module):
    """The logit of features; of a conditional discriminator also the projection of the class's vector on them.

    Miyato & Koyama 2018, eq. 3: `psi(phi(x)) + y^T V phi(x)`, with a row of V for the null class too.

    Attributes:
        num_classes: number of classes, or None.
        spectral: whether both matrices have spectral normalization.
        stddev: standard deviation of the initial weights, see `Layer`.
    """

    num_classes: int | None
    spectral: bool
    stddev: float | None = None

    @nn.compact
    def __call__(self, features: Array, cond: Condition, train: bool) -> Array:
        """Maps features [B, F] to logits [B] float32."""
        features = features.astype(jnp.float32)
        logit = Layer(1, spectral=self.spectral, stddev=self.stddev, name="logit")(features, train)[:, 0]
        if self.num_classes is None:
            return logit
        label = labels(cond, len(features))
        classes = nn.one_hot(jnp.where(label == -1, self.num_classes, label), self.num_classes + 1)
        # A layer without bias applied to a one-hot vector is a row of its matrix.
        rows = Layer(features.shape[1], bias=False, spectral=self.spectral, stddev=self.stddev, name="projection")
        return logit + jnp.sum(rows(classes, train) * features, axis=1)


def with_class(z: Array, cond: Condition, num_classes: int | None) -> Array:
    """Returns the latents [B, d] with a learned vector of the class beside them; inside a compact module only."""
    if num_classes is None:
        return z
    vector = ClassEmbedding(num_classes, z.shape[1], name="class_embedding")(cond, len(z))
    return jnp.concatenate([z, vector], axis=1)


@register("generator", "mlp")
class MLPGenerator(nn.Module):
    """Fully connected generator with ReLU, as that of Gulrajani et al. 2017 for 2-D densities.

    Attributes:
        image_shape: (H, W, C) of the output.
        hidden: channels.
        depth: hidden layers.
        norm: "none" or "batch".
        bounded: whether tanh keeps the output in [-1, 1], as images are.
        num_classes: number of classes, whose learned vector stands beside the latent; None for an unconditional one.
        dtype: compute type of the hidden layers' products; everything else is float32.
    """

    image_shape: tuple[int, int, int]
    hidden: int = 256
    depth: int = 3
    norm: str = "none"
    bounded: bool = True
    num_classes: int | None = None
    dtype: str = "float32"
    reference: ClassVar[str] = GULRAJANI_2017

    def __post_init__(self) -> None:
        """Checks the fields."""
        check_image_shape(self.image_shape)
        require(self.hidden >= 1 and self.depth >= 1, f"hidden = {self.hidden}, depth = {self.depth}: at least 1")
        check_player(self.dtype, self.num_classes, self.norm, [n for n in GENERATOR_NORMS if n != "conditional_batch"])
        super().__post_init__()

    @nn.compact
    def __call__(self, z: Array, cond: Condition = None, train: bool = False) -> Array:
        """Maps latents [B, d] to images [B, *image_shape] float32; see `Generator`."""
        h = with_class(z, cond, self.num_classes)
        for i in range(self.depth):
            h = Layer(self.hidden, spread=True, dtype=self.dtype, name=f"layer_{i}")(h, train)
            h = nn.relu(Norm(self.norm, name=f"norm_{i}")(h, train))
        h = Layer(math.prod(self.image_shape), name="out")(h.astype(jnp.float32), train)
        return (jnp.tanh(h) if self.bounded else h).reshape(-1, *self.image_shape)


@register("discriminator", "mlp")
class MLPDiscriminator(nn.Module):
    """Fully connected discriminator with leaky ReLU.

    Attributes:
        hidden: channels.
        depth: hidden layers.
        slope: of the leaky ReLU below zero; 0 is ReLU.
        norm: "none", "spectral" (Miyato et al. 2018), "layer" or "batch".
        num_classes: number of classes, for a projection discriminator; None for an unconditional one.
        dtype: compute type of the hidden layers' products; everything else is float32.
    """

    hidden: int = 256
    depth: int = 3
    slope: float = 0.2
    norm: str = "none"
    num_classes: int | None = None
    dtype: str = "float32"
    reference: ClassVar[str] = GULRAJANI_2017

    def __post_init__(self) -> None:
        """Checks the fields."""
        require(self.hidden >= 1 and self.depth >= 1, f"hidden = {self.hidden}, depth = {self.depth}: at least 1")
        check_player(self.dtype, self.num_classes, self.norm, DISCRIMINATOR_NORMS)
        super().__post_init__()

    def check(self, image_shape: ImageShape) -> None:
        """Raises ValueError unless the shape is that of an image; any size will do."""
        check_image_shape(image_shape)

    @nn.compact
    def __call__(self, x: Array, cond: Condition = None, train: bool = False) -> Array:
        """Maps images [B, H, W, C] to logits [B] float32; see `Discriminator`."""
        h = x.reshape(len(x), -1)
        spectral = self.norm == "spectral"
        for i in range(self.depth):
            h = Layer(self.hidden, spectral=spectral, spread=True, dtype=self.dtype, name=f"layer_{i}")(h, train)
            h = nn.leaky_relu(Norm(self.norm, name=f"norm_{i}")(h, train), self.slope)
        return LogitHead(self.num_classes, spectral, name="head")(h, cond, train)
