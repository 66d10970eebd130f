"""Networks of hierarchical VAEs: bottom up from the image to features, top down from latents to the image."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from genjax.citation import bibtex
from genjax.config import require
from genjax.networks.base import ImageShape, check_image_shape, require_one_of
from genjax.networks.remat import check_remat, remat
from genjax.registry import register

CHILD_2021 = bibtex("""
@inproceedings{child2021very,
  title = {Very Deep {VAEs} Generalize Autoregressive Models and Can Outperform Them on Images},
  author = {Child, Rewon},
  booktitle = {International Conference on Learning Representations},
  year = {2021}
}""")


class Normal(NamedTuple):
    """Independent normal variables.

    Attributes:
        mean: [B, n, h, w, D] float32.
        log_std: [B, n, h, w, D] float32.
    """

    mean: Array
    log_std: Array


class Latent(NamedTuple):
    """The latents of n successive layers of one resolution, given those of the layers before them.

    Attributes:
        value: what was drawn, [B, n, h, w, D] float32.
        prior: the distribution p(z_i | z_<i).
        posterior: the distribution q(z_i | z_<i, x); None where there is no image.
    """

    value: Array
    prior: Normal
    posterior: Normal | None


class Hierarchy(Protocol):
    """The contract of a network with a hierarchy of latents, of which the first decides most.

    `init(key, x, noise, channels)["params"]` gives the parameters, float32, and
    `apply({"params": params}, x, noise, channels, kept=None, temperature=1.0)` the parameters of the likelihood
    [B, H, W, channels] float32 and a `Latent` a resolution, in the order in which they are drawn. `x` is
    [B, H, W, C] float32, or None to draw every latent from its prior; `noise` has one standard normal array [B, *shape]
    for each of `latent_shapes`. The first `kept` layers [] are drawn from their posterior, the others from their prior
    with its standard deviation times `temperature`; None keeps all.
    """

    def check(self, image_shape: ImageShape) -> None:
        """Raises ValueError, before anything is compiled, unless the network takes such images."""
        ...

    def latent_shapes(self) -> tuple[tuple[int, int, int, int], ...]:
        """Returns (layers, h, w, D) of the latents of every resolution, in the order in which they are drawn."""
        ...

    def init(self, rngs: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns `{"params": ...}`."""
        ...

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns the likelihood's parameters and the latents."""
        ...


