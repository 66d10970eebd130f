"""The history of generated images that a discriminator is shown, as functions of arrays.

A buffer is a dict of `images` [size, H, W, C], those past `count` blank, and `count`, how many there are, int32 [].
"""

import jax
import jax.numpy as jnp
from jax import Array

Buffer = dict[str, Array]


def empty(size: int, image_shape: tuple[int, ...]) -> Buffer:
    """Returns a buffer for `size` images without any."""
    return {"images": jnp.zeros((size, *image_shape)), "count": jnp.int32(0)}


def fill(buffer: Buffer, images: Array) -> Buffer:
    """Returns the buffer with the first of the images [B, H, W, C] that there is room for."""
    size = len(buffer["images"])
    places = buffer["count"] + jnp.arange(len(images))
    kept = buffer["images"].at[places].set(images, mode="drop")
    return {"images": kept, "count": jnp.minimum(buffer["count"] + len(images), size)}


def exchange(buffer: Buffer, images: Array, keys: Array) -> tuple[Array, Buffer]:
    """Puts images in, one after another, and takes as many out.

    While there is room an image is kept and comes out too. Afterwards, with probability 1/2, it takes the place of a
    random one, which comes out in its stead; else it comes out itself and is not kept (Zhu et al. 2017, section 4,
    after Shrivastava et al. 2017; the probability is that of the published code).

    Args:
        buffer: as it is before.
        images: [B, H, W, C].
        keys: one key an image [B].

    Returns:
        The images that come out [B, H, W, C], and the buffer afterwards.
    """
    size, number = len(buffer["images"]), jnp.arange(len(images))
    fills = buffer["count"] + number < size
    swaps = ~fills & jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, 0)))(keys)
    drawn = jax.vmap(lambda key: jax.random.randint(jax.random.fold_in(key, 1), (), 0, size))(keys)
    slot = jnp.where(fills, buffer["count"] + number, drawn)

    # All at once: the content of a place is the last image that was put there before, or else what was there at first.
    def content(places: Array, until: Array) -> Array:
        """The content of places [P] when the images below number `until` [P] have come."""
        put = (fills | swaps)[None] & (slot[None] == places[:, None]) & (number[None] < until[:, None])
        last = jnp.where(put, number[None], -1).max(axis=1)
        return _choose(last >= 0, images[last], buffer["images"][places])

    out = _choose(swaps, content(slot, number), images)
    after = content(jnp.arange(size), jnp.full((size,), len(images)))
    return out, {"images": after, "count": jnp.minimum(buffer["count"] + len(images), size)}


def _choose(mask: Array, one: Array, other: Array) -> Array:
    return jnp.where(mask.reshape(-1, *[1] * (one.ndim - 1)), one, other)
