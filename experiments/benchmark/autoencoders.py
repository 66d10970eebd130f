"""A training step of an MLP-VAE, beside PyTorch."""

import contextlib
import functools
import importlib.util
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.benchmark.report import Figures, best
from genjax.data.base import DataSpec
from genjax.data.transforms import preprocess
from genjax.training.experiment import Experiment
from genjax.training.state import build_optimizers, create_state
from genjax.training.step import make_train_step

SHAPE, HIDDEN, LATENT, BATCH = (28, 28, 1), 400, 20, 128  # those of the VAE among PyTorch's examples
RATE = 1e-3
ROUNDS, SECONDS = 5, 2.0  # how often the programs take turns, and how long a turn is


def figures() -> Figures:
    """Returns the table; without PyTorch, with our time alone."""
    ours, eager, compiled = measure(ROUNDS, SECONDS)
    name = f"MLP-VAE {SHAPE[0] * SHAPE[1]}-{HIDDEN}-{LATENT}-{HIDDEN}-{SHAPE[0] * SHAPE[1]}, batch {BATCH}: one step"
    times = ["-" if t is None else f"{1e3 * t:.2f} ms" for t in (ours, eager, compiled)]
    rates = ["-" if t is None else f"{t / ours:.2f}" for t in (eager, compiled)]
    columns = ("figure", "ours", "PyTorch", "torch.compile", "times faster", "than compiled")
    notes = ("From uint8 images to new weights: preprocessing, loss, gradient, Adam. No bar: published as it is.",)
    return Figures("A VAE beside PyTorch", columns, [(name, *times, *rates)], notes)


def measure(rounds: int, seconds: float) -> tuple[float, float | None, float | None]:
    """Returns the seconds of a step: ours, PyTorch's, and that of torch.compile, None for what is not there.

    They take turns, and each time counts by its best. PyTorch has the weights that ours starts with, and it is checked
    that its first loss is ours but for the noise of the codes.
    """
    built = Experiment.from_config(config())
    images = np.random.default_rng(0).integers(0, 256, (BATCH, *SHAPE), np.uint8)
    state = jax.jit(functools.partial(create_state, built, DataSpec(SHAPE, None, BATCH)))()
    prepare = functools.partial(preprocess, flip=False)
    step = make_train_step(built.family, build_optimizers(built, state.params), built.ema, prepare)
    batch = jax.device_put({"image": images})
    compiled = jax.jit(step, donate_argnums=0).lower(state, batch).compile()
    weights = jax.device_get(state.params["model"])
    state, metrics = compiled(state, batch)
    start = float(metrics["train/loss"].total)

    def ours() -> Any:
        nonlocal state
        state, _ = compiled(state, batch)
        return state

    if importlib.util.find_spec("torch") is None:
        return best(ours, seconds=seconds), None, None
    theirs = Theirs(weights, images)
    np.testing.assert_allclose(theirs.loss(), start, rtol=0.02)
    programs: list[Callable[[], float]] = [lambda: best(ours, seconds=seconds), lambda: theirs.seconds(seconds)]
    if (faster := theirs.compiled()) is not None:
        programs.append(lambda: faster.seconds(seconds))
    times = [min(column) for column in zip(*([run() for run in programs] for _ in range(rounds)), strict=True)]
    return times[0], times[1], times[2] if len(times) > 2 else None


def config() -> dict[str, Any]:
    """Returns the config of the model."""
    network = dict(name="mlp", hidden=HIDDEN, depth=1, activation="relu")
    return dict(
        seed=0,
        data=dict(name="tfds", dataset="mnist", mock=True),  # never read
        family=dict(
            name="vae",
            image_shape=SHAPE,
            encoder=network,
            decoder=network,
            latent=LATENT,
            likelihood=dict(name="bernoulli"),
        ),
        optimizers=dict(model=dict(name="adam", learning_rate=RATE)),
        training=dict(steps=1000, batch_size=BATCH),
    )


class Theirs:
    """The same step in PyTorch, with one thread or all, whichever is faster."""

    def __init__(self, weights: Any, images: np.ndarray) -> None:
        import torch

        self.torch, self.weights = torch, weights
        self.images = torch.from_numpy(images)

        def linear(layer: Any) -> Any:
            built = torch.nn.Linear(*layer["kernel"].shape)
            with torch.no_grad():
                built.weight.copy_(torch.from_numpy(layer["kernel"].T.copy()))
                built.bias.copy_(torch.from_numpy(layer["bias"].copy()))
            return built

        encoder, decoder = (
            torch.nn.Sequential(linear(tree["dense_0"]), torch.nn.ReLU(), linear(tree["out"]))
            for tree in (weights["encoder"]["layers"], weights["decoder"]["layers"])
        )
        self.adam = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], RATE, fused=True)

        def loss() -> Any:
            x = self.images.reshape(BATCH, -1).float() / 255.0
            mean, log_std = encoder(x).chunk(2, dim=1)
            logits = decoder(mean + log_std.exp() * torch.randn_like(mean))
            kl = (0.5 * (mean**2 + (2 * log_std).exp() - 1) - log_std).sum()
            nats = torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
            return (nats + kl) / BATCH

        self._loss = loss

    def loss(self) -> float:
        """Returns the loss with the weights of now."""
        with self.torch.no_grad():
            return float(self._loss())

    def compiled(self) -> "Theirs | None":
        """Returns the same under torch.compile, None where that does not run."""
        new = Theirs(self.weights, self.images.numpy())
        new._loss = self.torch.compile(new._loss)
        with contextlib.suppress(Exception):  # it needs a C++ compiler
            new.loss()
            return new
        return None

    def step(self) -> None:
        """Takes a step."""
        self.adam.zero_grad(set_to_none=True)
        self._loss().backward()
        self.adam.step()

    def seconds(self, seconds: float) -> float:
        """Returns the time of a step."""
        threads, times = self.torch.get_num_threads(), []
        for count in {1, len(os.sched_getaffinity(0))}:
            self.torch.set_num_threads(count)
            times.append(best(self.step, seconds=seconds / 2))
        self.torch.set_num_threads(threads)
        return min(times)
