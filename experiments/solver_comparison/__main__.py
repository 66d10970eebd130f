"""Samples one trained run with several solvers and numbers of steps, and tabulates the distances.

    python -m experiments.solver_comparison --workdir=runs/demo

Writes `table.csv`, `table.tex` (booktabs), `table.md` and `distance.png` to <workdir>/solver_comparison. Every row has
the same seed, so the same starting noise; each solver keeps the run's time grid and guidance.
"""

import argparse
import csv
import pathlib
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from genjax.cli.evaluate import score
from genjax.cli.flags import Parser
from genjax.cli.run import add_arguments, open_run

SOLVERS = "ddpm,ddim,euler,heun,dpmpp_2m"
COLUMNS = ("solver", "steps", "evaluations", "distance", "floor", "ratio", "agreement")


def main() -> None:
    """Runs the study."""
    parser = Parser(prog="python -m experiments.solver_comparison", description=__doc__)
    add_arguments(parser)
    parser.add_argument("--n", type=int, default=1000, help="samples a row")
    parser.add_argument("--solvers", default=SOLVERS, help="names, with commas")
    parser.add_argument("--grid", default="5,10,20,50", help="numbers of steps, with commas")
    arguments = parser.parse_args()
    rows = []
    for name in arguments.solvers.split(","):
        for steps in map(int, arguments.grid.split(",")):
            arguments.steps = steps
            rows.append(measure(arguments, name, steps))
            print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    folder = pathlib.Path(arguments.workdir) / "solver_comparison"
    folder.mkdir(exist_ok=True)
    write(folder, rows)
    plot(folder / "distance.png", rows)
    print(f"wrote {folder}/table.csv, table.tex, table.md and distance.png")


def measure(arguments: argparse.Namespace, name: str, steps: int) -> dict[str, Any]:
    """Samples with one solver and scores the samples."""
    run = open_run(arguments, {"solver": {"name": name}})
    labels = run.labels(arguments.n)
    results = score(run, run.generate(arguments.n, labels), labels)
    if results is None:
        raise SystemExit("the run's config has no evaluation.feature_network")
    solver = run.experiment.family.sampler.solver
    return {
        "solver": name,
        "steps": steps,
        # The last evaluation, at the last time, is spared where no noise is left there.
        "evaluations": steps * solver.nfe_per_step + _evaluates_at_the_end(run),
        "distance": round(results["frechet"]["value"], 2),
        "floor": round(results["floor"]["mean"], 2),
        "ratio": round(results["ratio"], 2) if results["ratio"] else "",
        "agreement": round(results["agreement"]["value"], 3) if results["agreement"] else "",
    }


def _evaluates_at_the_end(run: Any) -> int:
    family = run.experiment.family
    last = family.sampler.times(family.process, family.sampler.steps)[-1]
    return int(family.sampler.final == "denoise" and family.process.sigma(last) > 0)


def write(folder: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """Writes the table as CSV, LaTeX and Markdown; the last has a row a solver and a column a number of steps."""
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    solvers = list(dict.fromkeys(row["solver"] for row in rows))
    grid = list(dict.fromkeys(row["steps"] for row in rows))
    cells = {(row["solver"], row["steps"]): row for row in rows}
    body = [[f"{cells[s, n]['distance']:.2f} ({cells[s, n]['evaluations']})" for n in grid] for s in solvers]
    lines = ["| solver | " + " | ".join(f"{n} steps" for n in grid) + " |", "| --- |" + " ---: |" * len(grid)]
    lines += [f"| `{s}` | " + " | ".join(row) + " |" for s, row in zip(solvers, body, strict=True)]
    (folder / "table.md").write_text("\n".join(lines) + "\n")
    latex = [r"\begin{tabular}{l" + "r" * len(grid) + "}", r"\toprule"]
    latex += ["solver & " + " & ".join(f"{n} steps" for n in grid) + r" \\", r"\midrule"]
    latex += [s.replace("_", r"\_") + " & " + " & ".join(row) + r" \\" for s, row in zip(solvers, body, strict=True)]
    (folder / "table.tex").write_text("\n".join([*latex, r"\bottomrule", r"\end{tabular}"]) + "\n")


def plot(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """Draws distance against evaluations, a line a solver."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for solver in dict.fromkeys(row["solver"] for row in rows):
        mine = [row for row in rows if row["solver"] == solver]
        axes.plot([r["evaluations"] for r in mine], [r["distance"] for r in mine], marker="o", label=solver)
    axes.axhline(rows[0]["floor"], color="0.5", linestyle="--", label="training images")
    axes.set(xscale="log", yscale="log", xlabel="denoiser evaluations", ylabel="Frechet distance (classifier features)")
    axes.grid(True, which="both", alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
