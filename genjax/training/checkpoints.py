"""Checkpoints: training states in a store, of which the latest and the best stay.

A checkpoint has parts, so that sampling need not read the optimizer: `params`, `ema`, `extra`, `posthoc` and `rest`.
"""

import math
import os
import sys
from collections.abc import Mapping
from typing import Any

from genjax.config import ConfigError, require
from genjax.families.base import Params
from genjax.training.distributed import together
from genjax.training.state import TrainState
from genjax.training.store import Store, agree, leads

DIRECTORY = "checkpoints"  # within a run folder


class Checkpoints:
    """The checkpoints of one run, written in the background. All processes of a run call its methods together."""

    def __init__(
        self,
        directory: str | os.PathLike[str],
        keep: int = 3,
        keep_best: int = 0,
        best_of: tuple[str, str] | None = None,
    ) -> None:
        """Opens the folder, creates it where it is missing, and removes what a killed run has left half-written.

        Args:
            directory: the folder.
            keep: how many of the latest checkpoints stay.
            keep_best: how many of the best stay beside them.
            best_of: the metric that says which are best, and whether "min" or "max" of it; needed with `keep_best`.
                A checkpoint saved without the metric, or with NaN, is never among them.
        """
        require(keep >= 1, f"keep = {keep}: must be at least 1")
        require(keep_best >= 0, f"keep_best = {keep_best}: must be at least 0")
        require(not keep_best or best_of is not None, f"keep_best = {keep_best}: best_of must name a metric")
        require(best_of is None or best_of[1] in ("min", "max"), f'best_of = {best_of}: must end in "min" or "max"')
        self._store = Store(directory)
        self._keep, self._keep_best, self._best_of = keep, keep_best, best_of
        self._verified: set[int] = set()

    def latest_step(self) -> int | None:
        """Returns the step of the newest checkpoint, or None where there is none."""
        step = agree(max(self._store.steps(), default=-1))
        return None if step < 0 else step

    def recover(self) -> list[str]:
        """Makes the newest checkpoint a valid one: those that are damaged are set aside, and none is ever deleted.

        Returns:
            What was damaged, a line each; none where nothing was. On the first process alone.

        Raises:
            OSError: the newest cannot be read for a reason that is not its own, such as a missing permission.
            ConfigError: so it is with the first process, and this is another.
        """
        lines: list[str] = []
        # The others look at the folder when it is in order.
        with together("looking for damage in the checkpoints"):
            steps = sorted(self._store.steps(), reverse=True) if leads() else []
            for step in steps:
                fault = self._store.verify(step)
                if fault is None:
                    self._verified.add(step)
                    break
                folder = self._store.path(step)
                aside = self._store.set_aside(step)
                lines.append(f"{DIRECTORY}/{folder.name} is damaged ({fault}); set aside as {aside.name}")
            if lines:
                left = self._store.steps()
                lines[-1] += (
                    f"; going on from {self._store.path(left[-1]).name}" if left else "; none is left: starting anew"
                )
        return lines

    def save(
        self,
        step: int,
        state: TrainState,
        metadata: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> bool:
        """Starts to write a checkpoint, and returns when `state` may be donated.

        Waits for the one before where that is still being written. Once the new one is complete, those that are
        neither among the latest nor among the best are deleted.

        Args:
            step: its name, the number of steps taken.
            state: what is saved.
            metadata: JSON values to be kept with it.
            metrics: by which the best ones are found.

        Returns:
            Whether anything was saved: False where the step has a checkpoint already.

        Raises:
            DiskFull: there was no space for the checkpoint before this one.
            Exception: whatever else went wrong with it.
        """
        about = {"metadata": dict(metadata or {}), "metrics": dict(metrics or {})}
        return self._store.save(step, _split(state), about, self._retain)

    def restore(self, template: TrainState, step: int | None = None) -> tuple[TrainState, dict[str, Any]]:
        """Reads a checkpoint, bit for bit as it was saved.

        Args:
            template: a state of the same structure, or its shapes with shardings; where the arrays go.
            step: which checkpoint; None for the newest.

        Returns:
            The state and its metadata.

        Raises:
            ConfigError: there is none, it is damaged, or its structure is another.
        """
        if step is None:
            step = self.latest_step()
        if step is None:
            raise ConfigError(f"{self._store.directory}: no checkpoint yet")
        unknown = leads() and step in self._store.steps() and step not in self._verified
        fault = self._store.verify(step) if unknown else None
        if agree(fault is not None):
            raise ConfigError(f"{self._store.path(step)} is damaged ({fault or 'seen by the first process'})")
        self._verified.add(step)
        parts = self._store.load(step, _split(template))
        state = TrainState(**{"ema": {}, **parts.pop("rest"), **parts.pop("extra"), **parts})
        return state, self._store.metadata(step)["metadata"]

    def wait(self) -> None:
        """Waits until what is being written is on disk, and raises what went wrong."""
        self._store.wait()

    def close(self) -> None:
        """Waits, and lets go of the folder."""
        self._store.close()

    def _retain(self, step: int) -> None:
        """Deletes what need not stay, once a step is committed."""
        steps = self._store.steps()
        stay = {*steps[-self._keep :], *self._best(steps)}
        for old in set(steps) - stay:
            self._store.delete(old)

    def _best(self, steps: list[int]) -> list[int]:
        """The best of them, the later one of two equals."""
        if self._best_of is None or not self._keep_best:
            return []
        name, mode = self._best_of
        ranks = []
        for step in steps:
            try:
                value = self._store.metadata(step)["metrics"].get(name, math.nan)
            except ConfigError:  # a damaged manifest: never the best, and no reason to stop
                continue
            if not math.isnan(value):
                ranks.append((value if mode == "max" else -value, step))
        return [step for _, step in sorted(ranks)[-self._keep_best :]]


def restore_params(
    directory: str | os.PathLike[str], step: int | None = None, *, ema: bool = True
) -> tuple[dict[str, Params], int]:
    """Reads what a checkpoint has to generate with, onto this process's first device; writes nothing.

    Where the newest checkpoints are damaged, the newest valid one is read, and a line on standard error says so.

    Args:
        directory: the folder of the checkpoints.
        step: which one; None for the newest.
        ema: whether the averages take the places of the weights, where a role has them.

    Returns:
        The weights by role with all of the state's `extra` beside them, and the step.

    Raises:
        ConfigError: there is no such checkpoint, or it is damaged.
    """
    store = Store(directory, read_only=True)
    faults: list[str] = []
    for tried in reversed(store.steps()) if step is None else [step]:
        fault = store.verify(tried)
        if fault is None:
            break
        faults.append(f"{store.path(tried)} is damaged ({fault})")
    else:
        raise ConfigError("; ".join(faults) or f"{directory}: no checkpoint yet")
    if faults:
        print(f"{'; '.join(faults)}; using that of step {tried}", file=sys.stderr)
    shapes = store.shapes(tried)
    if "extra" not in shapes:
        raise ConfigError(f"{store.path(tried)} is of another version: it has no part `extra`")
    parts = store.load(tried, {part: shapes[part] for part in ("extra", "params", "ema") if part in shapes})
    return {**parts["extra"]["extra"], **parts["params"], **(parts.get("ema", {}) if ema else {})}, tried


def training_seconds(directory: str | os.PathLike[str], step: int) -> float:
    """Returns how long the training to a checkpoint took, over all starts, with compiling and what is done on the way.

    Args:
        directory: the folder of the checkpoints.
        step: which one.

    Raises:
        ConfigError: there is no such checkpoint, or its manifest is damaged.
    """
    return float(Store(directory, read_only=True).metadata(step)["metadata"]["seconds"])


def _split(state: TrainState) -> dict[str, Any]:
    """The parts of a checkpoint. Orbax cannot write a part without arrays, so averages may be missing."""
    rest = {"key": state.key, "opt": state.opt}
    extra = {"step": state.step, "extra": state.extra}  # together, for the extra of a family may have no arrays
    averages = {"ema": state.ema, "posthoc": state.posthoc}
    parts = {"params": state.params, "extra": extra, "rest": rest}
    return parts | {name: tree for name, tree in averages.items() if tree}
