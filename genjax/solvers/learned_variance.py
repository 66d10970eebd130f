"""Ancestral sampling with the variance that a network gives beside its estimate of x_0.

The state is two images wide in its last axis: x, and what the denoiser's second half stands in. The denoiser returns
x_0 and v side by side, and `LearnedVariance` reads them so. No config names it: a family whose network gives variances
samples by it where the solver is `ddpm` with variance "learned".
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array

from genjax.processes import Process
from genjax.processes.base import log, namespace
from genjax.solvers.base import Denoiser, Noise, Span, check_falling
from genjax.solvers.ddim import forgotten, posterior
from genjax.solvers.steps import before, steps


class Transition(NamedTuple):
    """A step of the chain from x_t to x_s, each [steps] or [].

    Its mean is a x_t + b x_0. Its log-variance lies between that of the posterior q(x_s | x_t, x_0) and that of
    q(x_t | x_s) (Nichol & Dhariwal 2021, eq. 15). A step to data without noise has for its least the value of the step
    before it, as published.
    """

    a: Any
    b: Any
    least: Any
    most: Any

    def log_variance(self, v: Array) -> Array:
        """Returns the log-variance of an output v, which is taken from [-1, 1] to that range and held there."""
        share = jnp.clip(0.5 * (v + 1.0), 0.0, 1.0)
        return share * self.most + (1.0 - share) * self.least


def transitions(process: Process, times: Any) -> Transition:
    """Returns the steps between falling times [steps + 1]."""
    xp = namespace(times)
    a, b, std = posterior(process, times, 1.0)
    most = process.sigma(times[:-1]) * forgotten(steps(process, times))
    std = xp.where(std > 0, std, before(std, 1, 0.0))
    return Transition(a, b, 2.0 * log(xp.where(std > 0, std, most)), 2.0 * log(most))


class LearnedPlan(NamedTuple):
    """All of a step: its time, its transition, whether it adds noise, and between which times."""

    t: Any
    transition: Transition
    noisy: Any
    span: Span


@dataclasses.dataclass(frozen=True)
class LearnedVariance:
    """Ancestral sampling with learnt variances (Nichol & Dhariwal 2021, section 3.1), on a state two images wide."""

    order: ClassVar[int] = 1
    nfe_per_step: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True
    reference: ClassVar[str] = "nichol2021improved"

    def plan(self, process: Process, times: Any) -> LearnedPlan:
        """Returns the coefficients [steps]."""
        check_falling("ddpm", times)
        noisy = namespace(times).where(process.sigma(times[1:]) > 0, 1.0, 0.0)
        return LearnedPlan(times[:-1], transitions(process, times), noisy, Span(times[:-1], times[1:]))

    def init(self, x: Array) -> tuple[()]:
        """Returns nothing: there is no history."""
        return ()

    def step(
        self, denoise: Denoiser, x: Array, plan_i: LearnedPlan, carry: tuple[()], noise: Noise
    ) -> tuple[Array, tuple[()]]:
        """Advances the first half of x by one step; the second one stays."""
        x_0, v = jnp.split(denoise(x, plan_i.t), 2, axis=-1)
        x_t, rest = jnp.split(x, 2, axis=-1)
        z, _ = jnp.split(noise(0, plan_i.span), 2, axis=-1)
        of = plan_i.transition
        std = plan_i.noisy * jnp.exp(0.5 * of.log_variance(v))
        return jnp.concatenate([of.a * x_t + of.b * x_0 + std * z, rest], axis=-1), carry
