"""Activation normalization."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from genjax.bijectors.base import FIXED, Bijector, Condition, Params, Shape, constant
from genjax.citation import bibtex
from genjax.registry import register

KINGMA_2018 = bibtex("""
@inproceedings{kingma2018glow,
  title = {Glow: Generative Flow with Invertible 1x1 Convolutions},
  author = {Kingma, Diederik P. and Dhariwal, Prafulla},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2018}
}""")

_LEAST = 1e-6  # standard deviation of a channel that does not vary


@register("bijector", "actnorm")
@dataclasses.dataclass(frozen=True)
class ActNorm(Bijector):
    """Scale and shift of each channel, such that a first batch has mean 0 and variance 1 (Kingma & Dhariwal 2018).

    Section 3.1. What the first batch says is kept apart from what is trained, which starts at 0:
    z = (x - mean + shift) exp(log_scale) / std. That is Glow's layer in every gradient, and `from_data` need not write
    into what an optimizer owns and what averages are taken of.
    """

    reference: ClassVar[str] = KINGMA_2018

    def init(self, key: Array, shape: Shape, cond: Condition = None) -> Params:
        """Returns the identity; channels are the last axis."""
        zeros = jnp.zeros(shape[-1:])
        return {"shift": zeros, "log_scale": zeros, FIXED: {"mean": zeros, "log_std": zeros}}

    def forward(self, params: Params, x: Array, cond: Condition = None) -> tuple[Array, Array]:
        """Maps [B, ..., C] to the same, with log|det dz/dx| [B]."""
        shift, log_scale = _whole(params, x)
        return (x + shift) * jnp.exp(log_scale), _log_det(log_scale, x)

    def inverse(self, params: Params, z: Array, cond: Condition = None) -> tuple[Array, Array]:
        """Maps [B, ..., C] to the same, with log|det dx/dz| [B]."""
        shift, log_scale = _whole(params, z)
        return z * jnp.exp(-log_scale) - shift, -_log_det(log_scale, z)

    def from_data(self, params: Params, x: Array, cond: Condition = None) -> tuple[Params, Array]:
        """Takes mean and standard deviation of each channel from a batch [B, ..., C]."""
        axes = tuple(range(x.ndim - 1))
        statistics = {"mean": x.mean(axes), "log_std": jnp.log(jnp.maximum(x.std(axes), _LEAST))}
        params = {**params, FIXED: statistics}
        return params, self.forward(params, x)[0]


def _whole(params: Params, x: Array) -> tuple[Array, Array]:
    """Returns shift and log-scale, trained and fixed together, each with as many axes as x."""
    fixed = jax.lax.stop_gradient(params[FIXED])
    axes = (None,) * (x.ndim - 1)
    return (params["shift"] - fixed["mean"])[axes], (params["log_scale"] - fixed["log_std"])[axes]


def _log_det(log_scale: Array, x: Array) -> Array:
    return constant(log_scale.sum() * int(np.prod(x.shape[1:-1])), x)
