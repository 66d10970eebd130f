"""A trained run, opened for sampling: its experiment, its weights and the compiled sampler."""

import argparse
import copy
import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from genjax.config import ConfigError, describe
from genjax.data.transforms import to_data
from genjax.evaluation.manifest import Provenance
from genjax.sampling import sample_keys
from genjax.sampling.guidance import needs_null
from genjax.training import checkpoints
from genjax.training.experiment import Experiment, load_run
from genjax.training.mesh import Mesh
from genjax.training.monitor import make_evaluator
from genjax.training.posthoc import Snapshots, open_snapshots

SECTIONS = ("solver", "times", "guidance")  # what a dotted flag may name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that choose a run, its weights and its sampler."""
    parser.add_argument("--workdir", required=True, help="the run folder")
    parser.add_argument("--seed", type=int, help="seed of the samples")
    parser.add_argument("--steps", type=int, help="solver steps")
    parser.add_argument("--guidance", type=float, help="scale of classifier-free guidance; 1 is none")
    parser.add_argument("--checkpoint", type=int, help="training step of the weights, by default the newest")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--no-ema", action="store_true", help="use the weights themselves, not their average")
    weights.add_argument(
        "--ema-width",
        type=float,
        metavar="WIDTH",
        help="use an average made afterwards, of this width as a share of the run (sigma_rel), such as 0.12; for runs "
        "whose config has ema.posthoc. --checkpoint is then the step of a snapshot",
    )
    parser.epilog = (
        "Sampler choices: --solver.name=dpmpp_2m, --solver.KEY=VALUE, --times.name=karras, --guidance.KEY=VALUE, and "
        "of a rule within another --guidance.guidance.KEY=VALUE."
    )


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained run.

    Attributes:
        workdir: the run folder.
        experiment: its config, with the flags' choices in the place of its sampler's.
        params: weights by role, and beside them what the family keeps in the state's `extra`.
        step: their training step.
        seed: of the samples.
        ema: whether the weights are the averaged ones.
        ema_width: the width of that average where it was made afterwards, else None.
    """

    workdir: pathlib.Path
    experiment: Experiment
    params: dict[str, Any]
    step: int
    seed: int
    ema: bool
    ema_width: float | None = None

    def size(self) -> int:
        """Returns the number of weights, of all roles."""
        init = functools.partial(self.experiment.family.init, spec=self.experiment.data.spec)
        return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(init, jax.random.key(0))[0]))

    def averaged(self, snapshots: Snapshots, width: float) -> tuple["Run", float]:
        """Returns the run with the average of a width as its weights, and the average's residual.

        What is compiled already serves the new weights too.

        Raises:
            ConfigError: the snapshots cannot give this width.
        """
        made = snapshots.reconstruct(width)
        other = dataclasses.replace(self, params=made.params, step=made.step, ema=True, ema_width=width)
        vars(other).update(_generate=self._generate, _score=self._score)
        return other, made.residual

    @functools.cached_property
    def _score(self) -> Callable[[Any], dict[str, float]]:
        experiment = self.experiment
        source, size = experiment.eval_data or experiment.data, experiment.evaluation.batch_size
        return make_evaluator(experiment.family, source, size, Mesh(data=1).build(), jax.random.key(0))

    def held_out(self) -> dict[str, float]:
        """Returns the family's own figures over the held-out data; the training data where there are none."""
        name = "train" if self.experiment.eval_data is None else "test"
        return {f"{name} {key}": value for key, value in self._score(self.params).items()}

    @functools.cached_property
    def _generate(self) -> Callable[..., jax.Array]:
        @functools.partial(jax.jit, static_argnums=3)
        def generate(params: Any, key: jax.Array, cond: Any, n: int) -> jax.Array:
            return to_data(self.experiment.family.generate(params, key, n, cond), self.experiment.data.spec.levels)

        return generate

    def generate(self, n: int, labels: np.ndarray | None) -> np.ndarray:
        """Returns n images uint8 [n, H, W, C], or float32 points where the data have no levels."""

        def draw(keys: jax.Array, cond: Any) -> jax.Array:
            return self._generate(self.params, keys, cond, len(keys))

        return in_batches(draw, self.seed, n, labels, self.experiment.evaluation.batch_size)

    def labels(self, n: int, classes: Sequence[int] | None = None) -> np.ndarray | None:
        """Returns the classes to ask for, in turn [n]; None for a model without classes.

        Raises:
            ConfigError: there is no such class.
        """
        count = self.experiment.data.spec.num_classes
        if "label" not in self.experiment.family.condition or count is None:
            if classes:
                raise ConfigError("--classes: this model is not conditioned on classes")
            return None
        for label in classes or ():
            if not 0 <= label < count:
                raise ConfigError(f"--classes: there is no class {label}; there are 0 to {count - 1}")
        return np.resize(np.asarray(classes or range(count), np.int32), n)

    def sampler(self) -> dict[str, Any]:
        """Returns the sampler's config with all its defaults; empty for a family that has none."""
        sampler = getattr(self.experiment.family, "sampler", None)
        if sampler is None:
            return {}
        components = {section: describe(getattr(sampler, section)) for section in SECTIONS}
        return components | {"steps": sampler.steps, "final": sampler.final}

    def provenance(self) -> Provenance:
        """Returns how this run's samples come about, for the manifest of a figure."""
        reference = describe(self.experiment.data if self.experiment.eval_data is None else self.experiment.eval_data)
        return Provenance(
            dataset=_dataset(reference),
            split=str(reference["split"]) if "split" in reference else "all",
            seed=self.seed,
            checkpoint_step=self.step,
            ema=self.ema,
            ema_width=self.ema_width,
            **self.sampler(),
        )


