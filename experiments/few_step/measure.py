"""What is measured of a run: the distance of its samples by numbers of evaluations, kept in its folder."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.few_step import runs
from experiments.few_step.methods import BUDGETS, METHODS, REFERENCE, SOLVERS
from experiments.solver_comparison.measure import Bench, evaluations, within
from genjax.cli.evaluate import reference
from genjax.evaluation.evaluate import Reference
from genjax.families.sampler import Sampler
from genjax.files import write_whole

Row = dict[str, Any]  # one measurement


@dataclasses.dataclass
class Meter:
    """Measures runs of one data set with one feature network.

    Attributes:
        n: samples a measurement; None for what the first run's config says.
        seeds: of the samples.
        against: what samples are scored against, made with the first run.
    """

    seeds: Sequence[int]
    n: int | None = None
    against: Reference | None = None

    def __post_init__(self) -> None:
        self._benches: dict[tuple[pathlib.Path, int | None], Bench] = {}

    def bench(self, folder: pathlib.Path, checkpoint: int | None = None) -> Bench:
        """Returns what draws from a run; its compiled programs are kept."""
        if (folder, checkpoint) not in self._benches:
            run = runs.opened(folder, checkpoint)
            if self.against is None:
                self.against = reference(run)
                self.n = run.experiment.evaluation.n if self.n is None else self.n
            assert self.against is not None and self.n is not None
            self._benches[folder, checkpoint] = Bench(run, self.against, self.n)
        return self._benches[folder, checkpoint]

    def teacher(self, folder: pathlib.Path, name: str, solvers: Sequence[str]) -> list[Row]:
        """Returns the rows of a teacher's solvers, which begin and end where its own sampler does."""
        bench, rows = self.bench(folder), []
        own = dataclasses.replace(bench.sampler, final="none")
        for solver in solvers:
            for budget in (*BUDGETS, REFERENCE):
                sampler = exactly(dataclasses.replace(own, solver=SOLVERS[solver]), bench, budget)
                if sampler is not None:
                    rows += self._rows(bench, folder, sampler, {"method": name, "solver": solver, "budget": budget})
        return rows

    def method(self, folder: pathlib.Path, name: str) -> list[Row]:
        """Returns the rows of a method that needs few steps."""
        rows = []
        for budget in METHODS[name].budgets:
            try:
                checkpoint = runs.checkpoint_for(self.bench(folder).family, budget)
            except ValueError:
                continue
            bench = self.bench(folder, checkpoint)
            sampler = exactly(bench.sampler, bench, budget)
            if sampler is not None:
                rows += self._rows(bench, folder, sampler, {"method": name, "solver": "", "budget": budget})
        return rows

    def samples(self, folder: pathlib.Path, budget: int, solver: str = "", columns: int = 20) -> np.ndarray:
        """Returns samples uint8 [columns, H, W, C] of a run, of each class in turn: a teacher's with a solver."""
        checkpoint = None if solver else runs.checkpoint_for(self.bench(folder).family, budget)
        bench = self.bench(folder, checkpoint)
        own = dataclasses.replace(bench.sampler, solver=SOLVERS[solver], final="none") if solver else bench.sampler
        short = exactly(own, bench, budget)
        assert short is not None
        return bench.draw(short, self.seeds[0], None)[:columns]

    def _rows(self, bench: Bench, folder: pathlib.Path, sampler: Sampler, about: Row) -> list[Row]:
        """A row a seed, those that have not been measured before."""
        path, rows = folder / runs.MEASURED, []
        for seed in self.seeds:
            # Read again each time, and written whole: what is broken off loses one measurement.
            held: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
            key = f"{about['solver']} {about['budget']} of step {bench.run.step}, seed {seed}, {bench.n} samples"
            if key not in held:
                found = bench.measure(about["solver"], sampler, seed, None)
                held[key] = {name: found[name] for name in ("distance", "agreement", "evaluations")}
                write_whole(path, json.dumps(held, indent=2))
                print(f"{about['method']} {key}: {found['distance']:.2f}", flush=True)
            rows.append({**about, "seed": seed, "n": bench.n, **held[key]})
        return rows


def exactly(sampler: Sampler, bench: Bench, budget: int) -> Sampler | None:
    """Returns the sampler with the steps that a number of evaluations comes to; None where there are none."""
    short = within(sampler, bench.family.process, budget)
    return short if short is not None and evaluations(short, bench.family.process) == budget else None
