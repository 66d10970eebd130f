"""The command `genjax`."""

import sys
from collections.abc import Sequence

from genjax.config import ConfigError, printable
from genjax.training.errors import DISK_FULL, FULL, TrainingStopped

COMMANDS = {
    "train": "train an experiment, or go on with it",
    "sample": "draw samples from a trained run",
    "evaluate": "score a trained run and write its report",
    "pairs": "draw samples and keep the noise of each, as data for reflow",
    "compare": "put evaluated runs side by side in one table",
    "list": "list what can be named in a config",
    "cite": "print the BibTeX of what a run uses",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status.

    A mistake of the user's is one line on standard error and status 2, without a traceback; a training that cannot go
    on has a status of its own, see `genjax train --help`.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: genjax COMMAND [--help] ...\n")
        print("\n".join(f"  {name:9} {text}" for name, text in COMMANDS.items()))
        return 0 if argv else 2
    if argv[0] in ("-V", "--version"):
        from genjax import __version__

        print(f"genjax {__version__}")
        return 0
    try:
        return _command(argv[0])(argv[1:])
    except (ConfigError, OSError, TrainingStopped) as error:
        # Messages name files and values that may come from anywhere.
        print(printable(f"genjax {argv[0]}: {error}", keep="\n"), file=sys.stderr)
        if isinstance(error, TrainingStopped):
            from genjax.training.distributed import leave

            leave(error.exit_code)
        return _status(error)
    except KeyboardInterrupt:  # where nothing was under way that could be saved
        print(f"genjax {argv[0]}: stopped", file=sys.stderr)
        return 130


def _status(error: Exception) -> int:
    if isinstance(error, TrainingStopped):
        return error.exit_code
    # Also where it was no checkpoint that lacked the space: metrics, samples, a report.
    full = isinstance(error, OSError) and error.errno in FULL
    return DISK_FULL if full else 2


def _command(name: str):  # type: ignore[no-untyped-def]
    """Imports a command only when it is used: `genjax list` need not wait for orbax."""
    if name == "train":
        from genjax.cli.train import main as command
    elif name == "sample":
        from genjax.cli.sample import main as command
    elif name == "evaluate":
        from genjax.cli.evaluate import main as command
    elif name == "pairs":
        from genjax.cli.pairs import main as command
    elif name == "compare":
        from genjax.cli.compare import main as command
    elif name in ("list", "cite"):
        from genjax.cli import show

        command = show.list_components if name == "list" else show.cite
    else:
        from genjax.config import nearest

        raise ConfigError(f"there is no command {name!r}{nearest(name, COMMANDS)}")
    return command
