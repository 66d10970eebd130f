"""The contract of a noising process, and what the processes share.

Every process is x_t = alpha(t) x_0 + sigma(t) eps with eps ~ N(0, I); t = 0 is data, t = 1 is noise. The functions
compute in the array namespace of their argument: NumPy in, NumPy out (float64, for the solvers' plans); JAX in, JAX
out.
"""

from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jax import Array

T = TypeVar("T")


class Process(Protocol):
    """A path from data to noise. `t` has shape [] or [B]; so has what comes back."""

    def alpha(self, t: Any) -> Any:
        """Returns the scale of x_0."""
        ...

    def sigma(self, t: Any) -> Any:
        """Returns the standard deviation of the noise."""
        ...

    def log_snr(self, t: Any) -> Any:
        """Returns log(alpha^2 / sigma^2), decreasing in t; infinite where alpha or sigma is zero."""
        ...

    def time_of_log_snr(self, log_snr: Any) -> Any:
        """Returns the time of a log-SNR, the inverse of `log_snr`, clipped to [0, 1]."""
        ...

    def d_alpha(self, t: Any) -> Any:
        """Returns d alpha / d t."""
        ...

    def d_sigma(self, t: Any) -> Any:
        """Returns d sigma / d t, finite everywhere."""
        ...

    def prior(self, key: Array, shape: tuple[int, ...]) -> Array:
        """Draws from N(0, sigma(1)^2 I)."""
        ...


def namespace(t: Any) -> Any:
    """Returns jax.numpy for JAX arrays and tracers, numpy for everything else."""
    return jnp if isinstance(t, jax.Array) else np


def log(x: Any) -> Any:
    """Takes the logarithm, in silence where it is -inf: the edges of several processes are infinite on purpose."""
    with np.errstate(divide="ignore"):
        return namespace(x).log(x)


def exp(x: Any) -> Any:
    """Exponential that overflows to infinity in silence."""
    with np.errstate(over="ignore"):
        return namespace(x).exp(x)


def softplus(x: Any) -> Any:
    """log(1 + exp(x)) without overflow."""
    xp = namespace(x)
    return xp.logaddexp(xp.zeros_like(x), x)


def log_expm1(x: Any) -> Any:
    """log(exp(x) - 1) for x >= 0 without overflow or cancellation."""
    return x + log(-namespace(x).expm1(-x))


def softmax(x: Any) -> Any:
    """Returns exp(x) over its sum along the last axis."""
    # Not by hand: the derivative of the maximum compares it with every number, and is NaN where a compiled program
    # rounds the two differently. JAX keeps it out.
    return jax.nn.softmax(x) if isinstance(x, jax.Array) else scipy.special.softmax(x, axis=-1)


def clip_time(t: Any) -> Any:
    """Clips to [0, 1]."""
    return namespace(t).clip(t, 0.0, 1.0)


class GaussianPrior:
    """The prior of every process here."""

    def prior(self: Process, key: Array, shape: tuple[int, ...]) -> Array:
        """Draws from N(0, sigma(1)^2 I)."""
        return float(self.sigma(np.float64(1.0))) * jax.random.normal(key, shape)


class VarianceExploding(GaussianPrior):
    """What processes with alpha = 1 share."""

    def alpha(self, t: Any) -> Any:
        """Returns 1, in the shape of t."""
        return namespace(t).ones_like(t)

    def d_alpha(self, t: Any) -> Any:
        """Returns 0, in the shape of t."""
        return namespace(t).zeros_like(t)

    def log_snr(self: Process, t: Any) -> Any:
        """Returns -2 log sigma(t)."""
        return -2.0 * log(self.sigma(t))
