"""Deterministic autoencoders: sparsity, corruption, and samples from the codes' moments."""

import functools
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.families import Autoencoder
from genjax.families.base import Keys
from genjax.families.corruption import GaussianNoise, Masking, SaltAndPepper
from genjax.families.likelihoods import Bernoulli
from genjax.families.sparsity import KL, L1, KSparse
from genjax.networks import MLPDecoder, MLPEncoder
from genjax.sampling import sample_keys

SHAPE = (2, 3, 1)
SPEC = types.SimpleNamespace(image_shape=SHAPE, num_classes=None)
LATENT = 4
LINEAR = dict(image_shape=SHAPE, encoder=MLPEncoder(depth=0), decoder=MLPDecoder(depth=0), latent=LATENT)
BATCH = {"image": jax.random.uniform(jax.random.key(5), (12, *SHAPE), minval=-1.0)}
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def start():
    """Parameters and `extra` of the linear autoencoder; what the components are changes neither."""
    return jit(lambda key: Autoencoder(**LINEAR).init(key, SPEC))(jax.random.key(0))


@functools.partial(jit, static_argnums=0)
def loss(family, model, extra, batch, key):
    state = types.SimpleNamespace(step=jnp.int32(0), extra=extra)
    return family.phases()[0].loss(model, state, batch, Keys.of(key, len(batch["image"])))


def linear(model, x):
    """The codes and images of the linear autoencoder, in NumPy."""
    encoder, decoder = (jax.tree.map(np.asarray, model[name]["layers"]["out"]) for name in ("encoder", "decoder"))
    h = x.reshape(len(x), -1) @ encoder["kernel"] + encoder["bias"]
    return h, h @ decoder["kernel"] + decoder["bias"]


def test_the_loss_is_half_the_square_error():
    params, extra = start()
    value, aux = loss(Autoencoder(**LINEAR), params["model"], extra, BATCH, jax.random.key(0))
    x = np.asarray(BATCH["image"])
    h, y = linear(params["model"], x)
    square = ((y - x.reshape(12, -1)) ** 2).sum(1)
    assert float(value) == pytest.approx(0.5 * square.mean() + 3 * math.log(2 * math.pi), rel=1e-5)
    assert float(aux.metrics["mse"]) == pytest.approx(square.mean() / 6, rel=1e-5)
    figures = jit(Autoencoder(**LINEAR).evaluate)({**extra, **params}, BATCH, jax.random.key(0))
    np.testing.assert_allclose(figures["mse"], square / 6, rtol=1e-4)
    assert float(figures["loss"].mean()) == pytest.approx(float(value), rel=1e-5)

    # The moments of the codes, after one step of an average with decay 0.99.
    codes = aux.extra["codes"]
    np.testing.assert_allclose(codes["mean"], 0.01 * h.mean(0), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(codes["second"], 0.01 * h.T @ h / 12, rtol=1e-3, atol=1e-6)
    assert float(codes["weight"]) == pytest.approx(0.01)


def test_samples_have_the_codes_mean_and_covariance():
    """Decoded linearly, so of the images these are known too."""
    params, extra = start()
    rng = np.random.default_rng(0)
    mean, root = rng.normal(size=LATENT), rng.normal(size=(LATENT, LATENT - 1))  # a covariance of less than full rank
    second, weight = root @ root.T + np.outer(mean, mean), 0.3
    codes = {"mean": weight * mean, "second": weight * second, "weight": np.float64(weight)}
    state = {**params, "codes": jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), codes)}
    n = 20_000
    generate = jax.jit(Autoencoder(**LINEAR).generate, static_argnums=2)
    x = np.asarray(generate(state, jax.random.key(0), n)).reshape(n, -1)
    decoder = jax.tree.map(np.asarray, params["model"]["decoder"]["layers"]["out"])
    expected = mean @ decoder["kernel"] + decoder["bias"]
    np.testing.assert_allclose(x.mean(0), expected, atol=5 * x.std(0).max() / math.sqrt(n))
    covariance = decoder["kernel"].T @ root @ root.T @ decoder["kernel"]
    np.testing.assert_allclose(np.cov(x.T), covariance, atol=0.05 * np.abs(covariance).max())
    np.testing.assert_allclose(generate(state, jax.random.key(0), 2).reshape(2, -1), x[:2], atol=1e-5)


@pytest.mark.parametrize("k", [1, 3, LATENT])
def test_k_sparse_codes_have_exactly_k_active_units(k):
    family = Autoencoder(**LINEAR, sparsity=KSparse(k))
    code = np.asarray(jit(family.code)(start()[0]["model"], BATCH["image"]))
    h, _ = linear(start()[0]["model"], np.asarray(BATCH["image"]))
    assert np.all((code != 0).sum(1) == k)
    smallest = np.sort(h, axis=1)[:, -k]
    np.testing.assert_allclose(code, np.where(h >= smallest[:, None], h, 0.0), atol=1e-5)
    ties = KSparse(2).activate(jnp.ones((1, 5)))
    np.testing.assert_array_equal(ties, [[1.0, 1.0, 0.0, 0.0, 0.0]])
    slope = jax.grad(lambda h: KSparse(2).activate(h).sum())(jnp.array([[3.0, 1.0, 2.0]]))
    np.testing.assert_array_equal(slope, [[1.0, 0.0, 1.0]])  # what is off gets no gradient


