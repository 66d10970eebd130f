"""The training loop, the same for every family."""

import contextlib
import functools
import math
import os
import pathlib
import shlex
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from clu import parameter_overview
from jax import Array
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import NamedSharding, PartitionSpec
from PIL import Image

from genjax.data.loader import batches
from genjax.data.transforms import preprocess, to_uint8
from genjax.evaluation import figures
from genjax.families.base import DataSpec
from genjax.training import run_folder
from genjax.training.checkpoints import DIRECTORY, Checkpoints
from genjax.training.experiment import Experiment
from genjax.training.interrupts import Interrupts
from genjax.training.mesh import batch_sharding, make_global, state_sharding
from genjax.training.metrics import CSV, Console, Recorder, Silent, TensorBoard
from genjax.training.optimizers import Optimizer
from genjax.training.state import TrainState, build_optimizers, create_state, sampling_params
from genjax.training.step import make_train_step, skipped

_SAMPLES = 2**31 - 1  # folded into the seed for the sample grids; no step has this number


def train(experiment: Experiment, workdir: str | os.PathLike[str], resume_command: str | None = None) -> TrainState:
    """Trains to `training.steps`, from the newest checkpoint of the run folder where it has one.

    After Ctrl-C or SIGTERM the step is finished and saved, and the command that goes on is printed; before the first
    step nothing is saved. Several processes do not agree on a signal yet: one that only some of them get stops those
    alone. Beside the checkpoints, only the first process writes and prints.

    Args:
        experiment: the validated config.
        workdir: the run folder, new or of the same config.
        resume_command: what to print then, which is the command that started this; kept in the run folder.

    Returns:
        The final state.

    Raises:
        ConfigError: a mistake in the config, or a folder of another run; before anything is compiled.
        SystemExit: after a signal: with 130 for SIGINT, 143 for SIGTERM.
    """
    config, folder, leads = experiment.training, pathlib.Path(workdir), jax.process_index() == 0
    with contextlib.ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts())
        mesh, spec = experiment.check()
        create = functools.partial(create_state, experiment, spec)
        template = _with_sharding(jax.eval_shape(create), mesh)
        optimizers = build_optimizers(experiment, template.params)
        note = run_folder.open_run(folder, experiment.config)
        if config.compile_cache is not None:
            _enable_compile_cache(config.compile_cache)

        saved = stack.enter_context(contextlib.closing(Checkpoints(folder / DIRECTORY, config.keep)))
        state, window, start = _restore_or_create(saved, create, template)
        run_folder.record_start(folder, start, resume_command)

        console = Console(config.steps, start) if leads else Silent()
        stack.callback(console.close)
        board = TensorBoard(folder / "tensorboard", start) if leads else Silent()
        stack.callback(board.close)
        table = CSV(folder / "metrics.csv", start) if leads else Silent()
        if leads:
            (folder / "samples").mkdir(exist_ok=True)
            start_line = f"{folder}: from step {start} to {config.steps}"
            for line in filter(None, [note, _describe(template, folder), start_line]):
                console.say(line)

        train_step, names = _compile(experiment, optimizers, template, mesh)
        recorder = Recorder(names, [table, board, console], config.log_every, config.batch_size, window)
        draw = _make_sampler(experiment, spec, mesh)
        phases, placing = experiment.family.phases(), batch_sharding(mesh)
        shard = (jax.process_index(), jax.process_count())
        stream = batches(experiment.data, experiment.seed, config.batch_size, start, shard, config.prefetch)
        command = resume_command or f"genjax train --workdir={shlex.quote(str(folder))}"

        if interrupts.received and start < config.steps:
            console.say(f"{interrupts.received.name}: stopped before step {start + 1}; to go on: {command}")
            raise SystemExit(interrupts.exit_code)
        for step in range(start + 1, config.steps + 1):  # the number of steps taken, once this one is
            state, measured = train_step(state, make_global(next(stream), placing))
            recorder.push(step, measured, skipped(phases, step - 1))
            last, signal = step == config.steps, interrupts.received
            if config.sample_every and (last or step % config.sample_every == 0):
                recorder.flush()
                with recorder.pause():
                    grid = draw(sampling_params(state))
                    if leads:
                        grid.save(folder / "samples" / f"{step:08d}.png")
                    board.write_image(step, "samples", np.asarray(grid))
            if last or signal or (config.save_every and step % config.save_every == 0):
                recorder.flush(last)
                with recorder.pause():
                    saved.save(step, state, {"window": recorder.state()})
            if signal and not last:
                saved.wait()
                console.say(f"{signal.name}: saved at step {step}; to go on: {command}")
                raise SystemExit(interrupts.exit_code)
        saved.wait()
        console.say(f"{folder}: done at step {config.steps}")
    return state


