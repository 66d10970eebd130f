"""Post-hoc averages: snapshots during training, and averages of any width made of them afterwards.

Karras et al. 2024 (EDM2), section 3.1 and appendix C. Each snapshot holds the averages by power functions that the
training tracks. One of another width is the combination of them all whose profile over the steps is nearest to the
profile wanted, by least squares.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from genjax.config import ConfigError
from genjax.families.base import Params
from genjax.training.ema import WIDEST, PostHoc, gamma, label, require_width
from genjax.training.state import TrainState
from genjax.training.store import Store, leads

DIRECTORY = "snapshots"  # within a run folder
MAX_RESIDUAL = 0.05  # of a profile that is taken for the one wanted, see `Snapshots.residual`


class SnapshotWriter:
    """Writes the snapshots of a run while it trains, in the background; nothing for a run that has none.

    A run that is killed at any moment and resumed has those of one that was not: before a checkpoint, all older
    snapshots are committed (`settle`); of the checkpoint's own step, it is caught up on (`after` the step that the run
    goes on from). All methods are to be called by all processes.
    """

    def __init__(self, workdir: str | os.PathLike[str], rule: PostHoc | None, start: int, steps: int) -> None:
        """Opens the folder, and removes what is newer than the step that the run goes on from.

        Those will be written again; of a run that starts anew they may be of another config.

        Args:
            workdir: the run folder.
            rule: when snapshots fall due; None for a run without them.
            start: training steps done before.
            steps: training steps of the whole run.
        """
        folder = pathlib.Path(workdir) / DIRECTORY
        self._rule, self._steps, self._newest = rule, steps, 0
        self._store = None if rule is None and not folder.is_dir() else Store(folder)
        if self._store is not None and leads():
            for step in self._store.steps():
                if step > start:
                    self._store.delete(step)

    def due(self, step: int) -> bool:
        """Whether there is a snapshot after a step."""
        return self._rule is not None and self._rule.due(step, self._steps)

    def after(self, step: int, state: TrainState) -> None:
        """Starts to write a snapshot where one falls due, and returns when `state` may be donated.

        Waits for the one before. One that is there already, from before a break, stays; a damaged one is set aside and
        written anew.

        Args:
            step: the number of steps taken.
            state: whose averages are saved, with the weights of the roles that have none and all of `extra`.

        Raises:
            DiskFull: there was no space for the snapshot before this one.
        """
        if self._store is None or not self.due(step):
            return
        if leads() and step in self._store.steps() and self._store.verify(step) is not None:
            self._store.set_aside(step)
        averaged = {role for roles in state.posthoc.values() for role in roles}
        plain = state.extra | {role: tree for role, tree in state.params.items() if role not in averaged}
        parts = {"posthoc": state.posthoc} | ({"params": plain} if plain else {})  # none may be without an array
        self._store.save(step, parts, {"widths": [float(width) for width in state.posthoc]})
        self._newest = step

    def settle(self, step: int) -> None:
        """Waits until all snapshots before `step` are committed; to be called before a checkpoint of it is begun.

        Raises:
            DiskFull: there was no space for the newest.
        """
        if self._store is not None and self._newest < step:
            self._store.wait()

    def close(self) -> None:
        """Waits for what is being written, and raises what went wrong with it."""
        if self._store is not None:
            self._store.close()


class Reconstruction(NamedTuple):
    """Weights made of snapshots.

    Attributes:
        params: the weights by role: averages, float32, and the weights themselves of roles that have no average; and
            all of the state's `extra`.
        step: the training step that they belong to.
        residual: how far their profile is from the one wanted, as `Snapshots.residual` says.
    """

    params: dict[str, Params]
    step: int
    residual: float


@dataclasses.dataclass(frozen=True)
class Snapshots:
    """The intact snapshots of a run up to a step; `open_snapshots` makes it.

    Attributes:
        store: where they are.
        steps: their steps, rising. Averages belong to the last.
        widths: the widths that were tracked.
    """

    store: Store
    steps: tuple[int, ...]
    widths: tuple[float, ...]

    def residual(self, width: float) -> float:
        """Returns how far the nearest profile is from the power function of a width.

        Both are functions of the training step; the figure is the root of the integral of their squared difference
        over that of the latter. Where the weights are independent from step to step it is the relative error of the
        average; real weights change slowly, so theirs is smaller.
        """
        return self._solve([width])[1][0]

    def reconstruct(self, width: float) -> Reconstruction:
        """Makes the average of a width, in the memory of a few snapshots however many there are.

        A width that was tracked comes back bit for bit.

        Raises:
            ConfigError: the snapshots cannot give the width to within `MAX_RESIDUAL`; says which is the nearest.
        """
        self.check(width)
        wanted = self.store.shapes(self.steps[-1])  # those of all
        last = self.store.load(self.steps[-1], wanted)
        tracked = last["posthoc"]
        if label(width) in tracked:
            averages, residual = tracked[label(width)], 0.0
        else:
            weights, (residual,) = self._solve([width])
            total = jax.tree.map(lambda leaf: np.zeros(leaf.shape), tracked[label(self.widths[0])])
            for step, row in zip(self.steps, weights[:, :, 0], strict=True):
                tracked = self.store.load(step, {"posthoc": wanted["posthoc"]})["posthoc"]
                for name, weight in zip(map(label, self.widths), row, strict=True):
                    total = jax.tree.map(lambda t, leaf, w=weight: t + w * np.float64(leaf), total, tracked[name])
            averages = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), total)
        return Reconstruction({**last.get("params", {}), **averages}, self.steps[-1], residual)

    def check(self, width: float) -> None:
        """Raises ConfigError where `reconstruct` would, which takes longer."""
        try:
            require_width("width", width)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        residual = self.residual(width)
        if residual <= MAX_RESIDUAL:
            return
        others = np.arange(0.001, WIDEST, 0.001)
        possible = others[np.asarray(self._solve(others)[1]) <= MAX_RESIDUAL]
        nearest = possible[np.argmin(np.abs(possible - width))]
        raise ConfigError(
            f"width {label(width)}: {len(self.steps)} snapshots up to step {self.steps[-1]} give its profile to within "
            f"{residual:.0%} only, and {MAX_RESIDUAL:.0%} is asked for; the nearest width that they give is "
            f"{label(nearest)}"
        )

    def _solve(self, wanted: Sequence[float] | np.ndarray) -> tuple[np.ndarray, list[float]]:
        """Returns the weight of each tracked average in each wanted one [steps, widths, wanted], and the residuals."""
        ends = np.repeat(np.asarray(self.steps, np.float64) / self.steps[-1], len(self.widths))
        exponents = np.tile([gamma(width) for width in self.widths], len(self.steps))
        goals = np.array([gamma(width) for width in wanted])
        n = len(ends)
        gram = _inner(ends[:, None], exponents[:, None], ends[None], exponents[None])
        right = _inner(ends[:, None], exponents[:, None], 1.0, goals[None])
        # The last row and column keep the sum at 1. To divide by the sum afterwards, as algorithm 3 does, is no longer
        # the nearest profile, and with few snapshots much farther from it.
        system = np.block([[gram, np.ones((n, 1))], [np.ones((1, n)), np.zeros((1, 1))]])
        weights = np.linalg.solve(system, np.vstack([right, np.ones_like(goals)[None]]))[:n]
        norms = _inner(1.0, goals, 1.0, goals)
        errors = norms - 2 * (weights * right).sum(0) + (weights * (gram @ weights)).sum(0)
        residuals = np.sqrt(np.maximum(errors, 0) / norms)
        return weights.reshape(len(self.steps), len(self.widths), -1), residuals.tolist()


def open_snapshots(
    workdir: str | os.PathLike[str], step: int | None = None, say: Callable[[str], None] = print
) -> Snapshots:
    """Opens the snapshots of a run, to read them only.

    Args:
        workdir: the run folder.
        step: the training step of the averages, one that has a snapshot; None for the newest.
        say: gets a line about each snapshot that is damaged, and so left out.

    Raises:
        ConfigError: the run has no snapshots, or none of this step that is intact.
    """
    folder = pathlib.Path(workdir) / DIRECTORY
    store = Store(folder, read_only=True)
    present = store.steps()
    if not present:
        raise ConfigError(f"{workdir}: has no snapshots; a run whose config has ema.posthoc writes some")
    if step is not None and step not in present:
        raise ConfigError(f"{folder}: no snapshot of step {step}; there are {', '.join(map(str, present))}")
    faults = {at: store.verify(at) for at in present if step is None or at <= step}
    intact = [at for at, fault in faults.items() if fault is None]
    if not intact or step not in (None, intact[-1]):
        at = max(faults)
        raise ConfigError(f"{folder}: the snapshot of step {at} is damaged: {faults[at]}")
    for at, fault in faults.items():
        if fault is not None:
            say(f"{folder}: the snapshot of step {at} is damaged and left out: {fault}")
    return Snapshots(store, tuple(intact), tuple(store.metadata(intact[-1])["widths"]))


def _inner(end_a: Any, gamma_a: Any, end_b: Any, gamma_b: Any) -> np.ndarray:
    """Integral of the product of two profiles, which may end at different times; Karras et al. 2024, eq. 151.

    The profile is `(gamma + 1) t^gamma / end^(gamma + 1)` up to its end and 0 after it (eq. 121).
    """
    early, late = np.minimum(end_a, end_b), np.maximum(end_a, end_b)
    of_late = np.where(end_a <= end_b, gamma_b, gamma_a)
    return (gamma_a + 1) * (gamma_b + 1) / (gamma_a + gamma_b + 1) * (early / late) ** of_late / late
