"""Networks that are functions, for families whose network may be any."""

import dataclasses

import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Function:
    """A network that is a function of (params, x, noise label, cond)."""

    function: object

    def check(self, image_shape):
        pass

    def init(self, key, x, label, cond):
        return {"params": {"w": jnp.ones(())}}

    def apply(self, variables, x, label, cond, dropout=None):
        return self.function(variables["params"]["w"], x, label, cond)
