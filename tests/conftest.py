"""Settings that hold for every test."""

import signal

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells start what is put in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def key() -> jax.Array:
    return jax.random.key(0)
