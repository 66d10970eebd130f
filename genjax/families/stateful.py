"""Networks that keep variables beside their parameters: running statistics, vectors of spectral normalization.

A family keeps them in `state.extra["<role>_state"]`; {} where a network has none.
"""

from typing import Any

from jax import Array

from genjax.families.base import Params

Kept = Any  # collections of variables by name


def init(module: Any, key: Array, *args: Any) -> tuple[Params, Kept]:
    """Returns the initial parameters and the other variables of a network."""
    variables = dict(module.init(key, *args))
    return variables.pop("params"), variables


def apply(module: Any, params: Params, kept: Kept, *args: Any) -> Any:
    """Returns the output of a network as it generates: by running statistics."""
    return module.apply({"params": params, **kept}, *args)


def train(module: Any, params: Params, kept: Kept, *args: Any) -> tuple[Any, Kept]:
    """Returns the output of a network as it trains, by the statistics of the batch, and its variables after."""
    output, after = module.apply({"params": params, **kept}, *args, train=True, mutable=list(kept))
    return output, {**kept, **after}
