"""Devices: one mesh with the axes `data` and `fsdp`, and where batches and states lie on it.

A batch is split over all devices. With `fsdp = 1` every device holds the whole state; with more, each array of the
state is split over that many devices along its longest axis that they divide, and XLA gathers it where it is used.

Neighbours along `fsdp` are neighbours in jax's order of devices, which goes through one process after another: with no
more of them than a machine has, weights travel within machines and only gradients between them.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from genjax.config import ConfigError, require

AXES = ("data", "fsdp")


@dataclasses.dataclass(frozen=True)
class Mesh:
    """The mesh section of a config.

    Attributes:
        data: devices along which batches are split and states copied; -1 for all that `fsdp` leaves.
        fsdp: devices along which states are split too.
    """

    data: int = -1
    fsdp: int = 1

    def __post_init__(self) -> None:
        require(self.data == -1 or self.data >= 1, f"data = {self.data}: must be at least 1, or -1 for all devices")
        require(self.fsdp >= 1, f"fsdp = {self.fsdp}: must be at least 1")

    def build(self) -> jax.sharding.Mesh:
        """Returns the mesh over the devices of all processes.

        Raises:
            ConfigError: the devices are too few, or cannot be divided so.
        """
        count = jax.device_count()
        data = count // self.fsdp if self.data == -1 else self.data
        if data * self.fsdp != count and (self.data == -1 or data * self.fsdp > count or jax.process_count() > 1):
            raise ConfigError(f"config.mesh: data = {self.data}, fsdp = {self.fsdp} does not fit {count} devices")
        types = (AxisType.Auto,) * len(AXES)
        return jax.make_mesh((data, self.fsdp), AXES, axis_types=types, devices=jax.devices()[: data * self.fsdp])


def batch_sharding(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Returns how batches lie: the first axis split over all devices."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def state_sharding(mesh: jax.sharding.Mesh, state: Any) -> Any:
    """Returns how each array of a state lies: a tree of the same structure. Shapes are enough.

    The rule sees nothing but shapes, so that weights, gradients, averages and the moments that an optimizer keeps of
    each weight lie alike, and updates need no communication. What has another shape, such as the rows and columns of
    Adafactor, lies by its own; scalars and random keys are everywhere.
    """
    parts = mesh.shape["fsdp"]

    def rule(leaf: Any) -> NamedSharding:
        shape = leaf.shape
        axes = [axis for axis, length in enumerate(shape) if length % parts == 0]
        if parts == 1 or not axes or jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return NamedSharding(mesh, PartitionSpec())
        longest = max(axes, key=lambda axis: shape[axis])
        return NamedSharding(mesh, PartitionSpec(*("fsdp" if axis == longest else None for axis in range(len(shape)))))

    return jax.tree.map(rule, state)


def check_batch_size(batch_size: int, mesh: jax.sharding.Mesh, name: str = "config.training.batch_size") -> None:
    """Raises ConfigError where the devices, or the processes, cannot split a batch evenly."""
    if batch_size % mesh.size:
        shape = " x ".join(f"{axis} {mesh.shape[axis]}" for axis in AXES)
        raise ConfigError(f"{name} = {batch_size}: {mesh.size} devices ({shape}) cannot split it evenly")


def make_global(batch: dict[str, np.ndarray], sharding: NamedSharding) -> dict[str, Any]:
    """Returns what a program compiled for a sharding takes as the batch of all processes.

    Args:
        batch: this process's part of it: of p processes, the i-th has the i-th of p slices.
        sharding: how it shall lie.
    """
    if jax.process_count() == 1:
        return batch  # a compiled program places NumPy arrays itself, in a fifth of the time
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}
