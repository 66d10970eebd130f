"""Times that are optimised for a denoiser and a solver, by gradients through the sampler."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jax import Array

from genjax.config import require
from genjax.processes import Process
from genjax.processes.base import softmax
from genjax.sampling.core import StatefulDenoiser, check_times, solve
from genjax.solvers import Denoiser, DPMpp2M, Solver

# A step may shrink or grow by e^MOST against another: keeps neighbouring times apart, also in float32.
MOST = 8.0


def mean_square(x: Array, target: Array) -> Array:
    """Returns the mean squared difference of two batches."""
    return jnp.mean((x - target) ** 2)


def optimize_times(
    key: Array,
    denoise: Denoiser | StatefulDenoiser,
    process: Process,
    solver: Solver,
    times: Any,
    x: Array,
    *,
    distance: Callable[[Array, Array], Array] = mean_square,
    teacher: Solver | None = None,
    refine: int = 64,
    iterations: int = 100,
) -> tuple[np.ndarray, np.ndarray]:
    """Moves the inner times of a grid so that the solver's result comes closest to the ODE's solution.

    Minimises the distance at the last time between the student, the solver on the times, and a teacher on a fine grid,
    by L-BFGS on the exact gradient through `solve`. The loss is that of Tong et al. 2025 without their soft teacher.
    Align Your Steps (Sabour et al. 2024) and GITS (Chen et al. 2024) are for the same end: the one minimises a bound on
    the divergence between SDEs, the other the sum of local errors; here it is the error of the samples, for this solver
    from these starts. For `ddim` on Gaussian data the result is `times.kl_optimal`.

    The steps are parameterised by a softmax, so that the times stay strictly monotone and the ends stay as they are,
    also where log-SNR is infinite. The minimum is a local one: start from the best grid known.

    The cost is `refine` steps of the teacher for each step of the grid, and from 1 to 2 `iterations` passes forwards
    and backwards over the student, if it takes them all. Memory is that of backpropagation through all steps; with
    `jax.checkpoint(denoise)` only the states are kept, for one more evaluation a step.

    Args:
        key: random key for `solve`, which a deterministic solver makes no use of.
        denoise: as for `solve`; differentiable in the state and the time.
        process: the process that the denoiser belongs to.
        solver: the method to find times for.
        times: [steps + 1], the grid to start from, with at least two steps.
        x: starts at `times[0]`, [B, ...], float32 or float64. The times have few degrees of freedom, but too few starts
            are still fitted too well: measure the error on others.
        distance: `(x [B, ...], target [B, ...]) -> []`, not negative and 0 where they are equal, such as the mean
            squared difference or that of a network's features.
        teacher: method of the fine solution, by default `dpmpp_2m`.
        refine: the teacher's steps for each step of the grid to start from, even in sqrt(t).
        iterations: of L-BFGS, at most; it stops earlier where the distance does not fall any more.

    Returns:
        The times [steps + 1], float64, and the distance after each iteration [done + 1], the first that at the start.

    Raises:
        ValueError: a stochastic solver, fewer than two steps, an argument out of range, a distance that is not finite
            at the start; also what `solve` raises.
    """
    for method in (solver, teacher):
        require(
            method is None or not method.stochastic,
            f"{method} draws noise: optimise times for a deterministic solver, such as its probability-flow sibling",
        )
    require(np.ndim(times) == 1 and len(times) >= 3, f"times have shape {np.shape(times)}: needs at least two steps")
    require(refine >= 2, f"refine = {refine}: must be at least 2")
    require(iterations >= 1, f"iterations = {iterations}: must be at least 1")
    grid = check_times(np.asarray(times, np.float64))
    index = np.arange(len(grid), dtype=np.float64)
    fine = np.interp(np.linspace(0.0, index[-1], refine * (len(grid) - 1) + 1), index, np.sqrt(grid)) ** 2
    fine[::refine] = grid
    target = jax.jit(lambda x: solve(key, denoise, process, teacher or DPMpp2M(), fine, x))(x)

    def loss(logits: Array, x: Array, target: Array) -> Array:
        inner = _inner(logits, grid, jnp)
        traced = jnp.concatenate([jnp.asarray(grid[:1], x.dtype), inner, jnp.asarray(grid[-1:], x.dtype)])
        # Its logarithm, so that the search sees relative progress however small the distance is.
        return jnp.log(distance(solve(key, denoise, process, solver, traced, x), target))

    evaluate = jax.jit(jax.value_and_grad(loss))

    def value_and_gradient(logits: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = evaluate(jnp.asarray(logits, x.dtype), x, target)
        return float(value), np.asarray(gradient, np.float64)

    start = np.log(np.abs(np.diff(grid)))
    history = [value_and_gradient(start)[0]]
    require(np.isfinite(history[0]), f"the distance at the start is {np.exp(history[0])}: nothing to optimise")
    found = scipy.optimize.minimize(
        value_and_gradient,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(value - MOST / 2, value + MOST / 2) for value in start],
        # Less progress than this is rounding, on which a line search would waste passes.
        options={"maxiter": iterations, "maxfun": 2 * iterations, "ftol": 10.0 * float(jnp.finfo(x.dtype).eps)},
        callback=lambda intermediate_result: history.append(intermediate_result.fun),
    )
    return np.concatenate([grid[:1], _inner(found.x, grid, np), grid[-1:]]), np.exp(history)


def _inner(logits: Any, grid: np.ndarray, xp: Any) -> Any:
    """The times between the ends, [steps - 1], at which steps in the ratio of exp(logits) [steps] meet.

    They are summed from the end nearer to the data, where a small time counts.
    """
    falling = grid[-1] < grid[0]
    low, high = (grid[-1], grid[0]) if falling else (grid[0], grid[-1])
    weights = softmax(logits)
    share = xp.cumsum(weights[::-1] if falling else weights)[:-1]
    inner = low + (high - low) * share
    return inner[::-1] if falling else inner