def _compile(
    experiment: Experiment, optimizers: Mapping[str, Optimizer], template: TrainState, mesh: jax.sharding.Mesh
) -> tuple[Callable[[TrainState, Any], tuple[TrainState, Array]], list[str]]:
    """Returns the jitted step, whose metrics are one array, and the list that holds their names once it has run."""
    prepare = functools.partial(preprocess, flip=experiment.data.flip)
    step = make_train_step(experiment.family, optimizers, experiment.ema, prepare)
    names: list[str] = []

    def packed(state: TrainState, batch: Any) -> tuple[TrainState, Array]:
        state, measured = step(state, batch)
        names[:] = measured  # while tracing: to trace only for the names would take seconds for a large network
        return state, jnp.stack(list(measured.values()))

    placed = jax.tree.map(lambda leaf: leaf.sharding, template)
    whole = NamedSharding(mesh, PartitionSpec())
    compiled = jax.jit(
        packed, in_shardings=(placed, batch_sharding(mesh)), out_shardings=(placed, whole), donate_argnums=0
    )
    if mesh.size == 1 or mesh.devices.flat[0].platform != "cpu":
        return compiled, names
    # Two programs in flight on several CPU devices share one pool of threads, and their collectives can wait for each
    # other for ever. Only tests have several CPU devices.
    return lambda state, batch: jax.block_until_ready(compiled(state, batch)), names


def _with_sharding(shapes: TrainState, mesh: jax.sharding.Mesh) -> TrainState:
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        state_sharding(mesh, shapes),
    )


def _restore_or_create(
    saved: Checkpoints, create: Callable[[], TrainState], template: TrainState
) -> tuple[TrainState, dict[str, Any], int]:
    """Returns the state to go on from, the unfinished window of metrics, and the number of steps taken."""
    if saved.latest_step() is None:
        placed = jax.tree.map(lambda leaf: leaf.sharding, template)
        # Random numbers of many shapes: on CPU full optimization takes three times as long to compile what runs once.
        options = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None
        return jax.jit(create, out_shardings=placed, compiler_options=options)(), {}, 0
    state, about = saved.restore(template)
    return state, about["window"], int(state.step)


def _describe(template: TrainState, folder: pathlib.Path) -> str:
    """Writes clu's table of the parameters, and returns the line that sums it up."""
    tables = [
        f"{role}\n{parameter_overview.get_parameter_overview(tree, include_stats=False)}"
        for role, tree in template.params.items()
    ]
    (folder / "parameters.txt").write_text("\n\n".join(tables) + "\n")
    counts = {role: parameter_overview.count_parameters(tree) for role, tree in template.params.items()}
    sums = ", ".join(f"{role} {count:,}" for role, count in counts.items())
    return f"parameters: {sums} (listed in {folder / 'parameters.txt'})"


def _make_sampler(
    experiment: Experiment, spec: DataSpec, mesh: jax.sharding.Mesh
) -> Callable[[dict[str, Any]], Image.Image]:
    """Returns the function that draws the grid: always with one key and the same classes, so that grids compare."""
    n = experiment.training.sample_n
    classes = spec.num_classes or 1
    columns = classes if 2 <= classes <= 20 else math.ceil(math.sqrt(n))  # a class a column, where they fit
    key = jax.random.fold_in(jax.random.key(experiment.seed), _SAMPLES)
    cond = {"label": jnp.arange(n, dtype=jnp.int32) % classes} if "label" in experiment.family.condition else None

    # Every process gets all the images, wherever they are drawn.
    @functools.partial(jax.jit, out_shardings=NamedSharding(mesh, PartitionSpec()))
    def generate(params: dict[str, Any], key: Array, cond: Any) -> Array:
        return to_uint8(experiment.family.generate(params, key, n, cond))

    def draw(params: dict[str, Any]) -> Image.Image:
        images = jax.device_get(jax.block_until_ready(generate(params, key, cond)))
        picture = figures.grid(images, columns)
        ground = Image.new("RGB", picture.size, "white")
        ground.paste(picture, mask=picture)
        return ground

    return draw


def _enable_compile_cache(folder: str) -> None:
    jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(folder).resolve()))
    compilation_cache.reset_cache()  # else jax keeps to the folder that it used first in this process
    # With jax's default of a second most programs would not be kept.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
