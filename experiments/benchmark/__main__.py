"""Measures what the library promises about speed and memory, and prints it as ratios.

    python -m experiments.benchmark [--only samplers|training|models|few_step] [--markdown PATH]

All figures are the best of several after a warm-up, within one process. With the extra `parity` diffusers stands
beside the samplers, PyTorch beside the input pipeline and a VAE, and nflows beside the flows. A machine that is busy
with something else spoils them.
"""

import argparse
import os
import pathlib
from collections.abc import Callable

import jax
from rich.console import Console

from experiments.benchmark import autoencoders, distillation, few_step, flows, gans, samplers, scaling, training
from experiments.benchmark.report import Figures

HALVES: dict[str, tuple[Callable[[], Figures], ...]] = {
    "samplers": (scaling.figures, samplers.figures),
    "training": (training.figures,),
    "models": (flows.figures, autoencoders.figures, gans.figures),
    "few_step": (few_step.figures, distillation.figures),
}


def main() -> None:
    """Prints the tables."""
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmark", description=f"{summary} {details.split(chr(10), 2)[2].strip()}"
    )
    parser.add_argument("--only", choices=HALVES, help="one of the parts")
    parser.add_argument("--markdown", type=pathlib.Path, metavar="PATH", help="write the tables there too")
    args = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)  # compile times are to be those of compiling
    load, console = os.getloadavg(), Console()
    tables = []
    for half in [args.only] if args.only else HALVES:
        for figures in HALVES[half]:
            tables.append(figures())
            tables[-1].show(console)
    where = f"jax {jax.__version__} on {jax.devices()[0].device_kind}, {os.cpu_count()} cores with a load of "
    where += f"{load[0]:.1f} before and {os.getloadavg()[0]:.1f} after."
    console.print(where)
    if args.markdown:
        args.markdown.write_text("\n".join([*(table.markdown() for table in tables), where, ""]))


if __name__ == "__main__":
    main()
