"""What holds for every bijector, and that all of them are here."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import config, registry

VECTOR, IMAGE = (5,), (4, 4, 2)
MLP = dict(name="residual_mlp", hidden=8, depth=1, num_classes=3)
CONVNET = dict(name="convnet", hidden=8, num_classes=3)
PLANAR = dict(name="planar")
CONDITION = {"label": jnp.asarray([0, 2, -1, 1, 1], jnp.int32)}  # of a batch whose first three examples are equal
ONE = {"label": CONDITION["label"][:1]}
B = 5
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def coupling(kind, mask, **kwargs):
    conditioner = CONVNET if mask in ("channel", "checkerboard") else MLP
    return dict(name=f"{kind}_coupling", conditioner=conditioner, mask=mask, **kwargs)


# Name: config, and the shape of an example.
TABLE = {
    "planar": (PLANAR, VECTOR),
    "radial": (dict(name="radial"), VECTOR),
    "radial of images": (dict(name="radial"), (2, 2, 1)),
    "additive_coupling": (coupling("additive", "halves"), VECTOR),
    "affine_coupling": (coupling("affine", "alternate"), VECTOR),
    "affine_coupling swapped": (coupling("affine", "alternate", swap=True), VECTOR),
    "affine_coupling sigmoid": (coupling("affine", "channel", scale="sigmoid"), IMAGE),
    "affine_coupling checkerboard": (coupling("affine", "checkerboard"), IMAGE),
    "spline_coupling": (coupling("spline", "alternate", bins=4, swap=True), (6,)),
    "spline_coupling checkerboard": (coupling("spline", "checkerboard", bins=4, swap=True), IMAGE),
    "actnorm": (dict(name="actnorm"), IMAGE),
    "invertible_1x1": (dict(name="invertible_1x1"), (2, 2, 4)),
    "logit": (dict(name="logit", alpha=0.01), VECTOR),
    "squeeze": (dict(name="squeeze"), IMAGE),
    "multi_scale": (
        dict(
            name="multi_scale",
            levels=2,
            before=coupling("affine", "checkerboard"),
            layer=dict(name="invertible_1x1"),
            factor=coupling("affine", "channel"),
        ),
        IMAGE,
    ),
    "chain": (dict(name="chain", layers=(dict(name="logit"), PLANAR, dict(name="actnorm"))), VECTOR),
    "repeat": (dict(name="repeat", times=3, layer=PLANAR), VECTOR),
}


def build(name):
    return config.build("bijector", TABLE[name][0])


def parameters(bijector, shape, amount):
    """Random parameters; NumPy's, because what initializes them would have to be compiled."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        match path[-1].key:
            case "permutation":
                return np.broadcast_to(np.eye(leaf.shape[-1], dtype=np.float32)[::-1], leaf.shape)
            case "sign":
                return np.broadcast_to(np.float32([1, -1] * leaf.shape[-1])[: leaf.shape[-1]], leaf.shape)
        return rng.normal(0.0, amount, leaf.shape).astype(np.float32)

    shapes = jax.eval_shape(lambda key: bijector.init(key, shape, ONE), jax.random.key(0))
    return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def measured(name):
    """Of one compiled function: data, noise, data again, the log-determinants, and noise and Jacobian one by one."""
    bijector, shape = build(name), TABLE[name][1]
    params = parameters(bijector, shape, 0.3)
    x = np.tanh(np.random.default_rng(1).normal(size=(B, *shape))).astype(np.float32)
    x[1:3] = x[0]

    @jit
    def run(params, x):
        z, log_det = bijector.forward(params, x, CONDITION)
        back, log_det_back = bijector.inverse(params, z, CONDITION)

        def one(x, cond):
            alone = bijector.forward(params, x[None], jax.tree.map(lambda c: c[None], cond))[0].ravel()
            return alone, alone

        jacobian, alone = jax.vmap(jax.jacfwd(one, has_aux=True))(x, CONDITION)
        return x, z, back, log_det, log_det_back, jacobian.reshape(B, z[0].size, x[0].size), alone.reshape(z.shape)

    return [np.asarray(array) for array in run(params, x)]


