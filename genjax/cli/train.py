"""`genjax train`."""

import shlex
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from genjax.config import ConfigError
from genjax.training.experiment import Experiment, load_run
from genjax.training.loop import train

USAGE = """usage: genjax train --config=FILE.py[:MODE] --workdir=FOLDER [--config.KEY.KEY=VALUE ...]
       genjax train --workdir=FOLDER

Trains the experiment of a config file, from the newest checkpoint in the folder where there is one. A config file is
Python and is executed; MODE is handed to its get_config, `smoke` is a tiny version. Without a config, goes on with the
run in the folder, whose resolved config is JSON and executes nothing.
"""


def main(argv: Sequence[str]) -> int:
    """Trains the experiment that the flags name."""
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if argv else 2
    values = flags.FlagValues()
    # The overrides are looked for in sys_argv, by default the process's own.
    config_flag = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=["genjax train", *argv])
    workdir_flag = flags.DEFINE_string("workdir", None, "the run folder", flag_values=values)
    try:
        rest = values(["genjax train", *argv])[1:]
    except (flags.Error, ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        # A KeyError's text is its argument in quotes; the others' is the message.
        raise ConfigError(str(error.args[0] if error.args else error).split("\n")[0]) from error
    if rest:
        raise ConfigError(f"what is {rest[0]!r}? flags are written --name=value")
    workdir = workdir_flag.value
    if workdir is None:
        raise ConfigError("--workdir is missing: the folder of the run, new or to go on with")
    experiment = load_run(workdir) if config_flag.value is None else Experiment.from_config(config_flag.value)
    train(experiment, workdir, shlex.join(["genjax", "train", *argv]))
    return 0
