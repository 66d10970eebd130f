"""Timing, and what a half of the benchmark hands over."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from genjax.evaluation.tables import to_markdown


def best(
    function: Callable[[], Any], repeats: int = 7, seconds: float = 0.0, prepare: Callable[[], Any] = lambda: None
) -> float:
    """Returns the shortest of several times in seconds, after one call that is not counted.

    Args:
        function: what is timed; it may return JAX arrays that are not ready.
        repeats: at least how many times.
        seconds: at least how long, so that what is short is timed more often.
        prepare: called before every time, and not timed.
    """
    times: list[float] = []
    while len(times) <= repeats or sum(times) < seconds:
        prepare()
        start = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - start)
    return min(times[1:])


@dataclasses.dataclass(frozen=True)
class Figures:
    """A table.

    Attributes:
        title: what it is.
        columns: the heads.
        rows: the cells.
        notes: sentences below it.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def show(self, console: Console) -> None:
        """Prints it."""
        table = Table(title=self.title)
        for i, column in enumerate(self.columns):
            table.add_column(column, justify="right" if i else "left")
        for row in self.rows:
            table.add_row(*row)
        console.print(table, *self.notes, sep="\n")

    def markdown(self) -> str:
        """Returns it in Markdown."""
        return "\n".join([f"{self.title}.", "", to_markdown(self.columns, self.rows), *(f"{n}\n" for n in self.notes)])
