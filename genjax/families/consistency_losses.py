"""What a consistency loss is made of: the distance of two estimates of one image, and its weight."""

import dataclasses
from typing import ClassVar, Protocol

import jax.numpy as jnp
from jax import Array

from genjax.config import require
from genjax.families.discretizations import GENG_2025, SONG_2024
from genjax.processes import Process
from genjax.registry import register


class Distance(Protocol):
    """How far two images are from each other."""

    def __call__(self, difference: Array) -> Array:
        """Returns the distance [B] of images that differ by `difference` [B, ...]."""
        ...


def _axes(x: Array) -> tuple[int, ...]:
    return tuple(range(1, x.ndim))


@register("distance", "l2", reference="song2023consistency")
@dataclasses.dataclass(frozen=True)
class L2:
    """The mean square."""

    def __call__(self, difference: Array) -> Array:
        """Returns the distance [B]."""
        return jnp.mean(difference**2, axis=_axes(difference))


@register("distance", "l1", reference="song2023consistency")
@dataclasses.dataclass(frozen=True)
class L1:
    """The mean absolute value."""

    def __call__(self, difference: Array) -> Array:
        """Returns the distance [B]."""
        return jnp.mean(jnp.abs(difference), axis=_axes(difference))


@register("distance", "pseudo_huber")
@dataclasses.dataclass(frozen=True)
class PseudoHuber:
    """sqrt(|x - y|^2 + c^2) - c: square for the near, absolute for the far (Song & Dhariwal 2024, sec. 3.3).

    Its gradient is that of the square divided by sqrt(|x - y|^2 + c^2): the adaptive weighting of Geng et al. 2025.

    Attributes:
        c: where one becomes the other; None for 0.00054 sqrt(d) with d numbers in an image, the paper's, which is
            0.03 for 32x32x3. Geng et al. have 0 for CIFAR-10: take a tiny one, for at 0 it has no gradient.
    """

    c: float | None = None
    reference: ClassVar[str] = SONG_2024

    def __post_init__(self) -> None:
        require(self.c is None or self.c > 0, f"c = {self.c}: must be positive, or None")

    def constant(self, dimensions: int) -> float:
        """Returns c for images of so many numbers."""
        return 0.00054 * float(dimensions) ** 0.5 if self.c is None else self.c

    def __call__(self, difference: Array) -> Array:
        """Returns the distance [B]."""
        c = self.constant(difference[0].size)
        square = jnp.sum(difference**2, axis=_axes(difference))
        return square / (jnp.sqrt(square + c**2) + c)  # the same, without the difference of nearly equal numbers


class ConsistencyWeighting(Protocol):
    """The weight of each pair of times."""

    def __call__(self, t: Array, s: Array, process: Process) -> Array:
        """Returns the weight [B] of the distance between the estimates at times t and s < t, both [B]."""
        ...


def _noise(t: Array, process: Process) -> Array:
    return jnp.exp(-0.5 * process.log_snr(t))


@register("consistency_weighting", "constant", reference="song2023consistency")
@dataclasses.dataclass(frozen=True)
class Constant:
    """1 everywhere."""

    def __call__(self, t: Array, s: Array, process: Process) -> Array:
        """Returns 1."""
        return jnp.ones_like(t)


@register("consistency_weighting", "inverse_gap")
@dataclasses.dataclass(frozen=True)
class InverseGap:
    """1 / (sigma_t - sigma_s), of sigma / alpha (Song & Dhariwal 2024, sec. 3.1)."""

    reference: ClassVar[str] = SONG_2024

    def __call__(self, t: Array, s: Array, process: Process) -> Array:
        """Returns the weight [B]; at most 1e6."""
        return 1.0 / jnp.maximum(_noise(t, process) - _noise(s, process), 1e-6)


@register("consistency_weighting", "inverse_variance")
@dataclasses.dataclass(frozen=True)
class InverseVariance:
    """1 / sigma_t^2 + 1 / sigma_data^2, of sigma / alpha (Geng et al. 2025, sec. 3.3)."""

    sigma_data: float = 0.5
    reference: ClassVar[str] = GENG_2025

    def __post_init__(self) -> None:
        require(self.sigma_data > 0, f"sigma_data = {self.sigma_data}: must be positive")

    def __call__(self, t: Array, s: Array, process: Process) -> Array:
        """Returns the weight [B]."""
        return jnp.exp(process.log_snr(t)) + 1.0 / self.sigma_data**2
