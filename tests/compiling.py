"""How the tests' programs are compiled: by `make test` in haste, which those that run for long are better without."""

import contextlib
import os
from collections.abc import Iterator

import jax

FLAG = "jax_disable_most_optimizations"


@contextlib.contextmanager
def optimized() -> Iterator[None]:
    """What is compiled within is compiled as users' programs are."""
    jax.config.update(FLAG, False)
    try:
        yield
    finally:  # what it was cannot be asked
        jax.config.update(FLAG, os.environ.get(FLAG.upper(), "").lower() in ("1", "true"))
