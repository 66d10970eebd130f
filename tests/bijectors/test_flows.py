"""Single bijectors beyond the contract: constraints, splines, the first batch, parameters of their own for examples."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

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
        of = jit(jax.value_and_grad(lambda x, f=function: f(params, x)[1].sum()))
        value, gradient = of(np.zeros((1, 2), np.float32))
        assert np.isfinite(value) and np.all(np.isfinite(gradient))


def test_the_inverse_of_a_planar_flow_has_the_derivatives_of_an_inverse():
    flow = bijectors.Planar()
    params = {"w": jnp.asarray([1.0, 0.5]), "u": jnp.asarray([-1.0, 0.4])}

    def derivatives(function, y):
        """Of the one example y, by itself and by b."""
        at = lambda y, b: function({**params, "b": b}, y[None])[0][0]  # noqa: E731
        return jax.jacfwd(at, (0, 1))(y, jnp.float32(0.2))

    @jit
    def run(x):
        z = flow.forward({**params, "b": jnp.float32(0.2)}, x[None])[0][0]
        return derivatives(flow.forward, x), derivatives(flow.inverse, z)

    (there, there_by_b), (back, back_by_b) = jax.device_get(run(np.float32([0.3, -0.6])))
    np.testing.assert_allclose(there @ back, np.eye(2), atol=1e-5)
    np.testing.assert_allclose(back_by_b, -back @ there_by_b, atol=1e-5)  # for f(g(z; b); b) = z


def test_the_spline_goes_through_its_knots_with_its_derivatives():
    """Widths, heights and derivatives as numbers: a softmax of logarithms is a share, softplus is turned around."""
    widths, heights = np.array([0.2, 0.5, 0.3]), np.array([0.6, 0.1, 0.3])
    slopes = np.array([1.0, 0.5, 3.0, 1.0])  # those at the ends are given
    free = lambda share: np.log((share - MIN_SIZE) / (1 - MIN_SIZE * 3))  # noqa: E731
    one = np.log(np.expm1(1 - MIN_DERIVATIVE))
    raw = np.concatenate([free(widths), free(heights), np.log(np.expm1(slopes[1:3] - MIN_DERIVATIVE)) - one])
    ends_x, ends_y = (np.r_[-2.0, 2.0 * (2.0 * np.cumsum(sizes) - 1.0)] for sizes in (widths, heights))

    def value(xi, k):
        """Equation 4 in bin k."""
        width, height = ends_x[k + 1] - ends_x[k], ends_y[k + 1] - ends_y[k]
        s = height / width
        rise = height * (s * xi**2 + slopes[k] * xi * (1 - xi))
        return ends_y[k] + rise / (s + (slopes[k] + slopes[k + 1] - 2 * s) * xi * (1 - xi))

    inside = ends_x[1] + 0.37 * (ends_x[2] - ends_x[1])
    x = np.r_[-2.5, ends_x, 3.0, inside]
    h = np.broadcast_to(raw.astype(np.float32)[:, None], (len(x), 8, 1))
    spline = jit(lambda x, inverse: rational_quadratic(x, h, 2.0, inverse), static_argnums=1)
    y, log_slope = (np.asarray(found)[:, 0] for found in spline(x.astype(np.float32)[:, None], False))
    np.testing.assert_allclose(y, np.r_[-2.5, ends_y, 3.0, value(0.37, 1)], atol=1e-5)
    np.testing.assert_allclose(np.exp(log_slope[:-1]), np.r_[1.0, slopes, 1.0], rtol=1e-4)

    y = np.r_[-2.5, ends_y, 3.0, -0.5]  # the last one in the first bin, where another root finder looks for it
    back, _ = spline(y.astype(np.float32)[:, None], True)
    xi = scipy.optimize.brentq(lambda xi: value(xi, 0) + 0.5, 0.0, 1.0)
    np.testing.assert_allclose(back[:, 0], np.r_[-2.5, ends_x, 3.0, -2.0 + 4.0 * widths[0] * xi], atol=1e-5)


class Ones:
    """A conditioner that says 1, and remembers what it was asked."""

    def apply(self, variables, x, cond, features):
        self.seen = np.asarray(x)
        return np.ones((*x.shape[:-1], features), np.float32)


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize(
    ("mask", "stays"),
    [
        ("alternate", np.arange(32).reshape(4, 4, 2) % 2 == 0),
        ("halves", np.arange(32).reshape(4, 4, 2) < 16),
        ("channel", np.broadcast_to([True, False], (4, 4, 2))),
        ("checkerboard", np.broadcast_to((np.indices((4, 4)).sum(0) % 2 == 0)[..., None], (4, 4, 2))),
    ],
)
def test_couplings_move_one_part_and_show_the_other(mask, stays, swap):
    stays = stays != swap
    x = np.arange(1.0, 33.0, dtype=np.float32).reshape(1, 4, 4, 2)
    layer = bijectors.AdditiveCoupling(Ones(), mask, swap)
    z, _ = layer.forward({}, x)
    np.testing.assert_array_equal(z, x + ~stays)
    seen = layer.conditioner.seen
    np.testing.assert_array_equal(np.sort(seen[seen > 0]), x[0][stays])


@pytest.mark.parametrize("swap", [False, True])
def test_an_odd_number_can_be_split(swap):
    z, _ = bijectors.AdditiveCoupling(Ones(), "alternate", swap).forward({}, np.float32([[1.0, 2.0, 3.0]]))
    np.testing.assert_array_equal(z[0], [2.0, 2.0, 4.0] if swap else [1.0, 3.0, 3.0])


def test_amortized_parameters_are_those_of_each_example():
    flow = bijectors.Repeat(bijectors.Planar(), times=2)
    n, rng = bijectors.size(flow, (3,)), np.random.default_rng(0)
    assert n == 2 * (3 + 3 + 1)
    start = {"w": rng.normal(size=(2, 3)), "u": rng.normal(size=(2, 3)), "b": rng.normal(size=2)}
    start = jax.tree.map(np.float32, start)
    flat, x = (rng.normal(0, scale, (4, k)).astype(np.float32) for scale, k in ((0.3, n), (1.0, 3)))
    flat[0] = 0.0

    @jit
    def run(flat, x):
        params = bijectors.unflatten(flow, (3,), flat, start)
        z, log_det = bijectors.forward_each(flow, params, x)
        one_by_one = jax.lax.map(lambda each: flow.forward(each[0], each[1][None]), (params, x))
        return params, z, log_det, one_by_one, bijectors.inverse_each(flow, params, z)

    params, z, log_det, (z_alone, log_det_alone), (back, log_det_back) = jax.device_get(run(flat, x))
    np.testing.assert_allclose(z, z_alone[:, 0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(log_det, log_det_alone[:, 0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(back, x, atol=1e-5)
    np.testing.assert_allclose(log_det_back, -log_det, atol=1e-5)
    # Numbers of 0 are the start, and every number is in one parameter.
    jax.tree.map(lambda of_each, leaf: np.testing.assert_array_equal(of_each[0], leaf), params, start)
    moved = jax.tree.leaves(jax.tree.map(lambda of_each, leaf: of_each[1:] - leaf, params, start))
    found = np.concatenate([leaf.reshape(3, -1) for leaf in moved], axis=1)
    np.testing.assert_allclose(np.sort(found), np.sort(flat[1:]), atol=1e-6)
    with pytest.raises(ValueError, match=r"\(5,\) numbers an example: Repeat takes \(14,\)"):
        bijectors.unflatten(flow, (3,), jnp.zeros((1, 5)))
    with pytest.raises(ValueError, match="no network can give"):
        bijectors.size(bijectors.ActNorm(), (3,))


def test_what_is_fixed_is_split_off_merged_again_and_out_of_reach_of_gradients():
    layers = (dict(name="actnorm"), dict(name="planar"), dict(name="invertible_1x1"))
    flow = config.build("bijector", dict(name="chain", layers=layers))
    x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)

    @jit
    def run(key):
        params = flow.init(key, (4,))
        of = lambda p: (flow.forward(p, x)[0] ** 2).sum() - flow.forward(p, x)[1].sum()  # noqa: E731
        return params, jax.grad(of)(params), bijectors.Invertible1x1().forward(params["layer_2"], jnp.eye(4))

    params, gradient, (matrix, log_det) = jax.device_get(run(jax.random.key(0)))
    trained, fixed = bijectors.split_fixed(params)
    assert set(fixed) == {"layer_0", "layer_2"} and set(fixed["layer_2"]) == {"fixed"}
    assert "fixed" not in str(jax.tree.structure(trained))
    jax.tree.map(np.testing.assert_array_equal, bijectors.merge_fixed(trained, fixed), params)
    of_trained, of_fixed = bijectors.split_fixed(gradient)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(of_fixed)) == 0.0
    assert all(np.abs(leaf).max() > 0.0 for leaf in jax.tree.leaves(of_trained))
    # The matrix starts as a rotation.
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(4), atol=1e-5)
    np.testing.assert_allclose(log_det, 0.0, atol=1e-5)


def test_glows_factor_is_a_normal_prior_of_what_leaves():
    """The multi-scale flow's density is the product of what stays at the end and what left, given what stayed."""

    @dataclasses.dataclass(frozen=True)
    class Scale(bijectors.Bijector):
        def init(self, key, shape, cond=None):
            return {"by": jnp.ones(())}

        def forward(self, params, x, cond=None):
            return params["by"] * x, np.float32(x[0].size) * jnp.log(params["by"]) * np.ones(len(x), np.float32)

    class Linear:
        """A conditioner that says a third of the sum of what it sees."""

        def apply(self, variables, x, cond, features):
            return jnp.broadcast_to(x.sum(-1, keepdims=True) / 3.0, (*x.shape[:-1], features))

    flow = bijectors.MultiScale(Scale(), 2, factor=bijectors.AffineCoupling(Linear(), "channel", bound=1.5))
    params = {"level_0": {"layer": {"by": np.float32(0.7)}, "factor": {}}, "level_1": {"layer": {"by": np.float32(2)}}}
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 1)).astype(np.float32)
    z, log_det = jax.device_get(jit(flow.forward)(params, x))

    blocks = x.reshape(2, 2, 2, 2, 2).transpose(0, 1, 3, 2, 4).reshape(2, 2, 2, 4)  # of 2 x 2 pixels
    stays, leaves = 0.7 * blocks[..., :2], 0.7 * blocks[..., 2:]
    says = stays.sum(-1, keepdims=True) / 3.0
    scale = np.exp(-1.5 * np.tanh(says / 1.5))
    normal = scipy.stats.norm.logpdf
    expected = normal(leaves, -says * scale, scale).sum((1, 2, 3)) + normal(2.0 * stays).sum((1, 2, 3))
    expected += 16 * np.log(0.7) + 8 * np.log(2.0)
    np.testing.assert_allclose(normal(z).sum((1, 2, 3)) + log_det, expected, rtol=1e-5)
