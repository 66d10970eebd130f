"""Blocks whose inner values are computed again in the backward pass, not kept for it: time for memory.

XLA's CPU backend undoes it, as it merges what is computed twice, unless it is told
XLA_FLAGS=--xla_disable_hlo_passes=cse_barrier_expander.
"""

from typing import Any

import flax.linen as nn
import jax

from genjax.networks.base import require_one_of
from genjax.networks.counting import counting

# What is kept of a block besides its inputs, as JAX names it.
POLICIES = ("nothing_saveable", "dots_saveable", "dots_with_no_batch_dims_saveable")


def check_remat(policy: str | None) -> None:
    """Raises ValueError, with the valid names, unless the policy is None or one of `POLICIES`."""
    if policy is not None:
        require_one_of("remat", policy, POLICIES)


def remat(block: type[nn.Module], policy: str | None) -> Any:
    """Returns a module's class with rematerialization; parameters and results are those of the class itself.

    While floating-point operations are counted it is the class itself: they are the model's, not the policy's.

    Args:
        block: class of a module that is called with arrays, or None, by position.
        policy: None, or a name of `jax.checkpoint_policies`. "nothing_saveable" keeps nothing but a block's inputs: the
            least memory, for about a third more time. "dots_saveable" keeps the results of products and
            convolutions, and "dots_with_no_batch_dims_saveable" those of products of an activation with a weight,
            thus neither convolutions nor what attention computes a pair of tokens.
    """
    if policy is None or counting.value:
        return block
    return nn.remat(block, policy=getattr(jax.checkpoint_policies, policy))
