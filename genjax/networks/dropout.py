"""Dropout whose masks belong to the examples: a batch that is computed in parts meets those of the whole batch."""

import zlib

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array


class Dropout(nn.Module):
    """Sets entries to zero at random and divides the others by the share that stays (Srivastava et al. 2014, sec. 10).

    An example's mask depends on its key and on the module's path alone; so a module is called once.

    Attributes:
        rate: share of the entries that are set to zero.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Array, keys: Array | None) -> Array:
        """Maps [B, ...] to the same.

        Args:
            x: [B, ...].
            keys: one key an example [B]; None for the identity.
        """
        if keys is None or self.rate == 0.0:
            return x
        place = zlib.crc32("/".join(self.path).encode())
        keep = 1.0 - self.rate

        def mask(key: Array) -> Array:
            return jax.random.bernoulli(jax.random.fold_in(key, place), keep, x.shape[1:])

        return jnp.where(jax.vmap(mask)(keys), x / keep, jnp.zeros_like(x))
