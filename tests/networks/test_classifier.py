"""Classifiers of noisy images."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import config
from genjax.networks.classifier import AttentionPool, UNetEncoder

TINY = dict(num_classes=5, channels=8, multipliers=(1, 2), head_channels=8, attention_resolutions=(4,), dropout=0.5)


def random_like(shapes, seed=0):
    leaves, tree = jax.tree.flatten(shapes)
    rng = np.random.default_rng(seed)
    return tree.unflatten([jnp.asarray(rng.normal(0, 0.3, leaf.shape), leaf.dtype) for leaf in leaves])


@pytest.mark.parametrize(
    ("preset", "side", "millions"),
    [
        # Dhariwal & Nichol 2021, table 12.
        ("adm_imagenet64", 64, 65),
        ("adm_imagenet128", 128, 43),
        ("adm_imagenet256", 256, 54),
        ("adm_imagenet512", 512, 54),
    ],
)
def test_count_is_the_papers(preset, side, millions):
    network = UNetEncoder(num_classes=1000, preset=preset)
    network.check((side, side, 3))
    x = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), x, x.update(shape=(1,)))
    assert round(sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) / 1e6) == millions


@pytest.mark.slow
def test_logits_begin_equal_and_are_each_examples_own(key):
    network = UNetEncoder(**TINY)
    x = jax.random.normal(key, (3, 8, 4, 2))
    label = jnp.asarray([0.0, 400.0, 999.0])
    start = jax.eval_shape(network.init, key, x, label)["params"]
    np.testing.assert_array_equal(network.init(key, x[:1], label[:1])["params"]["out"]["out"]["kernel"], 0)
    params = random_like(start)

    @jax.jit
    def apply(x, label, dropout=None):
        return network.apply({"params": params}, x, label, dropout=dropout)

    logits = apply(x, label)
    assert (logits.shape, logits.dtype) == ((3, 5), jnp.float32)
    others = apply(x.at[1:].multiply(-2), label.at[1:].add(7))
    np.testing.assert_array_equal(logits[0], others[0])
    assert float(jnp.abs(logits - others)[1:].max(1).min()) > 1e-3
    assert float(jnp.abs(apply(x, label + 50) - logits).max(1).min()) > 1e-3  # it hears the noise label
    keys = jax.random.split(key, 3)
    np.testing.assert_allclose(apply(x, label, keys)[0], apply(x, label, keys.at[1:].set(keys[0]))[0], rtol=1e-5)
    assert float(jnp.abs(apply(x, label, keys) - logits).max(1).min()) > 1e-3


def test_pooling_is_attention_of_the_mean_to_all(key):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 2, 3, 8))
    module = AttentionPool(features=3, head_channels=4, dtype="float32")
    params = random_like(jax.eval_shape(module.init, key, jnp.asarray(x, jnp.float32))["params"])
    out = module.apply({"params": params}, jnp.asarray(x, jnp.float32))
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    tokens = x.reshape(2, 6, 8)
    tokens = np.concatenate([tokens.mean(1, keepdims=True), tokens], 1) + p["positions"]
    query, keys, value = np.split(tokens @ p["qkv"]["kernel"] + p["qkv"]["bias"], 3, axis=-1)
    pooled = np.empty((2, 8))
    for head in (slice(0, 4), slice(4, 8)):
        weights = np.exp(np.einsum("bd,bsd->bs", query[:, 0, head], keys[..., head]) / 2)
        pooled[:, head] = np.einsum("bs,bsd->bd", weights / weights.sum(1, keepdims=True), value[..., head])
    np.testing.assert_allclose(out, pooled @ p["out"]["kernel"] + p["out"]["bias"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(preset="adm_imagenet"), "there is no preset 'adm_imagenet'; did you mean"),
        (dict(channels=33), "channels = 33: must be even"),
        (dict(num_classes=0), "num_classes = 0: must be at least 1"),
        (dict(multipliers=()), r"multipliers = \(\)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_values_are_refused(wrong, message):
    with pytest.raises(config.ConfigError, match=message):
        config.build("noisy_classifier", {"name": "unet_encoder", "num_classes": 10, **wrong})


def test_images_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="images of 9x8: with 2 levels .* multiples of 2"):
        UNetEncoder(num_classes=10).check((9, 8, 1))
    with pytest.raises(ValueError, match="head_channels = 32: does not divide 16 channels"):
        UNetEncoder(num_classes=10, channels=8).check((8, 8, 1))
