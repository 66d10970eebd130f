"""From measurements to the table, the plot and the sheet of samples."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from experiments.few_step.measure import Row
from experiments.few_step.methods import BUDGETS, CLOSE, FAR, REFERENCE
from experiments.few_step.runs import Cost
from genjax.evaluation.distances import Floor
from genjax.evaluation.tables import count, duration, to_latex, to_markdown, write_csv

HEADER = (
    "method",
    *(f"{budget} NFE" for budget in (*BUDGETS, REFERENCE)),
    f"2 NFE / teacher at {REFERENCE}",
    "teacher's best at 2 / 2 NFE",
    "holds",
    "training",
    "steps",
    "evaluations",
)
LEGEND = (
    "Frechet distance, mean ± standard deviation over the seeds of training and of samples. The two ratios are to the "
    f"least distance that any of the teacher's solvers has at {REFERENCE} and at 2 network evaluations (NFE), without "
    f"guidance; they hold where the first is at most {CLOSE:g} and the second at least {FAR:g}. Training is that of "
    "one seed, without the teacher's; evaluations are those of the network on one image that its operations come to."
)
_COLORS = (*(f"C{i}" for i in range(10) if i != 7), "black", "gold", "navy")  # teachers are grey, as C7 is


class Bars(NamedTuple):
    """How a method at 2 evaluations stands to its teacher; NaN where something was not measured.

    Attributes:
        close: its distance over the teacher's least at `REFERENCE` evaluations.
        far: the teacher's least distance at 2 evaluations over its own.
    """

    close: float
    far: float

    @property
    def hold(self) -> bool:
        """Whether both bars hold."""
        return self.close <= CLOSE and self.far >= FAR


def distances(rows: Sequence[Row], **about: Any) -> np.ndarray:
    """Returns the distances of the rows of which everything given holds."""
    return np.array([row["distance"] for row in rows if about.items() <= row.items()])


def best(rows: Sequence[Row], teacher: str, budget: int) -> float:
    """Returns the least mean distance of a teacher's solvers at a number of evaluations; NaN where there is none."""
    solvers = {row["solver"] for row in rows if row["method"] == teacher and row["budget"] == budget}
    means = [distances(rows, method=teacher, solver=solver, budget=budget).mean() for solver in solvers]
    return float(min(means, default=np.nan))


def bars(rows: Sequence[Row], method: str, teacher: str) -> Bars:
    """Returns how a method stands to its teacher."""
    mine = distances(rows, method=method, solver="", budget=2)
    mean = float(mine.mean()) if len(mine) else float("nan")
    return Bars(mean / best(rows, teacher, REFERENCE), best(rows, teacher, 2) / mean)


def table(rows: Sequence[Row], teachers: Mapping[str, str], costs: Mapping[str, Cost]) -> list[list[str]]:
    """Returns the body of the table: the solvers of each teacher, then the methods.

    Args:
        rows: the measurements.
        teachers: by method, in order.
        costs: by method and teacher.
    """
    body = []
    for name, solver in dict.fromkeys((row["method"], row["solver"]) for row in rows):
        cells = [_cell(distances(rows, method=name, solver=solver, budget=b)) for b in (*BUDGETS, REFERENCE)]
        if solver:
            body.append([f"`{name}`, `{solver}`", *cells, "-", "-", "-", *_cost(costs.get(name))])
            continue
        found = bars(rows, name, teachers[name])
        ratios = [f"{value:.2f}" if np.isfinite(value) else "-" for value in found]
        holds = ("yes" if found.hold else "no") if np.isfinite(found).all() else "-"
        body.append([f"`{name}`", *cells, *ratios, holds, *_cost(costs.get(name))])
    return body


def write(folder: pathlib.Path, rows: Sequence[Row], teachers: Mapping[str, str], costs: Mapping[str, Cost]) -> None:
    """Writes the table as CSV, Markdown and LaTeX; a row of the CSV is a measurement."""
    body = table(rows, teachers, costs)
    known = {name: cost._asdict() for name, cost in costs.items()}
    write_csv(
        folder / "table.csv",
        [
            {**row, "teacher": teachers.get(row["method"], ""), **_training(known.get(row["method"], {}))}
            for row in rows
        ],
    )
    (folder / "table.md").write_text(to_markdown(HEADER, body), encoding="utf-8")
    (folder / "table.tex").write_text(to_latex(HEADER, body), encoding="utf-8")


def plot(path: pathlib.Path, rows: Sequence[Row], floor: Floor, features: str) -> None:
    """Draws distance against evaluations: a thin line a solver of a teacher, a thick one a method."""
    figure, axes = plt.subplots(figsize=(7.5, 5.0), layout="constrained")
    names = list(dict.fromkeys((row["method"], row["solver"]) for row in rows))
    teachers = list(dict.fromkeys(name for name, solver in names if solver))
    methods = [name for name, solver in names if not solver]
    for name, solver in names:
        at = sorted({row["budget"] for row in rows if (row["method"], row["solver"]) == (name, solver)})
        found = [distances(rows, method=name, solver=solver, budget=b) for b in at]
        mean, spread = np.array([(d.mean(), d.std()) for d in found]).T
        down = np.minimum(spread, 0.9 * mean)
        style: dict[str, Any] = dict(capsize=2.0, markersize=4.0)
        if solver:
            grey = 0.35 + 0.3 * teachers.index(name)
            line = ("-", "--", ":", "-.", (0, (1, 3)), (0, (5, 1)))[
                sorted({s for n, s in names if n == name}).index(solver) % 6
            ]
            style |= dict(color=str(grey), linestyle=line, linewidth=0.9, label=f"{name}, {solver}")
        else:
            i = methods.index(name)
            style |= dict(color=_COLORS[i % len(_COLORS)], marker="osD^vP*Xhp<>"[i % 12], linewidth=1.8, label=name)
        axes.errorbar(at, mean, yerr=np.stack([down, spread]), **style)
    axes.axhline(floor.mean, color="0.5", linestyle=":", label="training images")
    axes.set(xscale="log", yscale="log", xlabel="network evaluations", ylabel=f"Frechet distance ({features})")
    ticks = sorted({row["budget"] for row in rows})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.grid(True, alpha=0.25)
    axes.legend(frameon=False, fontsize="x-small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _cell(found: np.ndarray) -> str:
    if not len(found):
        return "-"
    return f"{found.mean():.2f}" + (f" ± {found.std(ddof=1):.2f}" if len(found) > 1 else "")


def _cost(cost: Cost | None) -> list[str]:
    if cost is None:
        return ["-", "-", "-"]
    counted = "-" if cost.evaluations is None else count(cost.evaluations)
    return [duration(cost.seconds), str(cost.steps), counted]


def _training(cost: Mapping[str, Any]) -> dict[str, Any]:
    return {f"training_{name}": value for name, value in cost.items()}
