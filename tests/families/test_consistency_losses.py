"""Distances of two estimates and their weights, against the papers' numbers and formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import processes
from genjax.families import consistency_losses

EDM = processes.EDM()
DIFFERENCE = np.array([[[[3.0], [-4.0]]], [[[0.0], [0.02]]]])  # two images, of norms 5 and 0.02


def test_distances():
    expected = {
        "L2": [12.5, 2e-4],
        "L1": [3.5, 0.01],
        "PseudoHuber": [np.hypot(5, 0.1) - 0.1, np.hypot(0.02, 0.1) - 0.1],
    }
    for name, values in expected.items():
        distance = getattr(consistency_losses, name)(**({"c": 0.1} if name == "PseudoHuber" else {}))
        np.testing.assert_allclose(distance(jnp.asarray(DIFFERENCE, jnp.float32)), values, rtol=1e-5)


def test_the_constant_of_the_paper():
    """0.00054 sqrt(d), which is .0299298 for 32x32x3 (Song & Dhariwal 2024, sec. 3.3)."""
    distance = consistency_losses.PseudoHuber()
    assert distance.constant(32 * 32 * 3) == pytest.approx(0.0299298, rel=1e-5)
    x = jnp.zeros((1, 32, 32, 3)).at[0, 0, 0, 0].set(1.0)
    np.testing.assert_allclose(distance(x), np.hypot(1.0, 0.0299298) - 0.0299298, rtol=1e-5)
    with pytest.raises(ValueError, match=r"c = 0\.0"):
        consistency_losses.PseudoHuber(c=0.0)


def test_the_gradient_of_pseudo_huber_is_the_adaptive_weighting():
    """Of Geng et al. 2025, sec. 3.3: the square's gradient over sqrt(|x|^2 + c^2), halved; nothing where x is 0."""
    x = jnp.asarray(DIFFERENCE, jnp.float32)
    found = jax.grad(lambda x: consistency_losses.PseudoHuber(c=0.1)(x).sum())(x)
    norms = np.array([5.0, 0.02]).reshape(2, 1, 1, 1)
    np.testing.assert_allclose(found, DIFFERENCE / np.hypot(norms, 0.1), rtol=1e-5)
    assert not np.any(jax.grad(lambda x: consistency_losses.PseudoHuber()(x).sum())(0.0 * x))


@pytest.mark.parametrize("process", [EDM, processes.LinearVP()], ids=["edm", "vp"])
def test_weights_are_of_the_noise_whatever_the_process(process):
    sigma_t, sigma_s = np.array([0.02, 0.5, 40.0]), np.array([0.01, 0.4, 3.0])
    t, s = (process.time_of_log_snr(jnp.asarray(-2.0 * np.log(x), jnp.float32)) for x in (sigma_t, sigma_s))
    for weighting, expected in [
        (consistency_losses.Constant(), np.ones(3)),
        (consistency_losses.InverseGap(), 1.0 / (sigma_t - sigma_s)),
        (consistency_losses.InverseVariance(sigma_data=0.5), (sigma_t**2 + 0.25) / (sigma_t * 0.5) ** 2),
    ]:
        np.testing.assert_allclose(weighting(t, s, process), expected, rtol=2e-3)
