"""Models and data small enough to be followed by hand; the training room knows no others by name either."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from genjax.config import require
from genjax.data.base import DataSpec
from genjax.families.base import Aux, Keys, Phase
from genjax.registry import register
from genjax.sampling import sample_keys
from genjax.sampling.keys import normal_like
from genjax.training import loop


@register("data", "toy_images")
@dataclasses.dataclass(frozen=True)
class Images:
    """Random images of a few classes."""

    size: int = 50
    side: int = 4
    classes: int = 3
    flip: bool = False

    @property
    def spec(self) -> DataSpec:
        return DataSpec((self.side, self.side, 1), self.classes, self.size)

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        images = np.random.default_rng(0).integers(0, 256, (self.size, self.side, self.side, 1), np.uint8)
        return {"image": images[indices], "label": (indices % self.classes).astype(np.int32)}


@register("family", "toy_denoiser")
@dataclasses.dataclass(frozen=True)
class Denoiser:
    """One role, one phase: a linear map that takes noise off images; its loss is no number in the steps `breaks_at`."""

    divisor: int = 2
    breaks_at: tuple[int, ...] = ()
    condition: ClassVar[tuple[str, ...]] = ()

    def check(self, spec: DataSpec) -> None:
        side = spec.image_shape[0]
        require(side % self.divisor == 0, f"the network cannot divide {side} pixels by {self.divisor}")

    def init(self, key: jax.Array, spec: DataSpec) -> tuple[dict[str, Any], Any]:
        size = int(np.prod(spec.image_shape))
        kernel = jax.random.normal(key, (size, size)) / size
        layer = {"kernel": kernel, "bias": jnp.zeros(size)}
        return {"network": {"dense": layer, "scale": jnp.ones(1)}}, {}

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("denoiser", "network", self._loss),)

    def generate(self, params: dict[str, Any], key: jax.Array, n: int, cond: Any = None) -> jax.Array:
        side = int(params["network"]["dense"]["bias"].size ** 0.5)
        noise = jax.vmap(lambda k: jax.random.normal(k, (side, side, 1)))(sample_keys(key, n))
        return self._apply(params["network"], noise)

    def _apply(self, params: Any, x: jax.Array) -> jax.Array:
        flat = x.reshape(len(x), -1) @ params["dense"]["kernel"] + params["dense"]["bias"][None]
        return (flat * params["scale"][None]).reshape(x.shape)

    def _loss(self, params: Any, state: Any, batch: Any, keys: Keys) -> tuple[jax.Array, Aux]:
        x = batch["image"]
        noise = normal_like(keys.each, x)
        error = jnp.square(self._apply(params, x + noise) - x)
        if self.breaks_at:
            error = error * jnp.where(jnp.isin(state.step + 1, jnp.array(self.breaks_at)), jnp.nan, 1.0)
        return error.mean(), Aux({"largest": error.max()})

    def evaluate(self, params: dict[str, Any], batch: Any, key: jax.Array) -> dict[str, jax.Array]:
        x = batch["image"]
        noise = normal_like(sample_keys(key, len(x)), x)
        return {"loss": jnp.square(self._apply(params["network"], x + noise) - x).mean((1, 2, 3))}


@register("family", "toy_game")
@dataclasses.dataclass(frozen=True)
class Game:
    """Two players with one number each: the critic moves twice and, every third step, shrinks; the generator last.

    With plain gradient descent at rate r: c -= r g, twice; c -= r c; g += r c.
    """

    rate: ClassVar[float] = 0.1
    condition: ClassVar[tuple[str, ...]] = ()

    def check(self, spec: DataSpec) -> None:
        """Any data will do: the numbers see none."""

    def init(self, key: jax.Array, spec: DataSpec) -> tuple[dict[str, Any], Any]:
        return {"critic": {"c": jnp.array([1.0])}, "generator": {"g": jnp.array([2.0])}}, {"moves": jnp.int32(0)}

    def phases(self) -> tuple[Phase, ...]:
        def critic(params: Any, state: Any, batch: Any, keys: Keys) -> tuple[jax.Array, Aux]:
            value = (params["c"] * state.params["generator"]["g"]).sum()
            return value, Aux({"draw": jax.random.uniform(keys.shared)}, {"moves": state.extra["moves"] + 1})

        def shrink(params: Any, state: Any, batch: Any, keys: Keys) -> tuple[jax.Array, Aux]:
            return jnp.square(params["c"]).sum() / 2, Aux({})

        def generator(params: Any, state: Any, batch: Any, keys: Keys) -> tuple[jax.Array, Aux]:
            return -(params["g"] * state.params["critic"]["c"]).sum(), Aux({})

        return (
            Phase("critic", "critic", critic, repeat=2),
            Phase("shrink", "critic", shrink, every=3),
            Phase("generator", "generator", generator),
        )

    def generate(self, params: dict[str, Any], key: jax.Array, n: int, cond: Any = None) -> jax.Array:
        return jnp.broadcast_to(params["generator"]["g"].reshape(1, 1, 1, 1), (n, 4, 4, 1))


def denoiser_config(**training: Any) -> dict[str, Any]:
    """A complete config of the denoiser."""
    return {
        "seed": 3,
        "data": {"name": "toy_images"},
        "family": {"name": "toy_denoiser"},
        "optimizers": {"network": {"name": "adamw", "learning_rate": 0.01, "clip": 1.0}},
        "ema": {"decay": 0.9},
        "training": {"steps": 6, "batch_size": 8, "log_every": 2, "save_every": 100} | training,
    }


def game_config(**training: Any) -> dict[str, Any]:
    """A complete config of the game."""
    descent = {"name": "sgd", "learning_rate": Game.rate}
    return {
        "seed": 3,
        "data": {"name": "toy_images"},
        "family": {"name": "toy_game"},
        "optimizers": {"critic": descent, "generator": descent},
        "ema": {"decay": {"generator": 0.9}},
        "training": {"steps": 5, "batch_size": 8, "log_every": 2, "save_every": 100} | training,
    }


def at_step(monkeypatch: Any, step: int, action: Callable[[], Any]) -> None:
    """Does something just before the loop dispatches a step."""
    real, count = loop.make_global, 0

    def counting(*args: Any) -> Any:
        nonlocal count
        count += 1
        if count == step:
            action()
        return real(*args)

    monkeypatch.setattr(loop, "make_global", counting)
