"""Measures how fast the presets train on random data: images/s, memory, and the share of the device's peak.

    python -m experiments.throughput [--presets dit_s_2,ddpm_cifar10] [--dtypes float32,bfloat16] [--batch 8,16]

Every row is the library's training step (loss, gradient, clipping, Adam, average of the weights) in a process of its
own. A time is the best of --rounds, each of --steps in a row. `--torch` sets the same step in PyTorch beside it, with
diffusers' networks, as it is and under torch.compile: the three take turns, with equally many threads. `--parts` says
where the time goes. Writes `table.csv`, `table.md`, `table.tex` and the processes' logs to --workdir.

Operations are those of the model, see `genjax.training.flops`. "program" is what XLA says that a step holds at once,
"device" the peak of a GPU's memory, "process" that of the process while it trains.
"""

import argparse
import contextlib
import datetime
import os
import pathlib
import time
from typing import Any

from experiments.throughput.presets import ON_ACCELERATOR, ON_CPU, PRESETS, Case
from experiments.throughput.worker import PROGRAMS, Failed, Worker, device
from genjax.evaluation.tables import to_latex, to_markdown, write_csv
from genjax.training.flops import peak_flops

Row = dict[str, Any]
DTYPES = ("float32", "bfloat16", "float16")
PARTS = ("forward", "backward", "optimizer", "average")
QUICK = ("ddpm_cifar10", "dit_s_2")


def main(argv: list[str] | None = None) -> None:
    """Runs the study."""
    arguments, platform, where = parse(argv)
    rows: list[Row] = []
    for preset in arguments.presets:
        for dtype in arguments.dtypes:
            default = PRESETS[preset].cpu if platform == "cpu" else PRESETS[preset].accelerator
            for batch in arguments.batch or [2 if arguments.quick else default]:
                how = {"quick": arguments.quick, "parts": arguments.parts}
                cases = [Case(preset, dtype, batch, program, **how) for program in arguments.programs]
                rows += measure(cases, arguments.workdir, arguments.rounds, arguments.steps)
                for row in rows[-len(cases) :]:
                    print(" ".join(f"{name}={value}" for name, value in row.items() if value is not None), flush=True)
    write_csv(arguments.workdir / "table.csv", rows)
    tables = [summary(rows)]
    tables += [comparison(rows)] if arguments.torch else []
    tables += [parts(rows)] if arguments.parts else []
    markdown = "\n".join([*(to_markdown(*table) for table in tables), where, ""])
    (arguments.workdir / "table.md").write_text(markdown)
    (arguments.workdir / "table.tex").write_text("\n".join(to_latex(*table) for table in tables))
    print(f"\n{markdown}\nWrote table.csv, table.md and table.tex to {arguments.workdir}")


