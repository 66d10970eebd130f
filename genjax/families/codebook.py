"""A codebook of vectors that follows the vectors it stands for, by moving averages (van den Oord et al. 2017, A.1).

A codebook is a dict: `codes` [K, D], the moving `counts` [K] of vectors a batch that are nearest to each code, and
their moving `sums` [K, D].
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

Codebook = dict[str, Array]

# On GPUs and TPUs products of float32 are rounded to some ten bits unless one says so.
_EXACT: Any = jax.lax.Precision.HIGHEST


def init(key: Array, size: int, dims: int) -> Codebook:
    """Returns a codebook with codes from U(-1/K, 1/K), K = size, each of which counts for one vector."""
    codes = jax.random.uniform(key, (size, dims), minval=-1.0 / size, maxval=1.0 / size)
    return {"codes": codes, "counts": jnp.ones((size,)), "sums": jnp.array(codes, copy=True)}


def nearest(codes: Array, vectors: Array) -> Array:
    """Returns the number of the code [K, D] that is nearest to each vector [..., D], int32 [...]."""
    products = jnp.einsum("...d,kd->...k", vectors, codes, precision=_EXACT)
    norms = (codes**2).sum(-1)
    return jnp.argmin(norms.reshape(*[1] * (products.ndim - 1), -1) - 2.0 * products, axis=-1).astype(jnp.int32)


def update(
    codebook: Codebook, vectors: Array, chosen: Array, key: Array, *, decay: float, epsilon: float, dead_below: float
) -> Codebook:
    """Returns the codebook after a batch: one step of k-means on moving averages, then new codes for dead ones.

    `counts = decay counts + (1 - decay) n`, the same of the sums, and codes are sums over counts (van den Oord et al.
    2017, eq. 6 to 8), the counts with Laplace smoothing: `(counts + epsilon) / (total + K epsilon) total`.

    Args:
        codebook: the codebook.
        vectors: [N, D].
        chosen: the code nearest to each, [N].
        key: draws the vectors that take the place of dead codes, without repetition where there are enough.
        decay: of the moving averages.
        epsilon: of the smoothing.
        dead_below: a code whose moving count is below it is dead: it becomes one of the vectors, and counts for one, as
            at the start. 0 leaves all as they are.
    """
    size = len(codebook["codes"])
    members = jax.nn.one_hot(chosen, size)
    counts = decay * codebook["counts"] + (1.0 - decay) * members.sum(0)
    sums = decay * codebook["sums"] + (1.0 - decay) * jnp.einsum("nk,nd->kd", members, vectors, precision=_EXACT)
    total = counts.sum()
    smoothed = (counts + epsilon) / (total + size * epsilon) * total
    codes = sums / smoothed[:, None]

    drawn = jax.random.choice(key, len(vectors), (size,), replace=len(vectors) < size)
    fresh, dead = vectors[drawn], counts < dead_below
    return {
        "codes": jnp.where(dead[:, None], fresh, codes),
        "counts": jnp.where(dead, 1.0, counts),
        "sums": jnp.where(dead[:, None], fresh, sums),
    }


def usage(chosen: Array, size: int) -> tuple[Array, Array]:
    """Returns how evenly codes are used: the perplexity of their frequencies, and the share of them used, both [].

    Args:
        chosen: codes of a batch, [...].
        size: of the codebook.
    """
    share = jnp.zeros((size,)).at[chosen.reshape(-1)].add(1.0) / chosen.size
    return jnp.exp(jax.scipy.special.entr(share).sum()), (share > 0).mean()
