"""A program in a process of its own, so that its memory is its own and running out of it ends nothing else.

The child (`python -m experiments.throughput.worker CASE`, a case in JSON) answers in lines of JSON: first what the
program is, then, for every number that it reads, the seconds of so many steps, and at the end the memory. While it
reads it does nothing: several children can take turns.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

from experiments.throughput.presets import Case

ROOT = pathlib.Path(__file__).parents[2]
OUT_OF_MEMORY = "out of memory"
PROGRAMS = ("genjax", "torch", "torch.compile")
_SIGNS = (
    "RESOURCE_EXHAUSTED",
    "OutOfMemoryError",
    "out of memory",
    "MemoryError",
    "bad_alloc",
    "can't allocate memory",
)


class Failed(Exception):
    """The child has ended; the message says why: `OUT_OF_MEMORY`, or the last line of its log."""


class Worker:
    """The parent's end of a child. A context manager: at the end the child is gone."""

    def __init__(self, case: Case, folder: pathlib.Path, shared: bool) -> None:
        """Starts the child and returns when it has compiled its program and taken the first steps.

        Args:
            case: the program.
            folder: gets the log.
            shared: whether the device is another child's too, so that JAX must not take most of its memory at once.

        Raises:
            Failed: the child has ended.
        """
        self.case, self._log = case, folder / f"{case.name}.log"
        environment = os.environ | ({"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} if shared else {})
        if case.program != "genjax":
            environment |= {"JAX_PLATFORMS": "cpu"}  # JAX only reads the config there
        with self._log.open("w") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "experiments.throughput.worker", json.dumps(dataclasses.asdict(case))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=ROOT,
                env=environment,
            )
        try:
            self.about = self._answer()
        except BaseException:
            self._child.kill()
            self._child.wait()
            raise

    def seconds(self, steps: int) -> float:
        """Returns the seconds of so many steps."""
        return self._answer(steps)["seconds"]

    def finish(self) -> dict[str, Any]:
        """Ends the child and returns the memory in bytes and, where they were asked for, the seconds of the parts."""
        return self._answer(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._child.kill()
        self._child.communicate()

    def _answer(self, command: int | None = None) -> dict[str, Any]:
        assert self._child.stdin is not None and self._child.stdout is not None
        try:
            if command is not None:
                self._child.stdin.write(f"{command}\n")
                self._child.stdin.flush()
            line = self._child.stdout.readline()
        except BrokenPipeError:
            line = ""
        if line:
            return json.loads(line)
        status, log = self._child.wait(), self._log.read_text(errors="replace")
        if status == -9 or any(
            sign in log.lower() for sign in _SIGNS
        ):  # -9: what Linux does when there is no memory left
            raise Failed(OUT_OF_MEMORY)
        raise Failed((log.strip().splitlines() or [f"ended with status {status}"])[-1])


def device(folder: pathlib.Path) -> Mapping[str, str]:
    """Returns platform, kind and JAX's version, asked in a process of its own: JAX would keep a GPU's memory here."""
    code = (
        "import jax, json; d = jax.devices()[0];"
        "print(json.dumps(dict(platform=d.platform, kind=d.device_kind, jax=jax.__version__)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    (folder / "device.log").write_text(done.stderr)
    if done.returncode:
        raise SystemExit(f"JAX does not start: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)


def best_of(n: int) -> Callable[[Callable[[], Any]], float]:
    """Returns a function that times another: the shortest of n times, after one call that is not counted."""

    def time_of(function: Callable[[], Any]) -> float:
        times = []
        for _ in range(n + 1):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
        return min(times[1:])

    return time_of


def main() -> None:
    """The child."""
    case = Case(**json.loads(sys.argv[1]))
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever else is printed goes to the log
    _ends_first()
    if case.program == "genjax":
        from experiments.throughput import ours

        program: Any = ours.Program(case)
    else:
        from experiments.throughput import theirs

        program = theirs.Program(case, compiled=case.program == "torch.compile")

    def answer(values: Mapping[str, Any]) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    program.forget_peak()
    answer(program.about)
    for line in sys.stdin:
        if not (steps := int(line)):
            answer(program.peak() | (program.parts(best_of(3)) if case.parts else {}))
            return
        start = time.perf_counter()
        program.run(steps)
        answer({"seconds": time.perf_counter() - start})


def _ends_first() -> None:
    """Tells Linux that this is the process to end when there is no memory left."""
    try:
        pathlib.Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        pass


if __name__ == "__main__":
    main()