def test_every_registered_bijector_is_in_the_table():
    assert {spec["name"] for spec, _ in TABLE.values()} == set(registry.entries("bijector"))


@pytest.mark.parametrize("name", TABLE)
def test_the_log_determinant_is_that_of_the_dense_jacobian(name):
    x, z, _, log_det, log_det_back, jacobian, _ = measured(name)
    assert log_det.shape == (B,) and log_det.dtype == z.dtype == np.float32
    expected = np.linalg.slogdet(jacobian.astype(np.float64))[1]
    np.testing.assert_allclose(log_det, expected, atol=2e-5)
    np.testing.assert_allclose(log_det_back, -expected, atol=2e-5)
    assert name == "squeeze" or np.abs(z - x).max() > 1e-3  # it does something
    assert name in ("squeeze", "additive_coupling") or np.abs(expected).max() > 1e-3


@pytest.mark.parametrize("name", TABLE)
def test_the_inverse_is_the_inverse(name):
    x, _, back, *_ = measured(name)
    np.testing.assert_allclose(back, x, atol=1e-4)


@pytest.mark.parametrize("name", TABLE)
def test_an_example_knows_its_class_and_no_other_example(name):
    _, z, *_, alone = measured(name)
    np.testing.assert_allclose(alone, z, atol=1e-5)
    distances = [np.abs(z[i] - z[j]).max() for i, j in ((0, 1), (0, 2), (1, 2))]
    conditional = "num_classes" in str(TABLE[name][0])
    assert min(distances) > 1e-3 if conditional else max(distances) < 1e-6


DEPTH = 32
DEEP = ("planar", "radial", "additive_coupling", "affine_coupling", "affine_coupling checkerboard", "spline_coupling")


@pytest.mark.parametrize("name", [*DEEP, "actnorm", "invertible_1x1"])
def test_thirty_two_layers_are_inverted_to_1e_4(name):
    """Every kind of layer, the parts swapped between couplings, on data of a few standard deviations."""
    spec, shape = TABLE[name]
    pair = (spec, {**spec, "swap": not spec.get("swap", False)} if "mask" in spec else spec)
    deep = dict(name="repeat", times=DEPTH // 2, layer=dict(name="chain", layers=pair))
    bijector = config.build("bijector", deep)
    # Couplings scale by some tenths each. Many that scale by more are no map that float32 can invert.
    params = parameters(bijector, shape, {"planar": 0.3, "radial": 0.3, "invertible_1x1": 0.05}.get(name, 0.1))
    x = 1.5 * np.random.default_rng(2).normal(size=(64, *shape)).astype(np.float32)
    cond = {"label": np.arange(64, dtype=np.int32) % 4 - 1}

    @jit
    def run(params, x):
        z, log_det = bijector.forward(params, x, cond)
        back, log_det_back = bijector.inverse(params, z, cond)
        return z, back, log_det + log_det_back

    z, back, rest = map(np.asarray, run(params, x))
    assert np.abs(z - x).max() > 0.2
    assert np.abs(back - x).max() <= 1e-4
    assert np.abs(rest).max() <= 1e-3


def test_compiling_does_not_grow_with_the_depth():
    def program(times):
        bijector = config.build("bijector", dict(name="repeat", times=times, layer=coupling("affine", "alternate")))
        shapes = jax.eval_shape(lambda key: bijector.init(key, VECTOR), jax.random.key(0))
        x = jax.ShapeDtypeStruct((B, *VECTOR), jnp.float32)
        return str(jax.make_jaxpr(lambda p, x: jax.grad(lambda p: bijector.forward(p, x)[1].sum())(p))(shapes, x))

    assert program(2).count(" = ") == program(50).count(" = ") > 50
