"""What a run shows of its model on the way: grids of samples, and the family's figures on held-out data."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from PIL import Image

from genjax.config import ConfigError, nearest
from genjax.data.base import Source
from genjax.data.transforms import preprocess, to_data
from genjax.evaluation import figures
from genjax.families.base import DataSpec, Family
from genjax.training.experiment import Experiment
from genjax.training.mesh import batch_sharding, make_global

_SAMPLES = 2**31 - 1  # folded into the seed; no step has this number


def make_sampler(experiment: Experiment, spec: DataSpec, mesh: Mesh) -> Callable[[dict[str, Any]], Image.Image]:
    """Returns the function that draws the grid: always with one key and the same classes, so that grids compare."""
    n = experiment.training.sample_n
    classes = spec.num_classes or 1
    columns = classes if 2 <= classes <= 20 else math.ceil(math.sqrt(n))  # a class a column, where they fit
    key = jax.random.fold_in(jax.random.key(experiment.seed), _SAMPLES)
    cond = {"label": jnp.arange(n, dtype=jnp.int32) % classes} if "label" in experiment.family.condition else None

    # Every process gets all the images, wherever they are drawn.
    @functools.partial(jax.jit, out_shardings=NamedSharding(mesh, PartitionSpec()))
    def generate(params: dict[str, Any], key: Array, cond: Any) -> Array:
        return to_data(experiment.family.generate(params, key, n, cond), spec.levels)

    def draw(params: dict[str, Any]) -> Image.Image:
        images = jax.device_get(jax.block_until_ready(generate(params, key, cond)))
        picture = figures.sheet(images, columns)
        ground = Image.new("RGB", picture.size, "white")
        ground.paste(picture, mask=picture)
        return ground

    return draw


def check_best(experiment: Experiment, params: dict[str, Any]) -> None:
    """Raises ConfigError where `training.best` is none of the figures on held-out data; compiles nothing.

    Args:
        experiment: the config.
        params: the weights to evaluate with; shapes are enough.
    """
    if not experiment.training.keep_best or experiment.eval_data is None:
        return

    example = experiment.eval_data.gather(np.zeros(1, np.int64))
    names = list(jax.eval_shape(_figures(experiment.family), params, example, jax.random.key(0)))
    best = experiment.training.best
    if best not in names:
        raise ConfigError(f"config.training.best = {best!r}{nearest(best, names)}")


def make_evaluator(
    family: Family, source: Source, batch_size: int, mesh: Mesh, key: Array, n: int | None = None
) -> Callable[[dict[str, Any]], dict[str, float]]:
    """Returns the function that averages the family's figures over examples, with the same keys every time.

    Args:
        family: gives the figures.
        source: the data.
        batch_size: examples at a time, over all devices.
        mesh: the devices.
        key: of what the figures draw.
        n: how many examples, the first ones; None for all.
    """
    n = min(source.spec.size, n or source.spec.size)
    share, host = batch_size // jax.process_count(), jax.process_index()
    sharding, whole = batch_sharding(mesh), NamedSharding(mesh, PartitionSpec())
    figures = _figures(family)

    @functools.partial(jax.jit, out_shardings=whole)
    def totals(params: dict[str, Any], batch: Any, number: Array) -> dict[str, Array]:
        counted = jnp.arange(batch_size) + number * batch_size < n  # what fills up the last batch does not count
        values = figures(params, batch, jax.random.fold_in(key, number))
        return {name: jnp.where(counted, value, 0.0).sum() for name, value in values.items()}

    def evaluate(params: dict[str, Any]) -> dict[str, float]:
        rows = []
        for number in range(-(-n // batch_size)):
            places = np.arange(batch_size)[host * share : (host + 1) * share] + number * batch_size
            batch = source.gather(np.minimum(places, n - 1))
            rows.append(totals(params, make_global(batch, sharding), jnp.int32(number)))
        rows = jax.device_get(rows)
        return {name: sum(float(row[name]) for row in rows) / n for name in rows[0]}

    return evaluate


def _figures(family: Family) -> Callable[[dict[str, Any], Any, Array], dict[str, Array]]:
    """The family's figures of a batch as the loader gives it, [B] each."""
    return lambda params, batch, key: family.evaluate(params, preprocess(batch, key, flip=False), key)
