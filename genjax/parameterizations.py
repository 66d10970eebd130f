r"""What a network's output means: eps, x0, v, velocity, score, or EDM's preconditioned residual.

Write x = x_t, a = alpha(t), s = sigma(t), n = sqrt(a^2 + s^2). Each parameterization is an affine map between the
output F and x_0, so errors map linearly:

    x0_hat - x_0 = c * (F - target),        eps_hat - eps = -(a / s) * c * (F - target).

The magnitude |(a / s) c| is `eps_scale`; it is finite where c alone is not, and turns a loss on the output into the
loss on eps that all weightings are written in.

The network sees c_in x with c_in = 1 / max(1, n): 1 for VP, sub-VP and the straight path, as published, and
1 / sqrt(1 + sigma^2) for VE, where Song et al. 2021b have 1. EDM has its own c_in.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import jax.numpy as jnp
from jax import Array

from genjax.citation import bibtex
from genjax.config import nearest, require
from genjax.processes.base import Process
from genjax.registry import register

ConditionalDenoiser = Callable[[Array, Array, Any], Array]  # (x_t [B,...], t [] or [B], cond) -> E[x_0 | x_t, cond]

SALIMANS_2022 = bibtex(
    """
    @inproceedings{salimans2022progressive,
      title = {Progressive Distillation for Fast Sampling of Diffusion Models},
      author = {Salimans, Tim and Ho, Jonathan},
      booktitle = {International Conference on Learning Representations},
      year = {2022}
    }
    """
)

# Where alpha = 0 the eps and score outputs say nothing about x_0. The division is kept finite there; a network for a
# process that reaches zero SNR should predict x0, v, velocity or EDM's residual.
_SMALLEST_ALPHA = 1e-8


class Parameterization(Protocol):
    """The meaning of a network's output. `t` has shape [] or [B], images [B, ...]."""

    def network_input(self, x_t: Array, t: Array, process: Process) -> tuple[Array, Array]:
        """Returns the scaled x_t [B, ...] and the noise label, of the shape of t."""
        ...

    def target(self, x_0: Array, eps: Array, t: Array, process: Process) -> Array:
        """Returns what a perfect network would output for this pair."""
        ...

    def to_x0(self, output: Array, x_t: Array, t: Array, process: Process) -> Array:
        """Returns the estimate of x_0 that an output stands for."""
        ...

    def eps_scale(self, t: Array, process: Process) -> Array:
        """Returns |d eps_hat / d output|, of the shape of t."""
        ...


def expand(coefficient: Array, like: Array) -> Array:
    """Gives a coefficient [] or [B] the trailing axes that it needs to multiply images [B, ...]."""
    return coefficient.reshape(coefficient.shape + (1,) * (like.ndim - 1)) if coefficient.ndim else coefficient


def noised(x_0: Array, eps: Array, t: Array, process: Process) -> Array:
    """Returns x_t = alpha(t) x_0 + sigma(t) eps of images and noise [B, ...] at times [] or [B]."""
    alpha, sigma = _coefficients(t, process, x_0)
    return alpha * x_0 + sigma * eps


def _coefficients(t: Array, process: Process, like: Array) -> tuple[Array, Array]:
    return expand(process.alpha(t), like), expand(process.sigma(t), like)


@dataclasses.dataclass(frozen=True)
class _TimeLabelled:
    """Labels the noise by scaled time: `time_scale * t + time_offset`.

    A network trained on a chain of T steps expects the step's index i = T t - 1: time_scale = T, time_offset = -1.
    """

    time_scale: float = 1000.0
    time_offset: float = 0.0

    def network_input(self, x_t: Array, t: Array, process: Process) -> tuple[Array, Array]:
        """Returns c_in x_t and the label."""
        alpha, sigma = process.alpha(t), process.sigma(t)
        c_in = 1.0 / jnp.maximum(1.0, jnp.sqrt(alpha**2 + sigma**2))
        return expand(c_in, x_t) * x_t, self.time_scale * t + self.time_offset


