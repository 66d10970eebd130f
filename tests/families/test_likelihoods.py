"""Likelihoods against SciPy's distributions, sums over all 256 values, and their own samples."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from genjax import registry
from genjax.families.likelihoods import Bernoulli, DiscretizedLogisticMixture, Gaussian, bits_per_dim
from genjax.sampling import sample_keys

LEVELS = np.linspace(-1.0, 1.0, 256).astype(np.float32)
IMAGES = LEVELS[np.random.default_rng(0).integers(0, 256, (2, 3, 3, 3))]
KEYS = sample_keys(jax.random.key(1), 2)


@functools.partial(jax.jit, static_argnums=0)
def log_prob(likelihood, params, x):
    return likelihood.log_prob(params, x)


@functools.partial(jax.jit, static_argnums=0)
def sample(likelihood, keys, params):
    return likelihood.sample(keys, params)


def output(likelihood, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(2, 3, 3, likelihood.channels(channels))), jnp.float32)


def all_values(channels):
    """Every image of one pixel, [256 ** channels, 1, 1, channels]."""
    grid = np.stack(np.meshgrid(*[LEVELS] * channels, indexing="ij"), axis=-1)
    return jnp.asarray(grid.reshape(-1, 1, 1, channels))


def test_gaussians():
    params = output(Gaussian())
    expected = stats.norm(np.asarray(params, np.float64), 0.3).logpdf(IMAGES).sum((1, 2, 3))
    np.testing.assert_allclose(Gaussian(std=0.3).log_prob(params, IMAGES), expected, rtol=1e-5)

    scalar = Gaussian(std=0.3, learn="scalar")
    np.testing.assert_allclose(scalar.bind(scalar.init()).log_prob(params, IMAGES), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="bind"):
        scalar.log_prob(params, IMAGES)
    slope = jax.grad(lambda learnt: scalar.bind(learnt).log_prob(params, IMAGES).sum())(scalar.init())["log_std"]
    # d log N / d log std = z^2 - 1
    assert float(slope) == pytest.approx(float((((IMAGES - params) / 0.3) ** 2 - 1.0).sum()), rel=1e-5)

    pixel = Gaussian(std=0.3, learn="pixel")
    params = output(pixel)
    mean, raw = np.split(np.asarray(params, np.float64), 2, axis=-1)
    std = np.exp(np.logaddexp(0.0, raw + math.log(0.3) + 6.0) - 6.0)
    found = pixel.log_prob(params, IMAGES)
    np.testing.assert_allclose(found, stats.norm(mean, std).logpdf(IMAGES).sum((1, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("likelihood", [Gaussian(std=0.5), Gaussian(std=0.5, learn="pixel"), Bernoulli()], ids=str)
def test_samples_have_the_mean(likelihood):
    n = 4000
    params = jnp.tile(output(likelihood)[:1], (n, 1, 1, 1))
    drawn = sample(likelihood, sample_keys(jax.random.key(0), n), params)
    error = 5.0 * np.maximum(np.asarray(drawn).std(0), 0.05) / math.sqrt(n)
    assert np.all(np.abs(drawn.mean(0) - likelihood.mean(params)[0]) < error)


def test_bernoulli():
    likelihood, params = Bernoulli(), output(Bernoulli())
    binary = np.where(IMAGES > 0, 1.0, -1.0)
    p = 1.0 / (1.0 + np.exp(-np.asarray(params, np.float64)))
    expected = stats.bernoulli(p).logpmf((binary > 0).astype(int)).sum((1, 2, 3))
    np.testing.assert_allclose(likelihood.log_prob(params, jnp.asarray(binary)), expected, rtol=1e-5)
    # A soft label is linear between the two.
    white = (IMAGES + 1.0) / 2.0
    soft = (white * np.log(p) + (1.0 - white) * np.log1p(-p)).sum((1, 2, 3))
    np.testing.assert_allclose(likelihood.log_prob(params, IMAGES), soft, rtol=1e-5)


def test_binarization():
    np.testing.assert_array_equal(Bernoulli().observe(KEYS, IMAGES), IMAGES)
    np.testing.assert_array_equal(Bernoulli("threshold").observe(KEYS, IMAGES), np.where(IMAGES > 0, 1.0, -1.0))
    n = 2000
    grey = jnp.tile(jnp.linspace(-1.0, 1.0, 9).reshape(1, 3, 3, 1), (n, 1, 1, 1))
    drawn = np.asarray(Bernoulli("stochastic").observe(sample_keys(jax.random.key(0), n), grey))
    assert set(np.unique(drawn)) == {-1.0, 1.0}
    np.testing.assert_allclose(drawn.mean(0), grey[0], atol=5.0 / math.sqrt(n))
    np.testing.assert_array_equal(drawn[:, 0, 0], -1.0)  # black and white pixels stay what they are
    np.testing.assert_array_equal(drawn[:, 2, 2], 1.0)


@pytest.mark.parametrize("log_scale", [-9.0, -3.0, 2.0])
def test_a_mixture_of_logistics_has_all_its_mass_on_the_256_values(log_scale):
    likelihood = DiscretizedLogisticMixture(components=3)
    for channels in (1, 2):
        params = np.array(output(likelihood, channels)[:1, :1, :1]).reshape(3, -1)
        params[:, 1 + channels : 1 + 2 * channels] += log_scale
        values = all_values(channels)
        params = jnp.broadcast_to(jnp.asarray(params.reshape(1, 1, 1, -1)), (len(values), 1, 1, params.size))
        p = np.exp(np.asarray(log_prob(likelihood, params, values), np.float64))
        assert p.sum() == pytest.approx(1.0, abs=1e-4)


def test_a_mixture_of_logistics_is_that_of_the_paper():
    """Equation 3's channels, with SciPy's logistic; the scale of a level is 1/127.5."""
    likelihood = DiscretizedLogisticMixture(components=2)
    assert likelihood.channels(3) == 20 and likelihood.channels(1) == 6
    params = output(likelihood)
    p = np.asarray(params, np.float64).reshape(2, 3, 3, 2, 10)
    x = IMAGES.astype(np.float64)
    weight = np.exp(p[..., 0]) / np.exp(p[..., 0]).sum(-1, keepdims=True)
    a, b, c = np.moveaxis(np.tanh(p[..., 7:]), -1, 0)
    red, green, blue = (x[..., None, i] for i in range(3))
    means = [p[..., 1], p[..., 2] + a * red, p[..., 3] + b * red + c * green]
    total = weight
    for i, value in enumerate((red, green, blue)):
        logistic = stats.logistic(means[i], np.exp(np.maximum(p[..., 4 + i], -7.0)))
        upper = np.where(value > 0.999, np.inf, value + 1 / 255)
        lower = np.where(value < -0.999, -np.inf, value - 1 / 255)
        total = total * (logistic.cdf(upper) - logistic.cdf(lower))
    expected = np.log(total.sum(-1)).sum((1, 2))
    found = log_prob(likelihood, params, IMAGES)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(bits_per_dim(found, IMAGES), -expected / np.log(2.0) / 27, rtol=1e-4)


def test_samples_of_a_mixture_of_logistics_follow_its_probabilities():
    likelihood, n = DiscretizedLogisticMixture(components=2), 20_000
    params = output(likelihood, 2, seed=3)[:1, :1, :1]
    params = params.reshape(2, -1).at[:, 3:5].add(-1.0).reshape(1, 1, 1, -1)
    values = all_values(2)
    tiled = lambda count: jnp.broadcast_to(params, (count, *params.shape[1:]))  # noqa: E731
    p = np.exp(np.asarray(log_prob(likelihood, tiled(len(values)), values), np.float64))
    drawn = np.asarray(sample(likelihood, sample_keys(jax.random.key(0), n), tiled(n)), np.float64)[:, 0, 0]
    levels = (drawn + 1.0) * 127.5
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-3)
    grid = np.asarray(values, np.float64)[:, 0, 0]
    features = lambda x: np.stack([x[:, 0], x[:, 1], x[:, 0] * x[:, 1], x[:, 1] ** 2], axis=1)  # noqa: E731
    exact, error = p @ features(grid), 5.0 * features(drawn).std(0) / math.sqrt(n)
    assert np.all(np.abs(features(drawn).mean(0) - exact) < error)


def test_the_mean_of_a_mixture_of_logistics_far_from_the_edges():
    likelihood = DiscretizedLogisticMixture(components=2)
    params = 0.2 * output(likelihood, 2, seed=3)[:1, :1, :1]
    params = params.reshape(2, -1).at[:, 3:5].add(-4.0).reshape(1, 1, 1, -1)
    values = all_values(2)
    p = np.exp(np.asarray(log_prob(likelihood, jnp.broadcast_to(params, (len(values), 1, 1, 12)), values), np.float64))
    np.testing.assert_allclose(likelihood.mean(params)[0, 0, 0], p @ np.asarray(values)[:, 0, 0], atol=1e-4)


@pytest.mark.parametrize("name", registry.entries("likelihood"))
def test_gradients_are_finite_everywhere(name):
    likelihood = registry.entries("likelihood")[name].build()
    x = jnp.asarray([[[[-1.0, 1.0, 0.5]]]])
    grad = jax.jit(jax.grad(lambda params: likelihood.bind(likelihood.init()).log_prob(params, x).sum()))
    for size in (0.0, 1e2, -1e2):
        assert np.all(np.isfinite(grad(jnp.full((1, 1, 1, likelihood.channels(3)), size)))), size


def test_mistakes_are_named():
    for build, words in [
        (lambda: Gaussian(std=0.0), "std = 0.0: must be positive"),
        (lambda: Gaussian(learn="all"), "learn = 'all': must be one of fixed, scalar, pixel"),
        (lambda: Bernoulli(binarize="yes"), "binarize = 'yes'"),
        (lambda: DiscretizedLogisticMixture(components=0), "components = 0"),
        (lambda: DiscretizedLogisticMixture(2).log_prob(jnp.zeros((1, 1, 1, 5)), jnp.zeros((1, 1, 1, 1))), "have 6"),
    ]:
        with pytest.raises(ValueError, match=words):
            build()
