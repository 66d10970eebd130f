"""The contract of a solver, and the linear algebra that all of them share.

Every solver here advances x by a linear combination of x, of denoiser outputs and of fresh noise. What depends on the
times alone, the coefficients, is a *plan*, made before the scan in float64; the step is arithmetic on images.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax import Array

from genjax.config import require
from genjax.processes import Process
from genjax.processes.base import namespace

Denoiser = Callable[[Array, Array], Array]  # (x_t [B, ...], t []) -> E[x_0 | x_t] [B, ...]
Plan = Any  # a pytree of arrays with leading axis [steps]
Carry = Any  # a pytree of fixed shape


class Solver(Protocol):
    """A frozen dataclass whose fields are the method's own choices.

    Attributes:
        order: order of convergence of the probability-flow solution, or weak order of a stochastic method.
        nfe_per_step: denoiser evaluations a step.
        stochastic: whether a step draws noise.
        reference: BibTeX key of the paper.
    """

    @property
    def order(self) -> int:
        """The order of convergence."""
        ...

    @property
    def nfe_per_step(self) -> int:
        """Denoiser evaluations a step."""
        ...

    @property
    def stochastic(self) -> bool:
        """Whether a step draws noise."""
        ...

    @property
    def reference(self) -> str:
        """BibTeX key of the paper."""
        ...

    def plan(self, process: Process, times: Any) -> Plan:
        """Returns all that depends on times [steps + 1] alone, with leading axis [steps].

        Computes in the namespace of `times`: float64 NumPy, or JAX under tracing.
        """
        ...

    def init(self, x: Array) -> Carry:
        """Returns the history before the first step."""
        ...

    def step(self, denoise: Denoiser, x: Array, plan_i: Plan, carry: Carry, keys: Array) -> tuple[Array, Carry]:
        """Advances x [B, ...] by one step.

        Args:
            denoise: the denoiser; its first call is at (x, time of x).
            x: the state.
            plan_i: the plan without its leading axis.
            carry: the history.
            keys: one key a sample [B], of this step alone.
        """
        ...


class SingleStep:
    """A solver without history."""

    def init(self, x: Array) -> Carry:
        """Returns the empty history."""
        return ()


class Nodes(NamedTuple):
    """A process at times [steps + 1].

    Attributes:
        t: the times.
        alpha: alpha at the times.
        sigma: sigma at the times.
        h: the steps in lambda = log(alpha / sigma) [steps], positive when generating; 1 where a step is not `finite`.
        finite: whether a step is finite in lambda [steps]: neither end is without noise or without signal. Formulas in
            h must be replaced where it is not, rather than be evaluated at infinity: derivatives would be NaN.
    """

    t: Any
    alpha: Any
    sigma: Any
    h: Any
    finite: Any


def nodes(process: Process, times: Any) -> Nodes:
    """Evaluates a process at times [steps + 1].

    Derivatives with respect to the times are those of alpha and sigma: infinite where the slope of sigma is, as
    that of `linear_vp` at t = 0.

    Raises:
        ValueError: the first time has no noise, so that there is no noise to remove or to follow.
    """
    sigma = process.sigma(times)
    if namespace(times) is np:
        require(
            bool(sigma[0] > 0),
            f"the times start at t = {float(times[0])}, where sigma = 0: eps is undefined there, start later",
        )
    xp = namespace(times)
    alpha = process.alpha(times)
    inner = (alpha > 0) & (sigma > 0)
    lam = 0.5 * process.log_snr(xp.where(inner, times, 0.5))
    finite = inner[1:] & inner[:-1]
    return Nodes(times, alpha, sigma, xp.where(finite, lam[1:] - lam[:-1], 1.0), finite)


def check_falling(name: str, times: Any) -> None:
    """Raises ValueError where a stochastic solver is given times that rise: it cannot run towards noise."""
    if namespace(times) is np and times[-1] > times[0]:
        raise ValueError(f"{name} adds noise, so its times must fall; these rise from {times[0]} to {times[-1]}")


def first_order(n: Nodes) -> tuple[Any, Any]:
    """The exact step for a constant denoiser: x_s = (sigma_s / sigma_t) x_t - alpha_s expm1(-h) x_0.

    This is DDIM (Song et al. 2021a, eq. 12 with eta = 0), DPM-Solver-1 and, on the straight path, Euler. Where h is
    infinite the second coefficient is written as alpha_s - alpha_t sigma_s / sigma_t, which is the same.

    Returns:
        The coefficients of x_t and x_0, [steps].
    """
    xp = namespace(n.t)
    a = n.sigma[1:] / n.sigma[:-1]
    return a, xp.where(n.finite, -n.alpha[1:] * xp.expm1(-n.h), n.alpha[1:] - n.alpha[:-1] * a)


def normal_like(keys: Array, x: Array) -> Array:
    """Standard normal noise of the shape and type of x [B, ...], from one key a sample [B]."""
    return jax.vmap(lambda key: jax.random.normal(key, x.shape[1:], x.dtype))(keys)
