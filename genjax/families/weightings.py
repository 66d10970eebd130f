"""Weightings of a diffusion loss over noise levels: `(t [B], process, parameterization) -> [B]`.

A loss is the mean square of (output - target) times the weight. What a weighting means does not depend on the
parameterization: w multiplies the square error of eps_hat, and the parameterization's `eps_scale` translates. Only
`uniform` is about the output itself, since that is what its users mean.
"""

import dataclasses
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from genjax.citation import bibtex
from genjax.config import require
from genjax.parameterizations import Parameterization
from genjax.processes import Process
from genjax.registry import register

HANG_2023 = bibtex(
    """
    @inproceedings{hang2023efficient,
      title = {Efficient Diffusion Training via Min-SNR Weighting Strategy},
      author = {Hang, Tiankai and Gu, Shuyang and Li, Chen and Bao, Jianmin and Chen, Dong and Hu, Han and Geng, Xin and
                Guo, Baining},
      booktitle = {IEEE/CVF International Conference on Computer Vision},
      year = {2023}
    }
    """
)
CHOI_2022 = bibtex(
    """
    @inproceedings{choi2022perception,
      title = {Perception Prioritized Training of Diffusion Models},
      author = {Choi, Jooyoung and Lee, Jungbeom and Shin, Chaehun and Kim, Sungwon and Kim, Hyunwoo and Yoon, Sungroh},
      booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
      year = {2022}
    }
    """
)
KINGMA_2023 = bibtex(
    """
    @inproceedings{kingma2023understanding,
      title = {Understanding Diffusion Objectives as the {ELBO} with Simple Data Augmentation},
      author = {Kingma, Diederik P. and Gao, Ruiqi},
      booktitle = {Advances in Neural Information Processing Systems},
      year = {2023}
    }
    """
)
SONG_2021_LIKELIHOOD = bibtex(
    """
    @inproceedings{song2021maximum,
      title = {Maximum Likelihood Training of Score-Based Diffusion Models},
      author = {Song, Yang and Durkan, Conor and Murray, Iain and Ermon, Stefano},
      booktitle = {Advances in Neural Information Processing Systems},
      year = {2021}
    }
    """
)


class Weighting(Protocol):
    """A weight for each noise level."""

    def __call__(self, t: Array, process: Process, parameterization: Parameterization) -> Array:
        """Returns the weight [B] of the square error of the network's output at times [B]."""
        ...


def _inverse_snr(t: Array, process: Process) -> Array:
    return jnp.exp(-process.log_snr(t))


@register("weighting", "uniform", reference="ho2020denoising")
@dataclasses.dataclass(frozen=True)
class Uniform:
    """The plain square error of the network's output (for eps, L_simple of Ho et al. 2020, eq. 14)."""

    def __call__(self, t: Array, process: Process, parameterization: Parameterization) -> Array:
        """Returns 1."""
        return jnp.ones_like(t)


@register("weighting", "min_snr")
@dataclasses.dataclass(frozen=True)
class MinSNR:
    """min(SNR, gamma) on the square error of x_0 (Hang et al. 2023, sec. 3.4)."""

    gamma: float = 5.0
    reference: ClassVar[str] = HANG_2023

    def __post_init__(self) -> None:
        require(self.gamma > 0, f"gamma = {self.gamma}: must be positive")

    def __call__(self, t: Array, process: Process, parameterization: Parameterization) -> Array:
        """Returns the weight [B]."""
        return parameterization.eps_scale(t, process) ** 2 * jnp.minimum(1.0, self.gamma * _inverse_snr(t, process))


