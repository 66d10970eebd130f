"""EDM2's layers keep their magnitude, and its U-Net is the paper's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import config
from genjax.networks import EDM2UNet, count, param_shapes
from genjax.networks.edm2_blocks import Block, MPConv, mp_cat, mp_silu, mp_sum, normalize
from genjax.networks.embeddings import mp_fourier

# What these tests cost is compilation.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def magnitude(x):
    return float(jnp.sqrt(jnp.mean(jnp.square(x))))


@pytest.fixture(scope="module")
def two(request):
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.normal(size=(8, 16, 16, c)), jnp.float32) for c in (64, 128))


@pytest.mark.parametrize(
    ("preset", "millions"), [("xs", 125), ("s", 280), ("m", 498), ("l", 777), ("xl", 1119), ("xxl", 1523)]
)
def test_count_is_the_papers(preset, millions):
    # Karras et al. 2024, table 6; the released models of 64x64 latents have 1000 classes.
    found = count(EDM2UNet(preset=preset, num_classes=1000), (64, 64, 4)) / 1e6
    assert abs(found - millions) < 0.8


def test_operations_preserve_magnitude(two):
    a, b = two
    found = {
        "silu": mp_silu(a),
        "sum": mp_sum(a, b[..., :64], 0.3),
        "cat": mp_cat(a, b, 0.5),
        "uneven cat": mp_cat(a, b, 0.2),
        "fourier": mp_fourier(jnp.linspace(-1.5, 1.1, 50), 64),
        "norm": normalize(5 * a),
    }
    assert {name: magnitude(value) for name, value in found.items()} == pytest.approx(
        dict.fromkeys(found, 1.0), rel=0.02
    )


def test_concatenation_shares_the_magnitude(two):
    a, b = two
    whole = mp_cat(a, b, 0.2)
    parts = [float(jnp.square(part).sum()) for part in (whole[..., :64], whole[..., 64:])]
    assert parts[1] / parts[0] == pytest.approx((0.2 / 0.8) ** 2, rel=0.02)


def test_fourier_features_of_any_label_have_unit_magnitude():
    waves = mp_fourier(jnp.linspace(-5, 5, 200), 256)
    rows = jnp.sqrt(jnp.mean(waves**2, axis=-1))
    np.testing.assert_allclose(rows, 1, atol=0.06)
    # cos(2 pi f c + phase): the kernel of features whose frequencies are N(0, 1) is exp(-(2 pi d)^2 / 2).
    kernel = mp_fourier(jnp.asarray([0.0, 0.1, 0.2]), 4096)
    found = kernel @ kernel[0] / 4096
    np.testing.assert_allclose(found, np.exp(-((2 * np.pi * np.asarray([0, 0.1, 0.2])) ** 2) / 2), atol=0.02)


@pytest.mark.parametrize("kernel", [(), (3, 3)])
def test_a_layer_is_that_of_normalized_weights(two, kernel, key):
    layer = MPConv(96, kernel)
    params = layer.init(key, two[0])["params"]
    out = layer.apply({"params": params}, two[0])
    inside = out[:, 1:-1, 1:-1]  # beyond the border are zeros
    assert magnitude(inside) == pytest.approx(1, rel=0.02)
    np.testing.assert_allclose(layer.apply({"params": {"weight": 7 * params["weight"]}}, two[0]), out, atol=2e-3)
    np.testing.assert_allclose(layer.apply({"params": params}, two[0], 0.5), 0.5 * out, atol=1e-5)
    weight = np.asarray(params["weight"]).reshape(-1, 96)
    if not kernel:
        expected = np.asarray(two[0]) @ (weight / np.linalg.norm(weight, axis=0))
        np.testing.assert_allclose(out, expected, atol=2e-3)


@pytest.mark.slow
def test_magnitudes_stay_through_the_network_at_the_start(key):
    network = EDM2UNet(channels=32, multipliers=(1, 2), blocks_per_level=1, attention_resolutions=(), head_channels=32)
    x = jax.random.normal(key, (2, 32, 32, 3))
    keep = lambda module, method: isinstance(module, Block)  # noqa: E731

    @jit
    def run(key):
        variables = network.init(key, x, jnp.asarray([-1.0, 0.5]))
        return network.apply(variables, x, jnp.asarray([-1.0, 0.5]), capture_intermediates=keep, mutable=True)[1]

    kept = run(key)["intermediates"]
    assert len(kept) == 10
    # What is missing is the zeros beyond the border, in the sixteen rows of the lower level above all.
    found = {name: magnitude(block["__call__"][0]) for name, block in kept.items()}
    assert found == pytest.approx(dict.fromkeys(found, 1.0), abs=0.1)


@pytest.mark.slow
def test_a_block_is_its_figure(key):
    """Of a block of either kind: resampled, normalized in the encoder, two convolutions and the balance of 0.3."""
    x, emb = jax.random.normal(key, (2, 4, 4, 8)), jnp.ones((2, 5))
    settings = dict(width=8, heads=0, dropout=0.0, clip=256.0, implementation="xla", dtype="float32")
    settings |= dict(residual_balance=0.3, attention_balance=0.3)
    apply_conv = jit(MPConv(8, (3, 3)).apply)
    for decoder in (False, True):
        block = Block(decoder=decoder, resample="down", **settings)
        params = jit(block.init)(key, x, emb)["params"] | {"conditioning_gain": jnp.float32(0.7)}
        conv = lambda h, name, params=params: apply_conv({"params": params[name]}, h)  # noqa: E731
        h = x.reshape(2, 2, 2, 2, 2, 8).mean((2, 4))
        h = h if decoder else h / jnp.sqrt(jnp.mean(h**2, axis=-1, keepdims=True))
        weight = params["conditioning"]["weight"]
        scale = 1 + 0.7 * emb @ (weight / jnp.linalg.norm(weight, axis=0, keepdims=True))
        silu = lambda a: a / (1 + jnp.exp(-a)) / 0.596  # noqa: E731
        branch = conv(silu(conv(silu(h), "conv_0") * scale[:, None, None]), "conv_1")
        expected = (0.7 * h + 0.3 * branch) / np.hypot(0.7, 0.3)
        np.testing.assert_allclose(jit(block.apply)({"params": params}, x, emb), expected, atol=2e-3)


def test_attention_is_of_cosines(key):
    """Queries and keys of any size give the same map, and outputs are bounded by the values' unit magnitude."""
    settings = dict(width=8, heads=2, dropout=0.0, clip=256.0, implementation="xla", dtype="float32", decoder=True)
    block = Block(residual_balance=0.0, attention_balance=1.0, **settings)
    x, emb = jax.random.normal(key, (2, 4, 4, 8)), jnp.ones((2, 5))
    params = jit(block.init)(key, x, emb)["params"]
    apply = jit(block.apply)
    out = apply({"params": params}, x, emb)
    np.testing.assert_allclose(apply({"params": params}, 20 * x, emb), out, atol=2e-2)


