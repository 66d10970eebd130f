"""Figures of likelihood of exact denoisers, whose likelihood is known."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import analytic, processes, solvers
from genjax.families.likelihood_figures import Likelihood, dequantized, to_levels

VP = processes.LinearVP()
KEY = jax.random.key(0)


def test_of_real_numbers():
    """Both figures are the log-density, since the denoiser is exact."""
    target = analytic.Gaussian(np.array([0.3, -0.2]), np.array([[0.5, 0.2], [0.2, 0.3]]))
    x = target.sample(jax.random.key(1), 200)
    figures = Likelihood(flow_steps=60, bound_nodes=40, probes="exact", draws=20, eight_bit=False)
    found = jax.jit(lambda x: figures(KEY, target.denoiser(VP), VP, x))(x)
    exact = np.asarray(target.log_prob(x))
    # The flow's: by a method of second order, of data noised at t = 0.001.
    np.testing.assert_allclose(found["nll"], -exact, atol=0.05)
    difference = np.asarray(found["elbo"]) - exact
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(200) + 0.005
    assert difference.std() < 0.5


VARIANCE = 0.3


def denoise(x_t, t):
    alpha, sigma = VP.alpha(t), VP.sigma(t)
    return alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2) * x_t


def cross_entropy(pixels):
    """Bits a dimension of N(0, VARIANCE) on [-1, 1], with uniform dequantization."""
    square = ((pixels + 0.5) / 128 - 1) ** 2 + (1 / 128) ** 2 / 12
    return 7 + (0.5 * np.log(2 * np.pi * VARIANCE) + 0.5 * square.mean() / VARIANCE) / np.log(2)


@pytest.mark.parametrize("decoder", ["discretized_gaussian", "categorical", "dequantization"])
def test_of_8_bit_images(decoder):
    pixels = np.random.default_rng(0).integers(0, 256, (100, 4, 4, 1))
    images = jnp.asarray(pixels / 127.5 - 1, jnp.float32)
    np.testing.assert_array_equal(to_levels(images), pixels)
    t_min = 1e-5 if decoder == "categorical" else 1e-4  # a level is told from z alone where sigma is far below 1/128
    figures = Likelihood(flow_steps=40, bound_nodes=40, draws=3, decoder=decoder, t_min=t_min)
    found = jax.jit(lambda x: figures(KEY, denoise, VP, x))(images)
    assert set(found) == {"nll_bpd", "elbo_bpd"} and found["elbo_bpd"].shape == (100,)
    exact = cross_entropy(pixels)
    assert float(found["nll_bpd"].mean()) == pytest.approx(exact, abs=0.02)
    error = np.asarray(found["elbo_bpd"]).std() / 10
    if decoder == "categorical":  # this denoiser does not know of levels, and pays for z finer than they are
        exact += np.log2(2 / 255 / (VP.sigma(t_min) / VP.alpha(t_min) * np.sqrt(2 * np.pi * np.e)))
    # Black and white take the tails of the discretized Gaussian, which a density has not.
    slack = 0.02 if decoder == "dequantization" else 0.05
    assert abs(float(found["elbo_bpd"].mean()) - exact) < 4 * error + slack


def test_dequantized_images_fill_their_levels():
    pixels = np.arange(256).reshape(1, 16, 16, 1)
    x = dequantized(jnp.asarray(pixels / 127.5 - 1, jnp.float32), jax.random.split(KEY, 1))
    u = (np.asarray(x) + 1) * 128 - pixels
    assert 0 <= u.min() and u.max() <= 1 and abs(u.mean() - 0.5) < 4 * np.sqrt(1 / 12 / 256)


def test_off_by_default_and_wrong_values_are_named():
    assert Likelihood()(KEY, denoise, VP, jnp.zeros((2, 4, 4, 1))) == {}
    points = types.SimpleNamespace(image_shape=(1, 1, 2), num_classes=None, levels=None)
    Likelihood().check(points)
    for options, words in [
        (dict(flow_steps=-1), "flow_steps = -1"),
        (dict(bound_nodes=-1), "bound_nodes = -1"),
        (dict(n_probes=0), "n_probes = 0"),
        (dict(draws=0), "draws = 0"),
        (dict(probes="exakt"), "did you mean 'exact'"),
        (dict(decoder="gaussian"), "decoder = 'gaussian'"),
        (dict(solver=solvers.DDPM()), "no randomness"),
    ]:
        with pytest.raises(ValueError, match=words):
            Likelihood(**options)
    with pytest.raises(ValueError, match="eight_bit = True, but the data are real numbers"):
        Likelihood(flow_steps=1).check(points)
