"""A sweep over the widths of averages: one row a width, as CSV, as a table and as curves."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from genjax.evaluation.figures import Curve
from genjax.files import write_whole

Row = Mapping[str, float | None]
_ABOUT = ("ema_width", "residual", "step", "n")  # what a row is of; all else is measured


def row(
    width: float, residual: float, step: int, n: int, scores: Mapping[str, Any] | None, family: Mapping[str, float]
) -> Row:
    """Returns what is known of one width.

    Args:
        width: of the average, sigma_rel.
        residual: how well the average was made, see `training.posthoc`; 0 for a width that was tracked.
        step: the training step.
        n: number of samples.
        scores: result of `evaluate.score` or `points.score`; None where there is neither.
        family: the family's own figures over the held-out data.
    """
    measured: dict[str, float | None] = {}
    if scores is not None and "frechet" not in scores:
        measured = {name: figure["value"] for name, figure in scores["figures"].items()}
    elif scores is not None:
        measured = {"distance": scores["frechet"]["value"], "floor": scores["floor"]["mean"], "ratio": scores["ratio"]}
        if scores["agreement"]:
            measured["class agreement"] = scores["agreement"]["value"]
    return {"ema_width": width, "residual": residual, "step": step, "n": n, **measured, **family}


def write(path: str | Path, rows: Sequence[Row]) -> None:
    """Writes rows as CSV, with all the digits; what was not measured is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue())


def read(path: str | Path) -> list[Row]:
    """Reads what `write` wrote."""
    with open(path, newline="", encoding="utf-8") as file:
        return [{name: float(cell) if cell else None for name, cell in row.items()} for row in csv.DictReader(file)]


def table(rows: Sequence[Row]) -> Table:
    """Returns a table with one row a width, for a rich console or, piped, for a text file."""
    title = f"Averages of training step {rows[0]['step']:.0f} by width, n = {rows[0]['n']:.0f}"
    view = Table(
        title=title, title_justify="left", title_style="", box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0)
    )
    names = [name for name in rows[0] if name not in _ABOUT]
    for heading in ("width", "residual", *names):
        view.add_column(heading, justify="right")
    for line in rows:
        cells = ["-" if line[name] is None else f"{line[name]:.4g}" for name in names]
        view.add_row(f"{line['ema_width']:g}", f"{line['residual']:.2%}", *cells)
    return view


def curves(rows: Sequence[Row]) -> dict[str, dict[str, Curve]]:
    """Returns the curves over the width to draw: by the name of a picture, (widths, values) by the name of a curve."""
    widths = np.array([line["ema_width"] for line in rows])

    def curve(name: str) -> Curve:
        return widths, np.array([line[name] for line in rows], np.float64)

    names = [name for name in rows[0] if name not in (*_ABOUT, "floor", "ratio")]
    return {name: {name: curve(name)} | ({"floor": curve("floor")} if name == "distance" else {}) for name in names}
