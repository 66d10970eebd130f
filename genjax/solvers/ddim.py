"""DDIM and DDPM's ancestral sampling: the first-order methods."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jax import Array

from genjax.citation import bibtex
from genjax.config import require
from genjax.processes import Process
from genjax.processes.base import namespace
from genjax.registry import register
from genjax.solvers.base import Carry, Denoiser, Nodes, SingleStep, check_falling, first_order, nodes, normal_like

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


class FirstOrderPlan(NamedTuple):
    """x_s = a x_t + b x_0 + std z, each [steps]."""

    t: Any
    a: Any
    b: Any
    std: Any


def _posterior(n: Nodes, eta: float) -> FirstOrderPlan:
    r"""The family q_eta(x_s | x_t, x_0) of Song et al. 2021a, eq. 12 and 16, for every process.

    In lambda, the posterior's variance is sigma_s^2 (1 - exp(-2h)); eta scales its standard deviation. What is left of
    sigma_s goes in the direction of eps: sigma_s sqrt(1 - eta^2 (1 - exp(-2h))). On VP these are the paper's.
    """
    xp = namespace(n.t)
    if eta == 0.0:
        a, b = first_order(n)
        return FirstOrderPlan(n.t[:-1], a, b, xp.zeros_like(a))
    alpha, sigma = n.alpha[1:], n.sigma[1:]
    # log sqrt(1 - eta^2 (1 - exp(-2h))); with eta = 1 it is -h, which the general form would lose for a large h.
    log_rest = -n.h if eta == 1.0 else 0.5 * xp.log1p(eta**2 * xp.expm1(-2.0 * n.h))
    a = sigma / n.sigma[:-1] * xp.where(n.finite, xp.exp(log_rest), np.sqrt(1.0 - eta**2))
    b = xp.where(n.finite, -alpha * xp.expm1(-n.h + log_rest), alpha - n.alpha[:-1] * a)
    return FirstOrderPlan(n.t[:-1], a, b, eta * sigma * _forgotten(n))


def _forgotten(n: Nodes) -> Any:
    """Returns sqrt(1 - exp(-2h)) [steps], 1 for an infinite step."""
    xp = namespace(n.t)
    return xp.where(n.finite, xp.sqrt(-xp.expm1(-2.0 * n.h)), 1.0)


class _FirstOrder(SingleStep):
    @property
    def stochastic(self) -> bool:
        return False

    def step(
        self, denoise: Denoiser, x: Array, plan_i: FirstOrderPlan, carry: Carry, keys: Array
    ) -> tuple[Array, Carry]:
        """Advances x by one step."""
        x = plan_i.a * x + plan_i.b * denoise(x, plan_i.t)
        if self.stochastic:
            x = x + plan_i.std * normal_like(keys, x)
        return x, carry


@register("solver", "ddim")
@dataclasses.dataclass(frozen=True)
class DDIM(_FirstOrder):
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

    def plan(self, process: Process, times: Any) -> FirstOrderPlan:
        """Returns the coefficients [steps]."""
        if self.stochastic:
            check_falling("ddim with eta > 0", times)
        return _posterior(nodes(process, times), self.eta)


@register("solver", "ddpm")
@dataclasses.dataclass(frozen=True)
class DDPM(_FirstOrder):
    """Ancestral sampling by the posterior q(x_s | x_t, x_0) (Ho et al. 2020, eq. 6-7 and algorithm 2).

    Attributes:
        variance: "small" is the posterior's, right for data that are one point; "large" is that of q(x_t | x_s), right
            on VP for data N(0, I) (Ho et al. 2020, sec. 3.2). Neither adds noise in a step to sigma = 0.
    """

    variance: str = "small"
    order: ClassVar[int] = 1
    nfe_per_step: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True
    reference: ClassVar[str] = "ho2020denoising"

    def __post_init__(self) -> None:
        require(self.variance in ("small", "large"), f"variance = {self.variance!r}: must be 'small' or 'large'")

    def plan(self, process: Process, times: Any) -> FirstOrderPlan:
        """Returns the coefficients [steps]."""
        check_falling("ddpm", times)
        n = nodes(process, times)
        plan = _posterior(n, 1.0)
        if self.variance == "small":
            return plan
        xp = namespace(times)
        return plan._replace(std=xp.where(n.sigma[1:] > 0, n.sigma[:-1] * _forgotten(n), 0.0))
