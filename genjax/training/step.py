"""One training step: the phases of a family in order, each a gradient of one role, then the averages."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from genjax.config import require
from genjax.families.base import Aux, Batch, Family, Keys, Mean, Params, Phase
from genjax.training.ema import EMA
from genjax.training.optimizers import Optimizer
from genjax.training.state import TrainState

Metrics = dict[str, Mean]  # float32, called "phase/name"
Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
CHECKED = ("loss", "grad_norm")  # of every phase: what must be finite


def batches_per_step(family: Family) -> int:
    """Returns how many batches one step reads: one for each update of the phase that has the most."""
    return max(phase.repeat for phase in family.phases())


def make_train_step(
    family: Family,
    optimizers: Mapping[str, Optimizer],
    ema: EMA,
    preprocess: Callable[[Batch, Array], Batch] = lambda batch, key: batch,
    accumulate: int = 1,
    without: Collection[str] = (),
) -> Step:
    """Returns the training step, a pure function of the state and the batch; the caller compiles it.

    Every random number of a step comes from `fold_in(state.key, state.step)`. A later phase reads the weights that an
    earlier one has updated. Each phase measures `loss`, `grad_norm` (of the whole gradient, before clipping),
    `learning_rate` and what its loss adds; over the updates of a repeated phase they are averaged.

    A step whose loss or gradient is not finite in any phase leaves weights, optimizers, averages and `extra` as they
    were; only `step` counts on. Its metrics say so.

    Args:
        family: gives the phases.
        optimizers: by trained role.
        ema: the rule of averages, applied once, after the last phase.
        preprocess: from the batch of the loader (uint8) to the batch of the losses, on the device.
        accumulate: parts that a batch is computed in, one after another, with the memory of one. The gradient is that
            of the whole batch to rounding, as long as the loss is a mean over examples, each of which is computed by
            itself and draws from `keys.each`. What is in `extra` is updated part by part.
        without: names of phases to leave out, for what a step costs without them.

    Returns:
        `step(state, batch) -> (state, metrics)`. `batch` has the examples of all `batches_per_step(family)` batches;
        the metrics of a phase that a step leaves out have weight 0.
    """
    phases, count = [phase for phase in family.phases() if phase.name not in without], batches_per_step(family)
    checked = [f"{phase.name}/{name}" for phase in phases for name in CHECKED]

    def step(before: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(before.key, before.step)
        batch = preprocess(batch, jax.random.fold_in(key, 0))
        batches = _interleaved(batch, count)
        metrics: Metrics = {}
        state = before
        for index, phase in enumerate(phases):
            turn = _Turn(phase, optimizers[phase.trains], batches, accumulate)
            state, measured = turn.run(state, jax.random.fold_in(key, index + 1))
            metrics |= {f"{phase.name}/{name}": value for name, value in measured.items()}
        after = state.replace(
            key=None,
            step=before.step + 1,
            ema=ema.update(state.ema, state.params, state.step),
            posthoc=ema.update_posthoc(state.posthoc, state.params, state.step),
        )
        finite = jnp.isfinite(jnp.stack([metrics[name].total for name in checked])).all()
        undone = before.replace(key=None, step=after.step)
        state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, undone)
        return state.replace(key=before.key), metrics

    return step


def runs(phase: Phase, step: Array | int) -> Array | bool:
    """Whether a phase runs in the step that follows `step` steps: in the first one, and then each `every`-th."""
    return step % phase.every == 0


@dataclasses.dataclass(frozen=True)
class _Turn:
    """A phase with all that one step gives it; `batches` have a leading axis."""

    phase: Phase
    optimizer: Optimizer
    batches: Batch
    accumulate: int

    def run(self, state: TrainState, key: Array) -> tuple[TrainState, Metrics]:
        """Takes all the updates of the phase in one step, or none where it is not the phase's turn."""

        def updates(state: TrainState) -> tuple[TrainState, Metrics]:
            repeat = self.phase.repeat
            if repeat == 1:
                return self._update(state, (key, jax.tree.map(lambda x: x[0], self.batches)))
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(repeat))
            state, measured = jax.lax.scan(
                self._update, state, (keys, jax.tree.map(lambda x: x[:repeat], self.batches))
            )
            return state, jax.tree.map(lambda values: values.sum(0), measured)

        if self.phase.every == 1:
            return updates(state)
        nothing = jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), jax.eval_shape(updates, state)[1])
        return jax.lax.cond(runs(self.phase, state.step), updates, lambda state: (state, nothing), state)

    def _update(self, state: TrainState, given: tuple[Array, Batch]) -> tuple[TrainState, Metrics]:
        """Takes one gradient and updates one role."""
        (key, batch), role = given, self.phase.trains
        params, opt = state.params[role], state.opt[role]
        loss, aux, grads = self._gradient(params, state, batch, Keys.of(key, len(jax.tree.leaves(batch)[0])))
        updates, opt = self.optimizer.update(grads, opt, params, state.step)
        own = {"loss", "grad_norm", "learning_rate"}
        require(not own & set(aux.metrics), f"phase {self.phase.name!r}: {sorted(own)} are measured by the step itself")
        measured = {
            "loss": loss,
            "grad_norm": optax.tree.norm(grads),
            "learning_rate": self.optimizer.learning_rate(state.step),
            **aux.metrics,
        }
        state = state.replace(
            params={**state.params, role: optax.apply_updates(params, updates)},
            opt={**state.opt, role: opt},
            extra=state.extra if aux.extra is None else aux.extra,
        )
        return state, {name: _mean(value) for name, value in measured.items()}

    def _gradient(self, params: Params, state: TrainState, batch: Batch, keys: Keys) -> tuple[Array, Aux, Params]:
        """The loss, what it measures and its gradient, over the whole batch."""
        value_and_grad = jax.value_and_grad(self.phase.loss, has_aux=True)
        if self.accumulate == 1:
            (loss, aux), grads = value_and_grad(params, state, batch, keys)
            return loss, aux, grads

        n = self.accumulate
        parts = _interleaved((batch, keys.each, keys.place), n)

        def one(carry: Any, part: Any) -> tuple[Any, tuple[Array, Metrics]]:
            total, extra = carry
            batch, each, place = part
            here = Keys(keys.shared, each, place)
            (loss, aux), grads = value_and_grad(params, state.replace(extra=extra), batch, here)
            extra = extra if aux.extra is None else aux.extra
            measured = {name: _mean(value) for name, value in aux.metrics.items()}
            return (jax.tree.map(jnp.add, total, grads), extra), (loss, measured)

        start = (jax.tree.map(jnp.zeros_like, params), state.extra)
        (total, extra), (losses, measured) = jax.lax.scan(one, start, parts)
        summed = jax.tree.map(lambda values: values.sum(0), measured)
        return losses.mean(), Aux(summed, extra), jax.tree.map(lambda g: g / n, total)


def _interleaved(batch: Any, n: int) -> Any:
    """Cuts arrays [B, ...] into n parts [n, B / n, ...].

    Part i has the examples i, i + n, i + 2 n ...: of a batch that is split over devices, each keeps its own.
    """
    return jax.tree.map(lambda x: x.reshape(len(x) // n, n, *x.shape[1:]).swapaxes(0, 1), batch)


def _mean(value: Array | Mean) -> Mean:
    """A metric as a float32 mean; a number is the mean of one."""
    mean = value if isinstance(value, Mean) else Mean(value, jnp.float32(1.0))
    return Mean(jnp.asarray(mean.total, jnp.float32), jnp.asarray(mean.weight, jnp.float32))
