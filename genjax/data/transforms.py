"""What happens to a batch on the device: pure JAX, inside the jitted step."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array


def preprocess(batch: Mapping[str, Array], key: Array, flip: bool) -> dict[str, Array]:
    """Turns a batch of the loader into what models train on.

    Args:
        batch: images uint8 [B, H, W, C], such as `image`, and what else there is, such as `label` int32 [B].
        key: random key of the step; every sample has one of its own, so its flip does not depend on the batch size.
        flip: whether each image is mirrored left to right with probability 1/2. Static.

    Returns:
        The batch with its uint8 images as float32 in [-1, 1], x / 127.5 - 1; the rest is unchanged.
    """
    images = {name: array for name, array in batch.items() if array.dtype == jnp.uint8}
    return {
        **batch,
        **{name: _prepared(images[name], jax.random.fold_in(key, i), flip) for i, name in enumerate(sorted(images))},
    }


def _prepared(images: Array, key: Array, flip: bool) -> Array:
    images = images.astype(jnp.float32) / 127.5 - 1.0
    if flip:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(images.shape[0]))
        mirrored = jax.vmap(jax.random.bernoulli)(keys)
        images = jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
    return images


def to_data(images: Array, levels: int | None) -> Array:
    """Turns what a model generates into what the data are: uint8 pixels, or float32 where the data have no levels."""
    return to_uint8(images) if levels is not None else images.astype(jnp.float32)


def to_uint8(images: Array) -> Array:
    """Turns images in [-1, 1] into uint8 pixels: clipped, then rounded to the nearest; `preprocess` inverted."""
    return jnp.round((jnp.clip(images, -1.0, 1.0) + 1.0) * 127.5).astype(jnp.uint8)
