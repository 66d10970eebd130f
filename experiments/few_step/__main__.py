"""Trains teachers and the methods that need few steps, and draws distance against network evaluations.

    python -m experiments.few_step --workdir=runs/few_step
    python -m experiments.few_step --workdir=runs/few_step --only=progressive_distillation,dmd --seeds=3
    python -m experiments.few_step --workdir=runs/few_step --smoke

A method of `methods.py` has the config of its name in --configs, from which its teacher is known; what has no config
there is left out. Runs are those of `genjax train`, one after another, in --workdir/seed0 and so on, each with its
output in a file beside the folder. Its distances are kept in its folder. What is trained and measured is not done
again, and what was broken off goes on; a run that fails is told at the end, and the others go on. Beside the methods
stand the teachers' own solvers, unguided, as the methods are. --smoke takes the configs' smoke modes, in the folder
`smoke` of --workdir, where untrained models teach: it shows that everything runs, no more.

Writes to the folder of the runs: `table.csv` with a row a measurement, `table.md` and `table.tex` (booktabs) with a row
a method, its spread over seeds, the cost of its training and whether it is as good as it must be; `distance.png`, and
the sheet `samples.png`. Times compare where nothing else ran on the machine.
"""

import argparse
import pathlib
import subprocess
import sys
from collections.abc import Collection, Sequence

import numpy as np
from PIL import Image

from experiments.few_step import results, runs
from experiments.few_step.measure import Meter, Row
from experiments.few_step.methods import METHODS, REFERENCE, SOLVERS
from genjax.config import ConfigError, nearest
from genjax.evaluation import figures


def main(argv: Sequence[str]) -> int:
    """Runs the study; returns how many runs failed.

    Raises:
        ConfigError: a mistake in the flags, or nothing to compare.
    """
    parser = argparse.ArgumentParser(
        prog="python -m experiments.few_step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/few_step"), help="for the runs")
    parser.add_argument("--configs", type=pathlib.Path, default=pathlib.Path("configs/digits"), help="their folder")
    parser.add_argument("--only", default="", help="names of methods, with commas; by default all that have a config")
    parser.add_argument("--solvers", default=",".join(SOLVERS), help="of the teachers, with commas")
    parser.add_argument("--seeds", type=int, default=1, help="training seeds")
    parser.add_argument("--sampling-seeds", type=int, default=3, help="seeds of the samples of each")
    parser.add_argument("--n", type=int, help="samples a measurement, by default the configs'")
    parser.add_argument("--smoke", action="store_true", help="a few steps of tiny networks")
    arguments = parser.parse_args(argv)
    if arguments.seeds < 1 or arguments.sampling_seeds < 1:
        raise ConfigError("--seeds and --sampling-seeds: must be at least 1")
    methods = chosen(arguments.configs, arguments.only)
    solvers = _among("--solvers", arguments.solvers, SOLVERS)
    folder = arguments.workdir / "smoke" if arguments.smoke else arguments.workdir
    folder.mkdir(parents=True, exist_ok=True)

    mode = "smoke" if arguments.smoke else "full"
    studies = [runs.Study(arguments.configs, folder, mode, seed) for seed in range(arguments.seeds)]
    meter = Meter(range(arguments.sampling_seeds), arguments.n)
    teachers = {name: runs.teacher_of(studies[0], name) for name in methods}
    rows, trained, failed = measured(studies, meter, teachers, solvers)
    if meter.against is None:
        raise ConfigError("; ".join(["nothing was trained", *failed]))
    costs = {name: runs.cost([study.run(name) for study in those]) for name, those in trained.items()}
    results.write(folder, rows, teachers, costs)
    floor = meter.against.floor(meter.n or 0, 0)
    results.plot(folder / "distance.png", rows, floor, meter.against.network.name.replace("_", " "))
    sheet(folder / "samples.png", meter, rows, studies[0])
    print((folder / "table.md").read_text(encoding="utf-8") + f"\n{results.LEGEND}\nwrote {folder}")
    print("\n".join([f"{len(trained)} models compared", *failed]))
    return len(failed)


def chosen(configs: pathlib.Path, only: str) -> list[str]:
    """Returns the methods to compare.

    Raises:
        ConfigError: there is none of a name, or no config of it.
    """
    if not only:
        return [name for name in METHODS if (configs / f"{name}.py").exists()]
    names = _among("--only", only, METHODS)
    for name in names:
        if not (configs / f"{name}.py").exists():
            raise ConfigError(f"--only: there is no {configs / name}.py")
    return names


def measured(
    studies: Sequence[runs.Study], meter: Meter, teachers: dict[str, str], solvers: Sequence[str]
) -> tuple[list[Row], dict[str, list[runs.Study]], list[str]]:
    """Trains and measures; returns the rows, what was trained for which seeds, and what failed."""
    rows: list[Row] = []
    trained: dict[str, list[runs.Study]] = {}
    failed = []
    for name in (*dict.fromkeys(teachers.values()), *teachers):
        for study in studies:
            try:
                runs.train(study, name)
                folder = study.run(name)
                found = meter.method(folder, name) if name in teachers else meter.teacher(folder, name, solvers)
            except (ConfigError, ValueError, subprocess.CalledProcessError) as error:
                failed.append(f"{name}, seed {study.seed}: {error}")
                print(failed[-1], file=sys.stderr, flush=True)
                continue
            rows += [{"training_seed": study.seed, **row} for row in found]
            trained.setdefault(name, []).append(study)
    return rows, trained, failed


def sheet(path: pathlib.Path, meter: Meter, rows: Sequence[Row], study: runs.Study) -> None:
    """Draws samples of one training seed: teachers at the reference's evaluations and at 2, methods at 2."""
    pictures = []
    for name, solver in dict.fromkeys((r["method"], r["solver"]) for r in rows if r["training_seed"] == study.seed):
        at = {row["budget"] for row in rows if (row["method"], row["solver"]) == (name, solver)}
        for budget in (REFERENCE, 2):
            if budget in at and (not solver or solver == next(r["solver"] for r in rows if r["method"] == name)):
                label = f"{name}, {budget} NFE"
                pictures.append((label, meter.samples(study.run(name), budget, solver)))
    if pictures:
        labels, images = zip(*pictures, strict=True)
        grid = figures.grid(np.concatenate(images), len(images[0]), row_labels=labels)
        whole = Image.new("RGB", grid.size, "white")
        whole.paste(grid, mask=grid)
        whole.save(path)


def _among(flag: str, value: str, among: Collection[str]) -> list[str]:
    names = value.split(",")
    for name in names:
        if name not in among:
            raise ConfigError(f"{flag}: there is no {name!r}{nearest(name, among)}")
    return names


if __name__ == "__main__":
    try:
        sys.exit(min(main(sys.argv[1:]), 1))
    except (ConfigError, OSError) as error:
        sys.exit(f"few_step: {error}")
