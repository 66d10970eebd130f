"""Bijectors one after another: different ones, and many of one kind."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from genjax.bijectors.base import Bijector, Condition, Params, Shape, output_shape
from genjax.config import component, components, require
from genjax.registry import register


@register("bijector", "chain")
@dataclasses.dataclass(frozen=True)
class Chain(Bijector):
    """Bijectors one after another, the first next to the data.

    Attributes:
        layers: the bijectors.
    """

    layers: tuple[Bijector, ...] = components("bijector")

    def __post_init__(self) -> None:
        require(len(self.layers) >= 1, "layers = (): must be one bijector at least")

    def init(self, key: Array, shape: Shape, cond: Condition = None) -> Params:
        """Returns the parameters by layer: "layer_0", "layer_1", ..., without those that have none."""
        params: dict[str, Any] = {}
        for i, layer in enumerate(self.layers):
            of_layer = layer.init(jax.random.fold_in(key, i), shape, cond)
            params |= {f"layer_{i}": of_layer} if of_layer else {}
            shape = output_shape(layer, of_layer, shape, cond)
        return params

    def forward(self, params: Params, x: Array, cond: Condition = None) -> tuple[Array, Array]:
        """Maps data [B, ...] to noise, with log|det dz/dx| [B]."""
        total = jnp.zeros(len(x), x.dtype)
        for i, layer in enumerate(self.layers):
            x, log_det = layer.forward(_of_layer(params, i), x, cond)
            total += log_det
        return x, total

    def inverse(self, params: Params, z: Array, cond: Condition = None) -> tuple[Array, Array]:
        """Maps noise [B, ...] to data, with log|det dx/dz| [B]."""
        total = jnp.zeros(len(z), z.dtype)
        for i, layer in reversed(list(enumerate(self.layers))):
            z, log_det = layer.inverse(_of_layer(params, i), z, cond)
            total += log_det
        return z, total

    def from_data(self, params: Params, x: Array, cond: Condition = None) -> tuple[Params, Array]:
        """Lets each layer see what those before it make of the batch."""
        params = dict(params)
        for i, layer in enumerate(self.layers):
            of_layer, x = layer.from_data(_of_layer(params, i), x, cond)
            params |= {f"layer_{i}": of_layer} if of_layer else {}
        return params, x


def _of_layer(params: Params, i: int) -> Params:
    return params.get(f"layer_{i}", {})


@register("bijector", "repeat")
@dataclasses.dataclass(frozen=True)
class Repeat(Bijector):
    """One bijector many times over, each time with parameters of its own.

    It runs under `lax.scan` over the stacked parameters, so that compiling takes as long for a hundred as for one.

    Attributes:
        layer: the bijector; what it returns has the shape of what it takes.
        times: how often.
    """

    layer: Bijector = component("bijector")
    times: int = 1

    def __post_init__(self) -> None:
        require(self.times >= 1, f"times = {self.times}: must be at least 1")

    def init(self, key: Array, shape: Shape, cond: Condition = None) -> Params:
        """Returns the parameters of the layer, with a leading axis of `times`.

        Raises:
            ValueError: the layer changes the shape.
        """
        params = jax.vmap(lambda key: self.layer.init(key, shape, cond))(jax.random.split(key, self.times))
        after = output_shape(self.layer, jax.tree.map(lambda p: p[0], params), shape, cond)
        require(tuple(after) == tuple(shape), f"repeat: the layer makes {after} of {shape}, so it cannot be repeated")
        return params

    def forward(self, params: Params, x: Array, cond: Condition = None) -> tuple[Array, Array]:
        """Maps data [B, ...] to noise, with log|det dz/dx| [B]."""

        def one(state: tuple[Array, Array], params: Params) -> tuple[tuple[Array, Array], None]:
            x, log_det = self.layer.forward(params, state[0], cond)
            return (x, state[1] + log_det), None

        return jax.lax.scan(one, (x, jnp.zeros(len(x), x.dtype)), params, length=self.times)[0]

    def inverse(self, params: Params, z: Array, cond: Condition = None) -> tuple[Array, Array]:
        """Maps noise [B, ...] to data, with log|det dx/dz| [B]."""

        def one(state: tuple[Array, Array], params: Params) -> tuple[tuple[Array, Array], None]:
            z, log_det = self.layer.inverse(params, state[0], cond)
            return (z, state[1] + log_det), None

        start = (z, jnp.zeros(len(z), z.dtype))
        return jax.lax.scan(one, start, params, length=self.times, reverse=True)[0]

    def from_data(self, params: Params, x: Array, cond: Condition = None) -> tuple[Params, Array]:
        """Lets each layer see what those before it make of the batch."""

        def one(x: Array, params: Params) -> tuple[Array, Params]:
            params, x = self.layer.from_data(params, x, cond)
            return x, params

        x, params = jax.lax.scan(one, x, params, length=self.times)
        return params, x
