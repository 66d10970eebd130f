"""`genjax train`."""

import shlex
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from genjax.cli.flags import assign, literal
from genjax.config import ConfigError, settings
from genjax.training import distributed
from genjax.training.experiment import Experiment
from genjax.training.loop import train
from genjax.training.run_folder import read_config, read_json_config, to_json

USAGE = """usage: genjax train --config=FILE.py[:MODE] --workdir=FOLDER [--config.KEY.KEY=VALUE ...]
       genjax train --config=FILE.json --workdir=FOLDER [--config.KEY.KEY=VALUE ...]
       genjax train --workdir=FOLDER [--config.KEY.KEY=VALUE ...]

Trains the experiment of a config file, from the newest checkpoint in the folder where there is one. A config file is
Python and is executed; MODE is handed to its get_config, `smoke` is a tiny version. One that ends in .json, such as the
config.json of a run folder, executes nothing. Without a config, goes on with the run in the folder. A folder keeps one
experiment: a config that differs is refused and the difference shown, but a run may be given more steps.

  --config.training.steps=500     overrides, as many as you like; a key that the file leaves out may be given too

Started by srun or mpirun as several processes, these train together. Elsewhere each is told so:

  --coordinator=HOST:PORT         where process 0 listens; with Open MPI 5 it must be given too
  --processes=N --process=I       how many there are, and which one this is, from 0; --processes=1 for a single one

Exit status:
    0  done
    2  a mistake in the command or the config, or another process trains in the folder
    3  a loss or a gradient is infinite or not a number, and config.training.non_finite says stop
    4  the disk is full; the checkpoints before are as they were
  130  stopped by Ctrl-C, with the run saved and the command that goes on printed
  143  stopped by SIGTERM, in the same way
"""


def main(argv: Sequence[str]) -> int:
    """Trains the experiment that the flags name."""
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if argv else 2
    overrides = [flag.removeprefix("--config.") for flag in argv if flag.startswith("--config.")]
    rest = [flag for flag in argv if not flag.startswith("--config.")]
    # Before the config file is executed, which is the first that may touch a device.
    config, workdir = _load(_join(rest), bool(overrides))
    for override in overrides:
        path, separator, value = override.partition("=")
        if not separator:
            raise ConfigError(f"--config.{path}: write --config.{path}=VALUE")
        assign(config, path.split("."), literal(value), value)
    train(Experiment.from_config(config), workdir, shlex.join(["genjax", "train", *argv]))
    return 0


def _join(argv: Sequence[str]) -> list[str]:
    """Joins the other processes, where there are any; returns the flags that say nothing about them."""
    values = flags.FlagValues()
    flags.DEFINE_string("coordinator", None, "where process 0 listens", flag_values=values)
    flags.DEFINE_integer("processes", None, "how many there are", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("process", None, "which one this is", lower_bound=0, flag_values=values)
    try:
        rest = values(["genjax train", *argv], known_only=True)[1:]
    except flags.Error as error:
        raise ConfigError(str(error)) from error
    distributed.start(values.coordinator, values.processes, values.process)
    return rest


def _load(argv: Sequence[str], overridden: bool) -> tuple[Any, str]:
    """Returns the config, of the file or of the folder's run, and the folder."""
    values = flags.FlagValues()
    config_flag = flags.DEFINE_string("config", None, "the config file", flag_values=values)
    workdir_flag = flags.DEFINE_string("workdir", None, "the run folder", flag_values=values)
    try:
        rest = values(["genjax train", *argv])[1:]
    except flags.Error as error:
        raise ConfigError(_cause(error)) from error
    if rest:
        raise ConfigError(f"what is {rest[0]!r}? flags are written --name=value")
    if workdir_flag.value is None:
        raise ConfigError("--workdir is missing: the folder of the run, new or to go on with")
    path, workdir = config_flag.value, workdir_flag.value
    if path is not None and ".json:" in path.lower():
        raise ConfigError(f"--config={path}: a config in JSON has no modes")
    if path is not None and not path.lower().endswith(".json"):
        return _executed(path), workdir
    config = read_config(workdir) if path is None else read_json_config(path)
    return _choices(config) if overridden else config, workdir


def _executed(path: str) -> ConfigDict:
    """Returns the config that a Python file makes."""
    values = flags.FlagValues()
    # Overrides are applied afterwards: the flags of ml_collections say neither where nor what would be right.
    flag = config_flags.DEFINE_config_file("config", flag_values=values, lock_config=False, sys_argv=["genjax"])
    try:
        values(["genjax train", f"--config={path}"])
        flag.value.keys()  # of a file that could not be loaded, an object that raises at its first use
    except Exception as error:  # whatever a config file, which is anybody's Python, may raise
        raise ConfigError(_cause(error)) from error
    return flag.value


def _choices(config: dict[str, Any]) -> dict[str, Any]:
    """Takes out of a resolved config what is a default: a component named by a flag has its own, not the former one's.

    A mistake in it stays there, and shows when the experiment is built.
    """
    try:
        experiment = Experiment.from_config(config)
    except ConfigError:
        return config
    return to_json(settings(experiment, defaults=False) | {"optimizers": experiment.optimizer_config(defaults=False)})


def _cause(error: BaseException) -> str:
    """The last line of the innermost error: what went wrong in the file, rather than that something did."""
    while error.__cause__ is not None or (error.__context__ is not None and not error.__suppress_context__):
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