def test_penalties_are_their_formulas():
    h = jnp.array([[-1.0, 2.0], [3.0, 0.5]])
    np.testing.assert_array_equal(L1(0.5).activate(h), [[0.0, 2.0], [3.0, 0.5]])
    assert float(L1(0.5).penalty(L1(0.5).activate(h))) == pytest.approx(0.5 * 5.5 / 2)

    divergence = KL(weight=2.0, target=0.1)
    code = jit(divergence.activate)(h)
    np.testing.assert_allclose(code, 1.0 / (1.0 + np.exp(-np.asarray(h))), rtol=1e-6)
    mean = np.asarray(code, np.float64).mean(0)
    expected = 2.0 * (0.1 * np.log(0.1 / mean) + 0.9 * np.log(0.9 / (1.0 - mean))).sum()
    assert float(jit(divergence.penalty)(code)) == pytest.approx(expected, rel=1e-5)
    assert float(jit(divergence.penalty)(np.full((2, 2), 0.1, np.float32))) == pytest.approx(0.0, abs=1e-6)
    assert np.isfinite(jit(jax.grad(lambda h: divergence.penalty(divergence.activate(h))))(-200.0 + 0.0 * h)).all()

    # The loss has it, beside the reconstruction.
    params, extra = start()
    value, aux = loss(Autoencoder(**LINEAR, sparsity=L1(0.5)), params["model"], extra, BATCH, jax.random.key(0))
    hidden = np.maximum(linear(params["model"], np.asarray(BATCH["image"]))[0], 0.0)
    assert float(aux.metrics["penalty"]) == pytest.approx(0.5 * hidden.sum(1).mean(), rel=1e-5)
    assert float(aux.metrics["active"]) == pytest.approx((hidden > 1e-3).mean(), abs=1e-6)
    assert float(value) == pytest.approx(float(aux.metrics["penalty"] + aux.metrics["reconstruction"]), rel=1e-6)


def test_corruptions():
    n = 3000
    x = jnp.tile(jnp.linspace(-0.9, 0.9, 6).reshape(1, 1, 2, 3), (n, 1, 1, 1))
    keys = sample_keys(jax.random.key(0), n)
    noise = np.asarray(jit(GaussianNoise(0.5))(keys, x) - x)
    np.testing.assert_allclose(noise.std(0), 0.5, atol=0.05)
    np.testing.assert_allclose(noise.mean(0), 0.0, atol=0.05)
    for corruption, values in [(Masking(0.3), {-1.0: 0.3}), (SaltAndPepper(0.3), {-1.0: 0.15, 1.0: 0.15})]:
        seen = np.asarray(jit(corruption)(keys, x))
        for value, share in values.items():
            hit = seen == value
            np.testing.assert_allclose(hit.mean(0), share, atol=5 * math.sqrt(share / n))
            assert np.all(hit == hit[..., :1])  # all channels of a pixel
        untouched = ~np.isin(seen, list(values))
        np.testing.assert_array_equal(seen[untouched], np.asarray(x)[untouched])


def test_a_denoising_autoencoder_is_fed_corrupted_images_and_judged_by_clean_ones():
    params, extra = start()
    family = Autoencoder(**LINEAR, corruption=Masking(1.0))  # it sees nothing but black
    _, aux = loss(family, params["model"], extra, BATCH, jax.random.key(0))
    _, y = linear(params["model"], np.full((1, *SHAPE), -1.0))
    expected = ((y - np.asarray(BATCH["image"]).reshape(12, -1)) ** 2).mean()
    assert float(aux.metrics["mse"]) == pytest.approx(expected, rel=1e-5)
    sheets = jit(family.pictures)({**extra, **params}, BATCH, jax.random.key(0))
    assert sheets["reconstructions"].shape == (3, 10, *SHAPE) and sheets["interpolations"].shape == (5, 10, *SHAPE)
    np.testing.assert_array_equal(sheets["reconstructions"][0], BATCH["image"][:10])
    np.testing.assert_array_equal(sheets["reconstructions"][1], -1.0)
    assert (
        Autoencoder(**LINEAR).pictures({**extra, **params}, BATCH, jax.random.key(0))["reconstructions"].shape[0] == 2
    )


def test_mistakes_are_named():
    for build, words in [
        (lambda: Autoencoder(**LINEAR, sparsity=KSparse(5)), "sparsity.k = 5: must be at most latent = 4"),
        (lambda: KSparse(0), "k = 0"),
        (lambda: L1(-1.0), "weight = -1.0"),
        (lambda: KL(target=1.0), "target = 1.0"),
        (lambda: Masking(1.5), "share = 1.5"),
        (lambda: GaussianNoise(-1.0), "std = -1.0"),
        (
            lambda: Autoencoder(**LINEAR, likelihood=Bernoulli()).check(types.SimpleNamespace(image_shape=(8, 8, 1))),
            "8, 8",
        ),
    ]:
        with pytest.raises(ValueError, match=words):
            build()