@register("parameterization", "eps", reference="ho2020denoising")
@dataclasses.dataclass(frozen=True)
class Eps(_TimeLabelled):
    """The network predicts the noise (Ho et al. 2020, eq. 11)."""

    def target(self, x_0: Array, eps: Array, t: Array, process: Process) -> Array:
        """Returns eps."""
        return eps

    def to_x0(self, output: Array, x_t: Array, t: Array, process: Process) -> Array:
        """Returns (x_t - sigma F) / alpha."""
        alpha, sigma = _coefficients(t, process, x_t)
        return (x_t - sigma * output) / jnp.maximum(alpha, _SMALLEST_ALPHA)

    def eps_scale(self, t: Array, process: Process) -> Array:
        """Returns 1."""
        return jnp.ones_like(t)


@register("parameterization", "score", reference="song2021scorebased")
@dataclasses.dataclass(frozen=True)
class Score(_TimeLabelled):
    """The network predicts the score, times sigma where `scaled` (Song et al. 2021b, sec. 3.3).

    The unscaled target -eps / sigma has no bound as sigma -> 0; sigma is held above 1e-5 there.

    Attributes:
        time_scale, time_offset: of the noise label "time", `time_scale * t + time_offset`.
        scaled: whether the output is sigma times the score.
        label: "time", or "log_sigma" for log(sigma) with sigma held above 1e-5, as NCSN++ has it.
        scale_input: whether the network sees c_in x. The published networks for VE see x itself.
    """

    scaled: bool = True
    label: str = "time"
    scale_input: bool = True

    def __post_init__(self) -> None:
        labels = ("time", "log_sigma")
        require(self.label in labels, f"label = {self.label!r}{nearest(self.label, labels)}")

    def network_input(self, x_t: Array, t: Array, process: Process) -> tuple[Array, Array]:
        """Returns x_t, scaled or not, and the label."""
        x_in, label = super().network_input(x_t, t, process)
        if self.label == "log_sigma":
            label = jnp.log(jnp.maximum(process.sigma(t), 1e-5))
        return x_in if self.scale_input else x_t, label

    def _sigma(self, t: Array, process: Process) -> Array:
        return jnp.ones_like(t) if self.scaled else jnp.maximum(process.sigma(t), 1e-5)

    def target(self, x_0: Array, eps: Array, t: Array, process: Process) -> Array:
        """Returns -eps, or -eps / sigma."""
        return -eps / expand(self._sigma(t, process), eps)

    def to_x0(self, output: Array, x_t: Array, t: Array, process: Process) -> Array:
        """Returns (x_t + sigma^2 score) / alpha (Tweedie)."""
        alpha, sigma = _coefficients(t, process, x_t)
        return (x_t + sigma * expand(self._sigma(t, process), x_t) * output) / jnp.maximum(alpha, _SMALLEST_ALPHA)

    def eps_scale(self, t: Array, process: Process) -> Array:
        """Returns 1, or sigma."""
        return self._sigma(t, process)


@register("parameterization", "x0", reference="salimans2022progressive")
@dataclasses.dataclass(frozen=True)
class X0(_TimeLabelled):
    """The network predicts the clean image (Salimans & Ho 2022, sec. 4)."""

    def target(self, x_0: Array, eps: Array, t: Array, process: Process) -> Array:
        """Returns x_0."""
        return x_0

    def to_x0(self, output: Array, x_t: Array, t: Array, process: Process) -> Array:
        """Returns the output."""
        return output

    def eps_scale(self, t: Array, process: Process) -> Array:
        """Returns alpha / sigma, with sigma held above 1e-5."""
        return process.alpha(t) / jnp.maximum(process.sigma(t), 1e-5)


