"""`genjax list` and `genjax cite`."""

import argparse
import ast
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from genjax import citation, registry
from genjax.config import ConfigError, named, nearest


def _plural(kind: str) -> str:
    if kind in ("times", "guidance", "data"):
        return kind
    if kind.endswith("y"):
        return f"{kind[:-1]}ies"
    return f"{kind}es" if kind.endswith("s") else f"{kind}s"


_LISTS = {_plural(kind): kind for kind in registry.KINDS}


def list_components(argv: Sequence[str]) -> int:
    """Prints the components of a kind, or the config files under ./configs."""
    kinds = sorted([*_LISTS, "configs"])
    if len(argv) != 1 or argv[0] in ("-h", "--help"):
        print(f"usage: genjax list {{{','.join(kinds)}}}")
        return 0 if argv else 2
    if argv[0] not in kinds:
        raise ConfigError(f"there is no list of {argv[0]!r}{nearest(argv[0], kinds)}")
    Console().print(_configs() if argv[0] == "configs" else _components(_LISTS[argv[0]]))
    return 0


def _components(kind: str) -> Table:
    table = Table("name", box=None, pad_edge=False)
    solver = kind == "solver"
    if solver:
        table.caption = "NFE: evaluations of the denoiser a step; -: the number of steps does not say"
    for heading in ("order", "NFE", "noise") if solver else ():
        table.add_column(heading, justify="right")
    table.add_column("what it is", overflow="fold", ratio=1)
    for entry in registry.entries(kind).values():
        facts = []
        if solver:
            example = entry.build()
            facts = [str(example.order or "-"), str(example.nfe_per_step or "-"), "yes" if example.stochastic else "no"]
        paper = f"\n[dim]{entry.reference}[/dim]" if entry.reference else ""  # under the text, which needs the width
        table.add_row(entry.name, *facts, escape(entry.summary) + paper)
    return table


def _configs() -> Table:
    table = Table("config", "what it is", box=None, pad_edge=False)
    for path in sorted(pathlib.Path("configs").rglob("*.py")):
        if path.name != "__init__.py":
            text = ast.get_docstring(ast.parse(path.read_text())) or ""
            table.add_row(str(path), text.split("\n\n")[0].replace("\n", " "))
    if not table.row_count:
        raise ConfigError("there is no folder ./configs here; run this in a checkout")
    return table


def cite(argv: Sequence[str]) -> int:
    """Prints the BibTeX entries of the components that a run's config names."""
    parser = argparse.ArgumentParser(prog="genjax cite", description="Print the BibTeX of what a run uses.")
    parser.add_argument("--workdir", required=True, help="the run folder")
    arguments = parser.parse_args(argv)
    from genjax.training.run_folder import read_config

    keys = dict.fromkeys(references(read_config(arguments.workdir)))
    print("\n\n".join(citation.entry(key) for key in keys))
    return 0


def references(config: Mapping[str, Any]) -> Iterator[str]:
    """Yields the BibTeX keys of the components that a resolved config names, in the order of the config."""
    from genjax.training.experiment import Experiment

    entries = list(named(Experiment, config))
    for optimizer in config["optimizers"].values():  # by role, so no field of the experiment
        entries.append(registry.entries("optimizer")[optimizer["name"]])
        if isinstance(optimizer.get("learning_rate"), Mapping):
            entries.append(registry.entries("schedule")[optimizer["learning_rate"]["name"]])
    yield from (entry.reference for entry in entries if entry.reference is not None)
