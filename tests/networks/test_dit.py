"""The transformer's start, its patches and its positions."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import config
from genjax.networks import DiT
from genjax.networks.dit import Block, positions


def test_size_and_explicit_fields():
    network = config.build("network", dict(name="dit", size="XL", patch_size=2))
    assert (network.depth, network.hidden, network.heads, network.patch_size) == (28, 1152, 16, 2)
    assert DiT(size="B", depth=3).depth == 3


def test_a_block_starts_as_the_identity(key):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 16)), jnp.float32)
    block = Block(hidden=16, heads=2, dropout=0.0, implementation="xla", dtype="float32")
    np.testing.assert_array_equal(block.init_with_output(key, x, jnp.ones((2, 16)))[0], x)


def test_at_the_start_a_patch_sees_itself_alone(key):
    # Blocks are the identity at first, so with any last layer the output's patch depends on the input's same patch:
    # that fixes where cutting and joining put every pixel.
    shape, side = (6, 4, 2), 2
    network = DiT(depth=1, hidden=16, heads=2, patch_size=side)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, *shape)), jnp.float32)
    noise_label = jnp.zeros(1)
    params = jax.jit(network.init)(key, x, noise_label)["params"]
    params["out"]["kernel"] = jax.random.normal(key, params["out"]["kernel"].shape)
    jacobian = jax.jit(jax.jacobian(lambda x: network.apply({"params": params}, x, noise_label)))(x)
    jacobian = np.asarray(jacobian)[0, :, :, :, 0]  # [H, W, C, H, W, C]
    row, column = np.indices(shape[:2]) // side
    patch = row * 100 + column
    same = (patch[:, :, None, None] == patch[None, None])[:, :, None, :, :, None]
    np.testing.assert_array_equal(jacobian != 0, np.broadcast_to(same, jacobian.shape))


def test_positions_are_the_papers():
    code = positions(3, 5, 8)
    assert code.shape == (15, 8)
    row, column = 2, 4
    expected = []
    for coordinate in (column, row):
        # Frequencies 10,000^(-i/2) for i = 0, 1.
        expected += [math.sin(coordinate), math.sin(coordinate / 100), math.cos(coordinate), math.cos(coordinate / 100)]
    np.testing.assert_allclose(code[row * 5 + column], expected, rtol=1e-6)
    assert len(np.unique(code.round(6), axis=0)) == 15


@pytest.mark.parametrize("image_shape", [(7, 8, 1), (8, 7, 1)])
def test_images_that_patches_do_not_tile_are_refused(image_shape):
    with pytest.raises(ValueError, match="cannot be cut into patches of 2x2") as error:
        DiT(patch_size=2).check(image_shape)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(size="XXL"), "there is no preset 'XXL'; did you mean 'XL'"),
        (dict(hidden=30, heads=2), "hidden = 30: must be a multiple of 4"),
        (dict(hidden=32, heads=5), "hidden = 32: must be a multiple of 4 and of heads = 5"),
        (dict(patch_size=0), "patch_size = 0: must be at least 1"),
    ],
    ids=["size", "hidden", "heads", "patch_size"],
)
def test_wrong_values_are_refused(wrong, message):
    with pytest.raises(config.ConfigError, match=message):
        config.build("network", {"name": "dit", **wrong})
