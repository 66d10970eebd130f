"""DDIM and DDPM's ancestral sampling: the first-order methods."""

import dataclasses
from typing import Any, ClassVar

import numpy as np

from genjax.citation import bibtex
from genjax.config import nearest, require
from genjax.processes import Process
from genjax.processes.base import namespace
from genjax.registry import register
from genjax.solvers.base import check_falling
from genjax.solvers.linear import Linear, LinearPlan, Stage, image
from genjax.solvers.steps import Steps, steps

SONG_2021 = bibtex(
    """
    @inproceedings{song2021denoising,
      title = {Denoising Diffusion Implicit Models},
      author = {Song, Jiaming and Meng, Chenlin and Ermon, Stefano},
      booktitle = {International Conference on Learning Representations},
      year = {2021}
    }
    """
)


def posterior(process: Process, times: Any, eta: float) -> tuple[Any, Any, Any]:
    r"""The family q_eta(x_s | x_t, x_0) of Song et al. 2021a, eq. 12 and 16, for every process.

    In lambda, the posterior's variance is sigma_s^2 (1 - exp(-2h)); eta scales its standard deviation. What is left of
    sigma_s goes in the direction of eps: sigma_s sqrt(1 - eta^2 (1 - exp(-2h))). On VP these are the paper's.

    Returns:
        (a, b, std) with x_s = a x_t + b x_0 + std z, each [steps].
    """
    xp = namespace(times)
    n = steps(process, times)
    if eta == 0.0:
        a, b = n.first_order
        return a, b, xp.zeros_like(a)
    alpha, sigma = process.alpha(times), process.sigma(times)
    log_rest = log_remaining(n.h, eta)
    a = sigma[1:] / sigma[:-1] * xp.where(n.finite, xp.exp(log_rest), np.sqrt(1.0 - eta**2))
    b = xp.where(n.finite, -alpha[1:] * xp.expm1(-n.h + log_rest), alpha[1:] - alpha[:-1] * a)
    return a, b, eta * sigma[1:] * forgotten(n)


def log_remaining(h: Any, eta: float) -> Any:
    """Returns log sqrt(1 - eta^2 (1 - exp(-2h))): of sigma_s, what is left in the direction of eps [steps]."""
    # With eta = 1 it is -h, which the general form would lose for a large h.
    return -h if eta == 1.0 else 0.5 * namespace(h).log1p(eta**2 * namespace(h).expm1(-2.0 * h))


def forgotten(n: Steps) -> Any:
    """Returns sqrt(1 - exp(-2h)) [steps], 1 for an infinite step."""
    xp = namespace(n.h)
    return xp.where(n.finite, xp.sqrt(-xp.expm1(-2.0 * n.h)), 1.0)


def _plan(times: Any, a: Any, b: Any, std: Any = None) -> LinearPlan:
    stages, result = [Stage(times[:-1], image("x"))], a * image("x") + b * image("d0")
    if std is None:
        return LinearPlan.make(stages, result)
    return LinearPlan.make(stages, result + std * image("z0"), spans=((times[:-1], times[1:]),))


@register("solver", "ddim")
@dataclasses.dataclass(frozen=True)
class DDIM(Linear):
    """DDIM, from the probability-flow ODE (eta = 0) to the DDPM posterior (eta = 1) (Song et al. 2021a, eq. 12 and 16).

    With eta = 0 it equals DPM-Solver-1, Euler in sigma / alpha, and on the straight path Euler in t.

    Attributes:
        eta: scales the standard deviation of the noise that a step adds, in [0, 1].
    """

    eta: float = 0.0
    order: ClassVar[int] = 1
    nfe_per_step: ClassVar[int] = 1
    reference: ClassVar[str] = SONG_2021

    def __post_init__(self) -> None:
        require(0.0 <= self.eta <= 1.0, f"eta = {self.eta}: must be in [0, 1]")

    @property
    def stochastic(self) -> bool:
        """Whether eta is positive."""
        return self.eta > 0.0

    def plan(self, process: Process, times: Any) -> LinearPlan:
        """Returns the coefficients [steps]."""
        if self.stochastic:
            check_falling("ddim with eta > 0", times)
        a, b, std = posterior(process, times, self.eta)
        return _plan(times, a, b, std if self.stochastic else None)


@register("solver", "ddpm")
@dataclasses.dataclass(frozen=True)
class DDPM(Linear):
    """Ancestral sampling by the posterior q(x_s | x_t, x_0) (Ho et al. 2020, eq. 6-7 and algorithm 2).

    Attributes:
        variance: "small" is the posterior's, right for data that are one point; "large" is that of q(x_t | x_s), right
            on VP for data N(0, I) (Ho et al. 2020, sec. 3.2), and on VE that of reverse diffusion sampling (Song et al.
            2021b, algorithm 2). Neither adds noise in a step to sigma = 0. "learned" asks for the variances that a
            network gives: a family that has such a network samples by `genjax.solvers.learned_variance`; a denoiser
            alone has none, and `plan` refuses.
    """

    variance: str = "small"
    order: ClassVar[int] = 1
    nfe_per_step: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True
    reference: ClassVar[str] = "ho2020denoising"

    def __post_init__(self) -> None:
        variances = ("small", "large", "learned")
        require(self.variance in variances, f"variance = {self.variance!r}{nearest(self.variance, variances)}")

    def plan(self, process: Process, times: Any) -> LinearPlan:
        """Returns the coefficients [steps]."""
        require(self.variance != "learned", "variance = 'learned': this model's network gives no variances")
        check_falling("ddpm", times)
        a, b, std = posterior(process, times, 1.0)
        if self.variance == "large":
            sigma = process.sigma(times)
            std = namespace(times).where(sigma[1:] > 0, sigma[:-1] * forgotten(steps(process, times)), 0.0)
        return _plan(times, a, b, std)
