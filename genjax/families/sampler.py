"""How a family with a denoiser generates: solver, time grid, steps and guidance, one section of the config."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from genjax import sampling
from genjax.config import component, require
from genjax.parameterizations import ConditionalDenoiser
from genjax.processes import Process
from genjax.sampling.core import Trace
from genjax.solvers import DDIM, Adaptive, Solver


@dataclasses.dataclass(frozen=True)
class Sampler:
    """From a conditional denoiser to samples.

    Attributes:
        solver: the method.
        times: the time grid.
        steps: number of steps.
        guidance: how the condition is used. For samples without one, a rule that needs the null condition is ignored.
        final: what happens at the last time, see `genjax.sampling.solve`.
    """

    solver: Solver = component("solver", DDIM())
    times: Callable[..., Any] = component("times", sampling.times.uniform)
    steps: int = 50
    guidance: Callable[..., Any] = component("guidance", sampling.guidance.conditional)
    final: str = "denoise"

    def __post_init__(self) -> None:
        require(self.steps >= 1, f"steps = {self.steps}: must be at least 1")
        require(self.final in ("denoise", "none"), f"final = {self.final!r}: must be 'denoise' or 'none'")

    def __call__(
        self,
        key: Array,
        denoise: ConditionalDenoiser,
        process: Process,
        shape: tuple[int, ...],
        cond: Any = None,
        trace: Trace | None = None,
        start: Array | None = None,
    ) -> Any:
        """Draws samples [B, ...]; with a trace, the pair of them and what it returned, see `genjax.sampling.sample`.

        What a trace returns has the leading axis B, as its arguments have. `start` [B, ...] is what to begin with at
        the first time, in the place of the prior's noise.
        """
        guidance = sampling.guidance
        times = self.times(process, self.steps)
        rule = guidance.conditional if cond is None and guidance.needs_null(self.guidance) else self.guidance

        def draw(key: Array, cond: Any, start: Array | None, n: int) -> Any:
            guided = guidance.guide(rule, denoise, cond, null_condition(cond), process=process, times=times)
            x = sampling.start(key, process, times, (n, *shape[1:])) if start is None else start
            keys = jax.vmap(jax.random.fold_in, (0, None))(sampling.sample_keys(key, n), 1)
            return sampling.solve(keys, guided, process, self.solver, times, x, final=self.final, trace=trace)

        if cond is None or not (isinstance(self.solver, Adaptive) and self.solver.control == "sample"):
            return draw(key, cond, start, shape[0])

        # Such a solver calls the denoiser on single samples: each takes its own condition along.
        def draw_one(key: Array, cond: Any, start: Array | None) -> Any:
            cond, start = jax.tree.map(lambda leaf: leaf[None], (cond, start))
            drawn = draw(key[None], cond, start, 1)
            if trace is None:
                return drawn[0]
            x, seen = drawn
            return x[0], jax.tree.map(lambda leaf: leaf[:, 0], seen)

        each = jax.vmap(draw_one, out_axes=0 if trace is None else (0, 1))
        return each(sampling.sample_keys(key, shape[0]), cond, start)


def null_condition(cond: Any) -> Any:
    """The condition that stands for none: -1 for every label."""
    return jax.tree.map(lambda leaf: jnp.full_like(leaf, -1), cond)