def test_the_null_class_is_the_vector_of_zeros_and_classes_are_balanced_with_the_noise(key):
    network = EDM2UNet(channels=8, multipliers=(1,), blocks_per_level=1, head_channels=8, num_classes=4)
    shapes = param_shapes(network, (4, 4, 1))
    assert shapes["class_embedding"]["weight"].shape == (4, 8)
    assert "class_embedding" not in param_shapes(EDM2UNet(channels=32), (4, 4, 1))
    assert not [path for path, _ in jax.tree.leaves_with_path(shapes) if "bias" in jax.tree_util.keystr(path)]


@pytest.mark.slow
def test_scalars_begin_without_effect(key):
    common = dict(channels=8, multipliers=(1,), blocks_per_level=1, head_channels=8)
    plain, conditioned = EDM2UNet(**common), EDM2UNet(**common, scalars=("step",))
    x, label = jax.random.normal(key, (2, 4, 4, 1)), jnp.asarray([0.1, 0.5])
    params = jit(conditioned.init)(key, x, label, {"step": label})["params"]
    # Away from the zeros of the start, which are all of gains, but for that of the scalars.
    params = jax.tree.map(lambda p: p if p.ndim else jnp.ones(()), params) | {"scalar_gain": jnp.zeros(())}
    known = {name: value for name, value in params.items() if "scalar" not in name}

    @jit
    def apply(params, step):
        return conditioned.apply({"params": params}, x, label, {"step": step})

    np.testing.assert_allclose(apply(params, label), jit(plain.apply)({"params": known}, x, label), rtol=1e-5)
    heard = params | {"scalar_gain": jnp.ones(())}
    assert float(jnp.abs(apply(heard, label) - apply(heard, label + 0.3)).max()) > 1e-3
    with pytest.raises(ValueError, match="conditioned on 'step', which is not given"):
        conditioned.apply({"params": params}, x, label)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(preset="small_"), "there is no preset 'small_'; did you mean 'small'"),
        (dict(channels=0), "channels = 0: must be at least 1"),
        (dict(multipliers=()), r"multipliers = \(\)"),
        (dict(class_balance=1.5), r"class_balance = 1.5: must be in \[0, 1\]"),
        (dict(clip=0.0), "clip = 0.0: must be positive"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_values_are_refused(wrong, message):
    with pytest.raises(config.ConfigError, match=message):
        config.build("network", {"name": "edm2_unet", **wrong})


@pytest.mark.parametrize(
    ("network", "image_shape", "message"),
    [
        (EDM2UNet(), (9, 8, 1), "images of 9x8: with 2 levels .* multiples of 2"),
        (EDM2UNet(attention_resolutions=(5,)), (8, 8, 1), r"\(5,\): .* are 8, 4 high, none is 5"),
        (EDM2UNet(head_channels=48), (8, 8, 1), "head_channels = 48: does not divide 64 channels"),
    ],
    ids=["height", "attention", "heads"],
)
def test_images_that_do_not_fit_are_refused(network, image_shape, message):
    with pytest.raises(ValueError, match=message):
        network.check(image_shape)
