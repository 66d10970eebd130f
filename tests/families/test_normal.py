"""Normal densities and divergences, against SciPy's distribution and its quadrature."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from genjax.families import normal

MEAN, LOG_STD, X = np.array([0.3, -2.0]), np.array([-1.0, 0.5]), np.array([0.1, 1.7])


def float32(*arrays):
    return [jnp.asarray(array, jnp.float32) for array in arrays]


def test_log_density():
    x, mean, log_std = float32(X, MEAN, LOG_STD)
    expected = stats.norm(MEAN, np.exp(LOG_STD)).logpdf(X)
    np.testing.assert_allclose(normal.log_density(x, mean, log_std), expected, rtol=1e-5)
    np.testing.assert_allclose(normal.log_density(x), stats.norm.logpdf(X), rtol=1e-5)


@pytest.mark.parametrize(("to_mean", "to_log_std"), [((0.0, 0.0), (0.0, 0.0)), ((1.0, -2.5), (-0.4, 0.9))])
def test_divergence(to_mean, to_log_std):
    def integral(mean, log_std, to_mean, to_log_std):
        q, p = stats.norm(mean, np.exp(log_std)), stats.norm(to_mean, np.exp(to_log_std))
        ends = (mean - 10 * q.std(), mean + 10 * q.std())
        return integrate.quad(lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), *ends)[0]

    expected = [integral(*each) for each in zip(MEAN, LOG_STD, to_mean, to_log_std, strict=True)]
    found = normal.divergence(*float32(MEAN, LOG_STD, to_mean, to_log_std))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    if not any((*to_mean, *to_log_std)):
        np.testing.assert_allclose(normal.divergence(*float32(MEAN, LOG_STD)), expected, rtol=1e-5)


def test_no_distance_is_no_divergence():
    """Nor is it lost in rounding where two are near: KL(N(0, std^2) || N(0, 1)) is log(std)^2 and third powers."""
    assert float(normal.divergence(*float32(3.0, -1.0), *float32(3.0, -1.0))) == 0.0
    np.testing.assert_allclose(normal.divergence(*float32(0.0, 2e-4)), 4e-8, rtol=1e-2)
