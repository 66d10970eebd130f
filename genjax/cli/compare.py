"""`genjax compare`."""

import argparse
import pathlib
import shlex
import sys
from collections.abc import Sequence

from rich.console import Console

from genjax.config import ConfigError
from genjax.evaluation import compare, tables
from genjax.files import write_whole


def main(argv: Sequence[str]) -> int:
    """Prints the figures of several runs as one table, and writes it with a sheet of their samples."""
    parser = argparse.ArgumentParser(
        prog="genjax compare",
        description="Put evaluated runs side by side: Frechet distance with half of its 95%% interval, its ratio to "
        "what real images get, kernel distance, precision and recall, bits/dim, number of weights, time to train, time "
        "for a thousand samples. Reads what genjax evaluate wrote; distances that do not compare stand apart.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders, such as runs/*")
    parser.add_argument(
        "--out", type=pathlib.Path, help="a folder for table.csv, table.md, table.tex (booktabs) and samples.png"
    )
    arguments = parser.parse_args(argv)
    entries = []
    for run in {pathlib.Path(run).resolve(): run for run in arguments.runs}.values():
        entry = compare.read(run)
        if entry is None:
            print(f"{run}: no run here", file=sys.stderr)
        else:
            entries.append(entry)
            if entry.problem:
                command = f"genjax evaluate --workdir={shlex.quote(str(run))}"
                print(f"{run}: {entry.problem}; run {command}", file=sys.stderr)
    known = compare.distinct([entry for entry in entries if entry.results])
    if not known:
        raise ConfigError("there is no evaluated run to compare")
    console = Console(markup=False, highlight=False)  # a run's name is what it is
    views = compare.views(known)
    for heading, view in views:
        console.print(heading, soft_wrap=True)
        console.print(view)
        console.print()
    if len(views) > 1:
        print("Distances compare within a table only: data, numbers of images or feature networks differ between them.")
    console.print(compare.LEGEND)
    if arguments.out is not None:
        write(arguments.out, known)
        print(f"wrote {arguments.out}")
    return 0


def write(folder: pathlib.Path, entries: Sequence[compare.Entry]) -> None:
    """Writes the table as CSV, Markdown and LaTeX, and the sheet of samples as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    tables.write_csv(folder / "table.csv", [compare.record(entry) for entry in entries])
    write_whole(folder / "table.md", compare.markdown(entries))
    write_whole(folder / "table.tex", compare.latex(entries))
    sheet = compare.sheet(entries)
    if sheet is not None:
        sheet.save(folder / "samples.png")
