"""From measurements to means with confidence intervals, tables and figures."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import scipy.stats
from matplotlib.axes import Axes

from experiments.solver_comparison.measure import Row
from genjax.evaluation import evaluate
from genjax.evaluation.distances import Floor
from genjax.evaluation.intervals import Proportion, wilson
from genjax.evaluation.tables import to_latex, to_markdown, write_csv

MARKERS = "osD^vP*Xhp<>"


class Estimate(NamedTuple):
    """A mean over seeds and half of its 95% interval, which is NaN for a single seed."""

    mean: float
    half: float

    def text(self) -> str:
        """Returns it as "1.31 ± 0.02"."""
        return f"{self.mean:.2f}" + ("" if np.isnan(self.half) else f" ± {self.half:.2f}")


def estimate(values: Sequence[float]) -> Estimate:
    """Returns the mean and half of its 95% interval by Student's t, values being independent and near normal."""
    n = len(values)
    if n == 1:
        return Estimate(float(values[0]), float("nan"))
    quantile = scipy.stats.t.ppf(0.975, n - 1)
    return Estimate(float(np.mean(values)), float(quantile * np.std(values, ddof=1) / np.sqrt(n)))


def pick(rows: Sequence[Row], **about: Any) -> list[Row]:
    """Returns the rows of which everything given holds, by seed."""
    return sorted((row for row in rows if about.items() <= row.items()), key=lambda row: row["seed"])


def difference(rows: Sequence[Row], others: Sequence[Row]) -> Estimate:
    """Returns the mean of the differences in distance, seed by seed: what the seeds have in common drops out.

    Raises:
        ValueError: the seeds are not the same.
    """
    pairs = list(zip(rows, others, strict=True))
    if any(row["seed"] != other["seed"] for row, other in pairs):
        raise ValueError("the rows to compare have other seeds")
    return estimate([row["distance"] - other["distance"] for row, other in pairs])


def agreement(rows: Sequence[Row]) -> Proportion:
    """Returns the share of all samples of all seeds that are of the class asked for; every sample is a trial."""
    return wilson(sum(round(row["agreement"] * row["n"]) for row in rows), sum(row["n"] for row in rows))


