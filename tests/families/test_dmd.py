"""Distribution matching distillation: its gradient is that of the reverse KL divergence; its phases; its few steps."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import parameterizations, processes, solvers
from genjax.families import DMD, Diffusion, Sampler
from genjax.families.base import Keys
from genjax.families.dmd import direction
from genjax.families.time_samplers import UniformTimes
from genjax.sampling import times

SHAPE = (1, 1, 2)
RF = processes.RectifiedFlow()
X0 = parameterizations.X0(time_scale=1.0)  # the noise label is the time


@dataclasses.dataclass(frozen=True)
class Affine:
    """A network x_0 = mean + gain (x_t - alpha mean), with gain = alpha c / (alpha^2 c + sigma^2): exact of N(mean, c).

    At t = 1, where nothing is known of x_0, it is a generator: mean + sqrt(c) x_t.
    """

    def check(self, image_shape):
        pass

    def init(self, key, x, label, cond):
        return {"params": {"mean": jnp.zeros(2), "log_c": jnp.zeros(2)}}

    def apply(self, variables, x, label, cond, dropout=None):
        mean, c = variables["params"]["mean"], jnp.exp(variables["params"]["log_c"])
        alpha, sigma = (1.0 - label)[:, None, None, None], label[:, None, None, None]
        mean, c = (jnp.broadcast_to(p, x.shape) for p in (mean[None, None, None], c[None, None, None]))
        denoised = mean + alpha * c / (alpha**2 * c + sigma**2) * (x - alpha * mean)
        return jnp.where(alpha > 0, denoised, mean + jnp.sqrt(c) * x)


REAL = {"mean": jnp.array([1.0, -0.5]), "log_c": jnp.log(jnp.array([0.5, 0.2]))}
MADE = {"mean": jnp.array([0.2, 0.3]), "log_c": jnp.log(jnp.array([0.8, 0.3]))}


@dataclasses.dataclass(frozen=True)
class Known:
    """A teacher whose weights are given."""

    family: object

    def load(self):
        return {"model": REAL}


def family(steps=1, **options):
    model = dict(image_shape=SHAPE, network=Affine(), process=RF, parameterization=X0)
    sampler = Sampler(solvers.Consistency(), times.uniform, steps, final="none")
    return DMD(**model, teacher=Known(Diffusion(**model)), sampler=sampler, **options)


def reverse_kl(theta, t):
    """KL(p || q) of the two distributions at time t, in closed form: what the generator makes against the teacher's."""
    alpha, sigma = 1.0 - t, t
    p, q = (alpha**2 * jnp.exp(w["log_c"]) + sigma**2 for w in (theta, REAL))
    gap = alpha**2 * (theta["mean"] - REAL["mean"]) ** 2
    return 0.5 * jnp.sum(jnp.log(q / p) + (p + gap) / q - 1.0)


def test_the_direction_is_the_gradient_of_the_reverse_kl():
    """With both scores exact: the fake one is that of N(mean, c) of the generator's own mean and variance.

    The mean over x_0 and noise is taken exactly: the direction is affine in both, so its product with the generator's
    derivative is a polynomial of degree 2, for which a Gauss-Hermite rule of two nodes in each is exact.
    """
    t = 0.4
    alpha, sigma = 1.0 - t, t
    z, eps = (np.repeat(g.reshape(-1, 1), 2, 1) for g in np.meshgrid([-1.0, 1.0], [-1.0, 1.0]))
    z, eps = (jnp.asarray(v, jnp.float32).reshape(4, *SHAPE) for v in (z, eps))
    model = family()

    def made(theta):
        return model.denoiser({"model": theta})(z, jnp.float32(1.0), None)

    x_0, pull = jax.vjp(made, MADE)
    x_t, at = alpha * x_0 + sigma * eps, jnp.full((4,), t)
    real, fake = (model.denoiser({"model": w})(x_t, at, None) for w in (REAL, MADE))
    # The score is (alpha x_0_hat - x_t) / sigma^2, and x_t changes with x_0 by alpha.
    (found,) = pull(alpha**2 / sigma**2 * (fake - real) / 4.0)
    expected = jax.grad(reverse_kl)(MADE, t)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)

    # What is descended has that direction, and the mean absolute error of the real estimate as its unit.
    unit = jnp.mean(jnp.abs(x_0 - real), axis=(1, 2, 3))
    np.testing.assert_allclose(direction(x_0, real, fake) * unit[:, None, None, None], fake - real, rtol=1e-5)


