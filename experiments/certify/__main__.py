"""Certifies every solver: its order, measured against the declared one, and its error at equal numbers of evaluations.

    python -m experiments.certify

Everything is exact or nearly so: a mixture's denoiser in closed form, float64, on a variance-preserving process, a
variance-exploding one and rectified flow. Writes `table.csv` with everything, `table.md` and `table.tex` (booktabs) of
the solvers as they come, `options.md` and `options.tex` of other choices of theirs, `order.png` and `error.png` to
--out; takes about two minutes on two cores. The command fails if a measured order is off by 0.2.
"""

import argparse
import concurrent.futures
import multiprocessing
import os
import pathlib
import time
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from experiments.certify import measure
from experiments.certify.measure import BUDGETS
from genjax.evaluation.tables import to_latex, to_markdown, write_csv

TOLERANCE = 0.2


def main() -> None:
    """Runs the study."""
    parser = argparse.ArgumentParser(prog="python -m experiments.certify", description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/certify"), help="folder for the results")
    parser.add_argument("--solvers", default="", help="names, with commas; by default all")
    parser.add_argument("--workers", type=int, default=min(4, os.cpu_count() or 1), help="processes to run in")
    arguments = parser.parse_args()
    started = time.monotonic()
    names = arguments.solvers.split(",") if arguments.solvers else [*measure.REGISTERED, *measure.OPTIONS]
    unknown = [name for name in names if name not in measure.REGISTERED | measure.OPTIONS]
    if unknown:
        parser.error(f"no solver {unknown[0]!r}; there are {', '.join(measure.REGISTERED | measure.OPTIONS)}")
    with concurrent.futures.ProcessPoolExecutor(arguments.workers, multiprocessing.get_context("spawn")) as pool:
        rows = [row for rows in pool.map(measure.certify, names) for row in rows]
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_csv(arguments.out / "table.csv", rows)
    for file, group in (("table", measure.REGISTERED), ("options", measure.OPTIONS)):
        header, body = summary([row for row in rows if row["solver"] in group])
        (arguments.out / f"{file}.md").write_text(to_markdown(header, body))
        (arguments.out / f"{file}.tex").write_text(to_latex(header, body))
        print(to_markdown(header, body))
    plot_orders(arguments.out / "order.png", rows)
    plot_errors(arguments.out / "error.png", rows)
    print(f"A stochastic solver's error has a floor near {measure.distance_floor():.3f}, that of its sample.")
    print(f"Wrote table.csv, table and options (.md, .tex), order.png and error.png to {arguments.out}")
    print(f"{len(names)} solvers in {time.monotonic() - started:.0f} s")
    off = [row for row in rows if abs(row["measured"] - row["declared"]) >= TOLERANCE]
    if off:
        lines = [f"{r['solver']} on {r['process']}: declared {r['declared']}, measured {r['measured']}" for r in off]
        raise SystemExit("not as declared:\n" + "\n".join(lines))


def summary(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """A row a solver: of the measured orders the worst of all processes, of the errors those on VP."""
    header = ["solver", "order", "measured", "evaluations a step", *(f"error at {budget}" for budget in BUDGETS)]
    body = []
    for name in dict.fromkeys(row["solver"] for row in rows):
        mine = [row for row in rows if row["solver"] == name]
        worst = max(mine, key=lambda row: abs(row["measured"] - row["declared"]))
        first = mine[0]
        errors = [first[f"error_{budget}"] for budget in BUDGETS]
        body.append(
            [
                f"`{name}`" + ("*" if first["stochastic"] else ""),
                str(first["declared"]),
                f"{worst['measured']:.2f}",
                str(first["nfe_per_step"]),
                *("-" if error is None else f"{error:.2g}" for error in errors),
            ]
        )
    return header, body


def plot_orders(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """Draws the declared order of every solver as a bar and the measured ones as dots."""
    names = sorted({row["solver"] for row in rows}, key=lambda n: next(_rank(r) for r in rows if r["solver"] == n))
    figure, axes = plt.subplots(figsize=(7, 0.19 * len(names) + 1), layout="constrained")
    for marker, process in zip("o^s", measure.PROCESSES, strict=True):
        mine = {row["solver"]: row for row in rows if row["process"] == process}
        axes.plot([mine[n]["measured"] for n in names], range(len(names)), marker, ms=4, alpha=0.8, label=process)
    declared = [next(row["declared"] for row in rows if row["solver"] == name) for name in names]
    axes.barh(
        range(len(names)), [2 * TOLERANCE] * len(names), 0.8, np.array(declared) - TOLERANCE, color="0.88", zorder=0
    )
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set(xlabel="measured order; grey: within 0.2 of the declared one", ylim=(-0.8, len(names) - 0.2))
    axes.grid(True, axis="x", alpha=0.3)
    axes.legend(frameon=False, loc="upper left")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _rank(row: dict[str, Any]) -> tuple[Any, ...]:
    return (row["declared"], row["stochastic"], row["solver"])


def plot_errors(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """Draws error against evaluations on VP, a panel an order, registered solvers as they come."""
    rows = [row for row in rows if row["process"] == "linear_vp" and row["solver"] in measure.REGISTERED]
    panels = [
        ("order 1, and adaptive", [r for r in rows if not r["stochastic"] and r["declared"] <= 1]),
        ("order 2", [r for r in rows if not r["stochastic"] and r["declared"] == 2]),
        ("order 3 and more", [r for r in rows if not r["stochastic"] and r["declared"] > 2]),
        ("stochastic, order 0 and 1", [r for r in rows if r["stochastic"] and r["declared"] <= 1]),
        ("stochastic, order 2", [r for r in rows if r["stochastic"] and r["declared"] >= 2]),
    ]
    panels = [(title, mine) for title, mine in panels if mine]
    figure, axes = plt.subplots(
        1, len(panels), figsize=(3.2 * len(panels), 4.6), sharey=True, layout="constrained", squeeze=False
    )
    floor = measure.distance_floor()
    for axis, (title, mine) in zip(axes[0], panels, strict=True):
        for row, (colour, line) in zip(mine, _styles(len(mine)), strict=True):
            axis.plot(
                BUDGETS,
                [np.nan if row[f"error_{b}"] is None else row[f"error_{b}"] for b in BUDGETS],
                line,
                color=colour,
                marker=".",
                lw=1.2,
                label=row["solver"],
            )
        if mine[0]["stochastic"]:
            axis.axhline(floor, color="0.6", lw=1, ls=":", label="floor of the sample")
        axis.set(xscale="log", yscale="log", title=title, xlabel="evaluations", ylim=(2e-5, 3.0))
        axis.set_xticks(BUDGETS, [str(b) for b in BUDGETS])
        axis.minorticks_off()
        axis.grid(True, alpha=0.25)
        axis.legend(frameon=False, fontsize=6.5, loc="lower left")
    axes[0, 0].set_ylabel("2-Wasserstein distance to the mixture")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _styles(n: int) -> list[tuple[Any, str]]:
    return [(plt.get_cmap("tab10")(i % 10), ("-", "--")[i // 10 % 2]) for i in range(n)]


if __name__ == "__main__":
    main()
