"""The one scan that every sampler runs in."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from genjax.config import require
from genjax.processes import Process
from genjax.sampling.keys import normal_like, sample_keys
from genjax.solvers import Denoiser, Solver, rings
from genjax.solvers.base import Span
from genjax.solvers.linear import Linear

Trace = Callable[[Array, Array, Array], Any]  # (x_t [B, ...], x_0_hat [B, ...], t []) -> a pytree


class NoiseSource(NamedTuple):
    """Where a stochastic solver's normal draws come from.

    Attributes:
        clock: times [steps] -> what `draw` is given in their place [steps], worked out before the scan.
        draw: (keys [B], clock at the start [], clock at the end [], x [B, ...]) -> standard normal draws like x.
    """

    clock: Callable[[Any], Any]
    draw: Callable[[Array, Array, Array, Array], Array]


class StatefulDenoiser(NamedTuple):
    """A denoiser that remembers: `solve` takes it in place of one, and so does what hands it on to `solve`.

    The memory advances at the first evaluation of every step; the other evaluations of a step see it unchanged. What
    evaluates a denoiser away from a path (likelihood, bound, wrappers) cannot take it and raises ValueError.

    Attributes:
        init: x [B, ...] -> the memory before the first step.
        apply: (x_t [B, ...], t [], memory) -> (E[x_0 | x_t] [B, ...], the next memory).
    """

    init: Callable[[Array], Any]
    apply: Callable[[Array, Array, Any], tuple[Array, Any]]

    def __call__(self, x_t: Array, t: Array) -> NoReturn:
        """Raises ValueError: without its memory it has no value."""
        raise ValueError(
            "this denoiser remembers from step to step, so that only solve and what hands it on to solve can take it; "
            "guidance by apg has no memory with momentum = 0"
        )


def solve(
    key: Array,
    denoise: Denoiser | StatefulDenoiser,
    process: Process,
    solver: Solver,
    times: Any,
    x: Array,
    *,
    final: str = "none",
    trace: Trace | None = None,
    noise: NoiseSource | None = None,
    debug: bool = False,
    carry: bool = False,
) -> Any:
    """Follows a solver from `times[0]` to `times[-1]`.

    One `lax.scan`, and one more for the few steps that a multistep method needs to start: neither memory nor compile
    time grows with the steps. May be jitted, vmapped and differentiated, with respect to the times too (then the plan
    is traced; concrete times are planned in float64).

    Args:
        key: random key, or one a sample [B]. Sample i draws from (key, i) alone, so it is the same in every batch.
        denoise: `(x_t [B, ...], t []) -> E[x_0 | x_t] [B, ...]`, or one that remembers.
        process: the process that the denoiser belongs to.
        solver: the method.
        times: [steps + 1] in [0, 1], strictly monotone: falling to generate, rising to encode, starting part-way to
            edit. Traced ones cannot be checked: what is wrong with them shows in the result.
        x: the state at `times[0]`, [B, ...], float32 or float64.
        final: "denoise" evaluates the denoiser once more at the last time and returns its estimate of x_0; where that
            time has no noise the state itself is the estimate. "none" returns the state at the last time.
        trace: `(x_t, x_0_hat, t) -> pytree`, called with the first evaluation of each step: the state, the denoiser's
            output at it, the time.
        noise: where a stochastic solver's normal draws come from; independent ones by default. See
            `genjax.sampling.brownian_path`.
        debug: whether a denoiser that returns NaN or infinity is an error that names the step. It costs a little time.
        carry: whether the solver's last carry is returned too, such as what `adaptive` counted.

    Returns:
        The result [B, ...]; with a trace or the carry, a tuple of it, the trace's results stacked along [steps] and the
        carry, of these what was asked for.

    Raises:
        ValueError: times that are not monotone or leave [0, 1], an unknown `final`, a state of another type, a
            denoiser that changes the shape.
        RuntimeError: with `debug`, a denoiser that returns NaN or infinity; tolerances of `adaptive` that it does not
            reach.
    """
    require(final in ("denoise", "none"), f"final = {final!r}: must be 'denoise' or 'none'")
    x = jnp.asarray(x)
    require(
        x.dtype in (jnp.float32, jnp.float64),
        f"x has type {x.dtype}: solver state is float32 or float64, cast it first",
    )
    times = check_times(times)
    plan = solver.plan(process, times)
    if noise is not None:
        plan = jax.tree.map(
            lambda leaf: Span(*map(noise.clock, leaf)) if isinstance(leaf, Span) else leaf,
            plan,
            is_leaf=lambda leaf: isinstance(leaf, Span),
        )
    # A linear plan is run with its history in rings, any other solver by its own step.
    linear = getattr(type(solver), "step", None) is Linear.step
    parts = rings.segments(rings.in_rings(plan)) if linear else (plan,)
    step = rings.step if linear else solver.step
    keys = sample_keys(key, x.shape[0])
    stateful = denoise if isinstance(denoise, StatefulDenoiser) else _stateless(denoise)
    rows = len(jax.tree.leaves(plan)[0])
    names = _step_names(times, rows)

    def evaluate(x_in: Array, t: Array, memory: Any, i: Any) -> tuple[Array, Any]:
        x_0, memory = stateful.apply(x_in, t, memory)
        shape = getattr(x_0, "shape", f"of a {type(x_0).__name__}")
        require(shape == x_in.shape, f"the denoiser returns shape {shape} for a state of shape {x_in.shape}")
        if debug:
            x_0 = eqx.branched_error_if(x_0, ~jnp.all(jnp.isfinite(x_0)), i, names)
        return x_0.astype(x.dtype), memory

    def body(state: tuple[Array, Any, Any], inputs: tuple[Array, Any]) -> tuple[tuple[Array, Any, Any], Any]:
        x_t, history, memory = state
        i, plan_i = inputs
        first: list[Any] = []

        def recording(x_in: Array, t: Array) -> Array:
            x_0, after = evaluate(x_in, t, memory, i)
            first.append((x_in, x_0, t, after))
            return x_0

        def draw(j: int, span: Span | None) -> Array:
            if noise is not None and span is not None:
                return noise.draw(keys, span.start, span.end, x_t)
            fold = jax.vmap(lambda k: jax.random.fold_in(jax.random.fold_in(k, i), j))
            return normal_like(fold(keys), x_t)

        x_s, history = step(recording, x_t, plan_i, history, draw)
        x_in, x_0, t, memory = first[0]
        return (x_s, history, memory), trace(x_in, x_0, t) if trace is not None else None

    history = rings.empty(plan, x) if linear else solver.init(x)
    state, done, traces = (x, history, stateful.init(x)), 0, []
    for part in parts:
        part = jax.tree.map(lambda leaf: _as_input(leaf, x.dtype), part)
        index = jnp.arange(done, done := done + len(jax.tree.leaves(part)[0]))
        state, seen = jax.lax.scan(body, state, (index, part))
        traces.append(seen)
    x, history, memory = state
    if final == "denoise":
        x = _denoise_last(lambda x, t: evaluate(x, t, memory, rows)[0], process, x, times[-1])
    extras = [] if trace is None else [jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *traces)]
    extras += [history] if carry else []
    return (x, *extras) if extras else x


def sample(
    key: Array,
    denoise: Denoiser | StatefulDenoiser,
    process: Process,
    solver: Solver,
    times: Any,
    shape: tuple[int, ...],
    *,
    final: str = "denoise",
    trace: Trace | None = None,
    noise: NoiseSource | None = None,
    debug: bool = False,
    carry: bool = False,
) -> Any:
    """Draws from the prior and follows a solver to the data.

    Args:
        key: random key, or one a sample [B]. Sample i depends on (key, i) alone.
        denoise: `(x_t [B, ...], t []) -> E[x_0 | x_t] [B, ...]`, or one that remembers.
        process: the process that the denoiser belongs to.
        solver: the method.
        times: [steps + 1] in [0, 1], falling. A start before t = 1 takes the prior at that time's noise level.
        shape: [B, ...] of what is generated.
        final: as for `solve`.
        trace: as for `solve`.
        noise: as for `solve`.
        debug: as for `solve`.
        carry: as for `solve`.

    Returns:
        Samples [B, ...]; with a trace or the carry, a tuple as for `solve`.

    Raises:
        ValueError: as for `solve`.
        RuntimeError: as for `solve`.
    """
    times = check_times(times)
    if not isinstance(times, jax.core.Tracer):
        require(times[-1] < times[0], f"to generate, times must fall; these rise from {times[0]} to {times[-1]}")
    x = start(key, process, times, shape)
    return solve(
        jax.vmap(jax.random.fold_in, (0, None))(sample_keys(key, shape[0]), 1),
        denoise,
        process,
        solver,
        times,
        x,
        final=final,
        trace=trace,
        noise=noise,
        debug=debug,
        carry=carry,
    )


def start(key: Array, process: Process, times: Any, shape: tuple[int, ...]) -> Array:
    """Returns the state that `sample` begins with, noise of the level at `times[0]`, [B, ...].

    Args:
        key: random key, or one a sample [B], as for `sample`.
        process: the process.
        times: [steps + 1].
        shape: [B, ...].
    """
    keys = jax.vmap(jax.random.fold_in, (0, None))(sample_keys(key, shape[0]), 0)
    x = jax.vmap(lambda k: process.prior(k, shape[1:]))(keys)
    scale = process.sigma(times[0]) / process.sigma(np.float64(1.0))
    return jnp.asarray(scale, x.dtype) * x


def _stateless(denoise: Denoiser) -> StatefulDenoiser:
    return StatefulDenoiser(lambda x: (), lambda x_t, t, state: (denoise(x_t, t), state))


def _step_names(times: Any, rows: int) -> list[str]:
    """What an error says of every step, the last being the evaluation after them."""
    if isinstance(times, jax.core.Tracer) or rows != len(times) - 1:
        where = [f"at step {i} of {rows}" for i in range(rows)]
    else:
        where = [f"at step {i} of {rows}, from t = {t:.6g} to {s:.6g}" for i, (t, s) in enumerate(pairwise(times))]
    return [f"the denoiser returned NaN or infinity {place}" for place in [*where, "at the last time, after all steps"]]


def _as_input(values: Any, dtype: Any) -> Array:
    values = jnp.asarray(values)
    return values.astype(dtype) if jnp.issubdtype(values.dtype, jnp.floating) else values


def check_times(times: Any) -> Any:
    """Concrete times as float64 NumPy, checked; traced times as they are."""
    require(
        np.ndim(times) == 1 and len(times) >= 2, f"times have shape {np.shape(times)}: must be [steps + 1], at least 2"
    )
    if isinstance(times, jax.core.Tracer):
        return times
    times = np.asarray(times, np.float64)
    require(bool(np.all((times >= 0) & (times <= 1))), f"times must be in [0, 1], not {times.min()} to {times.max()}")
    differences = np.diff(times)
    wrong = np.flatnonzero(~((differences < 0) if times[-1] < times[0] else (differences > 0)))
    if wrong.size:
        i = int(wrong[0])
        raise ValueError(f"times must be strictly monotone: times[{i}] = {times[i]}, times[{i + 1}] = {times[i + 1]}")
    return times


def _denoise_last(denoise: Denoiser, process: Process, x: Array, t: Any) -> Array:
    if not isinstance(t, jax.core.Tracer) and process.sigma(t) == 0.0:
        return x / jnp.asarray(process.alpha(t), x.dtype)
    x_0 = denoise(x, jnp.asarray(t, x.dtype))
    if not isinstance(t, jax.core.Tracer):
        return x_0
    clean = process.sigma(t) == 0.0
    return jnp.where(clean, x / jnp.where(clean, process.alpha(t), 1.0).astype(x.dtype), x_0)