def test_the_generators_loss_passes_the_direction_on():
    """Of one example and one time: the gradient of the loss is the direction over the number of pixels."""
    model, n = family(matching_times=UniformTimes(0.3, 0.3 + 1e-6)), 8
    fake = {"mean": jnp.array([0.5, 0.0]), "log_c": jnp.zeros(2)}
    state = types.SimpleNamespace(params={"model": MADE, "fake_score": fake}, extra={"teacher": {"model": REAL}})
    batch, keys = {"image": jnp.zeros((n, *SHAPE))}, Keys.of(jax.random.key(0), n)
    gradient = jax.grad(lambda w: model._generator_loss(w, state, batch, keys)[0])(MADE)

    keys_made, keys_t, keys_eps = keys.split(3)
    x_0, pull = jax.vjp(lambda w: model.make(w, keys_made, None), MADE)
    t = model.matching_times(keys_t, RF)
    x_t, _ = model._noised(x_0, t, keys_eps)
    real, guessed = (model.denoiser({"model": w})(x_t, t, None) for w in (REAL, fake))
    (expected,) = pull(direction(x_0, real, guessed) / (2.0 * n))
    for name in expected:
        np.testing.assert_allclose(gradient[name], expected[name], rtol=1e-4)


@pytest.mark.slow
def test_the_fake_score_learns_what_the_generator_makes():
    """At the generator's own mean and variance its loss is the least, and it does not move the generator."""
    model, n = family(time_sampler=UniformTimes(0.2, 0.9)), 4000
    state = types.SimpleNamespace(params={"model": MADE}, extra={})
    batch, keys = {"image": jnp.zeros((n, *SHAPE))}, Keys.of(jax.random.key(0), n)
    loss = jax.jit(lambda w: model._fake_loss(w, state, batch, keys)[0])
    here, gradient = jax.value_and_grad(loss)(MADE)
    for name in MADE:
        assert np.abs(gradient[name]).max() < 0.02
        for sign in (-1, 1):
            assert loss({**MADE, name: MADE[name] + 0.3 * sign}) > here + 1e-3


def test_steps_begin_from_what_the_generator_makes():
    """In each of the two steps about half of the examples, the first from noise, the second from a noised image."""
    model, n = family(steps=2), 4000
    made = np.asarray(model.make(MADE, Keys.of(jax.random.key(0), n), None)).reshape(n, 2)
    mean, c = MADE["mean"], jnp.exp(MADE["log_c"])
    gain = 0.5 * c / (0.25 * c + 0.25)  # at t = 1/2
    second = gain**2 * (0.25 * c + 0.25)  # the variance of what the exact denoiser says of it
    np.testing.assert_allclose(made.mean(0), mean, atol=5 / np.sqrt(n))
    np.testing.assert_allclose(made.var(0), 0.5 * (c + second), rtol=0.1)


def test_phases_and_what_they_begin_with():
    model = family(fake_updates=5)
    assert [(p.name, p.trains, p.repeat) for p in model.phases()] == [
        ("fake_score", "fake_score", 5),
        ("generator", "model", 1),
    ]
    spec = types.SimpleNamespace(image_shape=SHAPE, num_classes=None, levels=None, second=None)
    params, extra = model.init(jax.random.key(0), spec)
    assert set(params) == {"model", "fake_score"} and set(extra) == {"teacher"}
    assert model.pretrained() == {"teacher": {"model": REAL}, "model": REAL, "fake_score": REAL}
    assert set(dataclasses.replace(model, begin="scratch").pretrained()) == {"teacher"}
    with pytest.raises(ValueError, match="fake_updates = 0"):
        family(fake_updates=0)
    with pytest.raises(ValueError, match=r"regression = -0\.5"):
        family(regression=-0.5)


def test_regression_is_on_the_noise_that_the_teacher_began_with():
    model, n = family(regression=0.25), 4
    state = types.SimpleNamespace(
        params={"model": MADE, "fake_score": REAL}, extra={"teacher": {"model": REAL}}
    )  # the two scores are one: there is nothing to match
    noise = jax.random.normal(jax.random.key(1), (n, *SHAPE))
    batch = {"image": jnp.ones((n, *SHAPE)), "noise": noise}
    loss, aux = model._generator_loss(MADE, state, batch, Keys.of(jax.random.key(0), n))
    expected = jnp.mean((MADE["mean"][None] + jnp.exp(0.5 * MADE["log_c"])[None] * noise.reshape(n, 2) - 1.0) ** 2)
    np.testing.assert_allclose(aux.metrics["regression"], expected, rtol=1e-5)
    np.testing.assert_allclose(loss, 0.25 * expected, rtol=1e-5)
