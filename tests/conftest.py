"""Settings that hold for every test."""

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def key() -> jax.Array:
    return jax.random.key(0)
