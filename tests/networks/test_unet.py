"""The U-Net's parts and its checks."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import config
from genjax.networks import UNet, param_shapes, resampling
from genjax.networks.unet import PRESETS
from genjax.networks.unet_blocks import AttentionBlock, ResidualBlock, normalize, split_heads


@pytest.fixture(scope="module")
def x():
    return jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 6, 8)), jnp.float32)


def block(**kwargs):
    settings = dict(width=8, scale_shift=True, skip_rescale=False, dropout=0.0, dtype="float32")
    return ResidualBlock(**{**settings, **kwargs})


def start(module, *args, key):
    return jax.jit(lambda: module.init_with_output(key, *args)[0])()


@pytest.mark.parametrize("scale_shift", [True, False])
@pytest.mark.parametrize("rescale", [True, False])
def test_residual_block_starts_as_its_skip(x, key, scale_shift, rescale):
    out = start(block(scale_shift=scale_shift, skip_rescale=rescale), x, jnp.ones((2, 5)), key=key)
    np.testing.assert_allclose(out, x * (0.5**0.5 if rescale else 1), rtol=1e-6)


def test_residual_block_halves_by_averages(x, key):
    out = start(block(resample="down"), x, jnp.ones((2, 5)), key=key)
    expected = (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


def test_residual_block_doubles_by_repetition(x, key):
    out = start(block(resample="up"), x, jnp.ones((2, 5)), key=key)
    np.testing.assert_array_equal(out, np.repeat(np.repeat(x, 2, axis=1), 2, axis=2))


@pytest.mark.parametrize("rescale", [True, False])
def test_attention_block_starts_as_its_skip(x, key, rescale):
    module = AttentionBlock(heads=2, head_channels=None, skip_rescale=rescale, implementation="xla", dtype="float32")
    np.testing.assert_allclose(start(module, x, key=key), x * (0.5**0.5 if rescale else 1), rtol=1e-6)


def test_queries_keys_and_values_start_like_square_layers(key):
    # Ho et al. 2020 have three layers of fan_avg = C: U(-a, a) with a = sqrt(3 / C).
    module = AttentionBlock(heads=1, head_channels=None, skip_rescale=False, implementation="xla", dtype="float32")
    kernel = module.init(key, jnp.zeros((1, 1, 1, 48)))["params"]["qkv"]["kernel"]
    assert kernel.shape == (48, 144)
    assert 0.99 * (3 / 48) ** 0.5 < float(jnp.abs(kernel).max()) <= (3 / 48) ** 0.5


@pytest.mark.parametrize(("channels", "groups"), [(256, 32), (64, 16), (48, 12), (30, 6), (7, 1), (2, 1)])
def test_groups_are_even_and_of_four_channels_or_more(channels, groups, key):
    rng = np.random.default_rng(0)
    x = rng.normal(5, 3, size=(1, 4, 4, channels)).astype(np.float32)

    class Norm(nn.Module):
        @nn.compact
        def __call__(self, x):
            return normalize(x, name="norm")

    out = Norm().init_with_output(key, jnp.asarray(x))[0]
    grouped = x.astype(np.float64).reshape(16, groups, -1)
    expected = (grouped - grouped.mean((0, 2), keepdims=True)) / grouped.std((0, 2), keepdims=True)
    np.testing.assert_allclose(out.reshape(grouped.shape), expected, atol=1e-4)


def test_attention_is_where_it_is_named():
    network = UNet(channels=8, multipliers=(1, 1, 1), blocks_per_level=1, attention_resolutions=(8, 4), heads=1)
    layers = {name for name in param_shapes(network, (16, 8, 1)) if "attention" in name}
    assert layers == {
        "down_1_attention_0",
        "down_2_attention_0",
        "middle_attention",
        "up_2_attention_0",
        "up_2_attention_1",
        "up_1_attention_0",
        "up_1_attention_1",
    }


def test_ddpm_resamples_by_convolutions_and_adm_in_blocks():
    ddpm = param_shapes(UNet(channels=8, multipliers=(1, 1), resampling="conv", heads=1), (4, 4, 1))
    adm = param_shapes(UNet(channels=8, multipliers=(1, 1), resampling="residual", heads=1), (4, 4, 1))
    for name in ("down_0_resample", "up_1_resample"):
        assert set(ddpm[name]) == {"kernel", "bias"}
        assert {"conv_0", "conv_1", "conditioning"} <= set(adm[name])


@pytest.mark.parametrize("resampling", ["conv", "residual"])
def test_shape_of_a_network_of_either_resampling(resampling):
    network = UNet(channels=8, multipliers=(1, 2, 1), resampling=resampling, blocks_per_level=1, heads=1)
    shapes = param_shapes(network, (8, 12, 3))
    x = jax.ShapeDtypeStruct((2, 8, 12, 3), jnp.float32)
    out = jax.eval_shape(lambda p, x, t: network.apply({"params": p}, x, t), shapes, x, x.update(shape=(2,)))
    assert (out.shape, out.dtype) == (x.shape, x.dtype)


@pytest.mark.parametrize(
    ("network", "image_shape", "message"),
    [
        (UNet(multipliers=(1, 2, 2)), (30, 32, 3), "images of 30x32 cannot be halved 2 times: .* multiples of 4"),
        (UNet(multipliers=(1, 2)), (8, 7, 1), "images of 8x7 cannot be halved 1 times"),
        (UNet(attention_resolutions=(16, 5)), (32, 32, 3), r"\(16, 5\): .* are 32, 16, 8 high, none is 5"),
        (UNet(head_channels=48), (32, 32, 3), "head_channels = 48: does not divide 128 channels"),
        (UNet(heads=3), (32, 32, 3), "heads = 3: does not divide the 128 channels"),
    ],
    ids=["height", "width", "attention", "head_channels", "heads"],
)
def test_images_that_do_not_fit_are_refused_before_compiling(network, image_shape, message):
    with pytest.raises(ValueError, match=message) as error:
        network.check(image_shape)
    assert "\n" not in str(error.value)
    x = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda key, x, t: network.init(key, x, t), jax.random.key(0), x, x.update(shape=(1,)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(preset="adm_imagenet"), "there is no preset 'adm_imagenet'; did you mean 'adm_imagenet"),
        (dict(heads=2, head_channels=8), "heads = 2 and head_channels = 8: give one of them"),
        (dict(channels=33), "channels = 33: must be even"),
        (dict(channels=0), "channels = 0: must be at least 1"),
        (dict(multipliers=()), r"multipliers = \(\)"),
        (dict(resampling="pool"), "resampling = 'pool'; valid: biggan, conv, residual"),
        (dict(progressive_input="skp"), "progressive_input = 'skp'; did you mean 'skip'"),
        (dict(progressive_output="input_skip"), "progressive_output = 'input_skip'; did you mean 'skip'"),
        (dict(up_attention="first"), "up_attention = 'first'; .*valid: every, last"),
        (dict(embedding_channels=3), "embedding_channels = 3: must be even"),
        (dict(attention="cudn"), "attention = 'cudn'; did you mean 'cudnn'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_values_are_refused(wrong, message):
    with pytest.raises(config.ConfigError, match=message):
        config.build("network", {"name": "unet", **wrong})


def test_fields_replace_those_of_the_preset():
    network = config.build(
        "network", dict(name="unet", preset="adm_imagenet64", dropout=0.0, heads=3, attention_resolutions=[])
    )
    assert (network.dropout, network.heads, network.head_channels) == (0.0, 3, None)
    assert network.attention_resolutions == ()
    assert network.multipliers == PRESETS["adm_imagenet64"]["multipliers"]


PROGRESSIVE = list(itertools.product(("none", "skip", "residual"), ("none", "skip", "residual"), (False, True)))


@pytest.mark.parametrize(("progressive_input", "progressive_output", "filtered"), PROGRESSIVE)
def test_shape_of_a_progressive_network(progressive_input, progressive_output, filtered):
    network = UNet(
        channels=8,
        multipliers=(1, 2, 1),
        heads=1,
        blocks_per_level=1,
        resampling="conv" if filtered else "biggan",
        progressive_input=progressive_input,
        progressive_output=progressive_output,
        filtered=filtered,
        out_channels=2,
    )
    shapes = param_shapes(network, (8, 12, 3))
    assert ("out" in shapes) == (progressive_output != "skip")
    x = jax.ShapeDtypeStruct((2, 8, 12, 3), jnp.float32)
    out = jax.eval_shape(lambda p, x, t: network.apply({"params": p}, x, t), shapes, x, x.update(shape=(2,)))
    assert (out.shape, out.dtype) == ((2, 8, 12, 2), x.dtype)


def seen(network, x):
    """What goes into and comes out of every part of a network with random weights; and its output."""
    rng = np.random.default_rng(0)
    leaves, tree = jax.tree.flatten(param_shapes(network, x.shape[1:]))
    params = tree.unflatten([jnp.asarray(rng.normal(0, 0.3, leaf.shape), leaf.dtype) for leaf in leaves])

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def run(params):
        inputs, outputs = {}, {}

        def record(call, args, kwargs, context):
            out = call(*args, **kwargs)
            if context.method_name == "__call__" and len(context.module.path) == 1:
                inputs[context.module.name], outputs[context.module.name] = args[0], out
            return out

        with nn.intercept_methods(record):
            out = network.apply({"params": params}, x, jnp.ones(len(x)))
        return inputs, outputs, out

    return run(params)


def test_progressive_growing_adds_the_image_on_the_way_down_and_the_outputs_on_the_way_up(key):
    common = dict(channels=8, multipliers=(1, 1), blocks_per_level=1, heads=1, resampling="biggan", filtered=True)
    x = jax.random.normal(key, (2, 4, 4, 3))
    skips = UNet(**common, progressive_input="skip", progressive_output="skip")
    inputs, outputs, out = seen(skips, x)
    np.testing.assert_allclose(inputs["down_0_pyramid"], resampling.downsample(x), atol=1e-5)
    expected = outputs["down_0_resample"] + outputs["down_0_pyramid"]
    np.testing.assert_allclose(inputs["down_1_block_0"], expected, atol=1e-5)
    expected = resampling.upsample(outputs["up_1_pyramid"]) + outputs["up_0_pyramid"]
    np.testing.assert_allclose(out, expected, atol=1e-5)

    residual = UNet(**common, progressive_input="residual", progressive_output="residual", skip_rescale=True)
    inputs, outputs, _ = seen(residual, x)
    expected = (outputs["down_0_resample"] + outputs["down_0_pyramid"]) / 2**0.5
    np.testing.assert_allclose(inputs["down_1_block_0"], expected, atol=1e-5)
    expected = (outputs["up_0_block_1"] + outputs["up_0_pyramid"]) / 2**0.5
    np.testing.assert_allclose(inputs["out_norm"], expected, atol=1e-5)
    np.testing.assert_allclose(
        inputs["up_0_pyramid"], resampling.upsample(outputs["up_1_pyramid"], around=1), atol=1e-5
    )


def test_filtered_resampling_is_that_of_the_filter(x, key):
    emb = jnp.ones((2, 5))
    for resample, change in (("down", resampling.downsample), ("up", resampling.upsample)):
        out = start(block(resample=resample, filtered=True), x, emb, key=key)
        np.testing.assert_allclose(out, change(x), rtol=1e-5, atol=1e-6)


def test_convolutions_that_resample_filter_first(x):
    """In forward mode too, which the convolutions of `genjax.networks.convolution` lack on a CPU."""
    kernel = jnp.asarray(np.random.default_rng(1).normal(size=(3, 3, 8, 4)), jnp.float32)
    conv = functools.partial(jax.lax.conv_general_dilated, padding="VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    down = conv(resampling.smooth(x), kernel, (2, 2))
    np.testing.assert_allclose(down, resampling.downsample_conv(x, kernel), rtol=1e-4, atol=1e-5)


def test_the_skip_of_a_biggan_block_has_a_layer_where_the_resolution_changes():
    for skip_layer, resample in itertools.product((False, True), (None, "down", "up")):
        module = block(resample=resample, skip_layer=skip_layer)
        shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((2, 4, 6, 8)), jnp.ones((2, 5)))["params"]
        assert ("skip" in shapes) == (skip_layer and resample is not None)


def test_the_last_block_alone_attends_on_the_way_up():
    network = UNet(preset="ncsnpp", channels=8, blocks_per_level=2, attention_resolutions=(16,))
    layers = [name for name in param_shapes(network, (32, 32, 3)) if "attention" in name]
    expected = ["down_1_attention_0", "down_1_attention_1", "middle_attention", "up_1_attention_2"]
    assert sorted(layers) == expected == network.attention_layers(32)


def test_heads_of_a_layer():
    assert split_heads(128, None, 32) == 4
    assert split_heads(128, 2, None) == 2
