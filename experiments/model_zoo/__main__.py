"""Trains every family on the digits, evaluates it, and puts them side by side.

    python -m experiments.model_zoo --workdir=runs/model_zoo
    python -m experiments.model_zoo --workdir=runs/model_zoo --only=vae,glow
    python -m experiments.model_zoo --workdir=runs/model_zoo --smoke

Every file of --configs is a run, in a folder of its name in --workdir: as `genjax train` and `genjax evaluate` would
run it, in processes of its own, one after another, with their output in a file beside the folder. What is trained and
evaluated is not done again, and what was broken off goes on. What learns from another run, or makes no images, is left
out unless --only names it: `experiments.few_step` has the former. A run that fails is told at the end, and the others
go on.
--smoke takes the configs' smoke modes, in the folder `smoke` of --workdir: it shows that everything runs, no more.

Writes `table.csv` with every figure and its interval, `table.md`, `table.tex` (booktabs) and the sheet `samples.png` to
the folder of the runs. Times compare where nothing else ran on the machine.
"""

import argparse
import importlib.util
import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from genjax import registry
from genjax.cli.compare import write
from genjax.config import ConfigError, nearest
from genjax.evaluation import compare
from genjax.families.base import generates
from genjax.training.checkpoints import DIRECTORY
from genjax.training.experiment import Experiment, load_run
from genjax.training.store import Store

_GENJAX = (sys.executable, "-c", "import sys; from genjax.cli import main; sys.exit(main())")


def main(argv: Sequence[str]) -> int:
    """Runs the study; returns how many runs failed.

    Raises:
        ConfigError: a mistake in the flags, or in a config.
    """
    parser = argparse.ArgumentParser(
        prog="python -m experiments.model_zoo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/model_zoo"), help="for the runs")
    parser.add_argument("--configs", type=pathlib.Path, default=pathlib.Path("configs/digits"), help="their folder")
    parser.add_argument("--only", default="", help="names of configs, with commas; by default all that stand alone")
    parser.add_argument("--smoke", action="store_true", help="a few steps of tiny networks")
    arguments = parser.parse_args(argv)
    mode = "smoke" if arguments.smoke else "full"
    configs = chosen(arguments.configs, arguments.only)
    if not arguments.only:
        configs = {name: path for name, path in configs.items() if stands_alone(load(path, mode))}
    folder = arguments.workdir / "smoke" if arguments.smoke else arguments.workdir
    folder.mkdir(parents=True, exist_ok=True)

    failed = []
    for name, path in configs.items():
        try:
            run(path, folder / name, mode)
        except (ConfigError, subprocess.CalledProcessError) as error:
            failed.append(f"{name}: {error}")
            print(failed[-1], file=sys.stderr, flush=True)
    found = [entry for entry in map(compare.read, map(folder.joinpath, configs)) if entry is not None and entry.results]
    if found:
        write(folder, found)
        print((folder / "table.md").read_text(encoding="utf-8") + f"\n{compare.LEGEND}\nwrote {folder}")
    print("\n".join([f"{len(found)} of {len(configs)} runs compared", *failed]))
    return len(failed)


def chosen(folder: pathlib.Path, only: str) -> dict[str, pathlib.Path]:
    """Returns the config files of a folder by name, or those whose names are given.

    Raises:
        ConfigError: there is none, or none of that name.
    """
    configs = {path.stem: path for path in sorted(folder.glob("*.py")) if path.stem != "__init__"}
    if not configs:
        raise ConfigError(f"--configs = {folder}: there are no configs in it")
    names = only.split(",") if only else list(configs)
    for name in names:
        if name not in configs:
            raise ConfigError(f"--only: there is no config {name!r} in {folder}{nearest(name, configs)}")
    return {name: configs[name] for name in names}


def stands_alone(config: Any) -> bool:
    """Whether the run of a config makes images, and needs no other run before it."""
    needs = "teacher" in config.family or config.data.name == "pairs"
    return not needs and generates(registry.entries("family")[config.family.name].build)


def run(path: pathlib.Path, folder: pathlib.Path, mode: str) -> None:
    """Trains and evaluates one config, as far as that has not been done.

    Args:
        path: the config file.
        folder: of the run; what is printed goes to a file of its name with the ending `log`.
        mode: of the config.

    Raises:
        ConfigError: a mistake in the config.
        CalledProcessError: a command failed; the file says why.
    """
    experiment = Experiment.from_config(load(path, mode))
    trained = is_trained(experiment, folder)
    started = time.perf_counter()
    with folder.with_suffix(".log").open("a", encoding="utf-8") as log:
        if not trained:
            command(log, "train", f"--config={path}:{mode}", f"--workdir={folder}")
        if not trained or not is_evaluated(experiment, folder):
            command(log, "evaluate", f"--workdir={folder}")
    print(f"{folder.name}: {time.perf_counter() - started:.0f} s{' (was trained)' if trained else ''}", flush=True)


def load(path: pathlib.Path, mode: str) -> Any:
    """Returns what a config file's `get_config` gives."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(mode)


def is_trained(experiment: Experiment, folder: pathlib.Path) -> bool:
    """Whether a folder holds the whole run of a config; of another config, `genjax train` says the difference.

    Options that the run's version did not have count as their defaults.
    """
    try:
        held = load_run(folder).config
    except ConfigError:
        return False
    return held == experiment.config and experiment.training.steps in Store(folder / DIRECTORY, read_only=True).steps()


def is_evaluated(experiment: Experiment, folder: pathlib.Path) -> bool:
    """Whether the last weights of a run have been evaluated."""
    try:
        results = json.loads((folder / "evaluation.json").read_bytes())
        step = results.get("manifest", {}).get("checkpoint_step", experiment.training.steps)
        return bool(step == experiment.training.steps)
    except (OSError, ValueError):
        return False


def command(log: Any, *arguments: str) -> None:
    """Runs `genjax` in a process of its own, with its output in a file."""
    subprocess.run([*_GENJAX, *arguments], stdout=log, stderr=subprocess.STDOUT, check=True)


if __name__ == "__main__":
    try:
        sys.exit(min(main(sys.argv[1:]), 1))
    except (ConfigError, OSError) as error:
        sys.exit(f"model_zoo: {error}")
