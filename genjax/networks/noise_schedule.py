"""Learnt noise schedules: networks of one number that rise.

A module of kind "noise_schedule" is hashable, has its parameters in float32, and fulfils `NoiseSchedule`.
"""

from typing import Any, Protocol

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from genjax.config import require
from genjax.registry import register


class NoiseSchedule(Protocol):
    """The contract of the shape of a noise schedule.

    `init(key, t)["params"]` gives the parameters, and `apply({"params": params}, t)` numbers [B] float32 that rise
    strictly with t [B] in [0, 1] and have a derivative. Scale and offset mean nothing: the family gives them.
    """

    def init(self, rngs: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns `{"params": ...}`."""
        ...

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns numbers [B] float32."""
        ...


@register("noise_schedule", "monotone", reference="kingma2021variational")
class MonotoneSchedule(nn.Module):
    """l1(t) + l3(sigmoid(l2(l1(t)))) with linear layers of positive weights (Kingma et al. 2021, appendix H).

    It begins close to a straight line, which as log-SNR is the paper's fixed schedule.

    Attributes:
        features: outputs of l2; 1024 in the paper.
    """

    features: int = 1024

    def __post_init__(self) -> None:
        """Checks the fields."""
        require(self.features >= 1, f"features = {self.features}: must be at least 1")
        super().__post_init__()

    @nn.compact
    def __call__(self, t: Array) -> Array:
        """Maps times [B] in [0, 1] to numbers [B] float32 that rise with them."""
        line = PositiveDense(1, nn.initializers.ones, name="l1")(t[:, None])
        small = nn.initializers.normal(0.01)
        bent = nn.sigmoid(PositiveDense(self.features, small, name="l2")(2.0 * line - 1.0))
        return (line + PositiveDense(1, small, name="l3")(2.0 * bent - 1.0) / self.features)[:, 0]


class PositiveDense(nn.Module):
    """A linear layer whose weights are taken without their signs.

    Attributes:
        features: outputs.
        kernel_init: of the weights.
    """

    features: int
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, n] to [B, features] float32."""
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return x @ jnp.abs(kernel) + bias[None]
