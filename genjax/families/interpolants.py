"""Stochastic interpolants: x_t = alpha(t) x_0 + beta(t) x_1 + gamma(t) z between data and whatever lies at t = 1.

alpha falls from 1 to 0, beta rises from 0 to 1, gamma is 0 at both ends. In the paper x_1 is what is generated; here it
is x_0. The functions compute in the namespace of their argument.
"""

import dataclasses
from typing import Any, ClassVar, Protocol

import numpy as np

from genjax.citation import bibtex
from genjax.config import require
from genjax.processes.base import namespace
from genjax.registry import register

ALBERGO_2023 = bibtex(
    """
    @article{albergo2023stochastic,
      title = {Stochastic Interpolants: A Unifying Framework for Flows and Diffusions},
      author = {Albergo, Michael S. and Boffi, Nicholas M. and Vanden-Eijnden, Eric},
      journal = {arXiv preprint arXiv:2303.08797},
      year = {2023}
    }
    """
)

_EDGE = 1e-4  # the slope of a square root has no bound at its zero; within this distance of it the slope is held


class Interpolant(Protocol):
    """The three coefficients and their slopes, of the shape of t."""

    def alpha(self, t: Any) -> Any:
        """Returns the share of x_0."""
        ...

    def beta(self, t: Any) -> Any:
        """Returns the share of x_1."""
        ...

    def gamma(self, t: Any) -> Any:
        """Returns the standard deviation of the noise on the way."""
        ...

    def d_alpha(self, t: Any) -> Any:
        """Returns d alpha / d t."""
        ...

    def d_beta(self, t: Any) -> Any:
        """Returns d beta / d t."""
        ...

    def d_gamma(self, t: Any) -> Any:
        """Returns d gamma / d t, finite everywhere."""
        ...


@dataclasses.dataclass(frozen=True)
class _Bridged:
    """gamma = sqrt(noise t (1 - t)), that of a Brownian bridge.

    Attributes:
        noise: variance of the noise on the way, in units of t (1 - t); 0 for none.
    """

    noise: float = 2.0
    reference: ClassVar[str] = ALBERGO_2023

    def __post_init__(self) -> None:
        require(self.noise >= 0, f"noise = {self.noise}: must be at least 0")

    def gamma(self, t: Any) -> Any:
        """Returns sqrt(noise t (1 - t))."""
        xp = namespace(t)
        return xp.sqrt(self.noise * xp.maximum(t * (1.0 - t), 0.0))

    def d_gamma(self, t: Any) -> Any:
        """Returns sqrt(noise) (1 - 2 t) / (2 sqrt(t (1 - t))), held close to both ends."""
        t = namespace(t).clip(t, _EDGE, 1.0 - _EDGE)
        return np.sqrt(self.noise) * (0.5 - t) / namespace(t).sqrt(t * (1.0 - t))


@register("interpolant", "linear")
@dataclasses.dataclass(frozen=True)
class LinearInterpolant(_Bridged):
    """The straight line, with noise on the way (Albergo et al. 2023)."""

    def alpha(self, t: Any) -> Any:
        """Returns 1 - t."""
        return 1.0 - t

    def beta(self, t: Any) -> Any:
        """Returns t."""
        return t

    def d_alpha(self, t: Any) -> Any:
        """Returns -1."""
        return -namespace(t).ones_like(t)

    def d_beta(self, t: Any) -> Any:
        """Returns 1."""
        return namespace(t).ones_like(t)


@register("interpolant", "trigonometric")
@dataclasses.dataclass(frozen=True)
class TrigonometricInterpolant(_Bridged):
    """The quarter of a circle, which keeps variances, with noise on the way (Albergo et al. 2023)."""

    def alpha(self, t: Any) -> Any:
        """Returns cos(pi t / 2), as a sine so that it is 0 at t = 1."""
        return namespace(t).sin(0.5 * np.pi * (1.0 - t))

    def beta(self, t: Any) -> Any:
        """Returns sin(pi t / 2)."""
        return namespace(t).sin(0.5 * np.pi * t)

    def d_alpha(self, t: Any) -> Any:
        """Returns -pi/2 sin(pi t / 2)."""
        return -0.5 * np.pi * self.beta(t)

    def d_beta(self, t: Any) -> Any:
        """Returns pi/2 cos(pi t / 2)."""
        return 0.5 * np.pi * self.alpha(t)


@register("interpolant", "encoding_decoding")
@dataclasses.dataclass(frozen=True)
class EncodingDecoding:
    """From x_0 to pure noise at t = 1/2, and from there to x_1 (Albergo et al. 2023): two diffusions in one.

    alpha or beta is cos^2(pi t), the other 0; gamma is sin^2(pi t).
    """

    reference: ClassVar[str] = ALBERGO_2023

    def alpha(self, t: Any) -> Any:
        """Returns cos^2(pi t) before t = 1/2, then 0."""
        return namespace(t).where(t < 0.5, namespace(t).cos(np.pi * t) ** 2, 0.0)

    def beta(self, t: Any) -> Any:
        """Returns 0 before t = 1/2, then cos^2(pi t)."""
        return self.alpha(1.0 - t)

    def gamma(self, t: Any) -> Any:
        """Returns sin^2(pi t)."""
        return namespace(t).sin(np.pi * t) ** 2

    def d_alpha(self, t: Any) -> Any:
        """Returns -pi sin(2 pi t) before t = 1/2, then 0."""
        return namespace(t).where(t < 0.5, -np.pi * namespace(t).sin(2.0 * np.pi * t), 0.0)

    def d_beta(self, t: Any) -> Any:
        """Returns 0 before t = 1/2, then -pi sin(2 pi t)."""
        return -self.d_alpha(1.0 - t)

    def d_gamma(self, t: Any) -> Any:
        """Returns pi sin(2 pi t)."""
        return np.pi * namespace(t).sin(2.0 * np.pi * t)
