"""What holds for every network."""

import functools

import jax
import jax.extend as jex
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import config, registry
from genjax.networks import attention, param_shapes

SHAPE = (8, 4, 2)  # no square
BATCH = 3
SPECS = {
    "unet": dict(channels=8, multipliers=(1, 2), blocks_per_level=1, attention_resolutions=(4,), head_channels=8),
    "dit": dict(depth=2, hidden=16, heads=2),
    "mlp": dict(hidden=16, depth=2),
    "edm2_unet": dict(channels=8, multipliers=(1, 2), blocks_per_level=1, attention_resolutions=(4,), head_channels=8),
}
NAMES = tuple(SPECS)
# What these tests cost is compilation, so they compile little and share it: one network in all tests but for its type.
COMMON = dict(num_classes=10, dropout=0.5)
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def build(name, **kwargs):
    return config.build("network", {"name": name, **SPECS[name], **COMMON, **kwargs})


@functools.cache
def params(name):
    """Parameters away from the zeros of the start."""
    shapes = param_shapes(build(name), SHAPE)
    leaves, tree = jax.tree.flatten(shapes)
    rng = np.random.default_rng(0)
    return tree.unflatten([jnp.asarray(rng.normal(0, 0.3, leaf.shape), leaf.dtype) for leaf in leaves])


@functools.partial(jit, static_argnames="network")
def apply(network, params, x, noise_label, cond=None, dropout=None):
    return network.apply({"params": params}, x, noise_label, cond, dropout=dropout)


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(BATCH, *SHAPE)), jnp.float32)
    return x, jnp.asarray([0.0, 400.0, 999.0])


def labels(*values):
    return {"label": jnp.asarray(values, jnp.int32)}


CLASSES = labels(0, 1, -1)


def test_every_registered_network_is_tested_here():
    assert set(registry.entries("network")) == set(SPECS)


@pytest.mark.parametrize("name", NAMES)
def test_starts_at_zero_with_float32_parameters(name, inputs, key):
    network = build(name, dtype="bfloat16")
    start = jit(network.init)(key, *inputs, CLASSES)["params"]
    assert {leaf.dtype for leaf in jax.tree.leaves(start)} == {jnp.dtype("float32")}
    out = apply(network, start, *inputs, CLASSES)
    assert out.shape == (BATCH, *SHAPE)
    assert out.dtype == jnp.float32
    np.testing.assert_array_equal(out, 0)


@pytest.mark.parametrize("name", NAMES)
def test_channels_of_the_output_can_differ(name, inputs):
    network = build(name, out_channels=5)
    out = jax.eval_shape(
        lambda p, x, t: network.apply({"params": p}, x, t, None), param_shapes(network, SHAPE), *inputs
    )
    assert (out.shape, out.dtype) == ((BATCH, *SHAPE[:2], 5), jnp.float32)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_is_close_to_float32(name, inputs):
    full = apply(build(name), params(name), *inputs, CLASSES)
    half = apply(build(name, dtype="bfloat16"), params(name), *inputs, CLASSES)
    assert half.dtype == jnp.float32
    difference = float(jnp.sqrt(jnp.mean((half - full) ** 2)) / jnp.std(full))
    assert 0 < difference < 0.05  # bfloat16 has a relative precision of 2^-8 an operation


@pytest.mark.parametrize("name", NAMES)
def test_norms_and_softmax_are_float32_and_products_are_not(name, inputs):
    network = build(name, dtype="bfloat16")
    jaxpr = jax.make_jaxpr(lambda p, x, t: network.apply({"params": p}, x, t, CLASSES))(params(name), *inputs)
    inexact = {"exp": [], "rsqrt": [], "sqrt": [], "dot_general": [], "conv_general_dilated": []}
    for equation in equations(jaxpr.jaxpr):
        if equation.primitive.name in inexact:
            inexact[equation.primitive.name].append(str(equation.invars[0].aval.dtype))
    assert set(inexact["rsqrt"] + inexact["sqrt"]) == {"float32"}
    assert set(inexact["exp"]) <= {"float32"}
    products = inexact["dot_general"] + inexact["conv_general_dilated"]
    # Two layers of the noise embedding, or one and the class embedding, and the last layer of the network.
    assert products.count("float32") == 3
    assert products.count("bfloat16") == len(products) - 3 > 3


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for inner in jex.core.jaxprs_in_params(equation.params):
            yield from equations(inner)


@pytest.mark.parametrize("name", NAMES)
def test_no_condition_is_the_null_class(name, inputs):
    network, weights = build(name), params(name)
    null = apply(network, weights, *inputs, labels(-1, -1, -1))
    np.testing.assert_allclose(apply(network, weights, *inputs, None), null, rtol=1e-4, atol=1e-5)
    # Every example has its own class, and the null class is no class.
    mixed = apply(network, weights, *inputs, labels(-1, 0, 9))
    np.testing.assert_array_equal(mixed[0], null[0])
    assert float(jnp.abs(mixed[1:] - null[1:]).max(axis=(1, 2, 3)).min()) > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_an_unconditional_network_ignores_the_condition(name, inputs):
    network = build(name, num_classes=None)
    shapes = param_shapes(network, SHAPE)
    assert "class_embedding" not in shapes
    # A label that is no array could not be read.
    jax.eval_shape(lambda p, x, t: network.apply({"params": p}, x, t, {"label": None}), shapes, *inputs)


