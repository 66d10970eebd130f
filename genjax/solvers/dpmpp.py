"""DPM-Solver++: exponential integrators on the denoiser, in lambda."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array

from genjax.citation import bibtex
from genjax.processes import Process
from genjax.processes.base import namespace
from genjax.registry import register
from genjax.solvers.base import Denoiser, first_order, nodes

LU_2022 = bibtex(
    """
    @article{lu2022dpmsolverpp,
      title = {{DPM-Solver++}: Fast Solver for Guided Sampling of Diffusion Probabilistic Models},
      author = {Lu, Cheng and Zhou, Yuhao and Bao, Fan and Chen, Jianfei and Li, Chongxuan and Zhu, Jun},
      journal = {arXiv preprint arXiv:2211.01095},
      year = {2022}
    }
    """
)


class MultistepPlan(NamedTuple):
    """x_s = a x_t + b D_i + c D_{i-1}, each [steps]."""

    t: Any
    a: Any
    b: Any
    c: Any


@register("solver", "dpmpp_2m")
@dataclasses.dataclass(frozen=True)
class DPMpp2M:
    """DPM-Solver++(2M), second-order multistep (Lu et al. 2022b, algorithm 2).

    The first step is of first order, which costs a second-order method no order. So is a step from alpha = 0 or to
    sigma = 0, where the step in lambda is infinite.
    """

    order: ClassVar[int] = 2
    nfe_per_step: ClassVar[int] = 1
    stochastic: ClassVar[bool] = False
    reference: ClassVar[str] = LU_2022

    def plan(self, process: Process, times: Any) -> MultistepPlan:
        """Returns the coefficients [steps]."""
        xp = namespace(times)
        n = nodes(process, times)
        a, b = first_order(n)
        # h_i / (2 h_{i-1}): beside an infinite step, or without one before, the first-order formula stands alone.
        none = xp.zeros_like(n.finite[:1])
        usable = n.finite & xp.concatenate([none, n.finite[:-1]])
        weight = xp.where(usable, 0.5 * n.h / xp.concatenate([xp.ones_like(n.h[:1]), n.h[:-1]]), 0.0)
        return MultistepPlan(times[:-1], a, b * (1.0 + weight), -b * weight)

    def init(self, x: Array) -> Array:
        """Returns the denoiser's output before the first, which has weight zero."""
        return jnp.zeros_like(x)

    def step(
        self, denoise: Denoiser, x: Array, plan_i: MultistepPlan, carry: Array, keys: Array
    ) -> tuple[Array, Array]:
        """Advances x by one step."""
        x_0 = denoise(x, plan_i.t)
        return plan_i.a * x + plan_i.b * x_0 + plan_i.c * carry, x_0
