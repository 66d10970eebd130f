"""Settings that hold for every test."""

import contextlib
import os
import signal

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells start what is put in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def key() -> jax.Array:
    return jax.random.key(0)


@pytest.fixture(scope="session")
def optimized():
    """A context for programs that run for longer than they compile, which `make test` has compiled in haste."""

    @contextlib.contextmanager
    def context():
        jax.config.update("jax_disable_most_optimizations", False)
        try:
            yield
        finally:  # what it was cannot be asked
            jax.config.update("jax_disable_most_optimizations", os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS") == "true")

    return context
