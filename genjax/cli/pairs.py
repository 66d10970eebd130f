"""`genjax pairs`."""

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from genjax import sampling
from genjax.cli.flags import Parser
from genjax.cli.run import SECTIONS, Run, add_arguments, open_run
from genjax.config import ConfigError
from genjax.data.base import DataSpec
from genjax.data.pairs import write_pairs
from genjax.families.denoising import Denoising


def main(argv: Sequence[str]) -> int:
    """Draws samples from a run and writes them with the noise that each was made from, as data to train on."""
    parser = Parser(
        prog="genjax pairs",
        description="Draw samples from a trained run and keep the noise that each was made from: the data of reflow.",
    )
    add_arguments(parser)
    parser.add_argument("--n", type=int, default=10_000, help="number of pairs")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="the folder to write")
    arguments, sections = parser.parse_dotted(argv, SECTIONS)
    if arguments.n < 1:
        raise ConfigError(f"--n = {arguments.n}: must be at least 1")
    run = open_run(arguments, sections)
    data = run.experiment.data.spec
    _check(run, data.second is not None)
    labels = run.labels(arguments.n)
    spec = DataSpec(data.image_shape, data.num_classes, arguments.n, data.class_names, levels=data.levels)
    weights = {"checkpoint_step": run.step, "ema": run.ema, "ema_width": run.ema_width}
    about = {"workdir": str(run.workdir), **weights, "seed": run.seed, "sampler": run.sampler()}
    write_pairs(arguments.output, spec, _drawn(run, arguments.n, labels), labels, about)
    print(f"{arguments.n} pairs: {arguments.output}")
    return 0


def _check(run: Run, two_sources: bool) -> None:
    """Raises ConfigError unless the run makes each image of noise, and of nothing but noise."""
    family: Any = run.experiment.family
    if not isinstance(family, Denoising) or two_sources:
        raise ConfigError(f"{run.experiment.config['family']['name']} makes no images of noise on a path")
    if family.sampler.solver.stochastic:
        name = run.sampler()["solver"]["name"]
        raise ConfigError(f"--solver.name={name}: it draws noise on its way, and pairs need one that does not")


def _drawn(run: Run, n: int, labels: np.ndarray | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields images and their noise in batches of one size, from the same keys as `genjax sample`."""
    family: Any = run.experiment.family
    size = min(n, run.experiment.evaluation.batch_size)
    times = family.sampler.times(family.process, family.sampler.steps)

    @jax.jit
    def draw(params: Any, keys: jax.Array, cond: Any) -> tuple[jax.Array, jax.Array]:
        began = sampling.start(keys, family.process, times, (size, *family.image_shape))
        return family.generate(params, keys, size, cond), began / family.process.sigma(times[0])

    count = -(-n // size)
    keys = sampling.sample_keys(jax.random.key(run.seed), count * size)
    asked = None if labels is None else np.resize(labels, count * size).astype(np.int32)
    for part in (slice(i * size, (i + 1) * size) for i in range(count)):
        images, noise = draw(run.params, keys[part], None if asked is None else {"label": asked[part]})
        yield np.asarray(images), np.asarray(noise)
