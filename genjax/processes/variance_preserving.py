"""Variance-preserving processes in continuous time, and the sub-VP process."""

import dataclasses
from typing import Any, ClassVar

import numpy as np

from genjax.citation import bibtex
from genjax.config import require
from genjax.processes.base import GaussianPrior, clip_time, exp, log, log_expm1, namespace, softplus
from genjax.registry import register

SONG_2021 = bibtex(
    """
    @inproceedings{song2021scorebased,
      title = {Score-Based Generative Modeling through Stochastic Differential Equations},
      author = {Song, Yang and Sohl-Dickstein, Jascha and Kingma, Diederik P. and Kumar, Abhishek and Ermon, Stefano and
                Poole, Ben},
      booktitle = {International Conference on Learning Representations},
      year = {2021}
    }
    """
)
NICHOL_2021 = bibtex(
    """
    @inproceedings{nichol2021improved,
      title = {Improved Denoising Diffusion Probabilistic Models},
      author = {Nichol, Alexander Quinn and Dhariwal, Prafulla},
      booktitle = {International Conference on Machine Learning},
      year = {2021}
    }
    """
)

# sigma(t) of the linear rates goes as sqrt(t), so its slope at t = 0 is infinite. Below this time the slope is held.
_SMALLEST_TIME = 1e-5


class _LinearRate:
    """The integral of beta(t) = beta_min + t (beta_max - beta_min), its slope and its inverse."""

    beta_min: float
    beta_max: float

    def __post_init__(self) -> None:
        require(
            0 < self.beta_min <= self.beta_max,
            f"beta_min = {self.beta_min}, beta_max = {self.beta_max}: must be 0 < beta_min <= beta_max",
        )

    def _rate(self, t: Any) -> Any:
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def _integral(self, t: Any) -> Any:
        return t * (self.beta_min + 0.5 * t * (self.beta_max - self.beta_min))

    def _time(self, integral: Any) -> Any:
        # The root of the quadratic in the form that does not cancel; it also covers beta_min = beta_max.
        xp = namespace(integral)
        integral = xp.minimum(integral, self._integral(1.0))
        root = xp.sqrt(self.beta_min**2 + 2.0 * (self.beta_max - self.beta_min) * integral)
        return clip_time(2.0 * integral / (self.beta_min + root))


@register("process", "linear_vp")
@dataclasses.dataclass(frozen=True)
class LinearVP(_LinearRate, GaussianPrior):
    """Variance-preserving SDE with a linear rate, in continuous time (Song et al. 2021b, eq. 32-33)."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    reference: ClassVar[str] = SONG_2021

    def alpha(self, t: Any) -> Any:
        """Returns exp(-B/2)."""
        return exp(-0.5 * self._integral(t))

    def sigma(self, t: Any) -> Any:
        """Returns sqrt(1 - exp(-B))."""
        xp = namespace(t)
        return xp.sqrt(-xp.expm1(-self._integral(t)))

    def log_snr(self, t: Any) -> Any:
        """Returns -log(exp(B) - 1), where B is the integral of the rate."""
        return -log_expm1(self._integral(t))

    def time_of_log_snr(self, log_snr: Any) -> Any:
        """Returns the time of a log-SNR, clipped to [0, 1]."""
        return self._time(softplus(-log_snr))

    def d_alpha(self, t: Any) -> Any:
        """Returns -beta(t) alpha(t) / 2."""
        return -0.5 * self._rate(t) * self.alpha(t)

    def d_sigma(self, t: Any) -> Any:
        """Returns beta(t) alpha(t)^2 / (2 sigma(t)), held below t = 1e-5, since it grows without bound."""
        t = namespace(t).maximum(t, _SMALLEST_TIME)
        return 0.5 * self._rate(t) * self.alpha(t) ** 2 / self.sigma(t)


@register("process", "sub_vp")
@dataclasses.dataclass(frozen=True)
class SubVP(_LinearRate, GaussianPrior):
    """Sub-VP SDE: sigma = 1 - alpha^2, less noise than VP at the same alpha (Song et al. 2021b, eq. 29, 34)."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    reference: ClassVar[str] = SONG_2021

    def alpha(self, t: Any) -> Any:
        """Returns exp(-B/2)."""
        return exp(-0.5 * self._integral(t))

    def sigma(self, t: Any) -> Any:
        """Returns 1 - exp(-B)."""
        return -namespace(t).expm1(-self._integral(t))

    def log_snr(self, t: Any) -> Any:
        """Returns -B - 2 log(1 - exp(-B))."""
        return -self._integral(t) - 2.0 * log(self.sigma(t))

    def time_of_log_snr(self, log_snr: Any) -> Any:
        """Returns the time of a log-SNR, clipped to [0, 1]; sigma/alpha = 2 sinh(B/2)."""
        return self._time(2.0 * namespace(log_snr).arcsinh(0.5 * exp(-0.5 * log_snr)))

    def d_alpha(self, t: Any) -> Any:
        """Returns -beta(t) alpha(t) / 2."""
        return -0.5 * self._rate(t) * self.alpha(t)

    def d_sigma(self, t: Any) -> Any:
        """Returns beta(t) exp(-B)."""
        return self._rate(t) * self.alpha(t) ** 2


@register("process", "cosine_vp")
@dataclasses.dataclass(frozen=True)
class CosineVP(GaussianPrior):
    """Cosine schedule in continuous time: alpha = cos(pi t / 2) (Nichol & Dhariwal 2021, eq. 17 with s = 0).

    Both ends are exact: no noise at t = 0, no signal at t = 1. The published offset s exists to bound the betas of a
    discrete chain; for that chain see `discrete_vp` with schedule "cosine".
    """

    reference: ClassVar[str] = NICHOL_2021

    def alpha(self, t: Any) -> Any:
        """Returns cos(pi t / 2), as a sine so that it is 0 and not -4e-8 at t = 1 in float32."""
        return namespace(t).sin(0.5 * np.pi * (1.0 - t))

    def sigma(self, t: Any) -> Any:
        """Returns sin(pi t / 2)."""
        return namespace(t).sin(0.5 * np.pi * t)

    def log_snr(self, t: Any) -> Any:
        """Returns -2 log tan(pi t / 2)."""
        return 2.0 * (log(self.alpha(t)) - log(self.sigma(t)))

    def time_of_log_snr(self, log_snr: Any) -> Any:
        """Returns the time of a log-SNR."""
        return 2.0 / np.pi * namespace(log_snr).arctan(exp(-0.5 * log_snr))

    def d_alpha(self, t: Any) -> Any:
        """Returns -pi/2 sin(pi t / 2)."""
        return -0.5 * np.pi * self.sigma(t)

    def d_sigma(self, t: Any) -> Any:
        """Returns pi/2 cos(pi t / 2)."""
        return 0.5 * np.pi * self.alpha(t)
