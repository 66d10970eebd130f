"""Masks: how many, of whom, and where."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.networks.dropout import Dropout

N, SIZE, RATE = 6, 10_000, 0.2


class Twice(nn.Module):
    """Two modules in a row, and one of another parent with the name of the first."""

    @nn.compact
    def __call__(self, x, keys):
        inner = Inner(name="inner")(x, keys)
        return Dropout(RATE, name="dropout_0")(x, keys), Dropout(RATE, name="dropout_1")(x, keys), inner


class Inner(nn.Module):
    @nn.compact
    def __call__(self, x, keys):
        return Dropout(RATE, name="dropout_0")(x, keys)


@pytest.fixture(scope="module")
def masks():
    keys = jax.random.split(jax.random.key(0), N)
    return np.stack(Twice().apply({}, jnp.ones((N, SIZE)), keys))


def test_the_share_of_the_rate_is_zero_and_the_rest_is_scaled(masks):
    assert set(np.unique(masks)) == {0.0, np.float32(1 / (1 - RATE))}
    # Four standard deviations of a binomial.
    np.testing.assert_allclose((masks == 0).mean(-1), RATE, atol=4 * np.sqrt(RATE * (1 - RATE) / SIZE))


def test_masks_are_independent_between_examples_and_modules(masks):
    both = np.corrcoef(masks.reshape(-1, SIZE)) - np.eye(3 * N)
    assert np.abs(both).max() < 5 / np.sqrt(SIZE)


def test_a_part_of_a_batch_meets_the_masks_of_the_whole(masks):
    keys = jax.random.split(jax.random.key(0), N)
    part = Twice().apply({}, jnp.ones((N // 2, SIZE)), keys[1::2])
    np.testing.assert_array_equal(np.stack(part), masks[:, 1::2])


@pytest.mark.parametrize(("rate", "keys"), [(0.5, None), (0.0, jax.random.split(jax.random.key(0), 2))])
def test_without_keys_or_rate_nothing_happens(rate, keys):
    x = jnp.ones((2, 3), jnp.bfloat16)
    assert Dropout(rate).apply({}, x, keys) is x
