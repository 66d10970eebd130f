"""Metrics: averaged over a window of steps, and written to a CSV file, TensorBoard and the console.

The step of a row is the number of steps taken: row 100 is measured on the updates that led to 100 steps. A row is the
mean over the steps since the row before. `metrics.csv` holds only what the config determines, so that a run that was
resumed has the same file, bit for bit, as one that was not; rates go to the console and to TensorBoard.
"""

import contextlib
import csv
import io
import math
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from genjax.files import write_whole

Row = Mapping[str, float]
_FLUSH_SECONDS = 30.0  # at most, until TensorBoard sees a row
PARTS = ("data", "dispatch", "device")  # of a step's time: waits for a batch, for the call, for the results


class Writer(Protocol):
    """What takes rows."""

    def write(self, step: int, row: Row, rates: Row) -> None:
        """Takes the means of a window, and the rates, such as steps/s; {} where no step was timed."""
        ...

    def close(self) -> None:
        """Flushes and lets go."""
        ...


class Recorder:
    """Collects the metrics of each step and hands their means to the writers.

    `push` holds the metrics of a step back until the next one is dispatched, so that reading them waits for a step
    that is done or nearly so, while the device has work.
    """

    def __init__(
        self,
        names: Sequence[str],
        writers: Sequence[Writer],
        log_every: int,
        rates: Callable[[float], Row],
        accept: Callable[[int, Row], bool] = lambda step, values: True,
        window: Mapping[str, Any] | None = None,
    ) -> None:
        """Starts, or goes on with, a window.

        Args:
            names: of the metrics, in the order of the values that `push` gets.
            writers: take the rows.
            log_every: steps in a window.
            rates: from the steps a second to what else follows from them.
            accept: whether the means of a step belong in the window; the others are counted as `skipped_steps`.
            window: what `state` gave when the run was saved.
        """
        self._names, self._writers, self._log_every, self._rates = names, writers, log_every, rates
        self._accept = accept
        self._sums: dict[str, list[float]] = {name: list(pair) for name, pair in (window or {}).items()}
        self._pending: tuple[int, jax.Array] | None = None
        self._since: float | None = None  # set when the first step is done: the compilation is in no rate
        self._collected = self._pushed = 0  # since the clock started
        self._last = 0  # the last step that was collected
        self._parts = dict.fromkeys(PARTS, 0.0)

    def push(self, step: int, values: jax.Array) -> None:
        """Takes the metrics of the update that led to `step` steps.

        Args:
            step: the number of steps taken.
            values: totals and weights, float32 [2, metrics], possibly not computed yet; one array because each read
                costs the host time.
        """
        previous, self._pending = self._pending, (step, values)
        self._pushed += 1
        self._collect(previous)

    def add(self, row: Row) -> None:
        """Takes figures that were not measured in a step; they join the window of the step that was pushed last."""
        for name, value in row.items():
            self._count(name, value, 1.0)

    def flush(self, last: bool = False) -> None:
        """Waits for the step that was pushed last; at the end of a run, writes what is left as a row too."""
        previous, self._pending = self._pending, None
        self._collect(previous)
        if last and self._sums:
            self._write(self._last)

    def state(self) -> dict[str, list[float]]:
        """Returns the unfinished window, as JSON values: total and weight of each metric."""
        return {name: list(pair) for name, pair in self._sums.items()}

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Keeps the time within the context, such as that of sampling, out of the rates."""
        start = time.perf_counter()
        yield
        if self._since is not None:
            self._since += time.perf_counter() - start

    @contextlib.contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Counts the time within the context as one of `PARTS`."""
        start = time.perf_counter()
        yield
        self._parts[part] += time.perf_counter() - start

    def _collect(self, pending: tuple[int, jax.Array] | None) -> None:
        if pending is None:
            return
        self._last, values = pending
        with self.timed("device"):
            totals, weights = np.asarray(values).tolist()
        measured = {name: (t, w) for name, t, w in zip(self._names, totals, weights, strict=True) if w}
        if self._accept(self._last, {name: total / weight for name, (total, weight) in measured.items()}):
            for name, (total, weight) in measured.items():
                self._count(name, total, weight)
        else:
            self._sums.setdefault("skipped_steps", [0.0, 1.0])[0] += 1.0
        if self._since is None:
            self._start_clock()
        else:
            self._collected += 1
        if self._last % self._log_every == 0:
            self._write(self._last)

    def _count(self, name: str, total: float, weight: float) -> None:
        pair = self._sums.setdefault(name, [0.0, 0.0])
        pair[0] += total
        pair[1] += weight

    def _write(self, step: int) -> None:
        row = {name: total / weight for name, (total, weight) in self._sums.items()}
        rates: dict[str, float] = {}
        # A step may have been dispatched, or even done, before the clock started, and be collected after.
        steps = min(self._collected, self._pushed)
        if steps:
            rate = steps / (time.perf_counter() - (self._since or 0.0))
            parts = {f"{part}_ms": 1e3 * seconds / steps for part, seconds in self._parts.items()}
            rates = {"steps_per_second": rate, **self._rates(rate), "step_ms": 1e3 / rate, **parts}
        for writer in self._writers:
            writer.write(step, row, rates)
        self._sums = {}
        self._start_clock()

    def _start_clock(self) -> None:
        self._collected = self._pushed = 0
        self._since, self._parts = time.perf_counter(), dict.fromkeys(PARTS, 0.0)


