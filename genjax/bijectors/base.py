"""The contract of a bijector, and the few functions that all of them share.

`forward` goes from data to noise, `inverse` from noise to data; both return the logarithm of the absolute determinant
of their own Jacobian, an example each. By the change of variables, with z = forward(x),

    log p(x) = log p_z(z) + log_det.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array

Params = Any  # nested dicts of float32 arrays
Shape = tuple[int, ...]  # of one example
Condition = Mapping[str, Array] | None  # {"label": [B] int32}, -1 for the null class; None is null for all

FIXED = "fixed"  # the entry of a layer's parameters that no gradient changes


class Bijector(Protocol):
    """An invertible function of examples [B, ...] with a known Jacobian determinant, as a frozen dataclass."""

    def init(self, key: Array, shape: Shape, cond: Condition = None) -> Params:
        """Returns the initial parameters.

        Args:
            key: a random key [].
            shape: of one example.
            cond: an example of the condition, with a leading axis of 1.

        Raises:
            ValueError: the bijector does not take this shape.
        """
        ...

    def forward(self, params: Params, x: Array, cond: Condition = None) -> tuple[Array, Array]:
        """Maps data [B, ...] to noise [B, ...], and returns log|det dz/dx| [B] beside it."""
        ...

    def inverse(self, params: Params, z: Array, cond: Condition = None) -> tuple[Array, Array]:
        """Maps noise [B, ...] to data [B, ...], and returns log|det dx/dz| [B] beside it."""
        ...

    def from_data(self, params: Params, x: Array, cond: Condition = None) -> tuple[Params, Array]:
        """Returns parameters that a first batch [B, ...] has a say in, and what `forward` makes of it with them.

        Only the entries called `FIXED` change, see `split_fixed`; most bijectors have none.
        """
        return params, self.forward(params, x, cond)[0]


def split_fixed(params: Params) -> tuple[Params, Params]:
    """Splits parameters into those to train and those that stay: permutations, statistics of the first batch.

    Returns:
        The two trees; `merge_fixed` makes the whole of them again. The second is {} where all are to be trained.
    """
    trained: dict[str, Any] = {}
    fixed: dict[str, Any] = {}
    for name, value in params.items():
        if name == FIXED:
            fixed[name] = value
        elif isinstance(value, Mapping):
            inner, stays = split_fixed(value)
            trained |= {name: inner} if inner else {}
            fixed |= {name: stays} if stays else {}
        else:
            trained[name] = value
    return trained, fixed


def merge_fixed(trained: Params, fixed: Params) -> Params:
    """Returns the parameters that `split_fixed` split."""
    merged = dict(trained)
    for name, value in fixed.items():
        merged[name] = value if name == FIXED else merge_fixed(trained.get(name, {}), value)
    return merged


def sum_example(x: Array) -> Array:
    """Sums [B, ...] over all but the first axis, to [B]."""
    return x.reshape(len(x), -1).sum(1)


def constant(log_det: Array, x: Array) -> Array:
    """Returns a log-determinant [] that is the same for all examples of x [B, ...], as [B]."""
    return jnp.broadcast_to(log_det, (len(x),)).astype(x.dtype)


def output_shape(bijector: Bijector, params: Params, shape: Shape, cond: Condition = None) -> Shape:
    """Returns the shape of what `forward` makes of one example; computes nothing.

    Args:
        bijector: the bijector.
        params: its parameters, of which shapes are enough.
        shape: of one example.
        cond: an example of the condition, with a leading axis of 1.
    """
    example = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    return jax.eval_shape(bijector.forward, params, example, cond)[0].shape[1:]