def _dataset(source: Mapping[str, Any]) -> str:
    """The name of a source's data, by its config: of two sources, the first's and the second's."""
    if "first" in source:
        return f"{_dataset(source['first'])} and {_dataset(source['second'])}"
    known = [str(source[key]) for key in ("dataset", "path", "density") if key in source]
    inner = [_dataset(value) for value in source.values() if isinstance(value, Mapping) and "name" in value]
    return known[0] if known else f"{source['name']} of {inner[0]}" if inner else str(source["name"])


def in_batches(
    draw: Callable[[jax.Array, Any], jax.Array], seed: int, n: int, labels: np.ndarray | None, most: int
) -> np.ndarray:
    """Draws n images in equal batches of `most` at most, so that one program is compiled.

    Args:
        draw: (a key for each image [B], condition or None) -> images uint8 [B, H, W, C].
        seed: of the keys.
        n: number of images.
        labels: the classes to ask for [n], or None.
        most: images in a batch.

    Returns:
        Images uint8 [n, H, W, C].
    """
    batches = -(-n // most)
    size = -(-n // batches)
    # One key an image, so that image i does not depend on how many there are; the last batch is filled up.
    keys = sample_keys(jax.random.key(seed), batches * size)
    asked = None if labels is None else np.resize(labels, batches * size).astype(np.int32)
    images = []
    for part in (slice(i * size, (i + 1) * size) for i in range(batches)):
        cond = None if asked is None else {"label": asked[part]}
        images.append(np.asarray(draw(keys[part], cond)))
    return np.concatenate(images)[:n]


def open_run(arguments: argparse.Namespace, sections: dict[str, dict[str, Any]]) -> Run:
    """Opens the run that the flags name.

    Raises:
        ConfigError: no run there, no such checkpoint, or a sampler that cannot be built.
    """
    workdir = pathlib.Path(arguments.workdir)
    experiment = load_run(workdir)
    asked = [f"--{name}" for name in ("steps", "guidance") if getattr(arguments, name) is not None]
    asked += [f"--{section}" for section in sections if f"--{section}" not in asked]
    if asked and not hasattr(experiment.family, "sampler"):
        name = experiment.config["family"]["name"]
        raise ConfigError(f"{', '.join(asked)}: {name} has no sampler")
    experiment = Experiment.from_config(with_sampler(experiment.config, sections, arguments.steps, arguments.guidance))
    sampler: Any = getattr(experiment.family, "sampler", None)
    if "--guidance" in asked and not experiment.family.condition and needs_null(sampler.guidance):
        raise ConfigError("--guidance: this model has no condition to be guided by")
    if arguments.ema_width is None:
        folder = workdir / checkpoints.DIRECTORY
        params, step = checkpoints.restore_params(folder, arguments.checkpoint, ema=not arguments.no_ema)
    else:
        params, step, _ = snapshots_of(arguments).reconstruct(arguments.ema_width)
    seed = experiment.evaluation.seed if arguments.seed is None else arguments.seed
    if not 0 <= seed < 2**32:
        raise ConfigError(f"--seed = {seed}: must be in [0, 2^32)")
    return Run(workdir, experiment, params, step, seed, not arguments.no_ema, arguments.ema_width)


def snapshots_of(arguments: argparse.Namespace) -> Snapshots:
    """Opens the snapshots of the run that the flags name; says on standard error which are damaged.

    Raises:
        ConfigError: there are none, or none of the step asked for.
    """
    return open_snapshots(arguments.workdir, arguments.checkpoint, lambda line: print(line, file=sys.stderr))


def with_sampler(
    config: Any, sections: dict[str, dict[str, Any]], steps: int | None = None, guidance: float | None = None
) -> dict[str, Any]:
    """Returns a config whose sampler has the given choices.

    A component of another name starts from its own defaults; the same name keeps the config's other choices.
    """
    config = copy.deepcopy(dict(config))
    if guidance is not None and config["family"].get("guidance_range") is not None:  # its network is told the scale
        config["family"]["guidance"] = guidance
    elif guidance is not None:
        sections = {"guidance": {"name": "classifier_free", "scale": guidance}, **sections}
    if not sections and steps is None:
        return config
    sampler = config["family"].setdefault("sampler", {})
    for section, choices in sections.items():
        sampler[section] = _changed(sampler.get(section), choices)
    if steps is not None:
        sampler["steps"] = steps
    return config


def _changed(old: Any, new: Any) -> Any:
    """A component's config with new values, and so on inwards; of another name, it has the new values alone."""
    if not isinstance(new, dict):
        return new
    keep = dict(old) if hasattr(old, "keys") and new.get("name", old.get("name")) == old.get("name") else {}
    return keep | {key: _changed(keep.get(key), value) for key, value in new.items()}
