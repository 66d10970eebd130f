"""`genjax sample`."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from genjax.cli.flags import Parser
from genjax.cli.run import SECTIONS, Run, add_arguments, open_run
from genjax.config import ConfigError
from genjax.evaluation import figures
from genjax.files import write_whole


def main(argv: Sequence[str]) -> int:
    """Draws samples from a run and writes a grid, the arrays and how they came about."""
    parser = Parser(prog="genjax sample", description="Draw samples from a trained run.")
    add_arguments(parser)
    parser.add_argument("--n", type=int, default=64, help="number of samples")
    parser.add_argument("--classes", help="classes to draw in turn, such as 3 or 0,1,2; by default all of them")
    parser.add_argument("--out", type=pathlib.Path, help="where to write, without the ending")
    arguments, sections = parser.parse_dotted(argv, SECTIONS)
    if arguments.n < 1:
        raise ConfigError(f"--n = {arguments.n}: must be at least 1")
    run = open_run(arguments, sections)
    try:
        classes = [int(label) for label in arguments.classes.split(",")] if arguments.classes else None
    except ValueError:
        raise ConfigError(f"--classes = {arguments.classes!r}: must be whole numbers, as in 0,1,2") from None
    labels = run.labels(arguments.n, classes)
    images = run.generate(arguments.n, labels)

    out = arguments.out or run.workdir / "samples" / _name(run)
    png, npz, about = (out.with_name(f"{out.name}.{ending}") for ending in ("png", "npz", "json"))
    out.parent.mkdir(parents=True, exist_ok=True)
    columns = len(set(labels.tolist())) if labels is not None else int(np.ceil(arguments.n**0.5))
    figures.sheet(images, max(columns, 1)).save(png)
    arrays: dict[str, Any] = {"images": images} if labels is None else {"images": images, "labels": labels}
    np.savez_compressed(npz, **arrays)
    write_whole(about, json.dumps(vars(run.provenance()) | {"n": arguments.n}, indent=2) + "\n")
    print(f"{arguments.n} samples: {png} (and .npz, .json)")
    return 0


def _name(run: Run) -> str:
    """A name that tells one sampler's samples, or one average's, from another's."""
    sampler = run.sampler()
    solver = [sampler["solver"]["name"], f"{sampler['steps']}steps"] if sampler else []
    width = [] if run.ema_width is None else [f"ema{run.ema_width:g}"]
    return "-".join([*solver, *width, f"seed{run.seed}"])
