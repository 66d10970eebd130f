"""The training loop, the same for every family."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from signal import Signals
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from clu import parameter_overview
from jax import Array
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import NamedSharding, PartitionSpec

from genjax.data.loader import batch_at, batch_indices, batches
from genjax.data.transforms import preprocess
from genjax.families.base import Family
from genjax.families.teacher import pretrained
from genjax.training import run_folder
from genjax.training.checkpoints import DIRECTORY, Checkpoints
from genjax.training.distributed import Flags, agreed, flags, greatest, together
from genjax.training.experiment import Experiment
from genjax.training.flops import mean_step_flops, peak_flops
from genjax.training.interrupts import Interrupts
from genjax.training.lock import locked
from genjax.training.mesh import batch_sharding, make_global, state_sharding
from genjax.training.metrics import CSV, Console, Recorder, Silent, TensorBoard
from genjax.training.monitor import check_best, make_evaluator, make_sampler
from genjax.training.non_finite import Guard
from genjax.training.posthoc import SnapshotWriter
from genjax.training.state import TrainState, build_optimizers, create_state, sampling_params
from genjax.training.step import Step, batches_per_step, make_train_step


def train(experiment: Experiment, workdir: str | os.PathLike[str], resume_command: str | None = None) -> TrainState:
    """Trains to `training.steps`, from the newest valid checkpoint of the run folder where it has one.

    After Ctrl-C or SIGTERM the step is finished and saved, and the command that goes on is printed; before the first
    step nothing is saved. Of several processes, one that is told to stop stops all. Beside the checkpoints, only the
    first process writes and prints.

    Args:
        experiment: the validated config.
        workdir: the run folder, new or of the same config.
        resume_command: what to print then, which is the command that started this; kept in the run folder.

    Returns:
        The final state.

    Raises:
        ConfigError: a mistake in the config, or a folder of another run; before anything is compiled.
        TrainingStopped: a step that was not finite, or a full disk.
        SystemExit: after a signal: with 130 for SIGINT, 143 for SIGTERM.
    """
    config, folder, leads = experiment.training, pathlib.Path(workdir), jax.process_index() == 0
    command = resume_command or f"genjax train --workdir={shlex.quote(str(folder))}"
    with contextlib.ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts())
        with together("checking the config"):
            mesh, spec = experiment.check()
            create = functools.partial(create_state, experiment, spec)
            template = _with_sharding(jax.eval_shape(create), mesh)
            optimizers = build_optimizers(experiment, template.params)
            check_best(experiment, sampling_params(template))
        news: list[str | None] = []
        with together("opening the run folder"):
            if leads:
                news.append(stack.enter_context(locked(folder)))
                news.append(run_folder.open_run(folder, experiment.config, _resolve))
                news.append(run_folder.code_difference(folder))
        if config.compile_cache is not None:
            _enable_compile_cache(config.compile_cache)

        best_of = (config.best, config.best_is) if config.keep_best else None
        checkpoints = Checkpoints(folder / DIRECTORY, config.keep, config.keep_best, best_of)
        stack.callback(checkpoints.close)
        news += checkpoints.recover()
        state, about, start = _restore_or_create(checkpoints, create, experiment.family, template)
        snapshots = SnapshotWriter(folder, experiment.ema.posthoc, start, config.steps)
        stack.callback(snapshots.close)
        snapshots.after(start, state)
        saver = _Saver(checkpoints, snapshots, config.save_every)
        if leads:
            run_folder.record_start(folder, start, resume_command)

        console = Console(config.steps, start) if leads else Silent()
        stack.callback(console.close)
        board = TensorBoard(folder / "tensorboard", start) if leads else Silent()
        stack.callback(board.close)
        table = CSV(folder / "metrics.csv", start) if leads else Silent()
        if leads:
            (folder / "samples").mkdir(exist_ok=True)
            news += [_describe(template, folder), f"{folder}: from step {start} to {config.steps}"]
        for line in filter(None, news):
            console.say(line)

        prepare = functools.partial(preprocess, flip=experiment.data.flip)
        step_of = functools.partial(make_train_step, experiment.family, optimizers, experiment.ema, prepare)
        train_step, names = _compile(step_of(config.accumulate), template, mesh)
        guard = _guard(experiment, folder if leads else None, start, about)
        rates = _make_rates(experiment, step_of, template, mesh)
        recorder = Recorder(names, [table, board, console], config.log_every, rates, guard, about.get("window"))
        draw = make_sampler(experiment, spec, mesh)
        held_out, key = experiment.eval_data or experiment.data, jax.random.key(experiment.seed)
        score = make_evaluator(experiment.family, held_out, config.batch_size, mesh, key, config.eval_n)
        at = config.profile_at if leads else None
        profile = stack.enter_context(_Profile(at, config.profile_steps, folder / "profile"))
        profile.after(start, state)
        placing = batch_sharding(mesh)
        shard = (jax.process_index(), jax.process_count())
        stream = batches(experiment.data, experiment.seed, _examples(experiment), start, shard, config.prefetch)

        if interrupts.received and start < config.steps and jax.process_count() == 1:
            console.say(f"{interrupts.received.name}: stopped before step {start + 1}; to go on: {command}")
            raise SystemExit(128 + interrupts.received)
        told: Flags = ()
        began = time.perf_counter() - about.get("seconds", 0.0)
        for step in range(start + 1, config.steps + 1):  # the number of steps taken, once this one is
            with recorder.timed("data"):
                batch = make_global(next(stream), placing)
            with recorder.timed("dispatch"):
                state, measured, tell = train_step(state, batch, flags(mesh, int(interrupts.received or 0)))
            recorder.push(step, measured)
            profile.after(step, state)
            # One process reads its wish after the step, which may have come meanwhile; several read what they have
            # told each other in the step before.
            signal, told = agreed(told, int(interrupts.received or 0)), tell
            last, scores = step == config.steps, {}
            if config.eval_every and (last or step % config.eval_every == 0):
                with recorder.timed("device"):  # the step's own time is in the rates
                    jax.block_until_ready(measured)
                with recorder.pause():
                    scores = score(sampling_params(state))
                recorder.add({f"eval/{name}": value for name, value in scores.items()})
            if config.sample_every and (last or step % config.sample_every == 0):
                recorder.flush()
                with recorder.pause():
                    grid = draw(sampling_params(state))
                    if leads:
                        grid.save(folder / "samples" / f"{step:08d}.png")
                    board.write_image(step, "samples", np.asarray(grid))
            if last or signal or saver.due(step):
                recorder.flush(last)
                with recorder.pause():
                    table.sync()
                    kept = {"window": recorder.state(), "skipped_in_a_row": guard.in_a_row}
                    saver.save(step, state, kept | {"seconds": time.perf_counter() - began}, scores)
            if snapshots.due(step):
                recorder.flush()
                with recorder.pause():
                    snapshots.after(step, state)
            if signal and not last:
                saver.wait()
                console.say(f"{Signals(signal).name}: saved at step {step}; to go on: {command}")
                raise SystemExit(128 + signal)
        saver.wait()
        console.say(f"{folder}: done at step {config.steps}")
    return state


@dataclasses.dataclass(frozen=True)
class _Saver:
    """When checkpoints are begun, and what is on disk before them.

    One that is being written when the process dies is lost, and the one before is on disk when it is begun. So they are
    begun twice as often as a kill may cost; where that is every step, each is waited for.
    """

    checkpoints: Checkpoints
    snapshots: SnapshotWriter
    every: int

    def due(self, step: int) -> bool:
        """Whether a checkpoint is to be begun after a step."""
        return self.every > 0 and step % max(1, self.every // 2) == 0

    def save(self, step: int, state: TrainState, about: Mapping[str, Any], scores: Mapping[str, float]) -> None:
        """Begins a checkpoint, once the snapshots that it would not bring back are on disk."""
        self.snapshots.settle(step)
        self.checkpoints.save(step, state, about, scores)
        if self.every == 1:
            self.checkpoints.wait()

    def wait(self) -> None:
        """Waits until all is on disk, and raises what went wrong."""
        self.snapshots.settle(sys.maxsize)
        self.checkpoints.wait()


def _compile(
    step: Step, template: TrainState, mesh: jax.sharding.Mesh
) -> tuple[Callable[[TrainState, Any, Flags], tuple[TrainState, Array, Flags]], list[str]]:
    """Returns the jitted step, whose metrics are one array, and the list that holds their names once it has run."""
    names: list[str] = []

    def packed(state: TrainState, batch: Any, flags: Flags) -> tuple[TrainState, Array, Flags]:
        state, measured = step(state, batch)
        names[:] = measured  # while tracing: to trace only for the names would take seconds for a large network
        totals, weights = zip(*measured.values(), strict=True)
        return state, jnp.stack([jnp.stack(totals), jnp.stack(weights)]), greatest(flags)

    placed, split = jax.tree.map(lambda leaf: leaf.sharding, template), batch_sharding(mesh)
    whole = NamedSharding(mesh, PartitionSpec())
    compiled = jax.jit(
        packed, in_shardings=(placed, split, split), out_shardings=(placed, whole, whole), donate_argnums=0
    )
    if mesh.size == 1 or mesh.devices.flat[0].platform != "cpu":
        return compiled, names
    # Two programs in flight on several CPU devices share one pool of threads, and their collectives can wait for each
    # other for ever. Only tests have several CPU devices.
    return lambda *arguments: jax.block_until_ready(compiled(*arguments)), names


def _with_sharding(shapes: TrainState, mesh: jax.sharding.Mesh) -> TrainState:
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        state_sharding(mesh, shapes),
    )


def _restore_or_create(
    saved: Checkpoints, create: Callable[..., TrainState], family: Family, template: TrainState
) -> tuple[TrainState, dict[str, Any], int]:
    """Returns the state to go on from, what was saved beside it, and the number of steps taken."""
    if saved.latest_step() is None:
        placed = jax.tree.map(lambda leaf: leaf.sharding, template)
        # Random numbers of many shapes: on CPU full optimization takes three times as long to compile what runs once.
        options = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None
        begin = jax.jit(create, out_shardings=placed, compiler_options=options)
        return begin(pretrained=jax.tree.map(np.asarray, pretrained(family))), {}, 0
    state, about = saved.restore(template)
    return state, about, int(state.step)


def _examples(experiment: Experiment) -> int:
    """How many examples one step reads."""
    return experiment.training.batch_size * batches_per_step(experiment.family)


def _resolve(config: Any) -> Mapping[str, Any]:
    return Experiment.from_config(config).config


def _guard(experiment: Experiment, folder: pathlib.Path | None, start: int, about: Mapping[str, Any]) -> Guard:
    config, size = experiment.training, experiment.data.spec.size

    def batch(step: int) -> Sequence[int]:
        return batch_indices(experiment.seed, step - 1, _examples(experiment), size).tolist()

    return Guard(config.non_finite, config.skip_limit, folder, batch, start, about.get("skipped_in_a_row", 0))


def _make_rates(
    experiment: Experiment, step_of: Callable[..., Step], state: TrainState, mesh: jax.sharding.Mesh
) -> Callable[[float], dict[str, float]]:
    """Returns the function from steps a second to what follows from them."""
    examples, device = _examples(experiment), mesh.devices.flat[0]
    dtypes = set(_values(experiment.config["family"], "dtype"))
    peak = peak_flops(device.device_kind, dtypes.pop()) if len(dtypes) == 1 else None

    @functools.cache
    def flops() -> float | None:  # once there is a rate: it takes a second or two, which a short run need not spend
        if not experiment.training.count_flops:
            return None
        one = batch_at(experiment.data, experiment.seed, 0, 1)
        batch = jax.tree.map(lambda a: jax.ShapeDtypeStruct((examples, *a.shape[1:]), a.dtype), one)
        return mean_step_flops(step_of, experiment.family.phases(), state, batch)

    def rates(steps_per_second: float) -> dict[str, float]:
        found = {"images_per_second": steps_per_second * examples}
        if count := flops():
            found["flops_per_second"] = steps_per_second * count
            if peak is not None:
                found["mfu"] = found["flops_per_second"] / (peak * mesh.size)
        return found

    return rates


def _values(config: Any, key: str) -> Iterator[Any]:
    """All values of a key, however deep in a config."""
    if isinstance(config, Mapping):
        yield from ([config[key]] if key in config else [])
        for value in config.values():
            yield from _values(value, key)


class _Profile(contextlib.AbstractContextManager["_Profile"]):
    """A profiler trace of some steps; TensorBoard and Perfetto show it."""

    def __init__(self, at: int | None, steps: int, folder: pathlib.Path) -> None:
        self._first, self._last = at, None if at is None else at + steps
        self._folder, self._running = folder, False

    def after(self, step: int, state: TrainState) -> None:
        """Starts or ends the trace, when it is time; `state` is what the step gave."""
        if step == self._first:
            jax.block_until_ready(state)
            jax.profiler.start_trace(self._folder)
            self._running = True
        elif step == self._last:
            jax.block_until_ready(state)
            self.__exit__()

    def __exit__(self, *exception: object) -> None:
        if self._running:
            jax.profiler.stop_trace()
            self._running = False


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


def _enable_compile_cache(folder: str) -> None:
    jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(folder).resolve()))
    compilation_cache.reset_cache()  # else jax keeps to the folder that it used first in this process
    # With jax's default of a second most programs would not be kept.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
