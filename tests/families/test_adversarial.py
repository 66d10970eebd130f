"""Losses of GANs against their formulas, and penalties on critics whose gradient is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import config, registry
from genjax.families import adversarial
from genjax.families.base import Keys

REAL, FAKE = np.array([-3.0, -0.5, 0.0, 1.2]), np.array([0.7, -2.0, 0.0, 4.0])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


CROSS_ENTROPY = -np.log(sigmoid(REAL)) - np.log(1 - sigmoid(FAKE))
EXPECTED = {  # name: (options, discriminator, generator)
    "non_saturating": ({}, CROSS_ENTROPY, -np.log(sigmoid(FAKE))),
    "minimax": ({}, CROSS_ENTROPY, np.log(1 - sigmoid(FAKE))),
    "wasserstein": ({}, FAKE - REAL, -FAKE),
    "hinge": ({}, [4.0 + 1.7, 1.5 + 0.0, 1.0 + 1.0, 0.0 + 5.0], -FAKE),
    "least_squares": (
        dict(a=-1.0, b=1.0, c=0.0),
        ((REAL - 1) ** 2 + (FAKE + 1) ** 2) / 2,
        FAKE**2 / 2,
    ),
    "relativistic": ({}, -np.log(sigmoid(REAL - FAKE)), -np.log(sigmoid(FAKE - REAL))),
}


def test_every_loss_is_tested_here():
    assert set(registry.entries("adversarial_loss")) == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_losses(name):
    options, discriminator, generator = EXPECTED[name]
    loss = config.build("adversarial_loss", {"name": name, **options})
    real, fake = jnp.asarray(REAL, jnp.float32), jnp.asarray(FAKE, jnp.float32)
    np.testing.assert_allclose(loss.discriminator(real, fake), discriminator, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(loss.generator(real, fake), generator, rtol=1e-5, atol=1e-6)
    patches = loss.discriminator(real.reshape(2, 2, 1), fake.reshape(2, 2, 1))
    np.testing.assert_allclose(patches.reshape(-1), discriminator, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["non_saturating", "minimax", "relativistic"])
def test_losses_of_sure_discriminators_are_finite(name):
    loss = config.build("adversarial_loss", {"name": name})
    sure = jnp.array([200.0, -200.0])
    for player in (loss.discriminator, loss.generator):
        value, slope = jax.value_and_grad(lambda x, player=player: player(-x, x).sum())(sure)
        assert np.isfinite(value) and np.all(np.isfinite(slope))


def test_gradient_penalty_of_a_linear_critic():
    """Its gradient is its weights everywhere."""
    weights = jnp.array([1.5, -2.0, 0.5]).reshape(1, 3, 1, 1)
    critic = lambda x: (weights * x).sum((1, 2, 3))  # noqa: E731
    norm = np.sqrt(1.5**2 + 2.0**2 + 0.5**2)
    real, fake = jax.random.normal(jax.random.key(0), (2, 5, 3, 1, 1))
    penalty, measured = adversarial.gradient_penalty(critic, real, fake, Keys.of(jax.random.key(1), 5))
    np.testing.assert_allclose(penalty, np.full(5, (norm - 1) ** 2), rtol=1e-5)
    np.testing.assert_allclose(measured, np.full(5, norm), rtol=1e-6)
    of_zero, _ = adversarial.gradient_penalty(critic, real, fake, Keys.of(jax.random.key(1), 5), centre=0.0)
    np.testing.assert_allclose(of_zero, np.full(5, norm**2), rtol=1e-5)


def test_gradient_penalty_of_a_flat_critic_has_a_finite_gradient():
    def total(scale):
        penalty, _ = adversarial.gradient_penalty(
            lambda x: scale * x.sum(1), jnp.ones((2, 3)), jnp.zeros((2, 3)), Keys.of(jax.random.key(0), 2)
        )
        return penalty.sum()

    value, slope = jax.value_and_grad(total)(0.0)
    assert float(value) == pytest.approx(2.0, abs=1e-5) and np.isfinite(slope)


def test_zero_centred_penalty_of_a_quadratic_critic():
    """Of `x^T A x / 2` with a symmetric A the gradient is A x."""
    matrix = np.array([[2.0, 1.0], [1.0, -3.0]], np.float32)
    x = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    found = adversarial.squared_gradient(lambda x: 0.5 * jnp.einsum("bi,ij,bj->b", x, matrix, x), jnp.asarray(x))
    np.testing.assert_allclose(found, ((x @ matrix) ** 2).sum(1), rtol=1e-5)


def test_interpolates_lie_between_and_each_pair_has_its_own():
    keys = jax.random.split(jax.random.key(0), 400)
    share = np.asarray(adversarial.interpolate(keys, jnp.ones((400, 2, 2, 1)), jnp.zeros((400, 2, 2, 1))))
    np.testing.assert_array_equal(share, np.broadcast_to(share[:, :1, :1], share.shape))
    share = np.sort(share[:, 0, 0, 0])
    assert 0 <= share[0] and share[-1] <= 1
    assert np.abs(share - np.linspace(0, 1, 400)).max() < 2 / np.sqrt(400)  # Kolmogorov-Smirnov
