"""The trainer, its input pipeline and the demo's sampler."""

import contextlib
import dataclasses
import importlib.util
import io
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark.report import Figures, best
from genjax import sampling, solvers
from genjax.data.base import DataSpec
from genjax.data.loader import batches
from genjax.data.transforms import preprocess
from genjax.training.experiment import Experiment
from genjax.training.loop import train
from genjax.training.state import build_optimizers, create_state
from genjax.training.step import make_train_step

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "digits" / "ddpm.py"
TURNS, TURN = 20, 50  # how often loop and bare step take turns, and the steps in a turn
SAVES, PERIOD = 40, 50  # checkpoints whose cost is measured, and the steps from one to the next
MINUTE = 60.0


def figures() -> Figures:
    """Returns the table."""
    experiment = demo()
    step, params = training(experiment)
    overhead = sampler_overhead(experiment, params)
    loop = loop_over_bare(experiment)
    saving = cost_of_a_save(experiment)
    digits = loading(experiment.data, experiment.training.batch_size)
    source = Random()
    ours, theirs = loading(source, 128), torch_loading(source, 128)
    against = f"{ours / theirs:.1f}" if theirs else f"- ({ours * 128:,.0f} images/s; no PyTorch here)"
    rows = [
        ("the training loop's step over the bare compiled step, called in a row", f"{loop:.3f}", "at most 1.03"),
        (
            f"throughput lost to one checkpoint a minute (each costs {1000 * saving:.0f} ms of training)",
            f"{saving / MINUTE:.2%}",
            "at most 5%",
        ),
        ("share of a sampling step that is not the demo's network", f"{overhead:.1%}", "at most 5%"),
        ("digits batches delivered over batches that the demo consumes", f"{digits * step:,.0f}", "at least 20"),
        ("in-memory 32x32x3 images over PyTorch's DataLoader (the faster of 0 and 2 workers)", against, "at least 3"),
    ]
    return Figures("Training and loading", ("figure", "measured", "bar"), rows)


def demo() -> Experiment:
    """Returns the experiment of `make demo`."""
    spec = importlib.util.spec_from_file_location("demo_config", CONFIG)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return Experiment.from_config(module.get_config())


def sampler_overhead(experiment: Experiment, params: Any, n: int = 128) -> float:
    """Returns the share of a sampling step of the demo that is not the network."""
    family = experiment.family
    denoise = family.denoiser(params)
    cond = {"label": jnp.arange(n, dtype=jnp.int32) % 10}
    times = sampling.times.trailing(family.process, 20)
    x = jax.random.normal(jax.random.key(0), (n, 8, 8, 1))

    def steps(denoise: Any, solver: Any) -> Callable[[], Any]:
        run = jax.jit(lambda x: sampling.solve(jax.random.key(0), denoise, family.process, solver, times, x))
        return lambda: run(x)

    def network(x: jax.Array, t: jax.Array) -> jax.Array:
        return denoise(x, t, cond)

    cheap = best(steps(lambda x, t: x, solvers.DDPM()))
    whole = best(steps(network, solvers.DDPM()), 3)
    return cheap / whole


def training(experiment: Experiment) -> tuple[float, Any]:
    """Returns the seconds of the demo's compiled training step, and the initial parameters."""
    spec = experiment.data.spec
    state = jax.jit(lambda: create_state(experiment, spec))()
    params = jax.tree.map(jnp.copy, state.params)
    optimizers = build_optimizers(experiment, state.params)
    step = jax.jit(
        make_train_step(experiment.family, optimizers, experiment.ema, lambda b, k: preprocess(b, k, flip=False))
    )
    batch = next(batches(experiment.data, 0, experiment.training.batch_size))
    return best(lambda: step(state, batch), 5), params


