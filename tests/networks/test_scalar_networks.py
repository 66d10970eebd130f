"""Networks of one number: learnt log-variances and noise schedules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.networks import FourierUncertainty, MonotoneSchedule


def test_uncertainty_begins_at_zero_and_tells_noise_levels_apart():
    module, noise = FourierUncertainty(features=8), jnp.linspace(-1.0, 1.0, 5)
    params = module.init(jax.random.key(0), noise)["params"]
    np.testing.assert_array_equal(module.apply({"params": params}, noise), np.zeros(5))
    params["out"]["kernel"] = jnp.ones((8, 1))
    found = module.apply({"params": params}, noise)
    assert found.shape == (5,) and found.dtype == jnp.float32
    assert len(np.unique(np.round(found, 4))) == 3  # the features are even here: sines of opposite frequencies cancel


@pytest.mark.parametrize("scale", [0.01, 5.0])
def test_schedules_rise_whatever_the_signs_of_the_weights(scale):
    module, t = MonotoneSchedule(features=32), jnp.linspace(0.0, 1.0, 65)
    params = module.init(jax.random.key(0), t)["params"]
    drawn = jax.tree.map(lambda leaf: scale * jax.random.normal(jax.random.key(leaf.size), leaf.shape), params)
    assert np.all(np.diff(module.apply({"params": drawn}, t)) > 0)
    start = module.apply({"params": params}, t)
    np.testing.assert_allclose((start - start[0]) / (start[-1] - start[0]), t, atol=0.01)


def test_wrong_fields_are_named():
    with pytest.raises(ValueError, match="features = 7: must be an even number"):
        FourierUncertainty(features=7)
    with pytest.raises(ValueError, match="scale = 0"):
        FourierUncertainty(scale=0)
    with pytest.raises(ValueError, match="features = 0"):
        MonotoneSchedule(features=0)
