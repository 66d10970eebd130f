"""Whether a network is being traced to run, or to have its floating-point operations counted."""

import jax

# Part of the key under which JAX keeps programs: one that was traced for counting is never run.
# `with counting(True): ...` sets it, `counting.value` reads it.
counting = jax.make_user_context(False)