@register("parameterization", "v", reference="salimans2022progressive")
@dataclasses.dataclass(frozen=True)
class V(_TimeLabelled):
    """The network predicts v = (alpha eps - sigma x_0) / n (Salimans & Ho 2022, appendix D).

    The paper has variance-preserving processes alone, where n = 1; for the others n keeps the target's scale.
    """

    def target(self, x_0: Array, eps: Array, t: Array, process: Process) -> Array:
        """Returns (alpha eps - sigma x_0) / n."""
        alpha, sigma = _coefficients(t, process, x_0)
        return (alpha * eps - sigma * x_0) / jnp.sqrt(alpha**2 + sigma**2)

    def to_x0(self, output: Array, x_t: Array, t: Array, process: Process) -> Array:
        """Returns (alpha x_t - sigma n F) / n^2."""
        alpha, sigma = _coefficients(t, process, x_t)
        square = alpha**2 + sigma**2
        return alpha / square * x_t - sigma / jnp.sqrt(square) * output

    def eps_scale(self, t: Array, process: Process) -> Array:
        """Returns alpha / n."""
        alpha, sigma = process.alpha(t), process.sigma(t)
        return alpha / jnp.sqrt(alpha**2 + sigma**2)


@register("parameterization", "velocity", reference="lipman2023flow")
@dataclasses.dataclass(frozen=True)
class Velocity(_TimeLabelled):
    """The network predicts dx_t/dt = alpha' x_0 + sigma' eps (Lipman et al. 2023, eq. 14).

    On the straight path that is eps - x_0. Papers that count time from noise to data have the opposite sign.
    """

    def _determinant(self, t: Array, process: Process) -> Array:
        return process.d_sigma(t) * process.alpha(t) - process.sigma(t) * process.d_alpha(t)

    def target(self, x_0: Array, eps: Array, t: Array, process: Process) -> Array:
        """Returns alpha' x_0 + sigma' eps."""
        return expand(process.d_alpha(t), x_0) * x_0 + expand(process.d_sigma(t), x_0) * eps

    def to_x0(self, output: Array, x_t: Array, t: Array, process: Process) -> Array:
        """Returns (sigma' x_t - sigma F) / (sigma' alpha - sigma alpha')."""
        d_sigma, sigma = expand(process.d_sigma(t), x_t), expand(process.sigma(t), x_t)
        return (d_sigma * x_t - sigma * output) / expand(self._determinant(t, process), x_t)

    def eps_scale(self, t: Array, process: Process) -> Array:
        """Returns alpha / (sigma' alpha - sigma alpha')."""
        return process.alpha(t) / self._determinant(t, process)


@register("parameterization", "edm", reference="karras2022elucidating")
@dataclasses.dataclass(frozen=True)
class EDMPreconditioning:
    """EDM's preconditioning, x0_hat = c_skip x + c_out F(c_in x, log(sigma)/4) (Karras et al. 2022, table 1 and eq. 7).

    Theirs has alpha = 1. Here x_t / alpha and sigma / alpha take the place of x and sigma, multiplied out so that
    alpha = 0 is allowed.

    Attributes:
        sigma_data: standard deviation of the data (0.5 for images in [-1, 1]).
    """

    sigma_data: float = 0.5
    reference: ClassVar[str] = "karras2022elucidating"

    def __post_init__(self) -> None:
        require(self.sigma_data > 0, f"sigma_data = {self.sigma_data}: must be positive")

    def _terms(self, t: Array, process: Process) -> tuple[Array, Array, Array]:
        alpha, sigma = process.alpha(t) * self.sigma_data, process.sigma(t)
        return alpha, sigma, jnp.sqrt(alpha**2 + sigma**2)

    def network_input(self, x_t: Array, t: Array, process: Process) -> tuple[Array, Array]:
        """Returns c_in x_t and log(sigma / alpha) / 4, bounded at 5 on either side."""
        _, _, norm = self._terms(t, process)
        return x_t / expand(norm, x_t), jnp.clip(process.log_snr(t) / -8.0, -5.0, 5.0)

    def target(self, x_0: Array, eps: Array, t: Array, process: Process) -> Array:
        """Returns (x_0 - c_skip x_t) / c_out = (sigma x_0 - alpha sigma_data^2 eps) / (sigma_data n)."""
        alpha, sigma, norm = (expand(term, x_0) for term in self._terms(t, process))
        return (sigma / self.sigma_data * x_0 - alpha * eps) / norm

    def to_x0(self, output: Array, x_t: Array, t: Array, process: Process) -> Array:
        """Returns c_skip x_t + c_out F."""
        alpha, sigma, norm = (expand(term, x_t) for term in self._terms(t, process))
        return self.sigma_data * (alpha / norm**2 * x_t + sigma / norm * output)

    def eps_scale(self, t: Array, process: Process) -> Array:
        """Returns alpha sigma_data / n."""
        alpha, _, norm = self._terms(t, process)
        return alpha / norm


