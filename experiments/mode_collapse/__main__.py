"""Trains a GAN with each loss on mixtures of Gaussians, and counts the modes that it finds.

    python -m experiments.mode_collapse --workdir=runs/mode_collapse
    python -m experiments.mode_collapse --workdir=runs/mode_collapse --methods=wgan_gp,r3gan --densities=grid
    python -m experiments.mode_collapse --workdir=runs/mode_collapse --smoke

The mixtures are 25 Gaussians on a grid and 8 on a ring, the networks MLPs; configs/grid/gan.py has the rest, of which
`methods.py` changes the loss, the penalty, the normalization and the number of critic updates, and for Wasserstein's
losses the optimizer. Of 5000 samples, a mode is found when 20% of its fair share lie within 3 sigma of it; the papers'
one sample is the column `touched`. Each run is a run folder of `genjax train`; what is trained is not trained again.

Writes to --workdir: `table.csv` with every figure, `table.md` and `table.tex` (booktabs), and `samples.png`.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from experiments.mode_collapse.measure import Found, measure
from experiments.mode_collapse.methods import DENSITIES, METHODS
from genjax.config import ConfigError, nearest
from genjax.data.densities import DENSITIES as TRUTHS
from genjax.evaluation.tables import duration, to_latex, to_markdown, write_csv

HEADER = ("method", "modes", "touched", "within 3σ", "KL", "|gradient|", "training")


def main(argv: Sequence[str]) -> None:
    """Runs the study.

    Raises:
        ConfigError: an unknown method or density.
    """
    parser = argparse.ArgumentParser(
        prog="python -m experiments.mode_collapse",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/mode_collapse"), help="for the runs")
    parser.add_argument("--methods", default=",".join(METHODS), help="names, with commas")
    parser.add_argument("--densities", default=",".join(DENSITIES), help="names, with commas")
    parser.add_argument("--steps", type=int, help="training steps, by default the config's")
    parser.add_argument("--smoke", action="store_true", help="a few steps of tiny networks")
    arguments = parser.parse_args(argv)
    methods = _chosen("--methods", arguments.methods, METHODS)
    densities = _chosen("--densities", arguments.densities, DENSITIES)
    mode = "smoke" if arguments.smoke else "full"
    found = {
        (density, method): measure(method, density, arguments.workdir / density / method, mode, arguments.steps)
        for density in densities
        for method in methods
    }
    write(arguments.workdir, found)
    print((arguments.workdir / "table.md").read_text(encoding="utf-8") + f"\nwrote {arguments.workdir}")


def write(folder: pathlib.Path, found: dict[tuple[str, str], Found]) -> None:
    """Writes tables and figure of the results by (density, method)."""
    write_csv(folder / "table.csv", [{"density": d, "method": m, **f.row()} for (d, m), f in found.items()])
    rows = [row(density, method, result) for (density, method), result in found.items()]
    (folder / "table.md").write_text(to_markdown(HEADER, rows), encoding="utf-8")
    (folder / "table.tex").write_text(to_latex(HEADER, rows), encoding="utf-8")
    plot(folder / "samples.png", found)


def row(density: str, method: str, found: Found) -> list[str]:
    """Returns the cells of one result."""
    modes, (mean, spread) = found.modes, found.gradient
    return [
        f"`{method}` on the {density}",
        f"{modes.found} / {modes.total}",
        f"{found.touched} / {modes.total}",
        f"{modes.within.value:.1%}",
        f"{modes.kl:.2f}",
        f"{mean:.2f} ± {spread:.2f}",
        duration(found.seconds),
    ]


def plot(path: pathlib.Path, found: dict[tuple[str, str], Found]) -> None:
    """Draws the samples of each method, a row a density, over the centres of the modes."""
    densities, methods = (list(dict.fromkeys(key[i] for key in found)) for i in range(2))
    figure, axes = plt.subplots(
        len(densities),
        len(methods),
        figsize=(1.7 * len(methods), 1.8 * len(densities)),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for i, density in enumerate(densities):
        centres = TRUTHS[density]().centres  # type: ignore[attr-defined]
        for axis, method in zip(axes[i], methods, strict=True):
            axis.plot(*centres.T, "o", ms=6, mfc="none", mec="0.7", mew=0.6)
            axis.plot(*found[density, method].samples[:1000].T, ".", ms=1.2, alpha=0.5, mew=0, color="tab:blue")
            axis.set(aspect="equal", xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), xticks=[], yticks=[])
            if i == 0:
                axis.set_title(method, fontsize=8)
    figure.savefig(path, dpi=200)
    plt.close(figure)


def _chosen(flag: str, value: str, among: Sequence[str] | dict[str, object]) -> list[str]:
    names = value.split(",")
    for name in names:
        if name not in among:
            raise ConfigError(f"{flag}: there is no {name!r}{nearest(name, among)}")
    return names


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ConfigError, OSError) as error:
        sys.exit(f"mode_collapse: {error}")
