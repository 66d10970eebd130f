"""What a distillation step costs beside the passes that it is made of, each timed by itself."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark.report import Figures, best
from genjax.data.base import DataSpec
from genjax.data.transforms import preprocess
from genjax.families.denoising import MODEL
from genjax.families.dmd import FAKE
from genjax.training.experiment import Experiment
from genjax.training.state import build_optimizers, create_state
from genjax.training.step import make_train_step

SHAPE, BATCH = (16, 16, 3), 32
ROUNDS, SECONDS = 5, 2.0  # how often the programs take turns, and how long a turn is
BAR = 1.3

# Of one step: forward passes alone, and passes forward and back.
PASSES = {
    "progressive_distillation": (2, 1),  # the teacher's two steps; the student
    "dmd": (1 + 2, 2),  # the images for the fake score, teacher and fake score; the fake score, the generator
}


def figures() -> Figures:
    """Returns the table."""
    rows = []
    for name, passes in PASSES.items():
        step, forward, both = measure(name)
        parts = passes[0] * forward + passes[1] * both
        said = f"{passes[0]} forward and {passes[1]} forward and back"
        cells = [f"{1e3 * value:.1f} ms" for value in (step, parts)]
        rows.append((f"`{name}`: {said}", *cells, f"{step / parts:.2f}", f"<= {BAR}"))
    network = f"A U-Net of 32 and 64 channels on {SHAPE[0]}x{SHAPE[1]} images, batch {BATCH}."
    notes = (f"{network} The step is the whole one: preprocessing, noise, losses, optimizers and averages.",)
    return Figures("A distillation step beside its passes", ("step", "step", "its passes", "ratio", "bar"), rows, notes)


def measure(name: str, rounds: int = ROUNDS, seconds: float = SECONDS) -> tuple[float, float, float]:
    """Returns the seconds of a step, of a forward pass, and of one forward and back; they take turns, the best counts.

    Args:
        name: of the family.
        rounds: turns.
        seconds: of a turn.
    """
    experiment = Experiment.from_config(config(name))
    family: Any = experiment.family
    state = jax.jit(functools.partial(create_state, experiment, DataSpec(SHAPE, None, BATCH)))()
    optimizers = build_optimizers(experiment, state.params)
    step = make_train_step(family, optimizers, experiment.ema, functools.partial(preprocess, flip=False))
    images = np.random.default_rng(0).integers(0, 256, (BATCH, *SHAPE), np.uint8)
    batch = jax.device_put({"image": images})
    compiled = jax.jit(step, donate_argnums=0).lower(state, batch).compile()
    x, t = jnp.asarray(images, jnp.float32) / 127.5 - 1.0, jnp.full((BATCH,), 0.5)
    params = jax.tree.map(jnp.copy, state.params[MODEL])  # the state's own go with it

    def apply(params: Any, x: Any, t: Any) -> Any:
        return family.denoiser({MODEL: params})(x, t, None)

    forward = jax.jit(apply).lower(params, x, t).compile()
    loss = lambda params, x, t: jnp.mean(apply(params, x, t) ** 2)  # noqa: E731
    both = jax.jit(jax.value_and_grad(loss)).lower(params, x, t).compile()

    def whole() -> Any:
        nonlocal state
        state, _ = compiled(state, batch)
        return state

    programs: list[Callable[[], Any]] = [whole, lambda: forward(params, x, t), lambda: both(params, x, t)]
    times = [[best(program, 3, seconds) for program in programs] for _ in range(rounds)]
    return tuple(map(min, zip(*times, strict=True)))  # type: ignore[return-value]


def config(name: str) -> dict[str, Any]:
    """Returns the config of a family, with an untrained teacher."""
    model: dict[str, Any] = dict(
        image_shape=SHAPE,
        network=dict(name="unet", channels=32, multipliers=(1, 2), blocks_per_level=1, resampling="conv"),
        process=dict(name="edm"),
        parameterization=dict(name="edm"),
    )
    family = dict(name=name, teacher=dict(name="untrained", family=dict(name="diffusion", **model)), **model)
    adam = dict(name="adam", learning_rate=1e-4, clip=1.0)
    return dict(
        seed=0,
        data=dict(name="tfds", dataset="cifar10", mock=True),  # never read
        family=family,
        optimizers={MODEL: adam} | ({FAKE: adam} if name == "dmd" else {}),
        training=dict(steps=1000, batch_size=BATCH),
    )
