"""The discrete chains of DDPM and its descendants, as processes in continuous time."""

import dataclasses
import functools
from typing import Any, ClassVar

import numpy as np

from genjax.citation import bibtex
from genjax.config import nearest, require
from genjax.processes.base import GaussianPrior, exp, log, namespace, softplus
from genjax.registry import register

HO_2020 = bibtex(
    """
    @inproceedings{ho2020denoising,
      title = {Denoising Diffusion Probabilistic Models},
      author = {Ho, Jonathan and Jain, Ajay and Abbeel, Pieter},
      booktitle = {Advances in Neural Information Processing Systems},
      year = {2020}
    }
    """
)
LIN_2024 = bibtex(
    """
    @inproceedings{lin2024common,
      title = {Common Diffusion Noise Schedules and Sample Steps are Flawed},
      author = {Lin, Shanchuan and Liu, Bingchen and Li, Jiashi and Yang, Xiao},
      booktitle = {IEEE/CVF Winter Conference on Applications of Computer Vision},
      year = {2024}
    }
    """
)


def _linear(n: int, start: float, end: float) -> np.ndarray:
    return np.linspace(start, end, n)


def _scaled_linear(n: int, start: float, end: float) -> np.ndarray:
    return np.linspace(start**0.5, end**0.5, n) ** 2


def _cosine(n: int, start: float, end: float) -> np.ndarray:
    # Nichol & Dhariwal 2021, eq. 17 with s = 0.008; the betas are clipped at 0.999.
    angle = (np.arange(n + 1) / n + 0.008) / 1.008 * np.pi / 2
    alpha_bar = np.cos(angle) ** 2
    return np.minimum(1.0 - alpha_bar[1:] / alpha_bar[:-1], 0.999)


def _sigmoid(n: int, start: float, end: float) -> np.ndarray:
    return start + (end - start) / (1.0 + np.exp(-np.linspace(-6.0, 6.0, n)))


_SCHEDULES = {"linear": _linear, "scaled_linear": _scaled_linear, "cosine": _cosine, "sigmoid": _sigmoid}


