"""The training state: all that a run is, between two steps."""

import types
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from genjax.config import require
from genjax.families.base import DataSpec, Extra, Family, Params
from genjax.families.teacher import begun_from
from genjax.training.optimizers import Optimizer, build_optimizer

if TYPE_CHECKING:
    from genjax.training.experiment import Experiment


class TrainState(struct.PyTreeNode):
    """Everything that a step reads and writes; what a checkpoint holds.

    Attributes:
        step: steps taken so far, int32 [].
        key: the run's key; the key of a step is `fold_in(key, step)`, so that no random state is carried along.
        params: the trees of weights by role, float32.
        opt: the optimizer states of the trained roles.
        ema: the averaged trees of those roles that have an average.
        extra: what the family carries from step to step beside its weights, by names that no role has.
        posthoc: the averages by power functions, by the label of their width and by role; {} where they are off.
    """

    step: Array
    key: Array
    params: dict[str, Params]
    opt: dict[str, Any]
    ema: dict[str, Params]
    extra: Extra
    posthoc: dict[str, dict[str, Params]] = struct.field(default_factory=dict)


def trained_roles(family: Family) -> tuple[str, ...]:
    """Returns the roles that the phases of a family train, each once, in order."""
    return tuple(dict.fromkeys(phase.trains for phase in family.phases()))


def create_state(
    experiment: "Experiment", spec: DataSpec, pretrained: Mapping[str, Params] = types.MappingProxyType({})
) -> TrainState:
    """Returns the state before the first step; a function of its arguments alone, to be called under `jit`.

    Args:
        experiment: the validated config.
        spec: shape and classes of the data.
        pretrained: what `families.teacher.pretrained` gives for the family. Shapes are the same without it.

    Raises:
        ConfigError: an optimizer or an average is given for a role that the family does not train, or none for one
            that it does.
        ValueError: pretrained weights do not fit the model.
    """
    init_key, key = jax.random.split(jax.random.key(experiment.seed))
    params, extra = experiment.family.init(init_key, spec)
    params, extra = begun_from(params, pretrained), begun_from(extra, pretrained)
    both = sorted(set(params) & set(extra))
    require(not both, f"the family calls a role and a part of `extra` by one name: {', '.join(both)}")
    optimizers = build_optimizers(experiment, params)
    trained = {role: params[role] for role in optimizers}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        key=key,
        params=params,
        opt={role: optimizer.init(params[role]) for role, optimizer in optimizers.items()},
        ema=experiment.ema.init(trained),
        extra=extra,
        posthoc=experiment.ema.init_posthoc(trained),
    )


def build_optimizers(experiment: "Experiment", params: dict[str, Params]) -> dict[str, Optimizer]:
    """Returns the optimizer of every trained role. Of `params`, shapes are enough."""
    return {
        role: build_optimizer(experiment.optimizers[role], params[role], f"config.optimizers.{role}")
        for role in trained_roles(experiment.family)
    }


def sampling_params(state: TrainState) -> dict[str, Params]:
    """Returns what to generate with: of every role the average where it has one, and all of `extra`."""
    return {**state.extra, **state.params, **state.ema}
