"""Errors by noise level, against the processes' own sigma / alpha."""

from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import parameterizations, processes, registry
from genjax.families import Diffusion, time_samplers
from genjax.families.base import Keys
from genjax.families.noise_levels import by_noise_level
from tests.families.test_families import SHAPE, STATE, ZERO, batch

NAMES = ["0-0.1", "0.1-0.3", "0.3-1", "1-3", "3-inf"]
ENDS = [0.0, 0.1, 0.3, 1.0, 3.0, np.inf]


@pytest.mark.parametrize("name", registry.entries("process"))
def test_a_range_is_of_sigma_over_alpha_in_every_process(name):
    process = registry.entries("process")[name].build()
    t = np.linspace(1e-3, 0.999, 101)
    error = np.random.default_rng(0).uniform(size=101)
    found = by_noise_level(jnp.asarray(error, jnp.float32), jnp.asarray(process.log_snr(t), jnp.float32))
    noise = process.sigma(t) / process.alpha(t)
    assert list(found) == NAMES == sorted(NAMES)
    for label, low, high in zip(NAMES, ENDS[:-1], ENDS[1:], strict=True):
        here = (low <= noise) & (noise < high)
        assert found[label].weight == here.sum()
        np.testing.assert_allclose(found[label].total, error[here].sum(), rtol=1e-5)


def test_infinite_noise_levels_have_their_place_and_empty_ranges_no_weight():
    found = by_noise_level(jnp.array([1.0, 2.0, jnp.nan]), jnp.array([jnp.inf, -jnp.inf, 0.2]))
    assert found["0-0.1"] == (1.0, 1.0) and found["3-inf"] == (2.0, 1.0)
    assert found["0.1-0.3"] == found["1-3"] == (0.0, 0.0)
    assert np.isnan(found["0.3-1"].total)


def test_the_log_normal_times_of_edm_fill_every_range():
    n = 20_000
    log_snr = processes.EDM().log_snr(time_samplers.LogNormal()(Keys.of(jax.random.key(0), n), processes.EDM()))
    found = by_noise_level(jnp.ones(n), log_snr)
    shares = np.diff([0.0, *(NormalDist(-1.2, 1.2).cdf(np.log(edge)) for edge in ENDS[1:-1]), 1.0])
    assert shares.min() > 0.02
    np.testing.assert_allclose([found[name].weight / n for name in NAMES], shares, atol=4 * 0.5 / np.sqrt(n))


def test_training_measures_them_and_they_make_up_the_whole():
    family = Diffusion(
        network=ZERO, image_shape=SHAPE, process=processes.CosineVP(), parameterization=parameterizations.V()
    )
    _, aux = family.phases()[0].loss({"w": jnp.ones(())}, STATE, batch(512), Keys.of(jax.random.key(0), 512))
    means = [aux.metrics[f"mse_by_noise/{name}"] for name in NAMES]
    assert sum(float(mean.weight) for mean in means) == 512
    assert sum(float(mean.total) for mean in means) == pytest.approx(512 * float(aux.metrics["mse"]), rel=1e-5)
    # v = alpha eps - sigma x_0, guessed as 0: from E[eps^2] = 1 without noise to E[x_0^2] = 1/3 without signal.
    errors = [float(mean.total / mean.weight) for mean in means]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] == pytest.approx(1.0, abs=0.15) and errors[-1] == pytest.approx(1 / 3, abs=0.05)