@register("weighting", "truncated_snr", reference="salimans2022progressive")
@dataclasses.dataclass(frozen=True)
class TruncatedSNR:
    """max(SNR, 1) on the square error of x_0 (Salimans & Ho 2022, sec. 4, eq. 9).

    Their "SNR + 1" is the plain square error of v.
    """

    def __call__(self, t: Array, process: Process, parameterization: Parameterization) -> Array:
        """Returns the weight [B]."""
        t = jnp.minimum(t, 1.0 - 1e-6)  # scale^2 / SNR has a limit at alpha = 0, but no value
        return parameterization.eps_scale(t, process) ** 2 * jnp.maximum(1.0, _inverse_snr(t, process))


@register("weighting", "p2")
@dataclasses.dataclass(frozen=True)
class P2:
    """1 / (k + SNR)^gamma on the square error of eps (Choi et al. 2022, eq. 8)."""

    k: float = 1.0
    gamma: float = 1.0
    reference: ClassVar[str] = CHOI_2022

    def __post_init__(self) -> None:
        require(self.k > 0 and self.gamma >= 0, f"k = {self.k}, gamma = {self.gamma}: must be k > 0 and gamma >= 0")

    def __call__(self, t: Array, process: Process, parameterization: Parameterization) -> Array:
        """Returns the weight [B]."""
        scale = parameterization.eps_scale(t, process) ** 2
        return scale * (self.k + jnp.exp(process.log_snr(t))) ** -self.gamma


@register("weighting", "edm", reference="karras2022elucidating")
@dataclasses.dataclass(frozen=True)
class EDMWeighting:
    """(sigma^2 + sigma_data^2) / (sigma sigma_data)^2 on the square error of x_0 (Karras et al. 2022, table 1)."""

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        require(self.sigma_data > 0, f"sigma_data = {self.sigma_data}: must be positive")

    def __call__(self, t: Array, process: Process, parameterization: Parameterization) -> Array:
        """Returns the weight [B]; 1 for EDM's own parameterization with the same sigma_data."""
        t = jnp.minimum(t, 1.0 - 1e-6)  # scale / alpha has a limit at alpha = 0, but no value
        scale = parameterization.eps_scale(t, process)
        return scale**2 + (scale / process.alpha(t) * process.sigma(t) / self.sigma_data) ** 2


@register("weighting", "sigmoid")
@dataclasses.dataclass(frozen=True)
class Sigmoid:
    """The ELBO's weight times sigmoid(bias - log-SNR), for uniform times (Kingma & Gao 2023, eq. 5, table 1).

    That is -1/2 d(log-SNR)/dt sigmoid(bias - log-SNR) on the square error of eps.
    """

    bias: float = 0.0
    reference: ClassVar[str] = KINGMA_2023

    def __call__(self, t: Array, process: Process, parameterization: Parameterization) -> Array:
        """Returns the weight [B]."""
        rate = 0.5 * noise_rate(t, process)
        return parameterization.eps_scale(t, process) ** 2 * rate * jax.nn.sigmoid(self.bias - process.log_snr(t))


@register("weighting", "likelihood")
@dataclasses.dataclass(frozen=True)
class LikelihoodWeighting:
    """g(t)^2 on the square error of the score, so -d(log-SNR)/dt on that of eps (Song et al. 2021c, theorem 1).

    With uniform times, half of the sum over pixels bounds the divergence of the model from the data, up to what does
    not depend on the network. It has far less variance with times of the sampler `importance`.
    """

    reference: ClassVar[str] = SONG_2021_LIKELIHOOD

    def __call__(self, t: Array, process: Process, parameterization: Parameterization) -> Array:
        """Returns the weight [B]."""
        return parameterization.eps_scale(t, process) ** 2 * noise_rate(t, process)


def noise_rate(t: Array, process: Process) -> Array:
    """Returns g(t)^2 / sigma(t)^2 = -d(log-SNR)/dt, of the shape of t; alpha and sigma are held above 1e-8."""
    alpha, sigma = jnp.maximum(process.alpha(t), 1e-8), jnp.maximum(process.sigma(t), 1e-8)
    return 2.0 * (process.d_sigma(t) / sigma - process.d_alpha(t) / alpha)
