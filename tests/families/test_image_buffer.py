"""The history of generated images: as if they came one by one, by the rule of the published code."""

import jax
import numpy as np
import pytest

from genjax.families import image_buffer

exchange, fill = jax.jit(image_buffer.exchange), jax.jit(image_buffer.fill)


def numbered(*numbers):
    """Images that tell their numbers, [B, 1, 1, 1]."""
    return np.reshape(np.float32(numbers), (-1, 1, 1, 1))


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


@jax.jit
def draws(keys, size):
    """What the images of each step draw: whether to swap, and with which slot, [steps, batch]."""
    swap = lambda key: jax.random.bernoulli(jax.random.fold_in(key, 0))  # noqa: E731
    slot = lambda key: jax.random.randint(jax.random.fold_in(key, 1), (), 0, size)  # noqa: E731
    return jax.vmap(jax.vmap(swap))(keys), jax.vmap(jax.vmap(slot))(keys)


@pytest.mark.parametrize("size", [1, 3, 10])
def test_a_batch_at_once_is_its_images_one_by_one(size):
    steps, batch = 12, 8
    keys = jax.random.split(jax.random.key(0), (steps, batch))
    swaps, slots = (np.ravel(drawn) for drawn in draws(keys, size))
    stream = np.arange(1.0, 1 + steps * batch)
    buffer, found = image_buffer.empty(size, (1, 1, 1)), []
    for step in range(steps):
        out, buffer = exchange(buffer, numbered(*stream[step * batch : (step + 1) * batch]), keys[step])
        found += out.ravel().tolist()
        n = len(found)
        held, expected = one_by_one(stream[:n], size, swaps[:n], slots[:n])
        assert found == expected
        assert buffer["images"].ravel()[: len(held)].tolist() == held and buffer["count"] == len(held)
    assert 0.35 < np.mean(np.array(found[size:]) != stream[size:]) < 0.65


def test_filling_stops_where_it_is_full():
    buffer = image_buffer.empty(5, (1, 1, 1))
    for start in (1, 4, 7):
        buffer = fill(buffer, numbered(start, start + 1, start + 2))
    assert buffer["images"].ravel().tolist() == [1, 2, 3, 4, 5] and buffer["count"] == 5
