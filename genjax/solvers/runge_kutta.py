"""Explicit Runge-Kutta methods on the probability-flow ODE, in the coordinate of one's choice.

The ODE is linear in x and in the denoiser's output D, in every coordinate u and with every scaling x = m(u) y:

    dy/du = p(u) y + q(u) D(x, t).

So the stages of any tableau are linear combinations of x and of the outputs before them, and their coefficients are
worked out once, before the scan.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from jax import Array

from genjax.config import nearest, require
from genjax.processes import Process
from genjax.processes.base import exp, log, namespace
from genjax.registry import register
from genjax.solvers.base import Carry, Denoiser, SingleStep, first_order, nodes


class Coordinate(NamedTuple):
    """A coordinate u and a scaling m in which the ODE is integrated; functions of (process, t).

    Attributes:
        u: t -> u.
        inverse: u -> t.
        m: t -> m, with x = m y.
        slope: t -> (p, q).
        regular_without_signal: whether all that is finite at alpha = 0.
    """

    u: Callable[[Process, Any], Any]
    inverse: Callable[[Process, Any], Any]
    m: Callable[[Process, Any], Any]
    slope: Callable[[Process, Any], tuple[Any, Any]]
    regular_without_signal: bool = False


def _ratio(process: Process, t: Any) -> Any:
    return exp(-0.5 * process.log_snr(t))


def _norm(process: Process, t: Any) -> Any:
    return namespace(t).sqrt(process.alpha(t) ** 2 + process.sigma(t) ** 2)


def _slope_sigma(process: Process, t: Any) -> tuple[Any, Any]:
    inverse = exp(0.5 * process.log_snr(t))
    return inverse, -inverse


def _slope_log_snr(process: Process, t: Any) -> tuple[Any, Any]:
    half = 0.5 * namespace(t).ones_like(t)
    return -half, half


def _slope_t(process: Process, t: Any) -> tuple[Any, Any]:
    p = process.d_sigma(t) / process.sigma(t)
    return p, process.d_alpha(t) - p * process.alpha(t)


def _slope_angle(process: Process, t: Any) -> tuple[Any, Any]:
    sigma = process.sigma(t)
    return process.alpha(t) / sigma, -_norm(process, t) / sigma


COORDINATES = {
    # sigma / alpha on x / alpha (Karras et al. 2022, eq. 1): dy/du = (y - D) / u.
    "sigma": Coordinate(
        u=_ratio,
        inverse=lambda process, u: process.time_of_log_snr(-2.0 * log(u)),
        m=lambda process, t: process.alpha(t),
        slope=_slope_sigma,
    ),
    # log-SNR on x / alpha: dy/du = (D - y) / 2.
    "log_snr": Coordinate(
        u=lambda process, t: process.log_snr(t),
        inverse=lambda process, u: process.time_of_log_snr(u),
        m=lambda process, t: process.alpha(t),
        slope=_slope_log_snr,
    ),
    # t on x itself: dx/dt = alpha' D + sigma' eps.
    "t": Coordinate(
        u=lambda process, t: t,
        inverse=lambda process, u: u,
        m=lambda process, t: namespace(t).ones_like(t),
        slope=_slope_t,
        regular_without_signal=True,
    ),
    # The angle atan(sigma / alpha) on x / sqrt(alpha^2 + sigma^2), where the slope is v (Salimans & Ho 2022, appendix
    # D).
    "angle": Coordinate(
        u=lambda process, t: namespace(t).arctan2(process.sigma(t), process.alpha(t)),
        inverse=lambda process, u: process.time_of_log_snr(-2.0 * log(namespace(u).tan(u))),
        m=_norm,
        slope=_slope_angle,
        regular_without_signal=True,
    ),
}


class StagePlan(NamedTuple):
    """Stage i sits at time t[i] and is x[i] x_t + sum_j d[i, j] D_j; the last row is the step's result.

    Shapes: t [steps, stages], x [steps, stages + 1], d [steps, stages + 1, stages].
    """

    t: Any
    x: Any
    d: Any


@dataclasses.dataclass(frozen=True)
class RungeKutta(SingleStep):
    """What explicit Runge-Kutta methods share; a method is its tableau.

    A step to sigma = 0, and one whose coordinate is infinite at an end (`sigma` and `log_snr` at alpha = 0), is taken
    with the first-order formula, which is exact for a constant denoiser and finite there (Karras et al. 2022,
    algorithm 1, line 6).

    Attributes:
        coordinate: "sigma" (that is sigma / alpha), "log_snr", "t" or "angle" (that is atan(sigma / alpha)). Take "t"
            or "angle" where a process ends at alpha = 0: towards it the steps of a grid in t stay of size one in
            log-SNR, so that "log_snr" does not converge there.
    """

    coordinate: str = "sigma"
    tableau: ClassVar[tuple[tuple[float, ...], ...]]  # row i: the a_ij of stage i; the last row: the weights
    stochastic: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(
            self.coordinate in COORDINATES,
            f"coordinate = {self.coordinate!r}{nearest(self.coordinate, COORDINATES)}",
        )

    @property
    def nfe_per_step(self) -> int:
        """The number of stages."""
        return len(self.tableau)

    def plan(self, process: Process, times: Any) -> StagePlan:
        """Returns the coefficients of the stages."""
        xp = namespace(times)
        n = nodes(process, times)
        chart = COORDINATES[self.coordinate]
        regular = (n.finite | chart.regular_without_signal) & (n.sigma[1:] > 0)
        # Steps without a usable coordinate are planned as if at t = 0.5, and replaced below.
        start, end = (xp.where(regular, times_at, 0.5) for times_at in (times[:-1], times[1:]))
        u, du = chart.u(process, start), chart.u(process, end) - chart.u(process, start)
        stages = len(self.tableau)
        unit = xp.eye(stages + 1, dtype=times.dtype)[:, None]  # x_t, D_1, ..., D_m
        fractions = [sum(weights) for weights in self.tableau[:-1]]
        inner = [end if f == 1.0 else start if f == 0.0 else chart.inverse(process, u + f * du) for f in fractions]
        t = [start, *inner, end]
        m = [chart.m(process, time)[:, None] for time in t]
        y = first = unit[0] / m[0]
        rows, slopes = [unit[0] * xp.ones_like(m[0])], []
        for i, weights in enumerate(self.tableau):
            p, q = (term[:, None] for term in chart.slope(process, t[i]))
            slopes.append(p * y + q * unit[i + 1])
            y = first + du[:, None] * sum(w * k for w, k in zip(weights, slopes, strict=True))
            rows.append(m[i + 1] * y)
        # A step without a usable coordinate is of first order; its stages stay at (x_t, t).
        a, b = first_order(n)
        instead = [rows[0]] * stages + [a[:, None] * unit[0] + b[:, None] * unit[1]]
        combined = xp.where(regular[:, None, None], xp.stack(rows, axis=1), xp.stack(instead, axis=1))
        stage_times = xp.where(regular[:, None], xp.stack(t[:-1], axis=1), times[:-1, None])
        return StagePlan(stage_times, combined[..., 0], combined[..., 1:])

    def step(self, denoise: Denoiser, x: Array, plan_i: StagePlan, carry: Carry, keys: Array) -> tuple[Array, Carry]:
        """Advances x by one step."""
        outputs: list[Array] = []
        stage = x
        for i in range(self.nfe_per_step):
            outputs.append(denoise(stage, plan_i.t[i]))
            stage = plan_i.x[i + 1] * x + sum(plan_i.d[i + 1, j] * output for j, output in enumerate(outputs))
        return stage, carry


@register("solver", "euler")
@dataclasses.dataclass(frozen=True)
class Euler(RungeKutta):
    """Euler's method on the probability-flow ODE; in "sigma" it equals DDIM (Karras et al. 2022, eq. 1 and 4)."""

    order: ClassVar[int] = 1
    reference: ClassVar[str] = "karras2022elucidating"
    tableau = ((1.0,),)


@register("solver", "heun")
@dataclasses.dataclass(frozen=True)
class Heun(RungeKutta):
    """Heun's second-order method, EDM's deterministic sampler (Karras et al. 2022, algorithm 1)."""

    order: ClassVar[int] = 2
    reference: ClassVar[str] = "karras2022elucidating"
    tableau = ((1.0,), (0.5, 0.5))
