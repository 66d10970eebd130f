"""What happens to a batch on the device: pure JAX, inside the jitted step."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array


def preprocess(batch: Mapping[str, Array], key: Array, flip: bool) -> dict[str, Array]:
    """Turns a uint8 batch into what models train on.

    Args:
        batch: `image` uint8 [B, H, W, C], and `label` int32 [B] where the data have labels.
        key: random key of the step; sample i uses `fold_in(key, i)`, so its flip does not depend on the batch size.
        flip: whether each image is mirrored left to right with probability 1/2. Static.

    Returns:
        The batch with `image` float32 in [-1, 1], x / 127.5 - 1; the rest is unchanged.
    """
    images = batch["image"].astype(jnp.float32) / 127.5 - 1.0
    if flip:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(images.shape[0]))
        mirrored = jax.vmap(jax.random.bernoulli)(keys)
        images = jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
    return {**batch, "image": images}


def to_uint8(images: Array) -> Array:
    """Turns images in [-1, 1] into uint8 pixels: clipped, then rounded to the nearest; `preprocess` inverted."""
    return jnp.round((jnp.clip(images, -1.0, 1.0) + 1.0) * 127.5).astype(jnp.uint8)
