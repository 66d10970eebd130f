"""Generators and discriminators: what holds for each, and the layers against other ways to compute them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import config
from genjax.networks import norms
from genjax.networks.dcgan import doublings

SHAPE = (8, 16, 2)  # no square
GENERATORS = {
    "mlp": dict(hidden=8, depth=1, norm="batch"),
    "dcgan": dict(channels=4, norm="conditional_batch"),
    "resnet": dict(channels=4),
}
DISCRIMINATORS = {
    "mlp": dict(hidden=8, depth=1, norm="spectral"),
    "dcgan": dict(channels=4, interleaved=True, norm="spectral"),
    "resnet": dict(channels=4, norm="layer", plain=1),
}
LABELS = {"label": jnp.array([0, 1, -1], jnp.int32)}
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.partial(jit, static_argnames=("network", "train"))
def apply(network, variables, x, cond=None, train=False):
    """The output and the variables after."""
    return network.apply(variables, x, cond, train=train, mutable=["batch_stats", "spectral"])


def generator(name, **kwargs):
    return config.build("generator", dict(name=name, image_shape=SHAPE, num_classes=3) | GENERATORS[name] | kwargs)


def discriminator(name, **kwargs):
    return config.build("discriminator", dict(name=name, num_classes=3) | DISCRIMINATORS[name] | kwargs)


def scattered(shapes):
    """Variables away from the small ones of the start; variances are positive."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        values = rng.normal(0, 0.3, leaf.shape).astype(np.float32)
        return np.abs(values) if path[-1].key == "var" else values

    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.mark.parametrize("name", GENERATORS)
def test_generators(name, key):
    network, z = generator(name), jax.random.normal(key, (3, 5))
    variables = scattered(jax.eval_shape(network.init, key, z, LABELS))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    run = lambda z, cond: apply(network, variables, z, cond)[0]  # noqa: E731
    images = run(z, LABELS)
    assert (images.shape, images.dtype) == ((3, *SHAPE), jnp.float32)
    assert float(jnp.abs(images).max()) <= 1
    # An image is of its own latent and class.
    turned = run(z[::-1], {"label": LABELS["label"][::-1]})
    np.testing.assert_allclose(turned[::-1], images, rtol=1e-5, atol=1e-6)
    null = run(z, {"label": jnp.full(3, -1, jnp.int32)})
    assert [bool(np.allclose(a, b)) for a, b in zip(images, null, strict=True)] == [False, False, True]
    np.testing.assert_allclose(run(z, None), null, rtol=1e-4, atol=1e-5)
    half, _ = apply(generator(name, dtype="bfloat16"), variables, z, LABELS)
    assert half.dtype == jnp.float32 and 0 < float(jnp.abs(half - images).mean()) < 0.05


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_discriminators(name, key):
    network, x = discriminator(name), jax.random.normal(key, (3, *SHAPE))
    network.check(SHAPE)
    variables = jit(network.init)(key, x, LABELS)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    run = lambda x, cond: apply(network, variables, x, cond)[0]  # noqa: E731
    logits = run(x, LABELS)
    assert (logits.shape, logits.dtype) == ((3,), jnp.float32)
    turned = run(x[::-1], {"label": LABELS["label"][::-1]})
    np.testing.assert_allclose(turned[::-1], logits, rtol=1e-5, atol=1e-6)
    null = run(x, {"label": jnp.full(3, -1, jnp.int32)})
    assert [bool(np.allclose(a, b)) for a, b in zip(logits, null, strict=True)] == [False, False, True]
    half, _ = apply(discriminator(name, dtype="bfloat16"), variables, x, LABELS)
    assert half.dtype == jnp.float32 and 0 < float(jnp.abs(half - logits).mean()) < 0.05


def test_projection_is_a_vector_of_the_class_times_the_features():
    """Miyato & Koyama 2018, eq. 3, with row 3 of the matrix for the null class."""
    network = discriminator("mlp", norm="none")
    x = np.random.default_rng(1).normal(size=(3, *SHAPE)).astype(np.float32)
    variables = scattered(jax.eval_shape(network.init, jax.random.key(0), x, LABELS))
    layer, head = variables["params"]["layer_0"], variables["params"]["head"]
    features = x.reshape(3, -1) @ layer["kernel"] + layer["bias"][None]
    features = np.where(features > 0, features, 0.2 * features)
    expected = features @ head["logit"]["kernel"][:, 0] + head["logit"]["bias"]
    expected += (head["projection"]["kernel"][[0, 1, 3]] * features).sum(1)
    np.testing.assert_allclose(apply(network, variables, x, LABELS)[0], expected, rtol=1e-4, atol=1e-4)


