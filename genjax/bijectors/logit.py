"""The logit of bounded data."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from genjax.bijectors.base import Bijector, Condition, Params, Shape, sum_example
from genjax.bijectors.coupling import DINH_2017
from genjax.config import require
from genjax.registry import register


@register("bijector", "logit")
@dataclasses.dataclass(frozen=True)
class Logit(Bijector):
    """z = logit(alpha + (1 - 2 alpha) (x + 1) / 2), which takes the edges of [-1, 1] away.

    As Dinh et al. 2017, section 4.1, whose factor 1 - alpha moves the lower edge alone.

    Attributes:
        alpha: how far the edges stay from 0 and 1, where the logit is infinite.
    """

    alpha: float = 0.05
    reference: ClassVar[str] = DINH_2017

    def __post_init__(self) -> None:
        require(0 < self.alpha < 0.5, f"alpha = {self.alpha}: must be above 0 and below 0.5")

    def init(self, key: Array, shape: Shape, cond: Condition = None) -> Params:
        """Returns no parameters."""
        return {}

    def forward(self, params: Params, x: Array, cond: Condition = None) -> tuple[Array, Array]:
        """Maps [B, ...] in [-1, 1] to the reals, with log|det dz/dx| [B]."""
        half = 0.5 - self.alpha
        z = jnp.log(self.alpha + half * (1.0 + x)) - jnp.log(self.alpha + half * (1.0 - x))
        return z, self._log_det(z)

    def inverse(self, params: Params, z: Array, cond: Condition = None) -> tuple[Array, Array]:
        """Maps the reals [B, ...] to what is hardly beyond [-1, 1], with log|det dx/dz| [B]."""
        # tanh(z / 2) = 2 sigmoid(z) - 1, and 1 - 2 alpha is the range of that.
        return jnp.tanh(0.5 * z) / (1.0 - 2.0 * self.alpha), -self._log_det(z)

    def _log_det(self, z: Array) -> Array:
        # The derivative of the logit at u is 1 / (u (1 - u)), and u = sigmoid(z).
        return sum_example(jax.nn.softplus(z) + jax.nn.softplus(-z) + math.log(0.5 - self.alpha))
