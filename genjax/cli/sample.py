"""`genjax sample`."""

import argparse
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from genjax.cli.run import add_arguments, open_run, parse
from genjax.config import ConfigError
from genjax.evaluation import figures


def main(argv: Sequence[str]) -> int:
    """Draws samples from a run and writes a grid, the arrays and how they came about."""
    parser = argparse.ArgumentParser(prog="genjax sample", description="Draw samples from a trained run.")
    add_arguments(parser)
    parser.add_argument("--n", type=int, default=64, help="number of samples")
    parser.add_argument("--classes", help="classes to draw in turn, such as 3 or 0,1,2; by default all of them")
    parser.add_argument("--out", type=pathlib.Path, help="where to write, without the ending")
    arguments, sections = parse(parser, argv)
    if arguments.n < 1:
        raise ConfigError(f"--n = {arguments.n}: must be at least 1")
    run = open_run(arguments, sections)
    try:
        classes = [int(label) for label in arguments.classes.split(",")] if arguments.classes else None
    except ValueError:
        raise ConfigError(f"--classes = {arguments.classes!r}: must be whole numbers, as in 0,1,2") from None
    labels = run.labels(arguments.n, classes)
    images = run.generate(arguments.n, labels)

    out = arguments.out or run.workdir / "samples" / f"seed{run.seed}"
    out.parent.mkdir(parents=True, exist_ok=True)
    columns = len(set(labels.tolist())) if labels is not None else int(np.ceil(arguments.n**0.5))
    figures.grid(images, max(columns, 1)).save(out.with_suffix(".png"))
    arrays: dict[str, Any] = {"images": images} if labels is None else {"images": images, "labels": labels}
    np.savez_compressed(out.with_suffix(".npz"), **arrays)
    out.with_suffix(".json").write_text(json.dumps(vars(run.provenance()) | {"n": arguments.n}, indent=2) + "\n")
    print(f"{arguments.n} samples: {out.with_suffix('.png')} (and .npz, .json)")
    return 0
