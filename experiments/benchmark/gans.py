"""A training step of a DCGAN, both players' updates, beside PyTorch."""

import functools
import importlib.util
import os
from typing import Any

import jax
import numpy as np

from experiments.benchmark.report import Figures, best
from genjax.data.base import DataSpec
from genjax.data.transforms import preprocess
from genjax.families import stateful
from genjax.training.experiment import Experiment
from genjax.training.state import build_optimizers, create_state
from genjax.training.step import make_train_step

SHAPE, CHANNELS, LATENT, BATCH = (32, 32, 3), 32, 100, 64
RATE, BETA = 2e-4, 0.5
ROUNDS, SECONDS = 5, 4.0  # how often the programs take turns, and how long a turn is


def figures() -> Figures:
    """Returns the table; without PyTorch, with our time alone."""
    ours, theirs = measure(ROUNDS, SECONDS)
    name = (
        f"DCGAN {SHAPE[0]}x{SHAPE[1]}, {CHANNELS} to {4 * CHANNELS} channels, batch {BATCH}: one step of both players"
    )
    cells = [
        f"{1e3 * ours:.0f} ms",
        *(["-", "-"] if theirs is None else [f"{1e3 * theirs:.0f} ms", f"{theirs / ours:.2f}"]),
    ]
    notes = (
        "From uint8 images to new weights of both: preprocessing, losses, gradients, Adam. No bar: published as it is.",
    )
    return Figures("A GAN beside PyTorch", ("figure", "ours", "PyTorch", "times faster"), [(name, *cells)], notes)


def measure(rounds: int, seconds: float) -> tuple[float, float | None]:
    """Returns the seconds of a step, ours and PyTorch's; None where that is not there.

    They take turns, and each time counts by its best. PyTorch has the weights that ours starts with, and it is checked
    that its players return what ours return.
    """
    built = Experiment.from_config(config())
    images = np.random.default_rng(0).integers(0, 256, (BATCH, *SHAPE), np.uint8)
    state = jax.jit(functools.partial(create_state, built, DataSpec(SHAPE, None, BATCH)))()
    prepare = functools.partial(preprocess, flip=False)
    step = make_train_step(built.family, build_optimizers(built, state.params), built.ema, prepare)
    batch = jax.device_put({"image": images})
    compiled = jax.jit(step, donate_argnums=0).lower(state, batch).compile()
    theirs = None
    if importlib.util.find_spec("torch") is not None:
        theirs = Theirs(jax.device_get(state.params), images)
        check(built.family, state, theirs)

    def ours() -> Any:
        nonlocal state
        state, _ = compiled(state, batch)
        return state

    programs = [lambda: best(ours, 3, seconds), *([] if theirs is None else [lambda: theirs.seconds(seconds)])]
    times = [min(column) for column in zip(*([run() for run in programs] for _ in range(rounds)), strict=True)]
    return times[0], times[1] if len(times) > 1 else None


def config() -> dict[str, Any]:
    """Returns the config of the model."""
    adam = dict(name="adam", learning_rate=RATE, b1=BETA)
    return dict(
        seed=0,
        data=dict(name="tfds", dataset="cifar10", mock=True),  # never read
        family=dict(
            name="gan",
            generator=dict(name="dcgan", image_shape=SHAPE, channels=CHANNELS),
            discriminator=dict(name="dcgan", channels=CHANNELS),
            latent=LATENT,
        ),
        optimizers=dict(generator=adam, discriminator=adam),
        ema=dict(decay={}),
        training=dict(steps=1000, batch_size=BATCH),
    )


def check(family: Any, state: Any, theirs: "Theirs") -> None:
    """Raises AssertionError unless both players of PyTorch return, in training, what ours return."""
    z = np.random.default_rng(1).normal(size=(8, LATENT)).astype(np.float32)
    kept_g, kept_d = (state.extra[f"{role}_state"] for role in ("generator", "discriminator"))
    images, _ = stateful.train(family.generator, state.params["generator"], kept_g, z, None)
    logits, _ = stateful.train(family.discriminator, state.params["discriminator"], kept_d, images, None)
    with theirs.torch.no_grad():
        found = theirs.generator(theirs.torch.from_numpy(z))
        np.testing.assert_allclose(theirs.discriminator(found), logits, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found.permute(0, 2, 3, 1), images, rtol=1e-3, atol=1e-4)


