"""Squeezing pixels into channels, and the multi-scale architecture."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from genjax.bijectors.base import Bijector, Condition, Params, Shape
from genjax.bijectors.coupling import DINH_2017
from genjax.config import component, require
from genjax.registry import register


@register("bijector", "squeeze")
@dataclasses.dataclass(frozen=True)
class Squeeze(Bijector):
    """Turns squares of 2x2 pixels into one pixel of four times the channels (Dinh et al. 2017, section 3.6)."""

    reference: ClassVar[str] = DINH_2017

    def init(self, key: Array, shape: Shape, cond: Condition = None) -> Params:
        """Returns no parameters.

        Raises:
            ValueError: it is no image with an even height and width.
        """
        fits = len(shape) == 3 and shape[0] % 2 == 0 and shape[1] % 2 == 0
        require(fits, f"squeeze: takes images of even height and width, not {shape}")
        return {}

    def forward(self, params: Params, x: Array, cond: Condition = None) -> tuple[Array, Array]:
        """Maps [B, H, W, C] to [B, H/2, W/2, 4 C]; the channels of the upper row of pixels come first."""
        batch, height, width, channels = x.shape
        x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 2, 4, 5)
        return x.reshape(batch, height // 2, width // 2, 4 * channels), jnp.zeros(batch, x.dtype)

    def inverse(self, params: Params, z: Array, cond: Condition = None) -> tuple[Array, Array]:
        """Maps [B, H, W, 4 C] to [B, 2 H, 2 W, C]."""
        batch, height, width, channels = z.shape
        z = z.reshape(batch, height, width, 2, 2, channels // 4).transpose(0, 1, 3, 2, 4, 5)
        return z.reshape(batch, 2 * height, 2 * width, channels // 4), jnp.zeros(batch, z.dtype)


_SQUEEZE = Squeeze()


@register("bijector", "multi_scale")
@dataclasses.dataclass(frozen=True)
class MultiScale(Bijector):
    """The multi-scale architecture: at each level, squeeze, transform, and let half of the channels leave.

    Dinh et al. 2017, section 3.6; Kingma & Dhariwal 2018, figure 2b. What leaves goes back to the pixels that it came
    from, so noise has the shape of the data, and all of it is standard normal: the prior that Glow learns for what
    leaves, a normal distribution given what stays, is an affine coupling as `factor`.

    Attributes:
        layer: the transformation of each level, after the squeeze.
        levels: how many levels; half of the channels leave after each but the last.
        before: a transformation of each level before the squeeze, or None.
        factor: applied at each level but the last before the later half of the channels leaves, or None.
    """

    layer: Bijector = component("bijector")
    levels: int = 2
    before: Any = component("bijector", None)
    factor: Any = component("bijector", None)
    reference: ClassVar[str] = DINH_2017

    def __post_init__(self) -> None:
        require(self.levels >= 1, f"levels = {self.levels}: must be at least 1")

    def _parts(self, level: int) -> dict[str, Bijector]:
        """The bijectors of a level, in order."""
        parts = {"before": self.before, "squeeze": _SQUEEZE, "layer": self.layer}
        parts |= {"factor": self.factor} if level < self.levels - 1 else {}
        return {name: part for name, part in parts.items() if part is not None}

    def init(self, key: Array, shape: Shape, cond: Condition = None) -> Params:
        """Returns the parameters by level and part.

        Raises:
            ValueError: height or width cannot be halved as often as there are levels.
        """
        wanted = 2**self.levels
        require(
            len(shape) == 3 and shape[0] % wanted == 0 and shape[1] % wanted == 0,
            f"levels = {self.levels}: takes images whose height and width {wanted} divides, not {shape}",
        )
        params: dict[str, Any] = {}
        for level in range(self.levels):
            of_level = {}
            for i, (name, part) in enumerate(self._parts(level).items()):
                of_level[name] = part.init(jax.random.fold_in(jax.random.fold_in(key, level), i), shape, cond)
                shape = (shape[0] // 2, shape[1] // 2, 4 * shape[2]) if name == "squeeze" else shape
            params[f"level_{level}"] = {name: tree for name, tree in of_level.items() if tree}
            shape = (*shape[:2], shape[2] // 2)
        return params

    def forward(self, params: Params, x: Array, cond: Condition = None) -> tuple[Array, Array]:
        """Maps data [B, H, W, C] to noise of the same shape, with log|det dz/dx| [B]."""
        left, total = [], jnp.zeros(len(x), x.dtype)
        for level in range(self.levels):
            for name, part in self._parts(level).items():
                x, log_det = part.forward(params[f"level_{level}"].get(name, {}), x, cond)
                total += log_det
            if level < self.levels - 1:
                x, leaves = jnp.split(x, 2, axis=-1)
                left.append(leaves)
        return _rise(x, left), total

    def inverse(self, params: Params, z: Array, cond: Condition = None) -> tuple[Array, Array]:
        """Maps noise [B, H, W, C] to data of the same shape, with log|det dx/dz| [B]."""
        x, left = _sink(z, self.levels)
        total = jnp.zeros(len(z), z.dtype)
        for level in reversed(range(self.levels)):
            x = jnp.concatenate([x, left.pop()], -1) if level < self.levels - 1 else x
            for name, part in reversed(self._parts(level).items()):
                x, log_det = part.inverse(params[f"level_{level}"].get(name, {}), x, cond)
                total += log_det
        return x, total

    def from_data(self, params: Params, x: Array, cond: Condition = None) -> tuple[Params, Array]:
        """Lets each part see what those before it make of the batch."""
        params, left = dict(params), []
        for level in range(self.levels):
            of_level = dict(params[f"level_{level}"])
            for name, part in self._parts(level).items():
                tree, x = part.from_data(of_level.get(name, {}), x, cond)
                of_level |= {name: tree} if tree else {}
            params[f"level_{level}"] = of_level
            if level < self.levels - 1:
                x, leaves = jnp.split(x, 2, axis=-1)
                left.append(leaves)
        return params, _rise(x, left)


def _rise(x: Array, left: list[Array]) -> Array:
    """Puts what stayed to the end and what left on the way back into one image."""
    x = _SQUEEZE.inverse({}, x)[0]
    for leaves in reversed(left):
        x = _SQUEEZE.inverse({}, jnp.concatenate([x, leaves], -1))[0]
    return x


def _sink(z: Array, levels: int) -> tuple[Array, list[Array]]:
    """The inverse of `_rise`."""
    left = []
    for _ in range(levels - 1):
        z, leaves = jnp.split(_SQUEEZE.forward({}, z)[0], 2, axis=-1)
        left.append(leaves)
    return _SQUEEZE.forward({}, z)[0], left
