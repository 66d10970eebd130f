"""The training loop, the same for every family."""

import contextlib
import functools
import os
import pathlib
import shlex
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from clu import parameter_overview
from jax import Array

from genjax.data.loader import batches
from genjax.data.transforms import preprocess, to_uint8
from genjax.families.base import DataSpec
from genjax.training import checkpoints, grids, metrics, run_folder
from genjax.training.experiment import Experiment
from genjax.training.interrupts import Interrupts
from genjax.training.mesh import batch_sharding, make_global, state_sharding
from genjax.training.state import TrainState, build_optimizers, create_state, sampling_params
from genjax.training.step import drop_skipped, make_train_step

_SAMPLES = 2**31 - 1  # folded into the seed for the sample grids; no step has this number


def train(experiment: Experiment, workdir: str | os.PathLike[str], resume_command: str | None = None) -> TrainState:
    """Trains to `training.steps`, from the newest checkpoint of the run folder where it has one.

    After Ctrl-C or SIGTERM the step is finished and saved, and the command that goes on is printed.

    Args:
        experiment: the validated config.
        workdir: the run folder, new or of the same config.
        resume_command: what to print then.

    Returns:
        The final state.

    Raises:
        ConfigError: a mistake in the config, or a folder of another run; before anything is compiled.
        SystemExit: after a signal: with 130 for SIGINT, 143 for SIGTERM.
    """
    config = experiment.training
    folder = pathlib.Path(workdir)
    mesh, spec = experiment.check()
    create = functools.partial(create_state, experiment, spec)
    template = _with_sharding(jax.eval_shape(create), mesh)
    optimizers = build_optimizers(experiment, template.params)
    note = run_folder.open_run(folder, experiment.config)
    if config.compile_cache is not None:
        _enable_compile_cache(config.compile_cache)

    with contextlib.ExitStack() as stack:
        saved = checkpoints.Checkpoints(folder / checkpoints.DIRECTORY, config.keep)
        stack.callback(saved.close)
        state, window, start = _restore_or_create(saved, create, template)
        run_folder.record_start(folder, start)

        writers, console, board = _open_writers(folder, start, config.steps)
        for writer in writers:
            stack.callback(writer.close)
        for line in filter(None, [note, _describe(template, folder), f"{folder}: from step {start} to {config.steps}"]):
            console.say(line)
        recorder = metrics.Recorder(writers, config.log_every, config.batch_size, window)
        sample = _make_sampler(experiment, spec)

        phases = experiment.family.phases()
        placing = batch_sharding(mesh)
        step_function = make_train_step(
            experiment.family, optimizers, experiment.ema, functools.partial(preprocess, flip=experiment.data.flip)
        )
        placed = jax.tree.map(lambda leaf: leaf.sharding, template)
        step_function = jax.jit(
            step_function, in_shardings=(placed, placing), out_shardings=(placed, None), donate_argnums=0
        )
        shard = (jax.process_index(), jax.process_count())
        stream = batches(experiment.data, experiment.seed, config.batch_size, start, shard, config.prefetch)

        interrupts = stack.enter_context(Interrupts())
        for step in range(start + 1, config.steps + 1):  # the number of steps taken, once this one is
            state, measured = step_function(state, make_global(next(stream), placing))
            recorder.push(step, drop_skipped(phases, step - 1, measured))
            last = step == config.steps
            if config.sample_every and (step % config.sample_every == 0 or last):
                recorder.flush()
                with recorder.pause():
                    grid = grids.save_grid(sample(sampling_params(state)), folder / "samples" / f"{step:08d}.png")
                    board.write_image(step, "samples", grid)
            if last or interrupts.received or (config.save_every and step % config.save_every == 0):
                recorder.flush(last)
                with recorder.pause():
                    saved.save(step, state, {"window": recorder.state()})
            if interrupts.received and not last:
                saved.wait()
                command = resume_command or f"genjax train --workdir={shlex.quote(str(folder))}"
                console.say(f"{interrupts.received.name}: saved at step {step}; to go on: {command}")
                raise SystemExit(interrupts.exit_code)
        saved.wait()
        console.say(f"{folder}: done at step {max(start, config.steps)}")
    return state


def _with_sharding(shapes: TrainState, mesh: jax.sharding.Mesh) -> TrainState:
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        state_sharding(mesh, shapes),
    )


def _restore_or_create(
    saved: checkpoints.Checkpoints, create: Callable[[], TrainState], template: TrainState
) -> tuple[TrainState, dict[str, Any], int]:
    """Returns the state to go on from, the unfinished window of metrics, and the number of steps taken."""
    if saved.latest_step() is None:
        return jax.jit(create, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, template))(), {}, 0
    state, about = saved.restore(template)
    return state, about["window"], int(state.step)


def _open_writers(
    folder: pathlib.Path, start: int, steps: int
) -> tuple[list[metrics.Writer], metrics.Console, metrics.TensorBoard]:
    console = metrics.Console(steps, start)
    board = metrics.TensorBoard(folder / "tensorboard", start)
    return [metrics.CSV(folder / "metrics.csv", start), board, console], console, board


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


def _make_sampler(experiment: Experiment, spec: DataSpec) -> Callable[[dict[str, Any]], Any]:
    """Returns the function that draws the grid: always with one key and the same classes, so that grids compare."""
    n = experiment.training.sample_n
    key = jax.random.fold_in(jax.random.key(experiment.seed), _SAMPLES)
    cond = None if spec.num_classes is None else {"label": jnp.arange(n, dtype=jnp.int32) % spec.num_classes}

    @jax.jit
    def generate(params: dict[str, Any], key: Array, cond: Any) -> Array:
        return to_uint8(experiment.family.generate(params, key, n, cond))

    return lambda params: jax.device_get(generate(params, key, cond))


def _enable_compile_cache(folder: str) -> None:
    jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(folder).resolve()))
    # With jax's default of a second most programs would not be kept.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
