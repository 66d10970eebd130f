"""Embeddings of the noise label against their formulas."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.networks.embeddings import ClassEmbedding, fourier, sinusoidal
from genjax.networks.mlp import MLP


@pytest.mark.parametrize("endpoint", [False, True])
def test_sinusoidal_is_its_formula(endpoint):
    labels, features = [0.0, 1.5, 999.0], 8
    out = sinusoidal(jnp.asarray(labels), features, endpoint=endpoint)
    assert out.dtype == jnp.float32
    # Four frequencies from 1: down to 10,000^(-3/4), or to 1/10,000 itself.
    frequencies = [10_000 ** (-i / (3 if endpoint else 4)) for i in range(4)]
    expected = [[f(label * w) for f in (math.cos, math.sin) for w in frequencies] for label in labels]
    np.testing.assert_allclose(out, expected, atol=1e-4)  # an angle of 999 has a float32 spacing of 6e-5


def test_fourier_features_have_a_gaussian_kernel():
    # The mean of cos(2 pi f d) over f ~ N(0, s^2) is exp(-2 (pi s d)^2).
    scale, features = 2.0, 512
    labels = jnp.asarray([0.3, 0.3, 0.35, 0.4, 0.5])
    codes = np.asarray(fourier(labels, features, scale=scale), np.float64)
    kernel = codes @ codes[0] / (features / 2)
    distance = np.asarray(labels, np.float64) - 0.3
    np.testing.assert_allclose(kernel, np.exp(-2 * (np.pi * scale * distance) ** 2), atol=0.01)


def test_the_null_class_has_the_last_row(key):
    module = ClassEmbedding(num_classes=3, features=4)
    params = module.init(key, None, 1)
    table = params["params"]["table"]["embedding"]
    assert table.shape == (4, 4)
    out = module.apply(params, {"label": jnp.asarray([-1, 0, 2])}, 3)
    np.testing.assert_array_equal(out, table[jnp.asarray([3, 0, 2])])
    np.testing.assert_array_equal(module.apply(params, None, 2), table[jnp.asarray([3, 3])])


def test_a_network_with_scalars_begins_as_the_one_without_and_then_hears_them(key):
    x, label = jnp.ones((2, 4, 4, 1)), jnp.ones(2)
    plain, network = MLP(hidden=8, depth=1), MLP(hidden=8, depth=1, scalars=("step",))
    params = network.init(key, x, label, {"step": label})["params"]
    params["out"]["kernel"] = jax.random.normal(key, params["out"]["kernel"].shape)

    def outputs(params):
        return [network.apply({"params": params}, x, label, {"step": step * label}) for step in (0.0, 500.0)]

    without = {name: tree for name, tree in params.items() if name != "scalar_embeddings"}
    for out in outputs(params):
        np.testing.assert_array_equal(out, plain.apply({"params": without}, x, label))
    params["scalar_embeddings"]["out"]["kernel"] = jax.random.normal(key, (8, 8))
    zero, step = outputs(params)
    assert np.abs(zero - step).max() > 1e-3
    with pytest.raises(ValueError, match="conditioned on 'step', which is not given"):
        network.apply({"params": params}, x, label)
