"""The circular path of continuous-time consistency models."""

import dataclasses
from typing import Any, ClassVar

import numpy as np

from genjax.citation import bibtex
from genjax.config import require
from genjax.processes.base import GaussianPrior, exp, log, namespace
from genjax.registry import register

LU_2025 = bibtex(
    """
    @inproceedings{lu2025simplifying,
      title = {Simplifying, Stabilizing and Scaling Continuous-Time Consistency Models},
      author = {Lu, Cheng and Song, Yang},
      booktitle = {International Conference on Learning Representations},
      year = {2025}
    }
    """
)


@register("process", "trigflow")
@dataclasses.dataclass(frozen=True)
class TrigFlow(GaussianPrior):
    """TrigFlow: x_t = cos(a) x_0 + sin(a) sigma_data eps, at the angle a = t arctan(sigma_max / sigma_data).

    Lu & Song 2025, sec. 3, whose time is the angle and whose z is sigma_data eps. For data of standard deviation
    sigma_data the variance is the same at all times. The last angle is that of the noise level sigma_max, where the
    paper's sampling begins, so that t = 1 is noise here too; infinity makes it the right angle.
    """

    sigma_data: float = 0.5
    sigma_max: float = 80.0
    reference: ClassVar[str] = LU_2025

    def __post_init__(self) -> None:
        require(self.sigma_data > 0, f"sigma_data = {self.sigma_data}: must be positive")
        require(self.sigma_max > 0, f"sigma_max = {self.sigma_max}: must be positive")

    @property
    def last_angle(self) -> float:
        """The angle at t = 1, in radians."""
        return float(np.arctan2(self.sigma_max, self.sigma_data))

    def alpha(self, t: Any) -> Any:
        """Returns cos(a), as the sine of what is left to the right angle, which does not cancel near it."""
        rest = float(np.arctan2(self.sigma_data, self.sigma_max))
        return namespace(t).sin(0.5 * np.pi * (1.0 - t) + rest * t)

    def sigma(self, t: Any) -> Any:
        """Returns sigma_data sin(a)."""
        return self.sigma_data * namespace(t).sin(self.last_angle * t)

    def log_snr(self, t: Any) -> Any:
        """Returns -2 log(sigma_data tan(a))."""
        return 2.0 * (log(self.alpha(t)) - log(self.sigma(t)))

    def time_of_log_snr(self, log_snr: Any) -> Any:
        """Returns the time of a log-SNR, clipped to [0, 1]."""
        xp = namespace(log_snr)
        return xp.minimum(xp.arctan(exp(-0.5 * log_snr) / self.sigma_data) / self.last_angle, 1.0)

    def d_alpha(self, t: Any) -> Any:
        """Returns -a' sin(a)."""
        return -self.last_angle / self.sigma_data * self.sigma(t)

    def d_sigma(self, t: Any) -> Any:
        """Returns a' sigma_data cos(a)."""
        return self.last_angle * self.sigma_data * self.alpha(t)
