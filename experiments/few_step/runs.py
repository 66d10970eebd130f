"""The runs of the study: each config trained once for each training seed, its teacher before it."""

import argparse
import functools
import json
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.few_step.methods import METHODS
from experiments.model_zoo.__main__ import is_trained, load
from genjax.cli.run import Run, open_run
from genjax.data.pairs import ABOUT
from genjax.data.transforms import preprocess
from genjax.files import write_whole
from genjax.training.checkpoints import DIRECTORY, training_seconds
from genjax.training.experiment import Experiment, load_run
from genjax.training.flops import step_flops
from genjax.training.run_folder import to_json
from genjax.training.state import build_optimizers, create_state
from genjax.training.step import batches_per_step, make_train_step
from genjax.training.store import Store

MEASURED = "few_step.json"  # in a run folder: what was measured of it
PAIRS = ("--n=6000", "--steps=12", "--guidance.name=none")  # how a teacher draws them
_GENJAX = (sys.executable, "-c", "import sys; from genjax.cli import main; sys.exit(main())")


class Cost(NamedTuple):
    """What a training costs.

    Attributes:
        seconds: the mean over seeds.
        steps: training steps.
        evaluations: of the network on one image; None where they cannot be counted.
    """

    seconds: float
    steps: int
    evaluations: float | None


class Study(NamedTuple):
    """Where the study lies.

    Attributes:
        configs: the folder of the config files.
        folder: for the runs.
        mode: of the configs, "full" or "smoke".
        seed: the training seed.
    """

    configs: pathlib.Path
    folder: pathlib.Path
    mode: str
    seed: int

    def run(self, name: str) -> pathlib.Path:
        """Returns the run folder of a config."""
        return self.folder / f"seed{self.seed}" / name


def teacher_of(study: Study, name: str) -> str:
    """Returns the config whose model a method is held to: the run folder's that its own config names, or its row's."""
    named = list(_workdirs(to_json(load(study.configs / f"{name}.py", study.mode))))
    return pathlib.Path(named[0]["workdir"]).name if named else METHODS[name].teacher


def train(study: Study, name: str) -> None:
    """Trains a config as far as that has not been done, and before it whatever runs its config names.

    Raises:
        ConfigError: a mistake in the config.
        CalledProcessError: a command failed; the file beside the run folder says why.
    """
    folder, config = study.run(name), to_json(load(study.configs / f"{name}.py", study.mode))
    config["seed"] = study.seed
    config["family"] |= METHODS[name].changes if name in METHODS else {}
    for section in _workdirs(config):  # by convention runs/NAME is the run of NAME.py
        before = pathlib.Path(section["workdir"]).name
        train(study, before)
        section["workdir"] = str(study.run(before))
    if config["data"]["name"] == "pairs":
        config["data"]["path"] = str(pairs(study, METHODS[name].teacher))
    experiment = Experiment.from_config(config)
    if is_trained(experiment, folder):
        return
    resolved = folder.with_suffix(".json")
    write_whole(resolved, json.dumps(config))
    command(folder.with_suffix(".log"), "train", f"--config={resolved}", f"--workdir={folder}")
    (folder / MEASURED).unlink(missing_ok=True)  # of weights that there are no more
    print(f"{folder}: trained in {seconds(folder):.0f} s", flush=True)


def pairs(study: Study, teacher: str) -> pathlib.Path:
    """Returns the folder of a teacher's pairs of noise and image, which are made where they are missing."""
    train(study, teacher)
    folder = study.run(f"{teacher}_pairs")
    if not (folder / ABOUT).exists():
        shutil.rmtree(folder, ignore_errors=True)  # what was broken off
        flags = (f"--workdir={study.run(teacher)}", f"--output={folder}", *PAIRS)
        command(folder.with_suffix(".log"), "pairs", *flags)
    return folder


def opened(folder: pathlib.Path, checkpoint: int | None = None) -> Run:
    """Opens a run without guidance, and without a last evaluation where the noise is next to nothing."""
    flags = dict(workdir=str(folder), checkpoint=checkpoint, no_ema=False, ema_width=None)
    flags |= dict(seed=None, steps=None, guidance=None)
    return open_run(argparse.Namespace(**flags), {"guidance": {"name": "none"}})


def checkpoint_for(family: Any, budget: int) -> int | None:
    """Returns the training step at which a family was made for a number of steps; None for the last one.

    Raises:
        ValueError: it never was.
    """
    if not hasattr(family, "steps_of_round"):
        return None
    for index in range(family.rounds):
        if family.steps_of_round(index) == budget:
            return None if index == family.rounds - 1 else (index + 1) * family.steps_per_round
    raise ValueError(f"no round ends with {budget} steps")


def seconds(folder: pathlib.Path, step: int | None = None) -> float:
    """Returns how long the training to a checkpoint took, the last one by default."""
    where = folder / DIRECTORY
    return training_seconds(where, Store(where, read_only=True).steps()[-1] if step is None else step)


def cost(folders: Sequence[pathlib.Path]) -> Cost:
    """Returns what the training of runs that differ in their seeds costs."""
    experiment = load_run(folders[0])
    mean = sum(seconds(folder) for folder in folders) / len(folders)
    return Cost(mean, experiment.training.steps, evaluations_of_training(experiment))


def evaluations_of_training(experiment: Experiment) -> float | None:
    """Returns what a whole training costs in evaluations of the network on one image, counted in operations.

    So a backward pass is some two, and what the teacher and other networks do counts for what it costs.
    """
    family: Any = experiment.family
    spec, n = experiment.data.spec, experiment.training.batch_size * batches_per_step(experiment.family)
    state = jax.eval_shape(lambda: create_state(experiment, spec))
    optimizers = build_optimizers(experiment, state.params)
    step = make_train_step(family, optimizers, experiment.ema, functools.partial(preprocess, flip=False))
    one_image = experiment.data.gather(np.zeros(1, np.int64))
    batch = {key: jax.ShapeDtypeStruct((n, *value.shape[1:]), value.dtype) for key, value in one_image.items()}
    whole = step_flops(step, state, batch)

    def forward(params: Any, batch: Any) -> jax.Array:
        x = batch["image"].astype("float32")
        return family.denoiser(params)(x, 0.5, {name: batch[name] for name in family.condition} or None)

    one = step_flops(forward, {**state.extra, **state.params}, batch)
    return None if not whole or not one else experiment.training.steps * whole / (one / n)


def command(log: pathlib.Path, *arguments: str) -> None:
    """Runs `genjax` in a process of its own, with its output in a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        subprocess.run([*_GENJAX, *arguments], stdout=file, stderr=subprocess.STDOUT, check=True)


def _workdirs(config: Any) -> Iterator[dict[str, Any]]:
    """The sections of a config that name a run folder."""
    if isinstance(config, dict):
        if "workdir" in config:
            yield config
        for value in config.values():
            yield from _workdirs(value)