@pytest.mark.parametrize("name", NAMES)
def test_examples_do_not_see_each_other_but_hear_the_noise_label(name, inputs):
    network, weights = build(name), params(name)
    x, noise_label = inputs
    out = apply(network, weights, x, noise_label, CLASSES)
    others = apply(network, weights, x.at[1:].multiply(-2), noise_label.at[1:].add(7), CLASSES)
    np.testing.assert_array_equal(out[0], others[0])
    louder = apply(network, weights, x, noise_label + 50, CLASSES)
    assert float(jnp.abs(out - louder).max(axis=(1, 2, 3)).min()) > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_forward_mode_along_images_and_noise_labels(name, inputs):
    """The losses of continuous-time consistency models and of average velocities take derivatives so."""
    network, weights = build(name), params(name)
    x, noise_label = inputs[0], jnp.asarray([0.1, 0.5, 0.9])
    direction = (jnp.cos(3 * x), jnp.asarray([1.0, -1.0, 0.5]))

    @jit
    def forward(x, noise_label):
        return jax.jvp(lambda x, t: network.apply({"params": weights}, x, t, CLASSES), (x, noise_label), direction)

    out, tangent = forward(x, noise_label)
    np.testing.assert_allclose(out, apply(network, weights, x, noise_label, CLASSES), rtol=1e-4, atol=1e-4)
    h = 3e-3
    there, back = (
        apply(network, weights, x + s * direction[0], noise_label + s * direction[1], CLASSES) for s in (h, -h)
    )
    expected = (there - back) / (2 * h)
    error = float(jnp.linalg.norm((tangent - expected).ravel()) / jnp.linalg.norm(expected.ravel()))
    assert error < 0.02


# The layers of self-attention; a network that has none is not listed.
LAYERS = {
    "unet": ["down_1_attention_0", "middle_attention", "up_1_attention_0", "up_1_attention_1"],
    "dit": ["block_0", "block_1"],
    "edm2_unet": ["down_1_block_0", "middle_block_0", "up_1_block_0", "up_1_block_1"],
}


def perturb(*flags, layers):
    return {"perturbed_attention": {layer: jnp.asarray(flags) for layer in layers}}


@pytest.mark.parametrize("name", LAYERS)
def test_perturbed_attention_is_of_the_samples_and_layers_that_ask(name, inputs, monkeypatch):
    network, weights, layers = build(name), params(name), LAYERS[name]
    plain = apply(network, weights, *inputs, CLASSES)
    mixed = apply(network, weights, *inputs, CLASSES | perturb(True, False, True, layers=layers))
    np.testing.assert_allclose(mixed[1], plain[1], rtol=1e-4, atol=1e-5)
    one = apply(network, weights, *inputs, CLASSES | perturb(True, False, True, layers=layers[:1]))
    assert float(jnp.abs(one[::2] - mixed[::2]).max(axis=(1, 2, 3)).min()) > 1e-3
    # The same network, whose attention is its values: every layer is perturbed then.
    monkeypatch.setattr(attention, "attention", lambda query, key, value, *rest: value)
    identity = jit(lambda *args: network.apply({"params": weights}, *args))(*inputs, CLASSES)
    np.testing.assert_allclose(mixed[::2], identity[::2], rtol=1e-4, atol=1e-5)
    assert float(jnp.abs(mixed[::2] - plain[::2]).max(axis=(1, 2, 3)).min()) > 1e-3


@pytest.mark.parametrize("name", LAYERS)
def test_perturbed_attention_without_a_class_is_of_the_null_class(name, inputs):
    network, weights = build(name), params(name)
    request = perturb(False, False, False, layers=LAYERS[name])
    null = apply(network, weights, *inputs, None)
    np.testing.assert_allclose(apply(network, weights, *inputs, request), null, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_perturbed_attention_of_a_layer_that_is_not_there_is_refused(name, inputs):
    valid = ", ".join(sorted(LAYERS.get(name, []))) or "none"
    with pytest.raises(ValueError, match=f"no self-attention layer 'middle'.*valid: {valid}(\n|$)"):
        apply(build(name), params(name), *inputs, CLASSES | perturb(True, True, True, layers=["middle"]))


@pytest.mark.parametrize("name", NAMES)
def test_dropout_is_of_the_example_and_its_key_alone(name, inputs, key):
    network, weights = build(name), params(name)
    x, noise_label = (jnp.stack([leaf[0]] * BATCH) for leaf in inputs)
    keys = jax.random.split(key, BATCH)
    plain = apply(network, weights, x, noise_label)
    out = apply(network, weights, x, noise_label, dropout=keys)
    np.testing.assert_array_equal(plain[0], plain[1])
    for a, b in ((out, plain), (out[:-1], out[1:])):  # the examples differ by their keys alone
        assert float(jnp.abs(a - b).max(axis=(1, 2, 3)).min()) > 1e-3
    turned = apply(network, weights, x, noise_label, dropout=keys[::-1])
    np.testing.assert_allclose(turned[::-1], out, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_equal_configs_are_equal_static_arguments(name):
    assert build(name) == build(name) != build(name, num_classes=3)
    assert hash(build(name)) == hash(build(name))
    assert build(name).clone(parent=None) == build(name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(dtype="float8"), "dtype = 'float8'; did you mean 'float"),
        (dict(dropout=1.0), "dropout = 1.0: must be in"),
        (dict(num_classes=0), "num_classes = 0: must be None or at least 1"),
        (dict(out_channels=0), "out_channels = 0: must be None or at least 1"),
        (dict(embedding="furier"), "embedding = 'furier'; did you mean 'fourier'"),
        (dict(hiden=1), "unknown key 'hiden'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_values_are_named_in_one_line(name, wrong, message):
    if "embedding" in wrong and not hasattr(build(name), "embedding"):
        pytest.skip("it has one embedding of the noise label, and no choice")
    with pytest.raises(config.ConfigError, match=message) as error:
        build(name, **wrong)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_image_shape_is_refused(name):
    with pytest.raises(ValueError, match="must be \\(height, width, channels\\)"):
        build(name).check((8, 8))
