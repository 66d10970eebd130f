"""What happens to steps whose loss or gradient is infinite or not a number."""

import json
import math
import os
import pathlib
from collections.abc import Callable, Sequence

from genjax.files import write_whole
from genjax.training.errors import NonFiniteStep
from genjax.training.metrics import Row
from genjax.training.step import CHECKED

FILE = "non_finite.jsonl"  # within a run folder


class Guard:
    """Looks at every step's losses and gradient norms, and keeps a record of those that are not finite.

    The step itself leaves the state as it was; this decides whether the run goes on.
    """

    def __init__(
        self,
        policy: str,
        limit: int,
        folder: str | os.PathLike[str] | None,
        batch: Callable[[int], Sequence[int]],
        start: int,
        in_a_row: int = 0,
    ) -> None:
        """Starts, and forgets what was recorded after the step that the run goes on from.

        Args:
            policy: "stop" or "skip".
            limit: of steps in a row that "skip" leaves out.
            folder: the run folder; None writes nothing.
            batch: from the number of a step to the indices of its batch in the data.
            start: the step that the run goes on from.
            in_a_row: how many steps up to there were left out.
        """
        self._policy, self._limit, self._batch = policy, limit, batch
        self._path = None if folder is None else pathlib.Path(folder) / FILE
        self.in_a_row = in_a_row
        if self._path is not None and self._path.exists():
            lines = self._path.read_text(errors="replace").splitlines(keepends=True)
            write_whole(self._path, "".join(line for line in lines if _step(line) <= start))

    def __call__(self, step: int, values: Row) -> bool:
        """Returns whether the step was finite.

        Raises:
            NonFiniteStep: it was not, and the policy is "stop", or too many in a row were not.
        """
        wrong = {
            name: value
            for name, value in values.items()
            if name.partition("/")[2] in CHECKED and not math.isfinite(value)
        }
        if not wrong:
            self.in_a_row = 0
            return True
        self.in_a_row += 1
        phase = next(iter(wrong)).partition("/")[0]
        record = {"step": step, "phase": phase, "values": {name: str(value) for name, value in wrong.items()}}
        record |= {"batch": [int(index) for index in self._batch(step)]}
        where = ""
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps(record) + "\n")
            where = f" The indices of its batch are in {self._path}."
        what = ", ".join(f"{name} is {value}" for name, value in wrong.items())
        if self._policy == "stop":
            raise NonFiniteStep(
                f"step {step}: {what}; the step was not applied, and the run stops.{where} To leave such steps out: "
                "--config.training.non_finite=skip"
            )
        if self.in_a_row >= self._limit:
            raise NonFiniteStep(
                f"step {step}: {what}; {self.in_a_row} steps in a row were left out, and the run stops "
                f"(config.training.skip_limit = {self._limit}).{where}"
            )
        return False


def _step(line: str) -> float:
    """The step of a record; infinity for what is none, such as what a kill or a power cut has left of one."""
    try:
        return int(json.loads(line)["step"]) if line.endswith("\n") else math.inf
    except (ValueError, TypeError, KeyError):
        return math.inf
