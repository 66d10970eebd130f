"""Embeddings of the noise label against their formulas."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from genjax.networks.embeddings import ClassEmbedding, fourier, sinusoidal


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
