"""StyleGAN2's layers against what the mathematics says of them, and the published numbers of parameters."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from genjax.networks import StyleGAN2Discriminator, StyleGAN2Generator, resampling, stylegan2

jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # what compiles fast
RNG = np.random.default_rng(0)
GENERATOR = StyleGAN2Generator(image_shape=(8, 8, 2), style=6, mapping_layers=2, max_channels=4, num_classes=3)
DISCRIMINATOR = StyleGAN2Discriminator(max_channels=4, group=2, mapping_layers=1, num_classes=3)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def correlate(image, kernel):
    """[H, W, C] and [k, k, C, D] to [H, W, D]; zeros beyond the border."""
    pairs = [[scipy.signal.correlate2d(image[..., c], kernel[..., c, d], "same") for c in range(image.shape[2])]
             for d in range(kernel.shape[3])]  # fmt: skip
    return np.stack([np.sum(rows, 0) for rows in pairs], -1)


def filtered(image):
    """Convolution with [1, 3, 3, 1] / 8 along both axes, at all places: three pixels wider."""
    taps = np.array([1.0, 3.0, 3.0, 1.0]) / 8.0
    return np.stack([scipy.signal.convolve2d(image[..., c], np.outer(taps, taps)) for c in range(image.shape[2])], -1)


def with_zeros(image):
    """Zeros after each pixel, along both axes."""
    out = np.zeros((2 * image.shape[0], 2 * image.shape[1], image.shape[2]))
    out[::2, ::2] = image
    return out


def test_modulated_convolution_is_each_example_with_its_own_kernel():
    x, kernel, style = normal(3, 5, 5, 4), normal(3, 3, 4, 2), normal(3, 4)
    run = jit(lambda *args: [stylegan2.modulated_conv(*args, demodulate=d) for d in (False, True)])
    for found, demodulate in zip(run(x, kernel, style), (False, True), strict=True):
        for i in range(3):
            own = kernel * style[i][None, None, :, None]
            if demodulate:
                own = own / np.sqrt(np.sum(own**2, (0, 1, 2)))
            np.testing.assert_allclose(found[i], correlate(x[i], own), rtol=1e-4, atol=1e-5)


def test_demodulation_gives_unit_variance_for_unit_variance():
    x, kernel, style = normal(64, 10, 10, 8), 5.0 * normal(3, 3, 8, 4), 3.0 * normal(64, 8)
    y = np.asarray(jit(stylegan2.modulated_conv)(x, kernel, style))[:, 1:-1, 1:-1]
    np.testing.assert_allclose(y.var((0, 1, 2)), 1.0, atol=0.12)  # of 4096 numbers, of which neighbours are correlated


@jit
def resampled(x, kernel):
    return (
        resampling.upsample(x),
        resampling.downsample(x),
        resampling.upsample_conv(x, kernel),
        resampling.downsample_conv(x, kernel),
    )


def test_resampling_is_the_filter_and_the_convolution():
    x, kernel = normal(2, 6, 6, 2), normal(3, 3, 2, 3)
    for i, (up, down, up_conv, down_conv) in enumerate(zip(*resampled(x, kernel), strict=True)):
        # The published alignment: two pixels of padding before and one after.
        low, high = filtered(x[i]), 4.0 * filtered(with_zeros(x[i]))
        np.testing.assert_allclose(up, high[1:-2, 1:-2], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(down, low[2:-1:2, 2:-1:2], rtol=1e-5, atol=1e-5)
        convolved = correlate(high[:-1, :-1], kernel)[1:-1, 1:-1]
        np.testing.assert_allclose(up_conv, convolved, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(down_conv, correlate(low[1:-1, 1:-1], kernel)[1:-1:2, 1:-1:2], rtol=1e-4, atol=1e-5)


def test_resampling_keeps_a_constant_image():
    up, down, *_ = resampled(np.full((2, 6, 6, 2), 0.7, np.float32), normal(3, 3, 2, 3))
    np.testing.assert_allclose(up[:, 1:-1, 1:-1], 0.7, rtol=1e-6)
    np.testing.assert_allclose(down[:, 1:-1, 1:-1], 0.7, rtol=1e-6)


def filled(module, *args):
    """Variables of the shapes that `init` gives, all N(0, 1): nothing is compiled, and no strength or bias is zero."""
    shapes = jax.eval_shape(lambda key: module.init(key, *args), jax.random.key(0))
    return jax.tree.map(lambda leaf: normal(*leaf.shape), shapes)


@pytest.mark.parametrize("rate", [1.0, 0.01])
def test_equalized_learning_rate(rate):
    """The weights in use have variance 1 / fan_in; a step of the stored ones moves the function by the rate."""
    x, layer = normal(512, 100), stylegan2.Dense(64, rate)

    @jit
    def run(key):
        params = layer.init(key, x)["params"]
        moved = {**params, "bias": params["bias"] + 1.0}
        return params["kernel"].std(), layer.apply({"params": params}, x), layer.apply({"params": moved}, x)

    deviation, y, moved = run(jax.random.key(0))
    assert float(deviation) == pytest.approx(1.0 / rate, rel=0.03)
    assert float(jnp.var(y)) == pytest.approx(1.0, rel=0.05)
    np.testing.assert_allclose(moved - y, rate, atol=1e-5)


def test_convolutions_and_activation_keep_the_variance():
    x, layer = normal(32, 8, 8, 64), stylegan2.Conv(64, 3, linear=True)
    y = jit(layer.apply)(filled(layer, x), x)[:, 1:-1, 1:-1]
    assert float(np.var(y)) == pytest.approx(1.0, rel=0.1)
    # Leaky ReLU of a standard normal number has mean square (1 + 0.2^2) / 2.
    assert float(np.mean(np.square(stylegan2.activate(x)))) == pytest.approx(1.04, rel=0.02)


def test_minibatch_deviation():
    x, groups = normal(6, 2, 2, 3), {3: 3, 4: 3, 16: 6, 1: 1}
    found = jit(lambda x: [stylegan2.minibatch_deviation(x, group) for group in groups])(x)
    for y, size in zip(found, groups.values(), strict=True):
        np.testing.assert_array_equal(y[..., :3], x)
        for i in range(6):
            members = [j for j in range(6) if j % (6 // size) == i % (6 // size)]
            np.testing.assert_allclose(y[i, ..., 3], x[members].std(0).mean(), rtol=1e-3, atol=2e-4)


def test_each_layer_reads_its_own_style_and_noise():
    """Of one batch, where each image differs from the first in one style, or in its key."""
    layers = GENERATOR.num_styles
    styles = np.repeat(normal(1, layers, 6), layers + 3, 0)
    styles[np.arange(layers) + 1, np.arange(layers)] += 1.0
    keys = jax.vmap(jax.random.key)(np.array([0] * (layers + 2) + [1]))
    run = jit(lambda params, *args: GENERATOR.apply(params, *args, method="synthesize"))
    images = np.asarray(run(filled(GENERATOR, normal(1, 5), {"label": np.zeros(1, np.int32)}), styles, keys))
    assert images.shape == (layers + 3, 8, 8, 2) and images.dtype == np.float32
    same = np.abs(images - images[:1]).max((1, 2, 3)) < 1e-5 * np.abs(images).max()
    assert same.tolist() == [True] + [False] * layers + [True, False]


def test_the_class_is_heard_by_both():
    z, x = normal(4, 5), np.repeat(normal(1, 8, 8, 2), 4, 0)
    z[1:] = z[0]
    label = {"label": np.array([0, 1, 1, -1])}
    styles = jit(lambda params: (
        GENERATOR.apply(params, z, label, method="map"), GENERATOR.apply(params, z, method="map")
    ))(filled(GENERATOR, z, label))  # fmt: skip
    logits = jit(lambda params: DISCRIMINATOR.apply(params, x, label))(filled(DISCRIMINATOR, x, label))
    for values in (styles[0], logits):
        assert not np.allclose(values[0], values[1]) and not np.allclose(values[0], values[3])
        np.testing.assert_allclose(values[1], values[2], rtol=1e-4)
    np.testing.assert_allclose(styles[1][0], styles[0][3], rtol=1e-4)
    assert logits.shape == (4,)


def count(module, *args):
    shapes = jax.eval_shape(lambda key: module.init(key, *args), jax.random.key(0))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def test_published_numbers_of_parameters():
    """Configuration F at 1024x1024, from what the authors' PyTorch code prints of its networks.

    It prints 28,794,124 of a generator whose mapping has two layers, of 512 * 513 each, and 29,012,513 of the
    discriminator; with eight layers that is the paper's 30 million.
    """
    shape = (1024, 1024, 3)
    z, x = np.zeros((1, 512), np.float32), np.zeros((1, *shape), np.float32)
    assert count(StyleGAN2Generator(shape), z) == 28_794_124 + 6 * 512 * 513
    assert count(StyleGAN2Discriminator(), x) == 29_012_513


@pytest.mark.parametrize("shape", [(28, 28, 1), (4, 4, 3), (64, 32, 3), (2048, 2048, 3)])
def test_sizes_that_are_no_power_of_two_are_refused(shape):
    with pytest.raises(ValueError, match=r"must be \(n, n, channels\) with n one of 8, 16"):
        StyleGAN2Generator(shape)
    with pytest.raises(ValueError, match=r"must be \(n, n, channels\)"):
        StyleGAN2Discriminator().check(shape)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="dtype = 'float16'"):
        StyleGAN2Discriminator(dtype="float16")
    with pytest.raises(ValueError, match="fmaps = 0"):
        StyleGAN2Generator((8, 8, 1), fmaps=0)
    with pytest.raises(ValueError, match="group = 0"):
        StyleGAN2Discriminator(group=0)


def test_low_precision_is_of_the_products_alone():
    low = StyleGAN2Generator(image_shape=(8, 8, 2), style=6, mapping_layers=1, max_channels=4, dtype="bfloat16")
    z, full = normal(4, 5), low.clone(dtype="float32")
    shapes = jax.eval_shape(lambda key: low.init(key, z), jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    ours, exact = jit(lambda params: (low.apply(params, z), full.apply(params, z)))(filled(low, z))
    assert ours.dtype == jnp.float32 and not np.array_equal(ours, exact)
    np.testing.assert_allclose(ours, exact, atol=0.05 * float(np.abs(exact).max()))
