"""MeanFlow: the average velocity of a path, by an identity that one Jacobian-vector product gives."""

import dataclasses
import functools
import operator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from genjax.citation import bibtex
from genjax.config import component, require
from genjax.families.base import Aux, Batch, Extra, Keys, Params, Phase, State, conditions
from genjax.families.denoising import MODEL
from genjax.families.flow_maps import FlowMap
from genjax.families.sampler import null_condition
from genjax.families.time_samplers import LogitNormal, TimeSampler
from genjax.parameterizations import expand
from genjax.registry import register

GENG_2025 = bibtex(
    """
    @inproceedings{geng2025mean,
      title = {Mean Flows for One-step Generative Modeling},
      author = {Geng, Zhengyang and Deng, Mingyang and Bai, Xingjian and Kolter, J. Zico and He, Kaiming},
      booktitle = {Advances in Neural Information Processing Systems},
      year = {2025}
    }
    """
)


@register("family", "meanflow")
@dataclasses.dataclass(frozen=True, kw_only=True)
class MeanFlow(FlowMap):
    """MeanFlow (Geng et al. 2025, algorithms 1 and 2); their r is s here.

    The average velocity fulfils u = v - (t - s) du/dt, with the derivative along the path at fixed s (eq. 6). Training
    regresses on the right side, with the network's own derivative and no gradient through it. The velocity v is the
    pair's, eps - x_0, or a teacher's.

    With `guidance` or `mixing` the velocity is that of classifier-free guidance, built into the model, so that sampling
    evaluates it once a step (eq. 19 and appendix B.1): guidance * v + mixing * u(x_t, t, t | cond) + the rest of
    u(x_t, t, t); the scale is guidance / (1 - mixing). It needs a condition that is dropped at times, and leaves the
    velocity as it is where it is dropped.

    Training measures `mse`, the plain square error of the network's output.

    Attributes beside those of `FlowMap`:
        time_sampler: t and s are the larger and the smaller of two draws.
        unequal: share of the training samples whose s is not t: 0.75 for CIFAR-10, 0.25 for ImageNet in the paper.
        power: the square error's weight is 1 / (error + c)^power, with the error summed over pixels (eq. 22). 0 is the
            plain square error; 0.75 for CIFAR-10, 1 for ImageNet.
        c: see `power`.
        guidance: the paper's omega; 1 without guidance.
        mixing: its kappa.
    """

    time_sampler: TimeSampler = component("time_sampler", LogitNormal(-0.4, 1.0))
    unequal: float = 0.25
    power: float = 1.0
    c: float = 1e-3
    guidance: float = 1.0
    mixing: float = 0.0
    reference: ClassVar[str] = GENG_2025

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0.0 <= self.unequal <= 1.0, f"unequal = {self.unequal}: must be in [0, 1]")
        require(self.power >= 0 and self.c > 0, f"power = {self.power}, c = {self.c}: must be power >= 0 and c > 0")
        require(0.0 <= self.mixing < 1.0, f"mixing = {self.mixing}: must be in [0, 1)")
        require(
            not self._guided or (len(self.condition) > 0 and self.condition_dropout > 0),
            "guidance needs a condition, and condition_dropout > 0, which trains the null condition",
        )

    @property
    def _guided(self) -> bool:
        return self.guidance != 1.0 or self.mixing != 0.0

    def phases(self) -> tuple[Phase, ...]:
        """Returns the one phase, which trains the role "model"."""
        return (Phase("train", MODEL, self._loss),)

    def evaluate(self, params: dict[str, Params], batch: Batch, key: Array) -> dict[str, Array]:
        """Returns the square error of each example's own target, without dropout and adaptive weight, as `mse` [B]."""
        keys, cond = Keys.of(key, len(batch["image"])), conditions(batch, self.condition)
        return {"mse": self._errors(params[MODEL], params, batch, keys, cond, cond)}

    def _loss(self, params: Params, state: State, batch: Batch, keys: Keys) -> tuple[Array, Aux]:
        keys_condition, keys_dropout, keys_loss = keys.split(3)
        full = conditions(batch, self.condition)
        cond = self._partly_dropped(keys_condition, full)
        mse = self._errors(params, state.extra, batch, keys_loss, full, cond, keys_dropout.each)
        error = mse * batch["image"][0].size
        weight = jax.lax.stop_gradient((error + self.c) ** -self.power)
        return (weight * error).mean(), Aux({"mse": mse.mean()})

    def _errors(
        self,
        params: Params,
        frozen: Extra,
        batch: Batch,
        keys: Keys,
        full: Any,
        cond: Any,
        dropout: Array | None = None,
    ) -> Array:
        """The square error [B], averaged over pixels; `cond` is the full condition but for those that are dropped."""
        keys_t, keys_s, keys_unequal, keys_eps = keys.split(4)
        one, other = self.time_sampler(keys_t, self.process), self.time_sampler(keys_s, self.process)
        t, s = self._times(jnp.maximum(one, other)), jnp.minimum(one, other)
        unequal = jax.vmap(lambda key: jax.random.bernoulli(key, self.unequal))(keys_unequal.each)
        s = jnp.where(unequal, s, t)
        x_0, eps = self._pairs(keys_eps, batch)
        x_t = expand(1.0 - t, x_0) * x_0 + expand(t, x_0) * eps
        v = self._tangent(frozen, x_t, t, cond, x_0, eps)
        if self._guided:
            v = jnp.where(expand(_dropped(cond, full), v), v, self._guide(params, v, x_t, t, full))
        u, target = self.output_and_target(params, x_t, t, s, v, cond, dropout)
        return jnp.mean((u - target) ** 2, axis=(1, 2, 3))

    def output_and_target(
        self, params: Params, x_t: Array, t: Array, s: Array, v: Array, cond: Any = None, dropout: Array | None = None
    ) -> tuple[Array, Array]:
        """Returns u(x_t, t, s) and what it should be, v - (t - s) du/dt, without gradient (eq. 9 and 10).

        Args:
            params: of the network.
            x_t: [B, ...].
            t: [B].
            s: [B], at most t.
            v: the velocity at x_t [B, ...].
            cond: the condition.
            dropout: one key an example, or None.
        """
        u, d_u = jax.jvp(
            lambda x_t, t: self.velocity(params, x_t, t, s, cond, dropout), (x_t, t), (v, jnp.ones_like(t))
        )
        return u, jax.lax.stop_gradient(v - expand(t - s, v) * d_u)

    def _guide(self, params: Params, v: Array, x_t: Array, t: Array, cond: Any) -> Array:
        """The velocity of classifier-free guidance, by the network's own instantaneous ones (eq. 19)."""
        params = jax.lax.stop_gradient(params)
        free = self.velocity(params, x_t, t, t, null_condition(cond))
        guided = self.guidance * v + (1.0 - self.guidance - self.mixing) * free
        return guided + self.mixing * self.velocity(params, x_t, t, t, cond) if self.mixing else guided


def _dropped(cond: Any, full: Any) -> Array:
    """Which examples' condition is another than it was [B]."""
    changed = jax.tree.map(lambda one, other: (one != other).reshape(len(one), -1).any(1), cond, full)
    return functools.reduce(operator.or_, jax.tree.leaves(changed))
