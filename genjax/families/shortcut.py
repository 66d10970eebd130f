"""Shortcut models: steps of any length, the long ones learned from two of half their length."""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from genjax.citation import bibtex
from genjax.config import component, require
from genjax.families.base import Aux, Batch, Extra, Keys, Params, Phase, State, conditions
from genjax.families.denoising import MODEL
from genjax.families.flow_maps import FlowMap
from genjax.families.time_samplers import TimeSampler, UniformTimes
from genjax.parameterizations import expand
from genjax.registry import register

FRANS_2025 = bibtex(
    """
    @inproceedings{frans2025one,
      title = {One Step Diffusion via Shortcut Models},
      author = {Frans, Kevin and Hafner, Danijar and Levine, Sergey and Abbeel, Pieter},
      booktitle = {International Conference on Learning Representations},
      year = {2025}
    }
    """
)


@register("family", "shortcut")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Shortcut(FlowMap):
    """Shortcut models (Frans et al. 2025, algorithm 1). Their time goes from noise to data; here t = 0 is data.

    Most of a batch learns the velocity, at step length 0. The first `bootstrapped` of it learns that a step of length
    2d does what two steps of d do, one after the other (eq. 5), which the averaged weights take. Lengths are
    1, 1/2, 1/4, ..., 2 / finest, and times are their multiples. Of the finest, whose halves would be 1 / finest, the
    halves are taken with the velocity, as in the paper. It samples well with 1, 2, 4, ..., finest steps.

    Which examples are bootstrapped depends on their place in the batch, so that the network is evaluated for the
    targets of those alone. With a batch computed in n parts it is the same share of each part; a share that n does not
    divide is rounded in each.

    Training measures the plain square errors `velocity_mse` and `consistency_mse`.

    Attributes beside those of `FlowMap`:
        time_sampler: times at which the velocity is learned.
        bootstrapped: share of the batch; 1/4 in the paper.
        finest: steps of the finest grid, a power of 2.
        averaged: whether the targets are those of the averaged weights.
    """

    time_sampler: TimeSampler = component("time_sampler", UniformTimes())
    bootstrapped: float = 0.25
    finest: int = 128
    averaged: bool = True
    reference: ClassVar[str] = FRANS_2025

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0.0 <= self.bootstrapped <= 1.0, f"bootstrapped = {self.bootstrapped}: must be in [0, 1]")
        require(
            self.finest >= 2 and self.finest & (self.finest - 1) == 0,
            f"finest = {self.finest}: must be a power of 2, at least 2",
        )

    def phases(self) -> tuple[Phase, ...]:
        """Returns the one phase, which trains the role "model"."""
        return (Phase("train", MODEL, self._loss),)

    def evaluate(self, params: dict[str, Params], batch: Batch, key: Array) -> dict[str, Array]:
        """Returns the square error of each example's own target, without dropout, as `loss` [B]."""
        keys, cond = Keys.of(key, len(batch["image"])), conditions(batch, self.condition)
        return {"loss": self._errors(params[MODEL], params[MODEL], params, batch, keys, cond)}

    def velocity(
        self, params: Params, x_t: Array, t: Array, s: Array, cond: Any = None, dropout: Array | None = None
    ) -> Array:
        """Returns the average velocity [B, ...] of steps from t to s [B]; short of all lengths it is the velocity."""
        s = jnp.where(t - s < 1.5 / self.finest, t, s)
        return super().velocity(params, x_t, t, s, cond, dropout)

    def two_steps(self, params: Params, x_t: Array, t: Array, step: Array, cond: Any = None) -> Array:
        """Returns the average velocity of two steps of half a length (eq. 5).

        Args:
            params: of the network.
            x_t: [B, ...].
            t: [B].
            step: the whole length [B], at most t.
            cond: the condition.
        """
        half = 0.5 * step
        first = self.velocity(params, x_t, t, t - half, cond)
        second = self.velocity(params, x_t - expand(half, x_t) * first, t - half, t - step, cond)
        return 0.5 * (first + second)

    def _loss(self, params: Params, state: State, batch: Batch, keys: Keys) -> tuple[Array, Aux]:
        keys_condition, keys_dropout, keys_loss = keys.split(3)
        cond = self._partly_dropped(keys_condition, conditions(batch, self.condition))
        averaged = state.ema[MODEL] if self.averaged else params
        errors = self._errors(params, averaged, state.extra, batch, keys_loss, cond, keys_dropout.each)
        n = self._count(batch)
        means = {"consistency_mse": errors[:n], "velocity_mse": errors[n:]}
        return errors.mean(), Aux({name: part.mean() for name, part in means.items() if len(part)})

    def _count(self, batch: Batch) -> int:
        return round(self.bootstrapped * len(batch["image"]))

    def _errors(
        self,
        params: Params,
        averaged: Params,
        frozen: Extra,
        batch: Batch,
        keys: Keys,
        cond: Any,
        dropout: Array | None = None,
    ) -> Array:
        """The square error [B], averaged over pixels, first of the bootstrapped examples."""
        n = self._count(batch)
        keys_t, keys_grid, keys_eps = keys.split(3)
        start, step = jax.vmap(self._grid_step)(keys_grid.each)
        here = jnp.arange(len(start)) < n
        t = jnp.where(here, start, self._times(self.time_sampler(keys_t, self.process)))
        step = jnp.where(here, step, 0.0)
        x_0, eps = self._pairs(keys_eps, batch)
        x_t = expand(1.0 - t, x_0) * x_0 + expand(t, x_0) * eps

        first, rest = (jax.tree.map(lambda a, of=of: a[of], cond) for of in (slice(n), slice(n, None)))
        long = self.two_steps(averaged, x_t[:n], t[:n], step[:n], first)
        short = self._tangent(frozen, x_t[n:], t[n:], rest, x_0[n:], eps[n:])
        target = jax.lax.stop_gradient(jnp.concatenate([long, short]))
        output = self.velocity(params, x_t, t, t - step, cond, dropout)
        return jnp.mean((output - target) ** 2, axis=(1, 2, 3))

    def _grid_step(self, key: Array) -> tuple[Array, Array]:
        """Draws a length, and a time that is a multiple of it."""
        key_length, key_time = jax.random.split(key)
        parts = 2 ** jax.random.randint(key_length, (), 0, round(math.log2(self.finest)))
        step = 1.0 / parts.astype(jnp.float32)
        return jax.random.randint(key_time, (), 1, parts + 1).astype(jnp.float32) * step, step
