r"""Score matching: how far a function is from the score of the data, without knowing the score.

The Fisher divergence 1/2 E|s(x) - grad log p(x)|^2 is, up to what does not depend on s,

    E[tr(grad s(x)) + 1/2 |s(x)|^2]     (Hyvarinen 2005, theorem 1),

of which the sliced objectives estimate the trace, or both terms, by random projections; and for noisy data it is the
mean of 1/2 |s(x_t) - grad log p(x_t | x_0)|^2 (Vincent 2011, eq. 9), which needs no derivative. All of them are given
here for the network's output o = c s, c being sigma or 1, times 2 c^2 and as a mean over pixels: the mean square error
of o up to a constant. So they are finite where sigma is 0, and one weighting means the same for all.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from genjax.citation import bibtex
from genjax.config import nearest, require
from genjax.families.base import Keys
from genjax.registry import register

HYVARINEN_2005 = bibtex(
    """
    @article{hyvarinen2005estimation,
      title = {Estimation of Non-Normalized Statistical Models by Score Matching},
      author = {Hyv{\\"a}rinen, Aapo},
      journal = {Journal of Machine Learning Research},
      volume = {6},
      year = {2005}
    }
    """
)
VINCENT_2011 = bibtex(
    """
    @article{vincent2011connection,
      title = {A Connection Between Score Matching and Denoising Autoencoders},
      author = {Vincent, Pascal},
      journal = {Neural Computation},
      volume = {23},
      number = {7},
      year = {2011}
    }
    """
)
SONG_2019_SLICED = bibtex(
    """
    @inproceedings{song2019sliced,
      title = {Sliced Score Matching: A Scalable Approach to Density and Score Estimation},
      author = {Song, Yang and Garg, Sahaj and Shi, Jiaxin and Ermon, Stefano},
      booktitle = {Conference on Uncertainty in Artificial Intelligence},
      year = {2019}
    }
    """
)

_PROJECTIONS = {"rademacher": jax.random.rademacher, "normal": jax.random.normal}


class ScoreMatching(Protocol):
    """An objective whose minimum over functions is the score."""

    def check(self, image_shape: tuple[int, ...], noisy: bool) -> None:
        """Raises ValueError where it cannot be used: for the size of the images, or for data without noise."""
        ...

    def __call__(self, output: Callable[[Array], Array], x_t: Array, target: Array, scale: Array, keys: Keys) -> Array:
        """Returns the objective of each example [B], whose mean is that of |o - c score|^2 / D up to a constant.

        Args:
            output: from x_t [B, H, W, C] to o, each example by itself.
            x_t: where the score is wanted.
            target: c times the score of x_t given x_0.
            scale: c [B].
            keys: for projections.
        """
        ...


@register("score_matching", "denoising")
@dataclasses.dataclass(frozen=True)
class DenoisingScoreMatching:
    """|s(x_t) + eps / sigma|^2: the score of noisy data alone, at the cost of one evaluation (Vincent 2011, eq. 9)."""

    reference: ClassVar[str] = VINCENT_2011

    def check(self, image_shape: tuple[int, ...], noisy: bool) -> None:
        """Raises ValueError for data without noise."""
        require(noisy, "matching = denoising: needs noise, and there is none at time_sampler.t")

    def __call__(self, output: Callable[[Array], Array], x_t: Array, target: Array, scale: Array, keys: Keys) -> Array:
        """Returns the objective of each example [B]."""
        return _mean((output(x_t) - target) ** 2)


@register("score_matching", "implicit")
@dataclasses.dataclass(frozen=True)
class ImplicitScoreMatching:
    """tr(grad s) + 1/2 |s|^2 with the exact trace (Hyvarinen 2005, theorem 1): as many derivatives as dimensions.

    Attributes:
        limit: number of dimensions that it does not go beyond.
    """

    limit: int = 64
    reference: ClassVar[str] = HYVARINEN_2005

    def __post_init__(self) -> None:
        require(self.limit >= 1, f"limit = {self.limit}: must be at least 1")

    def check(self, image_shape: tuple[int, ...], noisy: bool) -> None:
        """Raises ValueError beyond the limit."""
        dimensions = math.prod(image_shape)
        require(
            dimensions <= self.limit,
            f"matching = implicit: takes a derivative for each of {dimensions} dimensions, and its limit is "
            f"{self.limit}; take denoising or sliced, or raise the limit",
        )

    def __call__(self, output: Callable[[Array], Array], x_t: Array, target: Array, scale: Array, keys: Keys) -> Array:
        """Returns the objective of each example [B]."""
        n, d = len(x_t), x_t[0].size
        axes = jnp.broadcast_to(jnp.eye(d, dtype=x_t.dtype)[:, None], (d, n, d)).reshape(d, *x_t.shape)
        found, along = _derivatives(output, x_t, axes)
        trace = _mean(jnp.sum(axes * along, 0))
        return 2.0 * scale * trace + _mean(found**2)


@register("score_matching", "sliced")
@dataclasses.dataclass(frozen=True)
class SlicedScoreMatching:
    """v' grad(s) v + 1/2 (v' s)^2 for random v of unit covariance (SSM; Song, Garg et al. 2019), a derivative each.

    Attributes:
        variance_reduction: whether 1/2 |s|^2, the mean of 1/2 (v' s)^2, takes its place (SSM-VR).
        projection: "rademacher" or "normal".
        projections: how many v an example.
    """

    variance_reduction: bool = True
    projection: str = "rademacher"
    projections: int = 1
    reference: ClassVar[str] = SONG_2019_SLICED

    def __post_init__(self) -> None:
        require(
            self.projection in _PROJECTIONS, f"projection = {self.projection!r}{nearest(self.projection, _PROJECTIONS)}"
        )
        require(self.projections >= 1, f"projections = {self.projections}: must be at least 1")

    def check(self, image_shape: tuple[int, ...], noisy: bool) -> None:
        """Raises nothing: it is for any size, with noise or without."""

    def __call__(self, output: Callable[[Array], Array], x_t: Array, target: Array, scale: Array, keys: Keys) -> Array:
        """Returns the objective of each example [B]."""
        draw = _PROJECTIONS[self.projection]
        shape = (self.projections, *x_t.shape[1:])
        v = jax.vmap(lambda key: draw(key, shape, x_t.dtype), out_axes=1)(keys.each)
        found, along = _derivatives(output, x_t, v)
        slopes = jax.vmap(_mean)(v * along).mean(0)
        if self.variance_reduction:
            return 2.0 * scale * slopes + _mean(found**2)
        # (v' o)^2 / D, since the means are over D.
        lengths = x_t[0].size * jax.vmap(lambda v: _mean(v * found))(v) ** 2
        return 2.0 * scale * slopes + lengths.mean(0)


def _derivatives(function: Callable[[Array], Array], x: Array, directions: Array) -> tuple[Array, Array]:
    """Returns the value at x [B, ...] and its derivatives along directions [n, B, ...]."""
    return jax.vmap(lambda v: jax.jvp(function, (x,), (v,)), out_axes=(None, 0))(directions)


def _mean(x: Array) -> Array:
    """The mean over all axes but the first."""
    return x.reshape(len(x), -1).mean(1)