@register("hierarchy", "vdvae")
class VDVAE(nn.Module):
    """Very deep VAE: bottleneck blocks up, and down with a prior, a posterior and a residual path (Child 2021, fig. 3).

    Going down, the features of a resolution begin as a learnt bias plus the nearest-neighbour enlargement of those
    before them. Blocks of one resolution run in a `scan`, so that more of them do not take longer to compile.

    Attributes:
        levels: (resolution, blocks up, blocks down) from the image's resolution to the coarsest; each divides the one
            before it.
        width: channels of the features.
        bottleneck: channels within the blocks, as a share of the width; 0.25 in the paper.
        latent_channels: channels of each layer's latents.
        dtype: compute type of the products; features and distributions are float32.
        remat: what the backward pass computes again, block by block, see `genjax.networks.remat.remat`; None for
            nothing.
        unroll: blocks in one turn of the scan. More take longer to compile, and run faster on a CPU, where XLA's
            convolutions are some five times slower in loops.
    """

    levels: tuple[tuple[int, int, int], ...]
    width: int = 384
    bottleneck: float = 0.25
    latent_channels: int = 16
    dtype: str = "float32"
    remat: str | None = None
    unroll: int = 1
    reference = CHILD_2021

    def __post_init__(self) -> None:
        """Checks the fields."""
        require(
            len(self.levels) >= 1 and all(len(level) == 3 and min(level) >= 1 for level in self.levels),
            f"levels = {self.levels}: must be (resolution, blocks up, blocks down), each at least 1",
        )
        sizes = [level[0] for level in self.levels]
        require(
            all(fine > coarse and fine % coarse == 0 for fine, coarse in zip(sizes, sizes[1:], strict=False)),
            f"levels = {self.levels}: each resolution must be a proper divisor of the one before it",
        )
        require(self.width >= 1, f"width = {self.width}: must be at least 1")
        require(
            int(self.width * self.bottleneck) >= 1 and self.bottleneck <= 1,
            f"bottleneck = {self.bottleneck}: must leave from 1 to {self.width} channels of {self.width}",
        )
        require(self.latent_channels >= 1, f"latent_channels = {self.latent_channels}: must be at least 1")
        require_one_of("dtype", self.dtype, ("float32", "bfloat16"))
        check_remat(self.remat)
        require(self.unroll >= 1, f"unroll = {self.unroll}: must be at least 1")
        super().__post_init__()

    def check(self, image_shape: ImageShape) -> None:
        """Raises ValueError unless the images are squares of the first level's resolution."""
        check_image_shape(image_shape)
        side = self.levels[0][0]
        require(
            tuple(image_shape[:2]) == (side, side),
            f"image shape {tuple(image_shape)}: the first of levels is for images of {side} x {side}",
        )

    def latent_shapes(self) -> tuple[tuple[int, int, int, int], ...]:
        """Returns (layers, h, w, D) of the latents of every resolution, the coarsest first."""
        return tuple((down, size, size, self.latent_channels) for size, _, down in reversed(self.levels))

    @nn.compact
    def __call__(
        self,
        x: Array | None,
        noise: Sequence[Array],
        channels: int,
        kept: Array | None = None,
        temperature: float = 1.0,
    ) -> tuple[Array, tuple[Latent, ...]]:
        """Draws latents and evaluates the decoder, see `Hierarchy`."""
        features = {} if x is None else self._up(x)
        # The last convolution of every residual path is scaled by the square root of their number (section 3.2).
        blocks = sum(down for _, _, down in self.levels)
        first, latents = 0, []
        h = jnp.zeros((len(noise[0]), self.levels[-1][0], self.levels[-1][0], self.width))
        for (size, _, down), draw in zip(reversed(self.levels), noise, strict=True):
            name = f"down_{size}"
            bias = self.param(f"bias_{size}", nn.initializers.zeros, (size, size, self.width))
            h = enlarge(h, size // h.shape[1]) + bias[None]
            posterior = None if kept is None else first + jnp.arange(down) < kept
            block = nn.scan(
                remat(TopDownBlock, self.remat),
                variable_axes={"params": 0},
                split_rngs={"params": True},
                in_axes=(nn.broadcast, 1, 0, nn.broadcast),
                out_axes=1,
                length=down,
                unroll=min(self.unroll, down),
            )
            body = block(self.width, self._middle, self.latent_channels, blocks, self.dtype, name=name)
            h, drawn = body(h, features.get(size), draw, posterior, temperature)
            latents.append(drawn)
            first += down
        h = h * self.param("gain", nn.initializers.ones, (self.width,))[None, None, None]
        h += self.param("bias", nn.initializers.zeros, (self.width,))[None, None, None]
        return nn.Dense(channels, dtype=jnp.float32, name="out")(h), tuple(latents)

    @property
    def _middle(self) -> int:
        return int(self.width * self.bottleneck)

    def _up(self, x: Array) -> dict[int, Array]:
        """The features of every resolution, [B, r, r, width] by r."""
        sizes = [level[0] for level in self.levels]
        blocks = sum(up for _, up, _ in self.levels) + len(sizes) - 1
        h = nn.Conv(self.width, (3, 3), dtype=self.dtype, name="in")(x).astype(jnp.float32)
        features = {}
        for (size, up, _), coarser in zip(self.levels, [*sizes[1:], None], strict=True):
            block = nn.scan(
                remat(BottomUpBlock, self.remat),
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=up,
                unroll=min(self.unroll, up),
            )
            h, _ = block(self._middle, blocks, self.dtype, name=f"up_{size}")(h)
            features[size] = h
            if coarser is not None:
                h, _ = BottomUpBlock(self._middle, blocks, self.dtype, name=f"pool_{size}")(h)
                h = nn.avg_pool(h, (size // coarser,) * 2, (size // coarser,) * 2)
        return features


class BottomUpBlock(nn.Module):
    """A bottleneck with a skip around.

    Attributes:
        middle, blocks, dtype: see `Bottleneck`.
    """

    middle: int
    blocks: int
    dtype: str

    @nn.compact
    def __call__(self, h: Array) -> tuple[Array, None]:
        """Maps [B, r, r, width] to the same, and None, as a scan wants it."""
        return h + Bottleneck(h.shape[-1], self.middle, 1 / self.blocks, self.dtype, name="residual")(h), None


class TopDownBlock(nn.Module):
    """Draws one layer's latents and adds them, and what the prior knows besides, to the features (Child 2021, fig. 3).

    Attributes:
        width: channels of the features.
        middle: channels within the bottlenecks.
        latent_channels: channels of the latents.
        blocks: how many such blocks the network has.
        dtype: compute type of the products.
    """

    width: int
    middle: int
    latent_channels: int
    blocks: int
    dtype: str

    @nn.compact
    def __call__(
        self, h: Array, features: Array | None, noise: Array, posterior: Array | None, temperature: float
    ) -> tuple[Array, Latent]:
        """Runs the block.

        Args:
            h: features coming down, [B, r, r, width] float32.
            features: those of the image, going up, of the same shape; None where there is none.
            noise: [B, r, r, D] standard normal.
            posterior: whether to draw from the posterior, bool []; None where that is known to be so.
            temperature: of draws from the prior.

        Returns:
            The features [B, r, r, width] and the layer's `Latent`, of arrays [B, r, r, D].
        """
        dims = self.latent_channels
        bottleneck = functools.partial(Bottleneck, middle=self.middle, dtype=self.dtype)
        out = bottleneck(2 * dims + self.width, scale=0.0, name="prior")(h)
        prior, more = Normal(out[..., :dims], out[..., dims : 2 * dims]), out[..., 2 * dims :]
        approximation = None
        if features is None:
            value = prior.mean + temperature * jnp.exp(prior.log_std) * noise
        else:
            out = bottleneck(2 * dims, scale=1.0, name="posterior")(jnp.concatenate([h, features], axis=-1))
            approximation = Normal(out[..., :dims], out[..., dims:])
            value = approximation.mean + jnp.exp(approximation.log_std) * noise
            if posterior is not None:
                other = prior.mean + temperature * jnp.exp(prior.log_std) * noise
                value = jnp.where(posterior, value, other)
        project = nn.Dense(self.width, dtype=self.dtype, kernel_init=uniform(1 / self.blocks), name="project")
        h = h + more + project(value).astype(jnp.float32)
        h = h + bottleneck(self.width, scale=1 / self.blocks, name="residual")(h)
        return h, Latent(value, prior, approximation)


class Bottleneck(nn.Module):
    """GELU and a convolution, four times: 1x1, 3x3, 3x3 and 1x1; all 1x1 where the features are 2x2 or smaller.

    Attributes:
        features: channels of the output.
        middle: channels of the inner convolutions.
        scale: factor of the variance of the last convolution's first weights.
        dtype: compute type of the products.
    """

    features: int
    middle: int
    scale: float
    dtype: str

    @nn.compact
    def __call__(self, h: Array) -> Array:
        """Maps [B, r, r, channels] to [B, r, r, features] float32."""
        side = 3 if h.shape[1] > 2 else 1
        last = nn.initializers.zeros if self.scale == 0 else uniform(self.scale)
        layers = [(self.middle, 1), (self.middle, side), (self.middle, side), (self.features, 1)]
        for i, (features, size) in enumerate(layers):
            options: Any = dict(dtype=self.dtype, kernel_init=last if i == 3 else uniform(1.0), name=f"conv_{i}")
            # A convolution of 1 x 1 is a product, and on a CPU faster as one.
            conv = nn.Dense(features, **options) if size == 1 else nn.Conv(features, (size, size), **options)
            h = conv(jax.nn.gelu(h.astype(self.dtype), approximate=False))
        return h.astype(jnp.float32)


def uniform(scale: float) -> Any:
    """Returns the initializer U(-a, a) with a^2 = scale / fan-in, with which the paper's code was published."""
    return nn.initializers.variance_scaling(scale / 3.0, "fan_in", "uniform")


def enlarge(h: Array, factor: int) -> Array:
    """Maps [B, r, r, C] to [B, factor r, factor r, C], each value repeated."""
    return h.repeat(factor, axis=1).repeat(factor, axis=2)