def parse(argv: list[str] | None) -> tuple[argparse.Namespace, str, str]:
    """Returns the arguments with their defaults on this machine, its platform, and a line on where and when."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.throughput",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = lambda text: text.split(",")  # noqa: E731
    parser.add_argument("--presets", type=names, help=f"with commas, of {', '.join(PRESETS)}")
    parser.add_argument("--dtypes", type=names, help=f"with commas, of {', '.join(DTYPES)}")
    parser.add_argument("--batch", type=lambda text: [int(n) for n in text.split(",")], help="images a step")
    parser.add_argument("--rounds", type=int, help="times of which the best counts (5)")
    parser.add_argument("--steps", type=int, help="steps in a row in each (as many as take a second)")
    parser.add_argument("--torch", action="store_true", help="beside PyTorch; needs the extra `parity`")
    parser.add_argument("--parts", action="store_true", help="time forward, backward, optimizer, average apart")
    parser.add_argument("--quick", action="store_true", help="tiny versions, one round: does it run?")
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/throughput"), help="for the results")
    arguments = parser.parse_args(argv)
    arguments.workdir.mkdir(parents=True, exist_ok=True)
    about = device(arguments.workdir)
    on_cpu = about["platform"] == "cpu"
    arguments.presets = arguments.presets or (QUICK if arguments.quick else ON_CPU if on_cpu else ON_ACCELERATOR)
    arguments.dtypes = arguments.dtypes or (DTYPES[:1] if on_cpu else DTYPES[:2])
    arguments.rounds = arguments.rounds or (1 if arguments.quick else 5)
    arguments.steps = arguments.steps or (1 if arguments.quick else None)
    arguments.programs = PROGRAMS if arguments.torch else PROGRAMS[:1]
    for given, known, what in ((arguments.presets, PRESETS, "preset"), (arguments.dtypes, DTYPES, "dtype")):
        for name in given:
            if name not in known:
                parser.error(f"no {what} {name!r}; there are {', '.join(known)}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    kind = f"{cores} CPU cores" if on_cpu else about["kind"]
    where = f"{kind}, jax {about['jax']}, {datetime.date.today()}, load {os.getloadavg()[0]:.1f} at the start."
    return arguments, about["platform"], where


def measure(cases: list[Case], folder: pathlib.Path, rounds: int, steps: int | None) -> list[Row]:
    """Times programs in turns.

    Args:
        cases: the programs.
        folder: gets the logs.
        rounds: times of which the best counts.
        steps: in each; None for as many as take the fastest program about a second.

    Returns:
        A row a program; one that has failed says why as `note`.
    """
    rows: dict[Case, Row] = {case: about(case) for case in cases}
    with contextlib.ExitStack() as stack:
        workers = []
        for case in cases:
            try:
                workers.append(stack.enter_context(Worker(case, folder, shared=len(cases) > 1)))
                rows[case] |= workers[-1].about
            except Failed as error:
                rows[case]["note"] = str(error)
        if steps is None and workers:
            steps = max(1, round(1.0 / min(worker.seconds(1) for worker in workers)))
        for _ in range(rounds):
            for worker in list(workers):
                row = rows[worker.case]
                try:
                    seconds = worker.seconds(steps or 1) / (steps or 1)
                    row["seconds"], row["slowest"] = min(row["seconds"], seconds), max(row["slowest"], seconds)
                except Failed as error:
                    row["note"] = str(error)
                    workers.remove(worker)
        for worker in workers:
            rows[worker.case] |= worker.finish()
    return [derived(row) for row in rows.values()]


def about(case: Case) -> Row:
    """A row before anything is measured."""
    names = {"program": case.program, "preset": case.preset, "dtype": case.dtype, "batch": case.batch}
    return names | {"seconds": float("inf"), "slowest": 0.0, "note": None}


def derived(row: Row) -> Row:
    """Adds what follows from the time of a step."""
    if row["note"] is not None:
        return row | {"seconds": None, "slowest": None}
    row["images_per_second"] = row["batch"] / row["seconds"]
    if "flops_per_image" in row:
        row["flops_per_second"] = row["images_per_second"] * row["flops_per_image"]
        peak = peak_flops(row["device"], row["dtype"])
        row["mfu"] = row["flops_per_second"] / peak if peak else None
    return row


def summary(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """The library's rows."""
    header = "preset|type|batch|parameters|ms/step|slowest|images/s|GFLOP/image|GFLOP/s|MFU|memory"
    body = []
    for row in rows:
        if row["program"] == PROGRAMS[0]:
            names = [f"`{row['preset']}`", row["dtype"], str(row["batch"])]
            if row["note"] is not None:
                body.append([*names, "-", row["note"], *["-"] * 6])
                continue
            cells = [
                f"{row['parameters']:,}",
                milliseconds(row["seconds"]),
                milliseconds(row["slowest"]),
                f"{row['images_per_second']:.3g}",
                f"{row['flops_per_image'] / 1e9:.3g}",
                f"{row['flops_per_second'] / 1e9:,.0f}",
                "-" if row["mfu"] is None else f"{row['mfu']:.1%}",
                memory(row),
            ]
            body.append([*names, *cells])
    return header.split("|"), body


def comparison(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Ours beside PyTorch's: a row a preset, type and batch."""
    header = (
        "preset|type|batch|parameters|PyTorch's|ms/step|PyTorch|compiled|times faster|than compiled|memory|PyTorch's"
    )
    body = []
    for key in dict.fromkeys((row["preset"], row["dtype"], row["batch"]) for row in rows):
        ours, eager, compiled = (row for row in rows if (row["preset"], row["dtype"], row["batch"]) == key)
        ratios = [
            f"{other['seconds'] / ours['seconds']:.2f}" if _timed(ours, other) else "-" for other in (eager, compiled)
        ]
        cells = [f"{row['parameters']:,}" if "parameters" in row else "-" for row in (ours, eager)]
        cells += [row["note"] or milliseconds(row["seconds"]) for row in (ours, eager, compiled)]
        cells += ratios + [memory(row) if _timed(row) else "-" for row in (ours, eager)]
        body.append([f"`{key[0]}`", key[1], str(key[2]), *cells])
    return header.split("|"), body


def parts(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Where the milliseconds of a step go."""
    body = [
        [f"`{row['preset']}`", row["dtype"], row["program"], *(milliseconds(row[part]) for part in PARTS)]
        for row in rows
        if _timed(row)
    ]
    return ["preset", "type", "program", *PARTS], body


def milliseconds(seconds: float) -> str:
    """Returns milliseconds with three digits."""
    return f"{1000 * seconds:,.0f}" if seconds >= 0.1 else f"{1000 * seconds:.3g}"


def memory(row: Row) -> str:
    """Returns the peak in GB, and where it was measured."""
    figures = {"program": row.get("program_bytes"), "device": row["device_bytes"]}
    if row["device_bytes"] is None:
        figures["process"] = row["rss_bytes"]
    return ", ".join(f"{name} {value / 1e9:.2f} GB" for name, value in figures.items() if value is not None)


def _timed(*rows: Row) -> bool:
    return all(row["note"] is None for row in rows)


if __name__ == "__main__":
    start = time.monotonic()
    main()
    print(f"{time.monotonic() - start:.0f} s")