@register("process", "discrete_vp")
@dataclasses.dataclass(frozen=True)
class DiscreteVP(GaussianPrior):
    """A variance-preserving chain of betas, interpolated in log-SNR to continuous time (Ho et al. 2020).

    Step i = 0 ... T - 1 of the chain stands at t = (i + 1) / T, and between two steps log-SNR is linear. Before the
    first step, where log-SNR is infinite at t = 0, sigma is linear in t; after the last but one step of a chain with
    zero terminal SNR, where log-SNR is minus infinity at t = 1, alpha is linear in t.

    Attributes:
        schedule: "linear", "scaled_linear" (latent diffusion), "cosine" (which has no start and end) or "sigmoid".
        timesteps: T, the number of steps of the chain.
        beta_start: first beta.
        beta_end: last beta.
        zero_terminal_snr: whether sqrt(alpha_bar) is shifted and scaled to end at zero (Lin et al. 2024, algorithm 1).
    """

    schedule: str = "linear"
    timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    zero_terminal_snr: bool = False
    reference: ClassVar[str] = HO_2020

    def __post_init__(self) -> None:
        require(self.schedule in _SCHEDULES, f"schedule = {self.schedule!r}{nearest(self.schedule, _SCHEDULES)}")
        require(self.timesteps >= 3, f"timesteps = {self.timesteps}: must be at least 3")
        require(
            0 < self.beta_start <= self.beta_end < 1,
            f"beta_start = {self.beta_start}, beta_end = {self.beta_end}: must be 0 < beta_start <= beta_end < 1",
        )

    @functools.cached_property
    def alpha_bar(self) -> np.ndarray:
        """The cumulative products of 1 - beta, float64 [T]."""
        betas = _SCHEDULES[self.schedule](self.timesteps, self.beta_start, self.beta_end)
        alpha_bar = np.cumprod(1.0 - betas)
        if self.zero_terminal_snr:
            root = np.sqrt(alpha_bar)
            alpha_bar = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
        return alpha_bar

    @functools.cached_property
    def _nodes(self) -> tuple[np.ndarray, np.ndarray]:
        """Times and log-SNR of the steps of the chain, without a last one of zero SNR."""
        alpha_bar = self.alpha_bar[: self.timesteps - self.zero_terminal_snr]
        return np.arange(1, len(alpha_bar) + 1) / self.timesteps, np.log(alpha_bar) - np.log1p(-alpha_bar)

    @functools.cached_property
    def _slopes(self) -> np.ndarray:
        times, log_snr = self._nodes
        return np.diff(log_snr) / np.diff(times)

    @functools.cached_property
    def _first_sigma(self) -> float:
        return float(np.sqrt(1.0 - self.alpha_bar[0]))

    @functools.cached_property
    def _last_alpha(self) -> float:
        return float(np.sqrt(self.alpha_bar[-2]))

    def _pieces(self, t: Any) -> tuple[Any, Any, Any, Any, Any]:
        """Where t is before the first step and after the last but one, with sigma, alpha and log-SNR there and between.

        Each is computed from times of its own piece alone: what `where` throws away must not be infinite, or gradients
        would be NaN.
        """
        xp = namespace(t)
        times, nodes = self._nodes
        before = t * self.timesteps < 1.0
        after = (t > times[-1]) & self.zero_terminal_snr
        sigma = self._first_sigma * xp.where(before, t * self.timesteps, 1.0)
        alpha = self._last_alpha * xp.where(after, (1.0 - t) * self.timesteps, 1.0)
        return before, after, sigma, alpha, xp.interp(t, times, nodes)

    def alpha(self, t: Any) -> Any:
        """Returns the scale of x_0."""
        xp = namespace(t)
        before, after, sigma, alpha, log_snr = self._pieces(t)
        inner = exp(-0.5 * softplus(-log_snr))
        return xp.where(before, xp.sqrt(1.0 - sigma**2), xp.where(after, alpha, inner))

    def sigma(self, t: Any) -> Any:
        """Returns the standard deviation of the noise."""
        xp = namespace(t)
        before, after, sigma, alpha, log_snr = self._pieces(t)
        inner = exp(-0.5 * softplus(log_snr))
        return xp.where(before, sigma, xp.where(after, xp.sqrt(1.0 - alpha**2), inner))

    def log_snr(self, t: Any) -> Any:
        """Returns log(alpha^2 / sigma^2); infinite at t = 0 and, with zero terminal SNR, at t = 1."""
        xp = namespace(t)
        before, after, sigma, alpha, inner = self._pieces(t)
        first = xp.log1p(-(sigma**2)) - 2.0 * log(sigma)
        last = 2.0 * log(alpha) - xp.log1p(-(alpha**2))
        return xp.where(before, first, xp.where(after, last, inner))

    def time_of_log_snr(self, log_snr: Any) -> Any:
        """Returns the time of a log-SNR, clipped to [0, 1]."""
        xp = namespace(log_snr)
        times, nodes = self._nodes
        first = exp(-0.5 * softplus(log_snr)) / (self._first_sigma * self.timesteps)
        last = 1.0 - exp(-0.5 * softplus(-log_snr)) / (self._last_alpha * self.timesteps)
        inner = xp.interp(log_snr, nodes[::-1], times[::-1])
        beyond = (log_snr < nodes[-1]) & self.zero_terminal_snr
        return xp.where(log_snr > nodes[0], first, xp.where(beyond, last, inner))

    def _slope(self, t: Any) -> Any:
        """The slope of log-SNR between the steps of the chain."""
        xp = namespace(t)
        index = xp.clip(xp.searchsorted(self._nodes[0], t, side="right") - 1, 0, len(self._slopes) - 1)
        return xp.asarray(self._slopes, dtype=xp.asarray(t).dtype)[index]

    def d_alpha(self, t: Any) -> Any:
        """Returns d alpha / d t, piecewise."""
        xp = namespace(t)
        before, after, *_ = self._pieces(t)
        alpha, sigma = self.alpha(t), self.sigma(t)
        first = -sigma * self._first_sigma * self.timesteps / xp.maximum(alpha, self._last_alpha)
        last = -self._last_alpha * self.timesteps
        inner = 0.5 * alpha * sigma**2 * self._slope(t)
        return xp.where(before, first, xp.where(after, last, inner))

    def d_sigma(self, t: Any) -> Any:
        """Returns d sigma / d t, piecewise."""
        xp = namespace(t)
        before, after, *_ = self._pieces(t)
        alpha, sigma = self.alpha(t), self.sigma(t)
        first = self._first_sigma * self.timesteps
        last = alpha * self._last_alpha * self.timesteps / xp.maximum(sigma, self._first_sigma)
        inner = -0.5 * sigma * alpha**2 * self._slope(t)
        return xp.where(before, first, xp.where(after, last, inner))