class Theirs:
    """The same step in PyTorch, with one thread or all, and in either layout of images, whichever is fastest."""

    def __init__(self, weights: Any, images: np.ndarray) -> None:
        import torch

        self.torch, self.images = torch, torch.from_numpy(images)
        self.parts = torch.nn.ModuleDict()

        def made(name: str, layer: Any, values: dict[str, np.ndarray]) -> Any:
            with torch.no_grad():
                for key, value in values.items():
                    getattr(layer, key).copy_(torch.from_numpy(np.array(value)))
            self.parts[name] = layer
            return layer

        def dense(name: str, tree: Any) -> Any:
            layer = torch.nn.Linear(*tree["kernel"].shape)
            return made(name, layer, {"weight": tree["kernel"].T, "bias": tree["bias"]})

        def conv(name: str, tree: Any, transposed: bool) -> Any:
            kind = torch.nn.ConvTranspose2d if transposed else torch.nn.Conv2d
            ins, outs = tree["kernel"].shape[2:][:: -1 if transposed else 1]
            layer = kind(ins, outs, 4, 2, 1)
            return made(name, layer, {"weight": tree["kernel"].transpose(3, 2, 0, 1), "bias": tree["bias"]})

        def norm(name: str, tree: Any) -> Any:
            values = {"weight": tree["norm"]["scale"], "bias": tree["norm"]["bias"]}
            return made(name, torch.nn.BatchNorm2d(len(values["bias"])), values)

        g, d = weights["generator"], weights["discriminator"]
        start = dense("g_in", g["in"])
        ups = [conv(f"g_{name}", g[name], True) for name in ("up_1", "up_2", "out")]
        g_norms = [norm(f"g_norm_{i}", g[f"norm_{i}"]) for i in range(3)]
        downs = [conv(f"d_{i}", d[f"conv_{i}"], False) for i in range(3)]
        d_norms = [norm(f"d_norm_{i}", d[f"norm_{i}"]) for i in (1, 2)]
        head = dense("d_head", d["head"]["logit"])
        relu, leaky = torch.nn.functional.relu, torch.nn.functional.leaky_relu

        def generator(z: Any) -> Any:
            h = start(z).reshape(len(z), 4, 4, -1).permute(0, 3, 1, 2)
            for up, normed in zip(ups, g_norms, strict=True):
                h = up(relu(normed(h)))
            return torch.tanh(h)

        def discriminator(x: Any) -> Any:
            h = leaky(downs[0](x), 0.2)
            for down, normed in zip(downs[1:], d_norms, strict=True):
                h = leaky(normed(down(h)), 0.2)
            return head(h.permute(0, 2, 3, 1).flatten(1))[:, 0]

        self.generator, self.discriminator = generator, discriminator
        players = {
            role: [p for name, part in self.parts.items() if name[0] == role for p in part.parameters()]
            for role in "gd"
        }
        self.players = players
        self.adams = {
            role: torch.optim.Adam(values, RATE, betas=(BETA, 0.999), fused=True) for role, values in players.items()
        }

    def step(self) -> None:
        """Takes a step of the discriminator and one of the generator."""
        torch, softplus = self.torch, self.torch.nn.functional.softplus
        real = (self.images.float() / 127.5 - 1.0).permute(0, 3, 1, 2)
        with torch.no_grad():
            fake = self.generator(torch.randn(BATCH, LATENT))
        self._update("d", softplus(-self.discriminator(real)).mean() + softplus(self.discriminator(fake)).mean())
        fake = self.generator(torch.randn(BATCH, LATENT))
        self._update("g", softplus(-self.discriminator(fake)).mean())

    def _update(self, role: str, loss: Any) -> None:
        gradients = self.torch.autograd.grad(loss, self.players[role])
        for parameter, gradient in zip(self.players[role], gradients, strict=True):
            parameter.grad = gradient
        self.adams[role].step()

    def seconds(self, seconds: float) -> float:
        """Returns the time of a step."""
        torch, threads, times = self.torch, self.torch.get_num_threads(), []
        for layout in (torch.contiguous_format, torch.channels_last):
            self.parts.to(memory_format=layout)
            for count in {1, len(os.sched_getaffinity(0))}:
                torch.set_num_threads(count)
                times.append(best(self.step, 3, seconds / 4))
        torch.set_num_threads(threads)
        return min(times)
