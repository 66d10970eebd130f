"""Variance-exploding processes: alpha = 1."""

import dataclasses
from typing import Any, ClassVar

import numpy as np

from genjax.citation import bibtex
from genjax.config import require
from genjax.processes.base import VarianceExploding, clip_time, exp
from genjax.processes.variance_preserving import SONG_2021
from genjax.registry import register

KARRAS_2022 = bibtex(
    """
    @inproceedings{karras2022elucidating,
      title = {Elucidating the Design Space of Diffusion-Based Generative Models},
      author = {Karras, Tero and Aittala, Miika and Aila, Timo and Laine, Samuli},
      booktitle = {Advances in Neural Information Processing Systems},
      year = {2022}
    }
    """
)


def _check(sigma_min: float, sigma_max: float) -> None:
    require(
        0 < sigma_min < sigma_max,
        f"sigma_min = {sigma_min}, sigma_max = {sigma_max}: must be 0 < sigma_min < sigma_max",
    )


@register("process", "ve")
@dataclasses.dataclass(frozen=True)
class VE(VarianceExploding):
    """Variance-exploding SDE: sigma(t) = sigma_min (sigma_max / sigma_min)^t (Song et al. 2021b, eq. 30-31)."""

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    reference: ClassVar[str] = SONG_2021

    def __post_init__(self) -> None:
        _check(self.sigma_min, self.sigma_max)

    @property
    def _log_ratio(self) -> float:
        return float(np.log(self.sigma_max / self.sigma_min))

    def sigma(self, t: Any) -> Any:
        """Returns the standard deviation of the noise."""
        return self.sigma_min * exp(t * self._log_ratio)

    def time_of_log_snr(self, log_snr: Any) -> Any:
        """Returns the time of a log-SNR, clipped to [0, 1]."""
        return clip_time((-0.5 * log_snr - float(np.log(self.sigma_min))) / self._log_ratio)

    def d_sigma(self, t: Any) -> Any:
        """Returns sigma(t) log(sigma_max / sigma_min)."""
        return self.sigma(t) * self._log_ratio


@register("process", "edm")
@dataclasses.dataclass(frozen=True)
class EDM(VarianceExploding):
    """EDM's noise levels: sigma(t)^(1/rho) is linear in t (Karras et al. 2022, eq. 5).

    So a uniform time grid is their grid.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    reference: ClassVar[str] = KARRAS_2022

    def __post_init__(self) -> None:
        _check(self.sigma_min, self.sigma_max)
        require(self.rho > 0, f"rho = {self.rho}: must be positive")

    @property
    def _roots(self) -> tuple[float, float]:
        return self.sigma_min ** (1.0 / self.rho), self.sigma_max ** (1.0 / self.rho)

    def sigma(self, t: Any) -> Any:
        """Returns the standard deviation of the noise."""
        low, high = self._roots
        return (low + t * (high - low)) ** self.rho

    def time_of_log_snr(self, log_snr: Any) -> Any:
        """Returns the time of a log-SNR, clipped to [0, 1]."""
        low, high = self._roots
        return clip_time((exp(-0.5 / self.rho * log_snr) - low) / (high - low))

    def d_sigma(self, t: Any) -> Any:
        """Returns d sigma / d t."""
        low, high = self._roots
        return self.rho * (high - low) * (low + t * (high - low)) ** (self.rho - 1.0)
