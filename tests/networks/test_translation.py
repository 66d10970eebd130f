"""The translator and the discriminator of patches: published counts, receptive field, contracts."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.config import ConfigError, build
from genjax.networks import PatchDiscriminator, ResNetTranslator

SHAPE = (8, 12, 1)
TRANSLATOR = ResNetTranslator(channels=4, halvings=1, blocks=1, kernel=3)
PATCHES = PatchDiscriminator(channels=4, halvings=1)
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def shapes(network, image_shape):
    x = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return jax.eval_shape(network.init, jax.random.key(0), x)["params"]


def count(network, image_shape):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes(network, image_shape)))


@functools.cache
def params(network):
    """Parameters away from those of the start."""
    leaves, tree = jax.tree.flatten(shapes(network, SHAPE))
    rng = np.random.default_rng(0)
    return {"params": tree.unflatten([jnp.asarray(rng.normal(0, 0.3, leaf.shape), leaf.dtype) for leaf in leaves])}


apply = functools.partial(jit, static_argnums=0)(lambda network, variables, x: network.apply(variables, x))


@pytest.fixture(scope="module")
def x():
    return jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (3, *SHAPE)), jnp.float32)


def test_counts_are_the_published_ones():
    # The authors' code prints 11,388,675 for its generator with a scale and a shift in each of the 23 instance
    # normalizations; neither they nor the ones here are in the paper's networks any more.
    affine = 2 * (64 + 128 + 256 + 18 * 256 + 128 + 64)
    assert count(ResNetTranslator(), (256, 256, 3)) + affine == 11_388_675
    # "[Network D] Total number of parameters : 2.765 M".
    assert f"{count(PatchDiscriminator(), (256, 256, 3)) / 1e6:.3f}" == "2.765"


@pytest.mark.parametrize("halvings, patch", [(1, 16), (2, 34), (3, 70)])
def test_patch_is_what_a_logit_sees(halvings, patch):
    """Isola et al. 2017 (appendix) have 16 x 16 and 70 x 70; what instance normalization sees does not count."""
    assert PatchDiscriminator(halvings=halvings).patch == patch
    size = 1
    for stride in [1, 1] + [2] * halvings:  # back from the logit
        size = (size - 1) * stride + 4
    assert size == patch


def test_a_logit_a_patch():
    out = jax.eval_shape(PatchDiscriminator().init_with_output, jax.random.key(0), jnp.zeros((2, 256, 256, 3)))[0]
    assert out.shape == (2, 30, 30) and out.dtype == jnp.float32  # as of the authors' code


@pytest.mark.parametrize("network", [TRANSLATOR, PATCHES], ids=["resnet", "patch"])
def test_contract(network, x):
    out = apply(network, params(network), x)
    assert out.shape == ((3, *SHAPE) if network is TRANSLATOR else (3, 2, 4)) and out.dtype == jnp.float32
    assert np.std(out) > 0.01
    np.testing.assert_allclose(apply(network, params(network), x[1:2]), out[1:2], atol=1e-5)
    half = apply(network.clone(dtype="bfloat16"), params(network), x)
    assert half.dtype == jnp.float32
    assert 0 < np.abs(half - out).max() < 0.1 * np.abs(out).max()
    hash(network)
    if network is TRANSLATOR:
        assert np.abs(out).max() <= 1


def test_instance_normalization_forgets_scale_and_shift(x):
    """The first convolution is normalized, so that brightness and contrast of an image do not show."""
    moved = apply(TRANSLATOR, params(TRANSLATOR), 0.5 * x + 0.1)
    np.testing.assert_allclose(moved, apply(TRANSLATOR, params(TRANSLATOR), x), atol=1e-3)


@pytest.mark.parametrize(
    "kind, options, message",
    [
        ("translator", {"name": "resnet", "channels": 0}, "channels = 0"),
        ("translator", {"name": "resnet", "blocks": -1}, "blocks = -1"),
        ("translator", {"name": "resnet", "kernel": 4}, "kernel = 4: must be an odd number"),
        ("discriminator", {"name": "patch", "halvings": 0}, "halvings = 0"),
        ("discriminator", {"name": "patch", "dtype": "bfloat61"}, "did you mean 'bfloat16'"),
    ],
)
def test_wrong_values(kind, options, message):
    with pytest.raises(ConfigError, match=message):
        build(kind, options)


def test_images_that_are_too_small_or_odd():
    with pytest.raises(ValueError, match="sides that 4 divides"):
        ResNetTranslator().check((10, 8, 3))
    with pytest.raises(ValueError, match="above 3, half of the kernel"):
        ResNetTranslator(halvings=0).check((3, 8, 3))
    with pytest.raises(ValueError, match="at least 24"):
        PatchDiscriminator().check((16, 32, 3))
    ResNetTranslator().check((8, 8, 3))
    PatchDiscriminator(halvings=1).check((6, 6, 1))
    assert jax.eval_shape(PATCHES.init_with_output, jax.random.key(0), jnp.zeros((1, 6, 6, 1)))[0].shape == (1, 1, 1)
