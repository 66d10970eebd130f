"""Flow maps: models of where a path ends, by its average velocity, and how a solver follows them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from genjax import sampling
from genjax.config import component, require, section
from genjax.families.base import Batch, Extra, Keys, Params
from genjax.families.denoising import MODEL
from genjax.families.sampler import Sampler
from genjax.families.student import TEACHER, FreeStudent
from genjax.families.teacher import teacher_denoiser
from genjax.parameterizations import ConditionalDenoiser, Parameterization, Velocity, expand
from genjax.processes import Process, RectifiedFlow
from genjax.sampling.keys import normal_like

STEP = "step"  # the number by which a network hears of the length of a step

# A teacher's velocity is a difference over t: below this time it has no digits, and few teachers know such noise.
_SMALLEST_TIME = 2e-3

AverageVelocity = Callable[[Array, Array, Array, Any], Array]  # (x_t [B, ...], t [B], s [B], cond) -> [B, ...]


def next_time(times: Any) -> Callable[[Array], Array]:
    """Returns the function of t that gives the time which a sampler on a grid goes to from t.

    Args:
        times: the grid, falling. Between its times it is the next one below; from its last time on it is t itself.
    """
    grid = np.asarray(times, np.float64)[::-1]
    # The solver evaluates at the grid's times in float32.
    above = grid + 1e-3 * np.diff(grid).min()

    def at(t: Array) -> Array:
        index = jnp.searchsorted(jnp.asarray(above, t.dtype), t)
        return jnp.minimum(t, jnp.asarray(grid, t.dtype)[jnp.maximum(index - 1, 0)])

    return at


def flow_map_denoiser(velocity: AverageVelocity, times: Any) -> ConditionalDenoiser:
    """Makes a denoiser of an average velocity, with which a sampler on a grid follows the flow map exactly.

    At a time t of the grid, whose next one is s, it is D = x_t - t u(x_t, t, s). On the straight path a step of `ddim`
    or `euler` is then x_s = x_t - (t - s) u, the flow map's own. At other times it is the one for the next time below,
    and at the last it is the denoiser of the instantaneous velocity.

    Args:
        velocity: the average velocity u of the path from t to s, on the process `rectified_flow`.
        times: the sampler's grid [steps + 1], falling.

    Returns:
        `(x_t [B, ...], t [] or [B], cond) -> [B, ...]`.
    """
    following = next_time(times)

    def denoise(x_t: Array, t: Array, cond: Any = None) -> Array:
        t = jnp.broadcast_to(jnp.asarray(t, x_t.dtype), x_t.shape[:1])
        return x_t - expand(t, x_t) * velocity(x_t, t, following(t), cond)

    return denoise


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowMap(FreeStudent):
    """A network that gives the average velocity u(x_t, t, s) of the path from x_t at t to a time s below.

    u = (x_t - x_s) / (t - s), on the straight path, so that x_s = x_t - (t - s) u(x_t, t, s), and for s = t it is the
    velocity dx/dt. The network hears of s by the length t - s, the number "step" of its condition.

    Attributes beside those of `FreeStudent`:
        teacher: a trained denoiser whose paths are learned. Without one they are those of the data, whose velocity is
            known as the mean of eps - x_0.
        begin: "teacher" needs one that is a network of velocities too.
        sampler: takes its steps by the flow map. Solvers that evaluate it between the times of the grid get the map to
            the next one below, which is not what they are made for.
    """

    process: Process = component("process", RectifiedFlow())
    parameterization: Parameterization = component("parameterization", Velocity())
    sampler: Sampler = section(Sampler, Sampler(times=sampling.times.trailing, steps=1, final="none"))

    def __post_init__(self) -> None:
        require(
            self.process == RectifiedFlow() and isinstance(self.parameterization, Velocity),
            "a flow map is that of the velocities of the process rectified_flow with shift 1",
        )
        super().__post_init__()
        scalars = tuple(getattr(self.network, "scalars", (STEP,)))
        require(STEP in scalars, f"network.scalars = {scalars}: a flow map needs {STEP!r}, the length of a step")
        if self.begin == "teacher" and self.teacher is not None:
            other = self.teacher.family
            require(
                other.process == self.process and other.parameterization == self.parameterization,
                "begin = 'teacher': the teacher is no network of velocities on rectified_flow, so its weights mean "
                "something else; take begin = 'scratch'",
            )

    def denoiser(self, params: dict[str, Params]) -> ConditionalDenoiser:
        """Returns the denoiser with which the sampler, on its own grid, follows the flow map."""

        def velocity(x_t: Array, t: Array, s: Array, cond: Any) -> Array:
            return self.velocity(params[MODEL], x_t, t, s, cond)

        return flow_map_denoiser(velocity, self.sampler.times(self.process, self.sampler.steps))

    def velocity(
        self, params: Params, x_t: Array, t: Array, s: Array, cond: Any = None, dropout: Array | None = None
    ) -> Array:
        """Returns the average velocity [B, ...] of the path from x_t at times t [B] to times s [B]."""
        assert isinstance(self.parameterization, Velocity)
        scale = self.parameterization.time_scale
        label = scale * t + self.parameterization.time_offset
        return self._apply(params, x_t, label, {**(cond or {}), STEP: scale * (t - s)}, dropout)

    def _pairs(self, keys: Keys, batch: Batch) -> tuple[Array, Array]:
        """Images and the noise that each goes to, both [B, H, W, C]."""
        x_0 = batch["image"]
        return x_0, normal_like(keys.each, x_0)

    def _times(self, t: Array) -> Array:
        """Training times at which the velocity that is learned from is known."""
        return t if self.teacher is None else jnp.maximum(t, _SMALLEST_TIME)

    def _tangent(self, frozen: Extra, x_t: Array, t: Array, cond: Any, x_0: Array, eps: Array) -> Array:
        """The velocity at x_t that is learned from: the teacher's, or that of the pair, whose mean is the data's."""
        if self.teacher is None:
            return eps - x_0
        denoise = teacher_denoiser(self.teacher, frozen[TEACHER], self.process)
        return jax.lax.stop_gradient((x_t - denoise(x_t, t, cond)) / expand(t, x_t))
