"""`genjax train`."""

import shlex
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from genjax.config import ConfigError
from genjax.training.experiment import Experiment
from genjax.training.loop import train

USAGE = """usage: genjax train --config=FILE.py[:MODE] --workdir=FOLDER [--config.KEY.KEY=VALUE ...]

Trains the experiment of a config file, from the newest checkpoint in the folder where there is one.
A config file is Python and is executed; MODE is handed to its get_config, `smoke` is a tiny version.
"""


def main(argv: Sequence[str]) -> int:
    """Trains the experiment that the flags name."""
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if argv else 2
    values = flags.FlagValues()
    config_flag = config_flags.DEFINE_config_file("config", flag_values=values)
    workdir_flag = flags.DEFINE_string("workdir", None, "the run folder", flag_values=values)
    try:
        rest = values(["genjax train", *argv])[1:]
    except (flags.Error, ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        # A KeyError's text is its argument in quotes; the others' is the message.
        raise ConfigError(str(error.args[0] if error.args else error).split("\n")[0]) from error
    if rest:
        raise ConfigError(f"what is {rest[0]!r}? flags are written --name=value")
    if config_flag.value is None or workdir_flag.value is None:
        raise ConfigError(f"--{'config' if config_flag.value is None else 'workdir'} is missing\n\n{USAGE}")
    train(Experiment.from_config(config_flag.value), workdir_flag.value, shlex.join(["genjax", "train", *argv]))
    return 0
