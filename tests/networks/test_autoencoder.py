"""Encoders and decoders: shapes for any image size, the linear case, and the condition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import registry
from genjax.networks import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder

jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def shapes(network, x, cond=None):
    """What the network makes of an input, without computing it."""

    def run(key, x):
        variables = network.init(key, x, cond)
        return network.apply(variables, x, cond), variables["params"]

    return jax.eval_shape(run, jax.random.key(0), x)


def test_every_registered_one_is_tested_here():
    assert set(registry.entries("encoder")) == {"mlp", "conv"}
    assert {"mlp", "conv"} <= set(registry.entries("decoder"))


@pytest.mark.parametrize("size", [(8, 8, 1), (28, 28, 1), (32, 32, 3), (64, 64, 3), (7, 10, 2)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_any_size_of_image(size, dtype):
    encoders = [MLPEncoder(hidden=8, dtype=dtype), ConvEncoder((4, 8, 8), hidden=8, dtype=dtype)]
    decoders = [MLPDecoder(hidden=8, dtype=dtype), ConvDecoder((8, 8, 4), hidden=8, dtype=dtype)]
    x, z = jnp.zeros((3, *size)), jnp.zeros((3, 5))
    for encoder in encoders:
        encoder.check(size)
        out, params = shapes(encoder.clone(features=6), x)
        assert (out.shape, out.dtype) == ((3, 6), jnp.float32)
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    for decoder in decoders:
        decoder.check(size)
        out, params = shapes(decoder.clone(shape=(*size[:2], 7)), z)
        assert (out.shape, out.dtype) == ((3, *size[:2], 7), jnp.float32)
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def test_without_hidden_layers_they_are_linear(key):
    encoder, decoder = MLPEncoder(depth=0).clone(features=3), MLPDecoder(depth=0).clone(shape=(2, 2, 1))
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(5, 2, 2, 1)).astype(np.float32), rng.normal(size=(5, 3)).astype(np.float32)
    for network, inputs in [(encoder, x), (decoder, z)]:
        variables = jit(network.init)(key, inputs)
        layer = variables["params"]["layers"]["out"]
        found = jit(network.apply)(variables, inputs).reshape(5, -1)
        np.testing.assert_allclose(
            found, inputs.reshape(5, -1) @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"]), atol=1e-5
        )
        assert len(jax.tree.leaves(variables)) == 2


@pytest.mark.parametrize("network", [MLPEncoder, ConvEncoder, MLPDecoder, ConvDecoder], ids=lambda cls: cls.__name__)
def test_classes_are_heard_and_the_null_class_is_no_condition(network, key):
    options = dict(hidden=8, depth=1, activation="tanh") | ({"channels": (4,)} if "Conv" in network.__name__ else {})
    encoder = "Encoder" in network.__name__
    shape = (4, 4, 1) if encoder else (3,)
    x = np.tile(np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32), (3, *[1] * len(shape)))
    wide = {"features": 2} if encoder else {"shape": (4, 4, 1)}
    built = network(num_classes=10, **options).clone(**wide)
    cond = {"label": jnp.array([0, 7, -1])}
    variables = jit(built.init)(key, x, cond)
    out = jit(built.apply)(variables, x, cond)
    out = np.asarray(out)
    assert np.abs(out[0] - out[1]).max() > 1e-3 and np.abs(out[0] - out[2]).max() > 1e-3
    np.testing.assert_allclose(jit(built.apply)(variables, x, None)[0], out[2], atol=1e-6)
    _, params = shapes(network(**options).clone(**wide), x, cond)  # without classes it has no weights for them
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == sum(v.size for v in jax.tree.leaves(variables)) - 80


def test_mistakes_are_named():
    for build, words in [
        (lambda: MLPEncoder(depth=-1), "depth = -1: must be at least 0"),
        (lambda: MLPDecoder(hidden=0), "hidden = 0"),
        (lambda: MLPEncoder(activation="rellu"), "did you mean 'relu'"),
        (lambda: ConvEncoder(channels=()), "channels"),
        (lambda: ConvEncoder(channels=(4, 4, 4)).check((4, 8, 1)), r"\(4, 8, 1\) are too small to be halved 3 times"),
        (lambda: ConvDecoder(channels=(4, 4)).check((1, 1, 2)), "too small"),
        (lambda: MLPDecoder().check((8, 8)), r"must be \(height, width, channels\)"),
    ]:
        with pytest.raises(ValueError, match=words):
            build()
