"""Targets whose denoiser, log-density and probability-flow solution are known exactly, under every process.

They are what the solvers are measured against: a sampler given one of these denoisers makes no error but its own. They
compute in the array namespace of x: float64 NumPy, or JAX.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from genjax.config import require
from genjax.processes import Process
from genjax.processes.base import namespace, softmax


@dataclasses.dataclass(frozen=True, eq=False)
class Gaussian:
    """The normal distribution N(mean, covariance) on R^D.

    Attributes:
        mean: [D].
        covariance: [D, D], symmetric and positive semi-definite.
    """

    mean: np.ndarray
    covariance: np.ndarray

    def __post_init__(self) -> None:
        d = np.shape(self.mean)[-1]
        require(
            np.shape(self.covariance) == (d, d),
            f"covariance has shape {np.shape(self.covariance)}: a mean of {d} numbers needs ({d}, {d})",
        )

    def _function_of_covariance(self, function: Any, x: Array) -> Array:
        """Applies f(C) to vectors x [B, D]; f maps eigenvalues [1, D] to [1, D] or [B, D]."""
        eigenvalues, eigenvectors = np.linalg.eigh(np.asarray(self.covariance, np.float64))
        xp = namespace(x)
        vectors = xp.asarray(eigenvectors, x.dtype)
        return (x @ vectors * function(xp.asarray(eigenvalues.clip(0.0), x.dtype)[None])) @ vectors.T

    def sample(self, key: Array, n: int) -> Array:
        """Draws n samples [n, D]."""
        eps = jax.random.normal(key, (n, len(self.mean)))
        return jnp.asarray(self.mean, eps.dtype)[None] + self._function_of_covariance(jnp.sqrt, eps)

    def denoise(self, process: Process, x_t: Array, t: Array) -> Array:
        """Returns E[x_0 | x_t] = mean + alpha C (alpha^2 C + sigma^2)^-1 (x_t - alpha mean), [B, D]."""
        alpha, sigma = _scales(process, x_t, t)
        mean = namespace(x_t).asarray(self.mean, x_t.dtype)[None]
        residual = self._function_of_covariance(
            lambda c: _divide(alpha * c, alpha**2 * c + sigma**2), x_t - alpha * mean
        )
        return mean + residual

    def denoiser(self, process: Process) -> Any:
        """Returns the exact denoiser of this target under a process."""
        return lambda x_t, t: self.denoise(process, x_t, t)

    def log_prob(self, x_t: Array, process: Process | None = None, t: Any = None) -> Array:
        """Returns log p(x) [B] of the target, or of its noised version at time t, in nats."""
        alpha, sigma = _scales(process, x_t, t)
        xp = namespace(x_t)
        eigenvalues = xp.asarray(np.linalg.eigvalsh(self.covariance).clip(0.0), x_t.dtype)
        residual = x_t - alpha * xp.asarray(self.mean, x_t.dtype)[None]
        whitened = self._function_of_covariance(lambda c: (alpha**2 * c + sigma**2) ** -0.5, residual)
        log_det = xp.sum(xp.log(alpha**2 * eigenvalues[None] + sigma**2), -1)
        return -0.5 * (xp.sum(whitened**2, -1) + log_det + eigenvalues.size * np.log(2 * np.pi))

    def flow(self, process: Process, x_t: Array, t: Any, s: Any) -> Array:
        """Returns the exact solution at time s of the probability-flow ODE that passes through x_t [B, D] at time t."""
        (alpha_t, sigma_t), (alpha_s, sigma_s) = _scales(process, x_t, t), _scales(process, x_t, s)
        xp = namespace(x_t)
        mean = xp.asarray(self.mean, x_t.dtype)[None]

        def ratio(c: Array) -> Array:
            return xp.sqrt(_divide(alpha_s**2 * c + sigma_s**2, alpha_t**2 * c + sigma_t**2))

        return alpha_s * mean + self._function_of_covariance(ratio, x_t - alpha_t * mean)


@dataclasses.dataclass(frozen=True, eq=False)
class GaussianMixture:
    """A mixture of K isotropic normal distributions on R^D.

    Attributes:
        weights: [K], positive, of sum 1.
        means: [K, D].
        scales: [K], the components' standard deviations.
    """

    weights: np.ndarray
    means: np.ndarray
    scales: np.ndarray

    def __post_init__(self) -> None:
        k = len(self.weights)
        require(
            np.ndim(self.means) == 2 and len(self.means) == k and np.shape(self.scales) == (k,),
            f"{k} weights need means [{k}, D] and scales [{k}], not {np.shape(self.means)} and {np.shape(self.scales)}",
        )
        require(bool(np.isclose(np.sum(self.weights), 1.0)), f"weights sum to {np.sum(self.weights)}: must be 1")
        require(bool(np.all(np.asarray(self.weights) > 0)), f"weights = {self.weights}: must be positive")
        require(bool(np.all(np.asarray(self.scales) > 0)), f"scales = {self.scales}: must be positive")

    def sample(self, key: Array, n: int) -> tuple[Array, Array]:
        """Draws n samples [n, D] and the components [n] that they came from."""
        key_component, key_normal = jax.random.split(key)
        label = jax.random.categorical(key_component, jnp.log(jnp.asarray(self.weights)), shape=(n,))
        eps = jax.random.normal(key_normal, (n, np.shape(self.means)[1]))
        means, scales = jnp.asarray(self.means, eps.dtype), jnp.asarray(self.scales, eps.dtype)
        return means[label] + scales[label][:, None] * eps, label

    def _components(self, x_t: Array, alpha: Array, sigma: Array) -> tuple[Array, Array]:
        """Returns log(w_k p_k(x_t)) [B, K] and E[x_0 | x_t, k] [B, K, D]."""
        xp = namespace(x_t)
        means, scales = xp.asarray(self.means, x_t.dtype)[None], xp.asarray(self.scales, x_t.dtype)[None]
        variance = alpha**2 * scales**2 + sigma**2
        residual = x_t[:, None] - alpha[..., None] * means
        d = x_t.shape[-1]
        log_p = -0.5 * (xp.sum(residual**2, -1) / variance + d * xp.log(2 * np.pi * variance))
        posterior_mean = means + (alpha * scales**2 / variance)[..., None] * residual
        return xp.log(xp.asarray(self.weights, x_t.dtype))[None] + log_p, posterior_mean

    def denoise(self, process: Process, x_t: Array, t: Array, cond: Any = None) -> Array:
        """Returns E[x_0 | x_t], or E[x_0 | x_t, component], [B, D].

        Args:
            process: the process that made x_t.
            x_t: [B, D].
            t: time, [] or [B].
            cond: None, or `{"label": [B]}` with a component a sample; -1 is the whole mixture.
        """
        xp = namespace(x_t)
        log_p, means = self._components(x_t, *_scales(process, x_t, t))
        if cond is not None:
            label = cond["label"][:, None]
            chosen = (label < 0) | (label == np.arange(len(self.weights))[None])
            log_p = xp.where(chosen, log_p, -np.inf)
        return xp.sum(softmax(log_p)[..., None] * means, axis=1)

    def denoiser(self, process: Process) -> Any:
        """Returns the exact denoiser of this target under a process, conditional where a condition is given."""
        return lambda x_t, t, cond=None: self.denoise(process, x_t, t, cond)

    def log_prob(self, x_t: Array, process: Process | None = None, t: Any = None) -> Array:
        """Returns log p(x) [B] of the target, or of its noised version at time t, in nats."""
        return namespace(x_t).logaddexp.reduce(self._components(x_t, *_scales(process, x_t, t))[0], axis=-1)


def _divide(numerator: Array, denominator: Array) -> Array:
    """Quotient, 0 where the denominator is 0: a direction without any spread has no residual."""
    xp = namespace(denominator)
    return xp.where(denominator > 0, numerator / xp.where(denominator > 0, denominator, 1.0), 0.0)


def _scales(process: Process | None, x: Array, t: Any) -> tuple[Array, Array]:
    """Alpha and sigma as [1, 1] or [B, 1]; those of clean data without a process."""
    if process is None:
        return namespace(x).ones((1, 1), x.dtype), namespace(x).zeros((1, 1), x.dtype)
    t = namespace(x).asarray(t, x.dtype).reshape(-1, 1)
    return process.alpha(t), process.sigma(t)