def distances(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Returns header and body of the table of distances: solvers by evaluations.

    In parentheses the evaluations that were made where a solver cannot make as many as the column says.
    """
    return _by_budget(rows, lambda name, mine: estimate([row["distance"] for row in mine]).text())


def differences(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Returns header and body of the table of paired differences to the first solver at the same evaluations."""
    first = rows[0]["solver"]

    def cell(name: str, mine: Sequence[Row]) -> str:
        base = pick(rows, solver=first, budget=mine[0]["budget"])
        return difference(mine, base).text() if base and name != first else "-"

    header, body = _by_budget(rows, cell)
    return [f"minus `{first}`", *header[1:]], body[1:]


def scales(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Returns header and body of the table of guidance scales."""
    body = []
    for scale in dict.fromkeys(row["guidance"] for row in rows):
        mine = pick(rows, guidance=scale)
        distance = estimate([row["distance"] for row in mine])
        body.append([f"{scale:g}", distance.text(), evaluate.interval(agreement(mine)._asdict())])
    return ["guidance scale", "distance", "class agreement"], body


def write(folder: pathlib.Path, name: str, rows: Sequence[Row] | None, header: Sequence[str], body: Any) -> None:
    """Writes a table as Markdown and LaTeX, and the measurements behind it as CSV where they are given."""
    if rows is not None:
        write_csv(folder / f"{name}.csv", rows)
    (folder / f"{name}.md").write_text(to_markdown(header, body), encoding="utf-8")
    (folder / f"{name}.tex").write_text(to_latex(header, body), encoding="utf-8")


def plot_distances(folder: pathlib.Path, rows: Sequence[Row], floor: Floor, features: str) -> None:
    """Draws distance against evaluations, a line a solver, with intervals."""
    figure, axes = plt.subplots(figsize=(6.5, 4.2), layout="constrained")
    names = list(dict.fromkeys(row["solver"] for row in rows))
    for i, name in enumerate(names):
        mine = pick(rows, solver=name)
        groups = [pick(mine, budget=budget) for budget in sorted({row["budget"] for row in mine})]
        # Set apart by 2%, for intervals at one number of evaluations would hide each other.
        x = [group[0]["evaluations"] * 1.02 ** (i - (len(names) - 1) / 2) for group in groups]
        mean, half = np.array([estimate([row["distance"] for row in group]) for group in groups]).T
        # An interval that reaches below zero has no place on a logarithmic axis: it is drawn to a tenth of its mean.
        down = np.minimum(half, 0.9 * mean)
        _errorbar(axes, x, mean, down, half, label=name, marker=MARKERS[i % len(MARKERS)], color=f"C{i % 10}")
    axes.axhline(floor.mean, color="0.5", linestyle="--", label="training images")
    axes.axhspan(floor.mean - floor.std, floor.mean + floor.std, color="0.5", alpha=0.15, linewidth=0)
    axes.set(xscale="log", yscale="log", xlabel="denoiser evaluations", ylabel=f"Frechet distance ({features})")
    _ticks(axes, sorted({row["budget"] for row in rows}))
    axes.grid(True, which="both", alpha=0.25)
    axes.legend(frameon=False, fontsize="small", ncols=2)
    _save(figure, folder, "distance")


def plot_scales(folder: pathlib.Path, rows: Sequence[Row], floor: Floor, features: str) -> None:
    """Draws distance, and agreement with the class asked for, against the guidance scale."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.4), layout="constrained")
    x = list(dict.fromkeys(row["guidance"] for row in rows))
    groups = [pick(rows, guidance=scale) for scale in x]
    mean, half = np.array([estimate([row["distance"] for row in group]) for group in groups]).T
    _errorbar(left, x, mean, half, half, marker="o", color="C0")
    shares = [agreement(group) for group in groups]
    percent = 100 * np.array([(s.value, s.value - s.low, s.high - s.value) for s in shares]).T
    _errorbar(right, x, *percent, marker="o", color="C0")
    left.axhline(floor.mean, color="0.5", linestyle="--", label="training images")
    left.legend(frameon=False, fontsize="small")
    left.set(xlabel="guidance scale", ylabel=f"Frechet distance ({features})", ylim=(0, None))
    right.set(xlabel="guidance scale", ylabel="agreement with the class, %")
    for axes in (left, right):
        axes.grid(True, alpha=0.25)
    figure.suptitle(f"{rows[0]['solver']}, {rows[0]['evaluations']} evaluations", fontsize="medium")
    _save(figure, folder, "scales")


def _by_budget(rows: Sequence[Row], cell: Callable[[str, Sequence[Row]], str]) -> tuple[list[str], list[list[str]]]:
    budgets = list(dict.fromkeys(row["budget"] for row in rows))
    body = []
    for name in dict.fromkeys(row["solver"] for row in rows):
        line = [f"`{name}`"]
        for budget in budgets:
            mine = pick(rows, solver=name, budget=budget)
            made = f" ({mine[0]['evaluations']})" if mine and mine[0]["evaluations"] != budget else ""
            line.append(cell(name, mine) + made if mine else "-")
        body.append(line)
    return ["solver", *(f"{budget} NFE" for budget in budgets)], body


def _errorbar(axes: Axes, x: Sequence[float], y: np.ndarray, down: np.ndarray, up: np.ndarray, **style: Any) -> None:
    axes.errorbar(x, y, yerr=np.stack([down, up]), capsize=2.5, markersize=4.5, linewidth=1.2, **style)


def _ticks(axes: Axes, at: Sequence[int]) -> None:
    axes.set_xticks(at, [str(value) for value in at])
    axes.minorticks_off()
    low, high = axes.get_ylim()
    marks = [m * 10.0**e for e in range(-4, 5) for m in (1, 1.5, 2, 3, 5, 7) if low <= m * 10.0**e <= high]
    axes.set_yticks(marks, [f"{mark:g}" for mark in marks])


def _save(figure: Any, folder: pathlib.Path, name: str) -> None:
    for ending in ("png", "pdf"):
        figure.savefig(folder / f"{name}.{ending}", dpi=150)
    plt.close(figure)
