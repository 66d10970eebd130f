"""Stochastic interpolants between Gaussians, of which the velocity, the denoiser and every marginal are known."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import registry, solvers
from genjax.families import Sampler, StochasticInterpolant
from genjax.families.base import Keys
from genjax.families.interpolants import EncodingDecoding, LinearInterpolant, TrigonometricInterpolant
from genjax.sampling import times
from tests.families.functions import Function

SHAPE = (1, 1, 2)
PATHS = {"linear": LinearInterpolant(), "trigonometric": TrigonometricInterpolant(1.0), "coded": EncodingDecoding()}
# The published coefficients (alpha, beta, gamma^2), written anew; all are smooth, gamma^2 at the ends too.
COEFFICIENTS = {
    "linear": lambda t: (1 - t, t, 2.0 * t * (1 - t)),
    "trigonometric": lambda t: (jnp.cos(jnp.pi * t / 2), jnp.sin(jnp.pi * t / 2), t * (1 - t)),
    "coded": lambda t: (
        jnp.where(t < 0.5, jnp.cos(jnp.pi * t) ** 2, 0.0),
        jnp.where(t < 0.5, 0.0, jnp.cos(jnp.pi * t) ** 2),
        jnp.sin(jnp.pi * t) ** 4,
    ),
}
# Of the data and of the other end: means and standard deviations.
DATA, NOISE, OTHER = (1.0, 0.4), (0.0, 1.0), (-2.0, 0.7)


def moments(name, other, t):
    """Mean, variance of x_t."""
    a, b, g2 = COEFFICIENTS[name](t)
    return a * DATA[0] + b * other[0], a**2 * DATA[1] ** 2 + b**2 * other[1] ** 2 + g2


def exact(name, other):
    """The network that knows b = m' + (S' / 2 S) (x - m) and eta = gamma / S (x - m)."""

    def network(w, x, label, cond):
        t = label / 1000.0
        (m, v), (dm, dv) = jax.jvp(lambda t: moments(name, other, t), (t,), (jnp.ones_like(t),))
        m, v, dm, dv = (part.reshape(-1, 1, 1, 1) for part in (m, v, dm, dv))
        gamma = jnp.sqrt(COEFFICIENTS[name](t)[2].clip(0.0)).reshape(-1, 1, 1, 1)
        return jnp.concatenate([dm + 0.5 * dv / v * (x - m), gamma / v * (x - m)], -1)

    return Function(network)


def family(name, other=NOISE, **options):
    return StochasticInterpolant(SHAPE, exact(name, other), interpolant=PATHS[name], **options)


PARAMS, KEYS = {"model": {"w": jnp.ones(())}}, Keys.of(jax.random.key(0), 8)


@pytest.mark.parametrize("name", PATHS)
def test_slopes_are_derivatives(name):
    t, h = np.linspace(0.05, 0.95, 10), 1e-6
    for part in ("alpha", "beta", "gamma"):
        value, slope = getattr(PATHS[name], part), getattr(PATHS[name], f"d_{part}")
        np.testing.assert_allclose(slope(t), (value(t + h) - value(t - h)) / (2 * h), atol=1e-6)
        np.testing.assert_allclose(value(jnp.asarray(t)), value(t), atol=1e-6)
        ends = {"alpha": [1, 0], "beta": [0, 1], "gamma": [0, 0]}[part]
        np.testing.assert_allclose(value(np.array([0.0, 1.0])), ends, atol=1e-12)
        assert np.isfinite(slope(np.array([0.0, 1.0]))).all()
    for value, expected in zip(("alpha", "beta", "gamma"), COEFFICIENTS[name](t), strict=True):
        found = getattr(PATHS[name], value)(t)
        np.testing.assert_allclose(found**2 if value == "gamma" else found, expected, atol=1e-5)


@pytest.mark.parametrize("source", ["noise", "image_b"])
@pytest.mark.parametrize("name", PATHS)
def test_the_losses_are_least_at_the_closed_form(name, source):
    """Of a regression: what is left must not depend on x_t, neither in its mean nor in its slope."""
    other = NOISE if source == "noise" else OTHER
    n, keys = 40_000, jax.random.split(jax.random.key(1), 3)
    x_0, x_1 = (m + s * jax.random.normal(k, (n, *SHAPE)) for k, (m, s) in zip(keys, (DATA, other), strict=False))
    z = jax.random.normal(keys[2], (n, *SHAPE))
    model = family(name, other, source=source)
    for at in (0.2, 0.5, 0.7):
        t = jnp.full(n, at)
        x_t, slope = model.path(x_0, x_1, z, t)
        b, eta = model._both(PARAMS["model"], x_t, 1000.0 * t, None)
        centred = x_t - x_t.mean()
        for residual in (slope - b, z - eta):
            bound = 4.5 * float(residual.std()) / np.sqrt(2 * n) + 1e-5  # at t = 1/2 of "coded" x_t is z
            assert abs(float(residual.mean())) < bound
            assert abs(float((residual * centred).mean() / centred.std())) < bound


def test_the_loss_is_the_residual_of_both():
    n = 4000
    data = {"image": DATA[0] + DATA[1] * jax.random.normal(jax.random.key(1), (n, *SHAPE))}
    model = family("linear", time_sampler=lambda keys, _: jnp.full(n, 0.5))
    loss, aux = jax.jit(lambda: model._loss(PARAMS["model"], None, data, Keys.of(jax.random.key(0), n)))()
    # At t = 1/2 gamma' = 0, x_t = (x_0 + x_1) / 2 + z / sqrt(2) and the slope is x_1 - x_0.
    variance = (DATA[1] ** 2 + 1) / 4 + 0.5
    of_b = 1 + DATA[1] ** 2 - ((1 - DATA[1] ** 2) / 2) ** 2 / variance
    of_eta = 1 - 0.5 / variance
    assert float(aux.metrics["b_mse"]) == pytest.approx(of_b, rel=0.05)
    assert float(aux.metrics["eta_mse"]) == pytest.approx(of_eta, rel=0.05)
    assert float(loss) == pytest.approx(float(aux.metrics["b_mse"] + aux.metrics["eta_mse"]), rel=1e-5)
    assert aux.extra is None
    score = model.score(PARAMS)(data["image"][:3], jnp.float32(0.5), None)
    m, v = moments("linear", NOISE, 0.5)
    np.testing.assert_allclose(score, -(data["image"][:3] - m) / v, rtol=1e-4)


@pytest.mark.parametrize("noise", [0.0, 1.5], ids=["ode", "sde"])
@pytest.mark.parametrize("name", PATHS)
def test_marginals_at_all_times(name, noise):
    n, steps = 8000, 60 if noise == 0 else 200
    solver = solvers.DDIM() if noise else solvers.Heun(coordinate="t")
    model = family(name, noise=noise, sampler=Sampler(solver, times.trailing, steps, final="none"))
    trace = lambda x, x_0, t: {"x": x, "t": jnp.full(len(x), t)}  # noqa: E731
    last, seen = jax.jit(lambda key: model.generate(PARAMS, key, n, None, trace))(jax.random.key(2))
    path, t = np.asarray(seen["x"], np.float64).reshape(steps, -1), np.asarray(seen["t"], np.float64)[:, 0]
    path, t = np.concatenate([path, np.asarray(last).reshape(1, -1)]), np.append(t, 0.0)
    means, variances = (np.asarray(part) for part in moments(name, NOISE, jnp.asarray(t)))
    allowed = 4 * np.sqrt(variances / (2 * n)) + (0.02 if noise else 0.005)
    assert (np.abs(path.mean(1) - means) < allowed).all()
    assert (np.abs(path.var(1) / variances - 1) < 4 * np.sqrt(1 / n) + (0.05 if noise else 0.02)).all()


@pytest.mark.slow
def test_from_one_source_to_another():
    model = family(
        "linear", OTHER, source="image_b", sources=6, sampler=Sampler(solvers.Heun(coordinate="t"), steps=40)
    )
    image_b = OTHER[0] + OTHER[1] * jax.random.normal(jax.random.key(1), (8, *SHAPE))
    data = {"image": jnp.ones((8, *SHAPE)), "image_b": image_b}
    params, extra = model.init(jax.random.key(0), None)
    loss = jax.jit(lambda extra: model._loss(PARAMS["model"], types.SimpleNamespace(extra=extra), data, KEYS))
    extra = loss(extra)[1].extra
    np.testing.assert_array_equal(extra["sources"]["images"], image_b[:6])
    # The ODE between Gaussians is the affine map that takes one to the other.
    moved = DATA[0] + DATA[1] / OTHER[1] * (image_b - OTHER[0])
    translated = jax.jit(lambda x: model.translate(params, jax.random.key(0), x))(image_b)
    np.testing.assert_allclose(translated, moved, atol=5e-3)
    made = jax.jit(lambda extra: model.generate({**params, **extra}, jax.random.key(3), 5))(extra)
    assert np.abs(np.asarray(made)[:, None] - np.asarray(moved)[None, :6]).max((2, 3, 4)).min(1).max() < 5e-3
    assert model.evaluate(params, {"image": data["image"]}, jax.random.key(0)) == {}
    figures = jax.eval_shape(lambda: model.evaluate(params, data, jax.random.key(0)))
    assert {name: figure.shape for name, figure in figures.items()} == {"loss": (8,), "b_mse": (8,), "eta_mse": (8,)}


def test_mistakes_are_named():
    spec = types.SimpleNamespace(image_shape=SHAPE, num_classes=None, levels=None, second=None)
    family("linear").check(spec)
    network, still = exact("linear", NOISE), LinearInterpolant(0.0)
    for make, words in [
        (lambda: family("linear", source="image_c"), "source = 'image_c'; did you mean 'image_b'"),
        (lambda: family("linear", noise=1.0, sampler=Sampler(solvers.Heun())), "ddim with eta = 0"),
        (lambda: StochasticInterpolant(SHAPE, network, interpolant=still, noise=1.0), "interpolant with noise"),
        (lambda: StochasticInterpolant(SHAPE, Function(lambda w, x, *_: w * x)).check(spec), "out_channels = 4"),
        (lambda: family("linear", source="image_b").check(spec), "unpaired"),
        (lambda: LinearInterpolant(-1.0), "noise = -1.0"),
    ]:
        with pytest.raises(ValueError, match=words):
            make()
    assert set(registry.entries("interpolant")) == {"linear", "trigonometric", "encoding_decoding"}
