"""Guidance: `ConditionalDenoiser -> Denoiser`."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from genjax.citation import bibtex
from genjax.parameterizations import ConditionalDenoiser
from genjax.registry import register
from genjax.solvers import Denoiser

HO_2022 = bibtex(
    """
    @article{ho2022classifierfree,
      title = {Classifier-Free Diffusion Guidance},
      author = {Ho, Jonathan and Salimans, Tim},
      journal = {arXiv preprint arXiv:2207.12598},
      year = {2022}
    }
    """
)


@register("guidance", "none")
def conditional(denoise: ConditionalDenoiser, cond: Any, null_cond: Any) -> Denoiser:
    """No guidance: the conditional denoiser itself."""
    return lambda x_t, t: denoise(x_t, t, cond)


@register("guidance", "classifier_free", reference=HO_2022)
def classifier_free(denoise: ConditionalDenoiser, cond: Any, null_cond: Any, scale: float | Array = 2.0) -> Denoiser:
    """Classifier-free guidance: D = D_null + scale (D_cond - D_null) (Ho & Salimans 2022, eq. 6).

    `scale` is 1 + w of the paper: 1 is the conditional denoiser, 0 the unconditional one. Both are evaluated in one
    call on a batch of twice the size; a scale of 1 that is known before tracing needs the conditional one alone.

    Args:
        denoise: the conditional denoiser.
        cond: the condition, a pytree of leading axis B.
        null_cond: the condition that stands for none, of the same structure.
        scale: the guidance scale, a number or an array [].

    Returns:
        A denoiser.
    """
    if isinstance(scale, int | float) and scale == 1.0:
        return conditional(denoise, cond, null_cond)
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), cond, null_cond)

    def guided(x_t: Array, t: Array) -> Array:
        # Before the difference is scaled up: in half precision it would be mostly rounding.
        conditioned, null = jnp.split(denoise(jnp.concatenate([x_t, x_t]), t, both).astype(x_t.dtype), 2)
        return null + scale * (conditioned - null)

    return guided


def needs_null(guidance: Any) -> bool:
    """Whether a guidance rule, with or without its options bound, evaluates the null condition."""
    return getattr(guidance, "func", guidance) is not conditional