def test_batch_normalization_keeps_running_statistics():
    network = generator("mlp", num_classes=None)
    z = np.random.default_rng(1).normal(size=(64, 5)).astype(np.float32)
    variables = scattered(jax.eval_shape(network.init, jax.random.key(0), z))
    layer, before = variables["params"]["layer_0"], variables["batch_stats"]["norm_0"]["norm"]
    hidden = z @ layer["kernel"] + layer["bias"][None]
    in_training, after = apply(network, variables, z, train=True)
    after = after["batch_stats"]["norm_0"]["norm"]
    np.testing.assert_allclose(after["mean"], 0.9 * before["mean"] + 0.1 * hidden.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(after["var"], 0.9 * before["var"] + 0.1 * hidden.var(0), rtol=1e-4)
    # In training the batch counts; afterwards what was kept, which does not change.
    still, kept = apply(network, variables, z)
    assert not np.allclose(in_training[0], still[0], atol=1e-2)
    jax.tree.map(np.testing.assert_array_equal, kept["batch_stats"], variables["batch_stats"])


def test_spectral_normalization_finds_the_largest_singular_value():
    """After enough steps of power iteration; one step moves u, and none is taken without training."""
    layer = norms.Layer(6, kernel=3, bias=False, spectral=True)
    x = np.random.default_rng(1).normal(size=(1, 5, 5, 2)).astype(np.float32)
    params = scattered(jax.eval_shape(layer.init, jax.random.key(0), x))["params"]
    start = {"spectral": {"u": jnp.ones(6)}}
    sigma = np.linalg.svd(np.float64(params["kernel"]).reshape(-1, 6), compute_uv=False)[0]

    @jit
    def run(kept):
        once, after = layer.apply({"params": params, **kept}, x, True, mutable=["spectral"])
        _, still = layer.apply({"params": params, **kept}, x, mutable=["spectral"])
        plain = norms.Layer(6, kernel=3, bias=False).apply({"params": params}, x)
        return once, plain, after, still

    _, _, after, still = run(start)
    np.testing.assert_array_equal(still["spectral"]["u"], start["spectral"]["u"])
    assert not np.allclose(after["spectral"]["u"], start["spectral"]["u"] / 6**0.5, atol=1e-3)
    for _ in range(100):
        _, _, after, _ = run(after)
    found, plain, _, _ = run(after)
    np.testing.assert_allclose(found, plain / sigma, rtol=1e-4, atol=1e-5)


def test_gradient_through_spectral_normalization(key):
    """Miyato et al. 2018, eq. 8 and 12: with u and v fixed, the gradient of `G . W / sigma` by W."""
    layer = norms.Layer(4, bias=False, spectral=True)
    rng = np.random.default_rng(0)
    weights, grad = rng.normal(size=(2, 3, 4))
    u, s, vt = np.linalg.svd(weights)
    expected = (grad - (grad * weights / s[0]).sum() * np.outer(u[:, 0], vt[0])) / s[0]

    def loss(kernel):
        variables = {"params": {"kernel": kernel}, "spectral": {"u": jnp.asarray(vt[0], jnp.float32)}}
        return (layer.apply(variables, jnp.eye(3)) * grad.astype(np.float32)).sum()

    np.testing.assert_allclose(jit(jax.grad(loss))(jnp.asarray(weights, jnp.float32)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side, times", [(8, 1), (14, 1), (28, 2), (32, 3), (64, 4)])
def test_doublings(side, times):
    assert doublings((side, side, 1)) == times


@pytest.mark.parametrize("shape", [(7, 8, 1), (9, 9, 1), (8, 9, 1), (1, 1, 2)])
def test_images_that_are_no_doublings_are_refused(shape):
    with pytest.raises(ValueError, match="4 to 7 pixels doubled at least once"):
        discriminator("dcgan").check(shape)


@pytest.mark.parametrize(
    "kind, wrong, message",
    [
        ("generator", dict(norm="conditional_batch", num_classes=None), "give num_classes"),
        ("generator", dict(norm="btach"), "did you mean 'batch'"),
        ("generator", dict(channels=0), "channels = 0"),
        ("discriminator", dict(num_classes=0), "num_classes = 0"),
        ("discriminator", dict(dtype="float8"), "dtype = 'float8'"),
    ],
)
def test_wrong_values_are_named(kind, wrong, message):
    with pytest.raises(config.ConfigError, match=message):
        {"generator": generator, "discriminator": discriminator}[kind]("dcgan", **wrong)
