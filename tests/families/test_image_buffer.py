"""The history of generated images: as if they came one by one, by the rule of the published code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.families import image_buffer

exchange = jax.jit(image_buffer.exchange)


def numbered(*numbers):
    """Images that tell their numbers, [B, 1, 1, 1]."""
    return jnp.asarray(numbers, jnp.float32).reshape(-1, 1, 1, 1)


def one_by_one(stream, size, swaps, slots):
    """The rule, as text: a list, into which images go one after another."""
    held, out = [], []
    for image, swap, slot in zip(stream, swaps, slots, strict=True):
        if len(held) < size:
            held.append(image)
            out.append(image)
        elif swap:
            out.append(held[slot])
            held[slot] = image
        else:
            out.append(image)
    return held, out


@pytest.mark.parametrize("size", [1, 3, 10])
def test_a_batch_at_once_is_its_images_one_by_one(size):
    buffer, batch = image_buffer.empty(size, (1, 1, 1)), 8
    stream, swaps, slots, found = [], [], [], []
    for step in range(12):
        keys = jax.random.split(jax.random.key(step), batch)
        swaps += [bool(jax.random.bernoulli(jax.random.fold_in(key, 0))) for key in keys]
        slots += [int(jax.random.randint(jax.random.fold_in(key, 1), (), 0, size)) for key in keys]
        images = numbered(*range(1 + step * batch, 1 + (step + 1) * batch))
        stream += images.ravel().tolist()
        out, buffer = exchange(buffer, images, keys)
        found += out.ravel().tolist()
        held, expected = one_by_one(stream, size, swaps, slots)
        assert found == expected
        assert buffer["images"].ravel()[: len(held)].tolist() == held and buffer["count"] == len(held)
    assert 0.35 < np.mean(np.array(found[size:]) != np.array(stream[size:])) < 0.65


def test_filling_stops_where_it_is_full():
    buffer = image_buffer.empty(5, (1, 1, 1))
    for start in (1, 4, 7):
        buffer = image_buffer.fill(buffer, numbered(start, start + 1, start + 2))
    assert buffer["images"].ravel().tolist() == [1, 2, 3, 4, 5] and buffer["count"] == 5
