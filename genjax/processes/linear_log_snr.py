"""The variance-preserving process whose log-SNR is linear in time."""

import dataclasses
from typing import Any

from genjax.citation import bibtex
from genjax.config import require
from genjax.processes.base import GaussianPrior, clip_time, exp, namespace, softplus
from genjax.registry import register

KINGMA_2021 = bibtex(
    """
    @inproceedings{kingma2021variational,
      title = {Variational Diffusion Models},
      author = {Kingma, Diederik P. and Salimans, Tim and Poole, Ben and Ho, Jonathan},
      booktitle = {Advances in Neural Information Processing Systems},
      year = {2021}
    }
    """
)


@register("process", "linear_log_snr", reference=KINGMA_2021)
@dataclasses.dataclass(frozen=True)
class LinearLogSNR(GaussianPrior):
    """Log-SNR falls in a line from t = 0 to t = 1, with alpha^2 + sigma^2 = 1 (Kingma et al. 2021, eq. 3-4).

    It has noise at t = 0 and signal at t = 1. The defaults are the ends that the paper's schedule for CIFAR-10 has.

    Attributes:
        log_snr_max: log(alpha^2 / sigma^2) at t = 0.
        log_snr_min: at t = 1.
    """

    log_snr_max: float = 13.3
    log_snr_min: float = -5.0

    def __post_init__(self) -> None:
        require(
            self.log_snr_min < self.log_snr_max,
            f"log_snr_min = {self.log_snr_min}, log_snr_max = {self.log_snr_max}: the first must be below the second",
        )

    def alpha(self, t: Any) -> Any:
        """Returns 1 / sqrt(1 + 1 / SNR)."""
        return exp(-0.5 * softplus(-self.log_snr(t)))

    def sigma(self, t: Any) -> Any:
        """Returns 1 / sqrt(1 + SNR)."""
        return exp(-0.5 * softplus(self.log_snr(t)))

    def log_snr(self, t: Any) -> Any:
        """Returns log_snr_max + t (log_snr_min - log_snr_max)."""
        return self.log_snr_max + t * (self.log_snr_min - self.log_snr_max)

    def time_of_log_snr(self, log_snr: Any) -> Any:
        """Returns the time of a log-SNR, clipped to [0, 1]."""
        return clip_time((self.log_snr_max - log_snr) / (self.log_snr_max - self.log_snr_min))

    def d_alpha(self, t: Any) -> Any:
        """Returns alpha sigma^2 / 2 times the slope of log-SNR."""
        return 0.5 * self.alpha(t) * self.sigma(t) ** 2 * self._slope(t)

    def d_sigma(self, t: Any) -> Any:
        """Returns -sigma alpha^2 / 2 times the slope of log-SNR."""
        return -0.5 * self.sigma(t) * self.alpha(t) ** 2 * self._slope(t)

    def _slope(self, t: Any) -> Any:
        return (self.log_snr_min - self.log_snr_max) * namespace(t).ones_like(t)