@register("parameterization", "consistency")
@dataclasses.dataclass(frozen=True)
class ConsistencyPreconditioning(EDMPreconditioning):
    """EDM's, shifted so that x0_hat is x at the noise level epsilon, whatever the network says.

    c_skip = sigma_data^2 / ((sigma - epsilon)^2 + sigma_data^2) and c_out = sigma_data (sigma - epsilon) /
    sqrt(sigma^2 + sigma_data^2) (Song et al. 2023, appendix C), of x_t / alpha and sigma / alpha.

    Attributes:
        epsilon: the lowest noise level sigma / alpha of the paths; 0 is EDM's preconditioning.
    """

    epsilon: float = 0.002
    reference: ClassVar[str] = "song2023consistency"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.epsilon >= 0, f"epsilon = {self.epsilon}: must be at least 0")

    def _shifted(self, t: Array, process: Process) -> tuple[Array, Array, Array]:
        alpha, _, norm = self._terms(t, process)
        return alpha, process.sigma(t) - self.epsilon * process.alpha(t), norm

    def target(self, x_0: Array, eps: Array, t: Array, process: Process) -> Array:
        """Returns (x_0 - c_skip x_t) / c_out; at epsilon, where nothing is asked of the network, a finite number."""
        alpha, shift, norm = (expand(term, x_0) for term in self._shifted(t, process))
        x_t = alpha / self.sigma_data * x_0 + expand(process.sigma(t), x_0) * eps
        residual = x_0 - self.sigma_data * alpha / (shift**2 + alpha**2) * x_t
        return residual * norm / (self.sigma_data * jnp.where(jnp.abs(shift) < 1e-8, 1e-8, shift))

    def to_x0(self, output: Array, x_t: Array, t: Array, process: Process) -> Array:
        """Returns c_skip x_t + c_out F."""
        alpha, shift, norm = (expand(term, x_t) for term in self._shifted(t, process))
        return self.sigma_data * (alpha / (shift**2 + alpha**2) * x_t + shift / norm * output)

    def eps_scale(self, t: Array, process: Process) -> Array:
        """Returns alpha sigma_data |sigma - epsilon alpha| / (sigma n)."""
        alpha, shift, norm = self._shifted(t, process)
        return alpha / norm * jnp.abs(shift) / jnp.maximum(process.sigma(t), 1e-8)


def denoiser(
    apply: Callable[[Any, Array, Array, Any], Array], params: Any, parameterization: Parameterization, process: Process
) -> ConditionalDenoiser:
    """Makes a denoiser of a network.

    Args:
        apply: `(params, x [B, ...], noise label [B], cond) -> output [B, ...]`, in any floating-point type.
        params: the network's parameters.
        parameterization: what the output means.
        process: the process that the network was trained on.

    Returns:
        `(x_t [B, ...], t [] or [B], cond) -> E[x_0 | x_t, cond]`, computed in the type of x_t outside the network.
    """

    def denoise(x_t: Array, t: Array, cond: Any = None) -> Array:
        t = jnp.asarray(t, x_t.dtype)
        x_in, label = parameterization.network_input(x_t, t, process)
        output = apply(params, x_in, jnp.broadcast_to(label, x_t.shape[:1]), cond)
        return parameterization.to_x0(output.astype(x_t.dtype), x_t, t, process)

    return denoise