def loop_over_bare(experiment: Experiment) -> float:
    """Returns the time of a step of `train`, without checkpoints and samples, over that of the step alone.

    The two take turns in one run: whenever the loop has asked for so many batches it gets the next only after as many
    steps alone. The result is the median of the turns' ratios. The step alone is compiled as the loop does it, with its
    state donated, and gets one batch that is on the device; the loop reads its own and writes its metrics.
    """
    state = jax.jit(lambda: create_state(experiment, experiment.data.spec))()
    optimizers = build_optimizers(experiment, state.params)
    prepare = lambda batch, key: preprocess(batch, key, flip=experiment.data.flip)  # noqa: E731
    step = jax.jit(make_train_step(experiment.family, optimizers, experiment.ema, prepare), donate_argnums=0)
    batch = jax.device_put(next(batches(experiment.data, 0, experiment.training.batch_size)))

    def alone(steps: int) -> float:
        nonlocal state
        start = time.perf_counter()
        for _ in range(steps):
            state, _ = step(state, batch)
        jax.block_until_ready(state)
        return (time.perf_counter() - start) / steps

    asked, bare = [], []

    def before(batch: int) -> None:
        asked.append(time.perf_counter())
        if batch % TURN == 0:
            alone(3)  # in which what the loop has dispatched is done
            bare.append(alone(TURN))

    run_loop(experiment, before, (TURNS + 2) * TURN, save_every=0)
    # The loop has one step in flight when it asks for a batch, but for the first after the others' turn.
    turns = np.array(asked[: (TURNS + 2) * TURN]).reshape(-1, TURN)[2:]  # in the first it logs for the first time
    loop = (np.append(turns[1:, 0], np.nan) - turns[:, 1])[:-1] / (TURN - 1)
    return float(np.median(loop / bare[2 : 2 + len(loop)]))


def cost_of_a_save(experiment: Experiment) -> float:
    """Returns the seconds of training that a checkpoint costs: the median of many in one run.

    A checkpoint is begun, and written, in the first half of a period, and nothing in the second: what the first half
    takes beyond the second is the checkpoint's price.
    """
    asked: list[float] = []
    steps = (SAVES + 2) * PERIOD
    # A run begins a checkpoint every `save_every // 2` steps.
    run_loop(experiment, lambda batch: asked.append(time.perf_counter()), steps, save_every=2 * PERIOD)
    halves = np.diff(asked[2 * PERIOD - 1 : steps : PERIOD // 2])
    pairs = halves[: len(halves) // 2 * 2].reshape(-1, 2)
    return float(np.median(pairs[:, 0] - pairs[:, 1]))


def run_loop(experiment: Experiment, before: Callable[[int], None], steps: int, **training: Any) -> None:
    """Trains in a new folder, without samples, and calls `before` with 0, 1, ... when the loop asks for its batches."""
    data = Watched(experiment.data, before)
    how = dataclasses.replace(experiment.training, steps=steps, sample_every=0, eval_every=0, **training)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        train(dataclasses.replace(experiment, data=data, training=how), folder)


class Watched:
    """A data set that says when it is asked for a batch."""

    def __init__(self, source: Any, before: Callable[[int], None]) -> None:
        self.source, self.spec, self.flip = source, source.spec, source.flip
        self.before, self.count = before, 0

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns a batch."""
        self.before(self.count)
        self.count += 1
        return self.source.gather(indices)


def loading(source: Any, batch_size: int, seconds: float = 2.0) -> float:
    """Returns batches a second of the input pipeline."""
    stream = batches(source, 0, batch_size)
    for _ in range(20):
        next(stream)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        next(stream)
        count += 1
    return count / (time.perf_counter() - start)


class Random:
    """A data set of random images in memory."""

    flip = False

    def __init__(self, n: int = 50_000, shape: tuple[int, int, int] = (32, 32, 3)) -> None:
        rng = np.random.default_rng(0)
        self.images = rng.integers(0, 256, (n, *shape), np.uint8)
        self.labels = rng.integers(0, 10, n).astype(np.int32)
        self.spec = DataSpec(image_shape=shape, num_classes=10, size=n)

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns a batch."""
        return {"image": self.images[indices], "label": self.labels[indices]}


def torch_loading(source: Random, batch_size: int, seconds: float = 2.0) -> float | None:
    """Returns batches a second of PyTorch's DataLoader over the same arrays, the faster of 0 and 2 workers."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    data = TensorDataset(torch.from_numpy(source.images), torch.from_numpy(source.labels))
    rates = []
    for workers in (0, 2):
        how = dict(persistent_workers=True, multiprocessing_context="spawn") if workers else {}
        loader = DataLoader(data, batch_size, shuffle=True, num_workers=workers, **how)
        stream = iter(loader)
        for _ in range(5):
            next(stream)
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            if next(stream, None) is None:
                stream = iter(loader)
            count += 1
        rates.append(count / (time.perf_counter() - start))
    return max(rates)
