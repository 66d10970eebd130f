"""Single bijectors beyond the contract: constraints, splines, the first batch, parameters of their own for examples."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from genjax import bijectors, config
from genjax.bijectors.spline import MIN_DERIVATIVE, MIN_SIZE, rational_quadratic

jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.mark.parametrize("scale", [1.0, 5.0, 50.0])
def test_a_planar_flow_is_monotone_whatever_its_parameters(scale):
    """Along w, whose derivative is 1 + w.u (1 - tanh^2), and at the worst point."""
    w, u, b = scale * jnp.asarray([1.0, -2.0]), scale * jnp.asarray([-3.0, 2.0]), jnp.asarray(0.7)
    params = {"w": w, "u": u, "b": b}
    worst = -b * w / (w @ w)  # where the tanh is steepest
    x = worst[None] + jnp.linspace(-1.0, 1.0, 9)[:, None] * w[None] / jnp.linalg.norm(w)
    z, log_det = bijectors.Planar().forward(params, x)
    assert np.all(np.isfinite(log_det))
    assert np.all(np.diff(z @ w) > 0)


def test_a_planar_flow_is_the_papers():
    """Where u needs no correction: z = x + u tanh(w.x + b), and its determinant 1 + u.psi, equations 10 to 12."""
    params = {"w": jnp.asarray([0.5, -1.0]), "u": jnp.asarray([0.8, 0.2]), "b": jnp.asarray(0.3)}
    x = np.asarray([[0.4, -0.7]])
    inner = 0.5 * 0.4 + 0.7 + 0.3
    z, log_det = bijectors.Planar().forward(params, jnp.asarray(x))
    np.testing.assert_allclose(z, x + np.tanh(inner) * np.array([[0.8, 0.2]]), rtol=1e-6)
    np.testing.assert_allclose(log_det, np.log(1 + (0.4 - 0.2) * (1 - np.tanh(inner) ** 2)), rtol=1e-5)


def test_a_radial_flow_is_the_papers():
    """Equation 14, with alpha and beta as in appendix A.2."""
    a, b, centre = 0.5, 2.0, np.array([0.2, -0.1, 0.4])
    alpha = np.log1p(np.exp(a))
    beta = -alpha + np.log1p(np.exp(b))
    x = np.array([[1.0, 0.5, -0.3]])
    r = np.linalg.norm(x - centre)
    params = {"centre": jnp.asarray(centre, jnp.float32), "a": jnp.asarray(a), "b": jnp.asarray(b)}
    z, log_det = bijectors.Radial().forward(params, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(z, x + beta / (alpha + r) * (x - centre), rtol=1e-5)
    bh, slope = beta / (alpha + r), -beta * r / (alpha + r) ** 2
    np.testing.assert_allclose(log_det, 2 * np.log(1 + bh) + np.log(1 + bh + slope), rtol=1e-5)


def test_a_radial_flow_has_a_gradient_at_its_centre():
    params = {"centre": jnp.zeros(2), "a": jnp.zeros(()), "b": jnp.asarray(-4.0)}
    for function in (bijectors.Radial().forward, bijectors.Radial().inverse):
        value, gradient = jax.value_and_grad(lambda x, f=function: f(params, x)[1].sum())(jnp.zeros((1, 2)))
        assert np.isfinite(value) and np.all(np.isfinite(gradient))


def test_the_inverse_of_a_planar_flow_has_the_derivatives_of_an_inverse():
    flow = bijectors.Planar()
    params = {"w": jnp.asarray([1.0, 0.5]), "u": jnp.asarray([-1.0, 0.4]), "b": jnp.asarray(0.2)}
    x = jnp.asarray([[0.3, -0.6]])
    z = flow.forward(params, x)[0]
    there = jax.jacfwd(lambda x: flow.forward(params, x[None])[0][0])(x[0])
    back = jax.jacfwd(lambda z: flow.inverse(params, z[None])[0][0])(z[0])
    np.testing.assert_allclose(there @ back, np.eye(2), atol=1e-5)
    # And by the parameters: d x / d b = -(dz/dx)^-1 dz/db.
    by_b = lambda f, y: jax.jacfwd(lambda b: f({**params, "b": b}, y)[0][0])(params["b"])  # noqa: E731
    np.testing.assert_allclose(by_b(flow.inverse, z), -back @ by_b(flow.forward, x), atol=1e-5)


def test_the_spline_goes_through_its_knots_with_its_derivatives():
    """Widths, heights and derivatives as numbers: a softmax of logarithms is a share, softplus is turned around."""
    widths, heights = np.array([0.2, 0.5, 0.3]), np.array([0.6, 0.1, 0.3])
    derivatives = np.array([0.5, 3.0])
    free = lambda share: np.log((share - MIN_SIZE) / (1 - MIN_SIZE * 3))  # noqa: E731
    one = np.log(np.expm1(1 - MIN_DERIVATIVE))
    raw = np.concatenate([free(widths), free(heights), np.log(np.expm1(derivatives - MIN_DERIVATIVE)) - one])
    h = jnp.asarray(raw, jnp.float32)[:, None]
    knots_x = 2.0 * (2.0 * np.cumsum(widths)[:2] - 1.0)
    knots_y = 2.0 * (2.0 * np.cumsum(heights)[:2] - 1.0)
    x = jnp.asarray(np.r_[-2.5, -2.0, knots_x, 2.0, 3.0], jnp.float32)[:, None]
    y, log_slope = rational_quadratic(x, jnp.broadcast_to(h[None], (6, 8, 1)), 2.0)
    np.testing.assert_allclose(y[:, 0], np.r_[-2.5, -2.0, knots_y, 2.0, 3.0], atol=1e-5)
    np.testing.assert_allclose(np.exp(log_slope[:, 0]), np.r_[1.0, 1.0, derivatives, 1.0, 1.0], rtol=1e-4)
    # Between them: equation 4, solved for a value in the middle bin by another root finder.
    inner, k = 0.37, 1
    width, height = 4 * widths[k], 4 * heights[k]
    s = height / width

    def value(xi):
        rise = height * (s * xi**2 + derivatives[0] * xi * (1 - xi))
        return knots_y[0] + rise / (s + (sum(derivatives) - 2 * s) * xi * (1 - xi))

    found, _ = rational_quadratic(jnp.asarray([[knots_x[0] + inner * width]], jnp.float32), h[None], 2.0)
    np.testing.assert_allclose(found[0, 0], value(inner), atol=1e-5)
    back, _ = rational_quadratic(jnp.asarray([[-1.0 + 0.5]], jnp.float32), h[None], 2.0, inverse=True)
    place = np.searchsorted(knots_y, -0.5)
    assert place == 0  # in the first bin, where the derivative on the left is 1
    s = 4 * heights[0] / (4 * widths[0])
    equation = lambda xi: (  # noqa: E731
        -2 + 4 * heights[0] * (s * xi**2 + xi * (1 - xi)) / (s + (1 + 0.5 - 2 * s) * xi * (1 - xi)) + 0.5
    )
    np.testing.assert_allclose(back[0, 0], -2 + 4 * widths[0] * scipy.optimize.brentq(equation, 0, 1), atol=1e-5)


def test_couplings_leave_alone_what_they_listen_to():
    x = jax.random.normal(jax.random.key(0), (1, 4, 4, 2))
    for mask, conditioner, stays in [
        ("alternate", "residual_mlp", np.arange(32).reshape(4, 4, 2) % 2 == 0),
        ("halves", "residual_mlp", np.arange(32).reshape(4, 4, 2) < 16),
        ("channel", "convnet", np.broadcast_to([True, False], (4, 4, 2))),
        ("checkerboard", "convnet", np.broadcast_to((np.indices((4, 4)).sum(0) % 2 == 0)[..., None], (4, 4, 2))),
    ]:
        for swap in (False, True):
            spec = dict(name="additive_coupling", mask=mask, swap=swap, conditioner=dict(name=conditioner, hidden=4))
            layer = config.build("bijector", spec)
            shapes = jax.eval_shape(lambda key, layer=layer: layer.init(key, (4, 4, 2)), jax.random.key(0))
            params = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1), shapes)
            z, _ = layer.forward(params, x)
            np.testing.assert_array_equal(np.asarray(z == x)[0], stays != swap, err_msg=f"{mask} {swap}")


def test_an_odd_number_can_be_split():
    for swap in (False, True):
        layer = bijectors.AdditiveCoupling(Ones(), "alternate", swap)
        z, _ = layer.forward({}, jnp.asarray([[1.0, 2.0, 3.0]]))
        np.testing.assert_array_equal(z[0], [2.0, 2.0, 4.0] if swap else [1.0, 3.0, 3.0])


class Ones:
    """A conditioner that says 1."""

    def apply(self, variables, x, cond, features):
        return jnp.ones((*x.shape[:-1], features))


def test_amortized_parameters_are_those_of_each_example():
    flow = bijectors.Repeat(bijectors.Planar(), times=2)
    start = flow.init(jax.random.key(0), (3,))
    n = bijectors.size(flow, (3,))
    assert n == 2 * (3 + 3 + 1)
    flat = 0.3 * jax.random.normal(jax.random.key(1), (4, n))
    x = jax.random.normal(jax.random.key(2), (4, 3))

    @jit
    def run(flat, x):
        params = bijectors.unflatten(flow, (3,), flat, start)
        z, log_det = bijectors.forward_each(flow, params, x)
        return params, z, log_det, *bijectors.inverse_each(flow, params, z)

    params, z, log_det, back, log_det_back = run(flat, x)
    for i in range(4):
        alone, of_one = flow.forward(jax.tree.map(lambda leaf: leaf[i], params), x[i : i + 1])  # noqa: B023
        np.testing.assert_allclose(z[i], alone[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(log_det[i], of_one[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(back, x, atol=1e-5)
    np.testing.assert_allclose(log_det_back, -log_det, atol=1e-5)
    # Numbers of 0 are the start, and a number is in one parameter alone.
    zero = bijectors.unflatten(flow, (3,), jnp.zeros((1, n)), start)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[0], b), zero, start)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == flat.size
    with pytest.raises(ValueError, match=r"\(5,\) numbers an example: Repeat takes \(14,\)"):
        bijectors.unflatten(flow, (3,), jnp.zeros((1, 5)))
    with pytest.raises(ValueError, match="no network can give"):
        bijectors.size(bijectors.ActNorm(), (3,))


def test_what_is_fixed_is_split_off_and_merged_again():
    flow = config.build(
        "bijector", dict(name="chain", layers=(dict(name="actnorm"), dict(name="planar"), dict(name="invertible_1x1")))
    )
    params = flow.init(jax.random.key(0), (4,))
    trained, fixed = bijectors.split_fixed(params)
    assert set(fixed) == {"layer_0", "layer_2"} and set(fixed["layer_2"]) == {"fixed"}
    assert "fixed" not in str(jax.tree.structure(trained))
    jax.tree.map(np.testing.assert_array_equal, bijectors.merge_fixed(trained, fixed), params)
    # And no gradient goes there, for those who train the whole tree.
    x = jax.random.normal(jax.random.key(1), (8, 4))
    gradient = jax.grad(lambda p: (flow.forward(p, x)[0] ** 2).sum() - flow.forward(p, x)[1].sum())(params)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(bijectors.split_fixed(gradient)[1])) == 0.0


def test_the_1x1_convolution_starts_as_a_rotation():
    layer = bijectors.Invertible1x1()
    params = layer.init(jax.random.key(3), (5,))
    matrix, log_det = layer.forward(params, jnp.eye(5))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(5), atol=1e-5)
    np.testing.assert_allclose(log_det, 0.0, atol=1e-5)


def test_glows_factor_is_a_normal_prior_of_what_leaves():
    """The multi-scale flow's density is the product of what stays at the end and what left, given what stayed."""
    convnet = dict(name="convnet", hidden=4)
    factor = dict(name="affine_coupling", mask="channel", conditioner=convnet)
    spec = dict(name="multi_scale", levels=2, layer=dict(name="actnorm"), factor=factor)
    flow = config.build("bijector", spec)
    params = flow.init(jax.random.key(0), (4, 4, 1))
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    params = tree.unflatten([leaf + jnp.asarray(rng.normal(0, 0.2, leaf.shape), jnp.float32) for leaf in leaves])
    x = jax.random.normal(jax.random.key(1), (2, 4, 4, 1))
    z, log_det = jit(flow.forward)(params, x)

    squeeze, actnorm = bijectors.Squeeze(), bijectors.ActNorm()
    h, first = actnorm.forward(params["level_0"]["layer"], squeeze.forward({}, x)[0])
    stays, leaves_now = jnp.split(h, 2, axis=-1)
    conditioner = config.build("conditioner", convnet)
    says = conditioner.apply({"params": params["level_0"]["factor"]}, stays, None, 4).reshape(2, 2, 2, 2, 2)
    scale = jnp.exp(-2.0 * jnp.tanh(says[..., 0, :] / 2.0))
    mean = -says[..., 1, :] * scale
    last, second = actnorm.forward(params["level_1"]["layer"], squeeze.forward({}, stays)[0])
    normal = jax.scipy.stats.norm.logpdf
    expected = normal(leaves_now, mean, scale).sum((1, 2, 3)) + normal(last).sum((1, 2, 3)) + first + second
    found = normal(z).sum((1, 2, 3)) + log_det
    np.testing.assert_allclose(found, expected, rtol=1e-5)
