"""One training step: the phases of a family in order, each a gradient of one role, then the averages."""

from collections.abc import Callable, Iterable, Mapping

import jax
import jax.numpy as jnp
import optax
from jax import Array

from genjax.families.base import Batch, Family, Phase
from genjax.training.ema import EMA
from genjax.training.optimizers import Optimizer
from genjax.training.state import TrainState

Metrics = dict[str, Array]  # scalars, float32, called "phase/name"
Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def make_train_step(
    family: Family,
    optimizers: Mapping[str, Optimizer],
    ema: EMA,
    preprocess: Callable[[Batch, Array], Batch] = lambda batch, key: batch,
) -> Step:
    """Returns the training step, a pure function of the state and the batch; the caller compiles it.

    Every random number of a step comes from `fold_in(state.key, state.step)`. A later phase reads the weights that an
    earlier one has updated. Each phase measures `loss`, `grad_norm` (of the whole gradient, before clipping),
    `learning_rate` and what its loss adds; over the updates of a repeated phase they are averaged.

    Args:
        family: gives the phases.
        optimizers: by trained role.
        ema: the rule of averages, applied once, after the last phase.
        preprocess: from the batch of the loader (uint8) to the batch of the losses, on the device.

    Returns:
        `step(state, batch) -> (state, metrics)`. The metrics of a phase that a step skips are NaN; see
        `skipped`.
    """
    phases = family.phases()

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        batch = preprocess(batch, jax.random.fold_in(key, 0))
        metrics: Metrics = {}
        for index, phase in enumerate(phases):
            phase_key = jax.random.fold_in(key, index + 1)
            state, measured = _run(phase, optimizers[phase.trains], state, batch, phase_key)
            metrics |= {f"{phase.name}/{name}": value for name, value in measured.items()}
        return state.replace(step=state.step + 1, ema=ema.update(state.ema, state.params, state.step)), metrics

    return step


def runs(phase: Phase, step: Array | int) -> Array | bool:
    """Whether a phase runs in the step that follows `step` steps: in the first one, and then each `every`-th."""
    return step % phase.every == 0


def skipped(phases: Iterable[Phase], step: int) -> tuple[str, ...]:
    """Returns how the metrics begin of the phases that do not run in the step that follows `step` steps."""
    return tuple(f"{phase.name}/" for phase in phases if not runs(phase, step))


def _run(phase: Phase, optimizer: Optimizer, state: TrainState, batch: Batch, key: Array) -> tuple[TrainState, Metrics]:
    """Takes all the updates of one phase in one step, or none where it is not the phase's turn."""

    def updates(state: TrainState) -> tuple[TrainState, Metrics]:
        if phase.repeat == 1:
            return _update(phase, optimizer, state, batch, key)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(phase.repeat))
        state, measured = jax.lax.scan(lambda s, k: _update(phase, optimizer, s, batch, k), state, keys)
        return state, jax.tree.map(lambda values: values.mean(0), measured)

    if phase.every == 1:
        return updates(state)
    skipped = jax.tree.map(lambda m: jnp.full(m.shape, jnp.nan, m.dtype), jax.eval_shape(updates, state)[1])
    return jax.lax.cond(runs(phase, state.step), updates, lambda state: (state, skipped), state)


def _update(
    phase: Phase, optimizer: Optimizer, state: TrainState, batch: Batch, key: Array
) -> tuple[TrainState, Metrics]:
    """Takes one gradient and updates one role."""
    role = phase.trains
    params, opt = state.params[role], state.opt[role]
    (loss, aux), grads = jax.value_and_grad(phase.loss, has_aux=True)(params, state, batch, key)
    updates, opt = optimizer.update(grads, opt, params, state.step)
    measured = {
        "loss": loss,
        "grad_norm": optax.tree.norm(grads),
        "learning_rate": optimizer.learning_rate(state.step),
        **aux.metrics,
    }
    state = state.replace(
        params={**state.params, role: optax.apply_updates(params, updates)},
        opt={**state.opt, role: opt},
        extra=state.extra if aux.extra is None else aux.extra,
    )
    return state, {name: jnp.asarray(value, jnp.float32) for name, value in measured.items()}
