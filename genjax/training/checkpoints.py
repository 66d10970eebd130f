"""Checkpoints: the one wrapper round orbax.

A checkpoint is a folder `<step>` that appears whole or not at all: it is written under another name and renamed. It has
three parts, so that sampling need not read the optimizer: `params`, `ema` and `rest`.
"""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
from orbax.checkpoint import v1

from genjax.config import ConfigError
from genjax.families.base import Params
from genjax.training.state import TrainState

DIRECTORY = "checkpoints"  # within a run folder


class Checkpoints:
    """The checkpoints of one run, written in the background. One process a machine may hold it open."""

    def __init__(self, directory: str | os.PathLike[str], keep: int = 3) -> None:
        """Opens the folder, creates it where it is missing, and removes what a killed run has left half-written.

        Args:
            directory: the folder.
            keep: how many of the latest checkpoints stay.
        """
        policies = v1.training.preservation_policies
        self._orbax = v1.training.Checkpointer(
            pathlib.Path(directory).resolve(),
            preservation_policy=policies.LatestN(keep),
            cleanup_tmp_directories=True,
        )

    def latest_step(self) -> int | None:
        """Returns the step of the newest checkpoint, or None where there is none."""
        return None if self._orbax.latest is None else self._orbax.latest.step

    def save(self, step: int, state: TrainState, metadata: Mapping[str, Any] | None = None) -> bool:
        """Starts to write a checkpoint, and returns when `state` may be donated.

        Waits for the one before where that is still being written, and raises what went wrong with it.

        Args:
            step: its name, the number of steps taken.
            state: what is saved.
            metadata: JSON values to be kept with it.

        Returns:
            Whether anything was saved: False where the step has a checkpoint already.
        """
        if step in [checkpoint.step for checkpoint in self._orbax.checkpoints]:
            return False
        # force: when to save is not for orbax's policies to say.
        self._orbax.save_checkpointables_async(step, _split(state), force=True, custom_metadata=dict(metadata or {}))
        return True

    def restore(self, template: TrainState, step: int | None = None) -> tuple[TrainState, dict[str, Any]]:
        """Reads a checkpoint, bit for bit as it was saved.

        Args:
            template: a state of the same structure, or its shapes with shardings; where the arrays go.
            step: which checkpoint; None for the newest.

        Returns:
            The state and its metadata.

        Raises:
            ConfigError: there is none, or its structure is another.
        """
        step = _resolve(self._orbax, step)
        about = self._orbax.checkpointables_metadata(step)
        wanted = jax.tree.map(_abstract, _split(template))
        _check_fit({part: about.metadata.get(part, {}) for part in wanted}, wanted, f"{self._orbax.directory}/{step}")
        parts = self._orbax.load_checkpointables(step, wanted)
        state = TrainState(params=parts["params"], ema=parts.get("ema", {}), **parts["rest"])
        return state, dict(about.custom_metadata or {})

    def wait(self) -> None:
        """Waits until what is being written is on disk, and raises what went wrong."""
        self._orbax.wait()

    def close(self) -> None:
        """Waits, and lets go of the folder."""
        self._orbax.close()


def restore_params(
    directory: str | os.PathLike[str], step: int | None = None, *, ema: bool = True
) -> tuple[dict[str, Params], int]:
    """Reads the weights of a checkpoint and nothing else, onto this process's first device; writes nothing.

    Args:
        directory: the folder of the checkpoints.
        step: which one; None for the newest.
        ema: whether the averages take the places of the weights, where a role has them.

    Returns:
        The weights by role, and the step.

    Raises:
        ConfigError: there is no such checkpoint.
    """
    if not pathlib.Path(directory).is_dir():
        raise ConfigError(f"{directory}: no checkpoint yet")
    with v1.training.Checkpointer(pathlib.Path(directory).resolve()) as orbax:
        step = _resolve(orbax, step)
        saved = orbax.checkpointables_metadata(step).metadata
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        wanted = {
            part: jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), saved[part])
            for part in ("params", *(("ema",) if ema and "ema" in saved else ()))
        }
        parts = orbax.load_checkpointables(step, wanted)
    return {**parts["params"], **parts.get("ema", {})}, step


def _split(state: TrainState) -> dict[str, Any]:
    """The parts of a checkpoint. Orbax cannot write a part without arrays, so `ema` may be missing."""
    rest = {"step": state.step, "key": state.key, "opt": state.opt, "extra": state.extra}
    return {"params": state.params, "rest": rest} | ({"ema": state.ema} if state.ema else {})


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _key_data(leaf: Any) -> Any:
    """What orbax's metadata show of an array: of random keys, their bits."""
    return jax.eval_shape(jax.random.key_data, leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def _check_fit(saved: Any, wanted: Any, where: str) -> None:
    """Raises ConfigError with the first array that differs; orbax's own message is a page that does not name it."""

    def describe(tree: Any) -> dict[str, str]:
        leaves = jax.tree_util.tree_flatten_with_path(jax.tree.map(_key_data, tree))[0]
        return {
            jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype} {list(leaf.shape)}"
            for path, leaf in leaves
        }

    there, here = describe(saved), describe(wanted)
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise ConfigError(
                f"{where}: the checkpoint does not fit this config: "
                f"{name} is {there.get(name, 'missing')}, and {here.get(name, 'not expected')} here"
            )


def _resolve(orbax: v1.training.Checkpointer, step: int | None) -> int:
    steps = [checkpoint.step for checkpoint in orbax.checkpoints]
    if not steps:
        raise ConfigError(f"{orbax.directory}: no checkpoint yet")
    if step is not None and step not in steps:
        raise ConfigError(f"{orbax.directory}: no checkpoint of step {step}; there are {', '.join(map(str, steps))}")
    return steps[-1] if step is None else step
