"""The exponential moving average of weights."""

import dataclasses
from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
from jax import Array

from genjax.config import nearest, require
from genjax.families.base import Params


@dataclasses.dataclass(frozen=True)
class EMA:
    """Averages the weights of the trained roles: `ema += (1 - d) (params - ema)`, once a step, in float32.

    With warm-up the decay of the update after which `n + 1` steps are done is `d = min(decay, (1 + n) / (10 + n))`, the
    rule of TensorFlow's `ExponentialMovingAverage(num_updates=n)`: the initial weights, which know nothing, are
    forgotten within tens of steps however close to 1 the decay is.

    Attributes:
        decay: one number for every trained role, or a mapping from roles to numbers; a role that the mapping lacks
            has no average. 0 is a copy of the weights.
        warmup: whether the decay starts low.
    """

    decay: float | Mapping[str, float] = 0.9999
    warmup: bool = True

    def __post_init__(self) -> None:
        for role, decay in self._decays([""]).items():
            name = f"decay.{role}" if role else "decay"
            require(isinstance(decay, int | float) and 0 <= decay < 1, f"{name} = {decay!r}: must be in [0, 1)")

    def check(self, roles: tuple[str, ...]) -> None:
        """Raises ValueError where a decay is given for a role that is not trained."""
        for role in self._decays(roles):
            require(role in roles, f"decay: the family trains no {role!r}{nearest(role, roles)}")

    def init(self, params: dict[str, Params]) -> dict[str, Params]:
        """Returns the averages before the first step: float32 copies of the weights of the roles that have one."""
        averaged = {role: tree for role, tree in params.items() if role in self._decays(params)}
        return jax.tree.map(lambda p: jnp.array(p, jnp.float32, copy=True), averaged)

    def update(self, ema: dict[str, Params], params: dict[str, Params], step: Array) -> dict[str, Params]:
        """Returns the averages after a step.

        Args:
            ema: the averages before it.
            params: the weights after it.
            step: the number of steps done before it, int32 [].
        """

        def role(average: Params, tree: Params, decay: float) -> Params:
            n = step.astype(jnp.float32)
            d = jnp.minimum(decay, (1 + n) / (10 + n)) if self.warmup else jnp.float32(decay)
            return jax.tree.map(lambda e, p: e + (1 - d) * (p.astype(jnp.float32) - e), average, tree)

        return {name: role(average, params[name], self._decays(ema)[name]) for name, average in ema.items()}

    def _decays(self, roles: Iterable[str]) -> Mapping[str, float]:
        return self.decay if isinstance(self.decay, Mapping) else dict.fromkeys(roles, self.decay)
