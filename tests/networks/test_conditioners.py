"""What holds for every conditioner."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import config, registry

SHAPES = {"residual_mlp": (3,), "convnet": (2, 2, 3)}
B = 3


def build(name, **kwargs):
    return config.build("conditioner", dict(name=name, hidden=4, **kwargs))


def test_every_conditioner_is_tested_here():
    assert set(registry.entries("conditioner")) == set(SHAPES)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", SHAPES)
def test_starts_at_zero_and_hears_example_and_class_alone(name, dtype):
    network = build(name, num_classes=2, dtype=dtype)
    x = jax.random.normal(jax.random.key(0), (B, *SHAPES[name]))
    cond = {"label": jnp.asarray([0, 1, -1], jnp.int32)}
    params = network.init(jax.random.key(1), x, cond, 5)["params"]
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    out = network.apply({"params": params}, x, cond, 5)
    assert out.shape == (B, *SHAPES[name][:-1], 5) and out.dtype == jnp.float32
    np.testing.assert_array_equal(out, 0)

    params["out"]["kernel"] = jnp.ones_like(params["out"]["kernel"])
    run = lambda x, cond: np.asarray(network.apply({"params": params}, x, cond, 5))  # noqa: E731
    equal = jnp.broadcast_to(x[:1], x.shape)
    by_class = run(equal, cond)
    assert all(np.abs(by_class[i] - by_class[j]).max() > 1e-3 for i, j in ((0, 1), (0, 2), (1, 2)))
    np.testing.assert_allclose(run(equal, None)[0], by_class[2], atol=1e-6)
    np.testing.assert_array_equal(run(x.at[1:].add(1.0), cond)[0], run(x, cond)[0])
    assert "class_embedding" not in build(name).init(jax.random.key(1), x, cond, 5)["params"]


def test_an_image_is_flattened_and_a_vector_is_no_image():
    x = jnp.ones((B, 2, 2, 3))
    network = build("residual_mlp")
    assert network.init_with_output(jax.random.key(0), x, None, 5)[0].shape == (B, 2, 2, 5)
    with pytest.raises(ValueError, match="convnet: takes images, not"):
        build("convnet").init(jax.random.key(0), jnp.ones((B, 3)), None, 5)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (dict(dtype="float8"), "dtype = 'float8'"),
        (dict(num_classes=0), "num_classes = 0"),
        (dict(hiden=1), "did you mean 'hidden'"),
    ],
)
def test_wrong_values_are_named(name, wrong, words):
    with pytest.raises(ValueError, match=words):
        build(name, **wrong)