class CSV:
    """A row a window: `step` and a column a metric; empty where a phase did not run in the window."""

    def __init__(self, path: str | os.PathLike[str], step: int) -> None:
        """Opens the file and cuts off the rows after `step`, which the run is about to write again."""
        self._path = pathlib.Path(path)
        self._columns: list[str] = []
        rows: list[dict[str, str]] = []
        if self._path.exists():
            # A line without its end is what a kill has left of it.
            lines = self._path.read_text(errors="replace").splitlines(keepends=True)
            reader = csv.DictReader(line for line in lines if line.endswith("\n"))
            # A damaged row is no reason not to start.
            rows = [row for row in reader if (row.get("step") or "").isdecimal() and int(row["step"]) <= step]
            self._columns = (
                list(reader.fieldnames or []) if rows else []
            )  # without rows it may be another config's file
        self._rewrite(rows)

    def write(self, step: int, row: Row, rates: Row) -> None:
        """Appends a row; a metric that the file has no column for adds one."""
        new = [name for name in ("step", *row) if name not in self._columns]
        if new:
            with self._path.open(newline="") as file:
                rows = list(csv.DictReader(file))
            self._columns += new
            self._rewrite(rows)
        values = {"step": str(step)} | {name: repr(float(value)) for name, value in row.items()}
        with self._path.open("a", newline="") as file:
            file.write(self._format(values))

    def sync(self) -> None:
        """Waits until the rows are on the disk, which a checkpoint that does not bring them back must not be before."""
        with self._path.open("rb") as file:
            os.fsync(file.fileno())

    def close(self) -> None:
        """Does nothing: every row is in the file."""

    def _format(self, row: Mapping[str, str]) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow([row.get(name) or "" for name in self._columns])
        return text.getvalue()

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        head = self._format({name: name for name in self._columns}) if self._columns else ""
        write_whole(self._path, head + "".join(map(self._format, rows)))


class TensorBoard:
    """Scalars and sample grids as TensorBoard events."""

    def __init__(self, directory: str | os.PathLike[str], step: int) -> None:
        """Opens the folder; TensorBoard will hide what an earlier process has written after `step`."""
        pathlib.Path(directory).mkdir(parents=True, exist_ok=True)
        # Not tensorboardX's SummaryWriter: a full disk ends the thread that it writes in, and whoever hands it the next
        # value waits for ever.
        self._events = EventsWriter(str(pathlib.Path(directory) / "events"))
        self._put(step + 1, session_log=SessionLog(status=SessionLog.START))
        self._flushed = -math.inf

    def write(self, step: int, row: Row, rates: Row) -> None:
        """Writes the row, and the rates under `rate/`."""
        for name, value in [*row.items(), *((f"rate/{name}", value) for name, value in rates.items())]:
            self._put(step, summary=summary.scalar(name, value))
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self._events.flush()
            self._flushed = time.monotonic()

    def write_image(self, step: int, name: str, image: np.ndarray) -> None:
        """Writes an image, uint8 [H, W, 3]."""
        self._put(step, summary=summary.image(name, image, dataformats="HWC"))

    def close(self) -> None:
        """Flushes and lets go. What does not fit any more is lost: the reason why the run ends matters more."""
        with contextlib.suppress(OSError):
            self._events.close()

    def _put(self, step: int, **content: Any) -> None:
        self._events.write_event(Event(wall_time=time.time(), step=step, **content))


class Silent:
    """In the place of each of the others: takes everything and writes nothing, on all processes but the first."""

    def write(self, step: int, row: Row, rates: Row) -> None:
        """Does nothing."""

    def write_image(self, step: int, name: str, image: np.ndarray) -> None:
        """Does nothing."""

    def say(self, line: str) -> None:
        """Does nothing."""

    def sync(self) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


class Console:
    """A progress bar on a terminal, a line a row elsewhere."""

    def __init__(self, steps: int, step: int) -> None:
        """Starts at `step` of `steps`."""
        self._steps = steps
        self._console = RichConsole(highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        if self._console.is_terminal:
            columns = (
                TextColumn("step"),
                MofNCompleteColumn(),
                BarColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
            )
            self._bar = Progress(*columns, console=self._console)
            self._task = self._bar.add_task("compiling", total=steps, completed=step)
            self._bar.start()

    def write(self, step: int, row: Row, rates: Row) -> None:
        """Shows the row: losses on the bar, everything in a line."""
        speed = [_speed(rates)] if rates else []
        if self._bar is not None:
            losses = ", ".join(f"{name} {value:.4g}" for name, value in row.items() if name.endswith("/loss"))
            self._bar.update(self._task, completed=step, description=", ".join([losses, *speed]))
        else:
            shown = [name for name in row if name.count("/") < 2]  # parts of one metric are for the curves
            losses_first = sorted(shown, key=lambda name: not name.endswith("/loss"))
            values = ", ".join(f"{name} {row[name]:.4g}" for name in losses_first)
            self.say("; ".join([f"step {step}/{self._steps}: {values}", *speed]))

    def say(self, line: str) -> None:
        """Prints a line, above the bar where there is one."""
        if self._bar is not None:
            self._bar.console.print(line, markup=False)
        else:
            print(line, flush=True)

    def close(self) -> None:
        """Takes the bar down."""
        if self._bar is not None:
            self._bar.stop()


def _speed(rates: Row) -> str:
    """The rates in a line: how fast, and where a step's time goes."""
    parts = ", ".join(f"{part} {rates[f'{part}_ms']:.3g}" for part in PARTS)
    achieved = f", {rates['flops_per_second'] / 1e12:.3g} TFLOP/s" if "flops_per_second" in rates else ""
    achieved += f" ({rates['mfu']:.1%} of peak)" if "mfu" in rates else ""
    return f"{rates['images_per_second']:.4g} images/s, {rates['step_ms']:.3g} ms/step ({parts}){achieved}"
