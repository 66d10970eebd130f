"""How large an error is at which noise level."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array

from genjax.families.base import Mean

# Of sigma / alpha, the noise on an image in units of the image: half a power of ten each, so equal steps of log-SNR.
EDGES = (0.1, 0.3, 1.0, 3.0)


def by_noise_level(error: Array, log_snr: Array, edges: Sequence[float] = EDGES) -> dict[str, Mean]:
    """Returns the mean error within each range of sigma / alpha, which means the same for every process.

    Args:
        error: [B].
        log_snr: log(alpha^2 / sigma^2) [B]; may be infinite.
        edges: where the ranges meet, of sigma / alpha, rising.

    Returns:
        Means by range, such as "0.1-0.3", the first from "0" and the last to "inf". Their totals add up to that of
        `error`.
    """
    bounds = jnp.asarray(-2.0 * np.log(edges), jnp.float32)
    place = (log_snr[:, None] <= bounds[None]).sum(1)
    ends = [f"{edge:g}" for edge in (0.0, *edges, np.inf)]
    means = {}
    for index, name in enumerate(map("-".join, zip(ends[:-1], ends[1:], strict=True))):
        here = place == index
        means[name] = Mean(jnp.where(here, error, 0.0).sum(), here.sum().astype(jnp.float32))
    return means
