"""How the tests' programs are compiled: by `make test` in haste, which those that run for long are better without."""

import contextlib
from collections.abc import Iterator

import jax

FLAG = "jax_disable_most_optimizations"


@contextlib.contextmanager
def optimized() -> Iterator[None]:
    """What is compiled within is compiled as users' programs are."""
    before = jax.config.read(FLAG)
    jax.config.update(FLAG, False)
    try:
        yield
    finally:
        jax.config.update(FLAG, before)
