"""The directional derivative of attention, block by block of keys, for kernels that have none.

Flash attention has a rule for reverse mode alone. Losses of continuous-time consistency models and of average
velocities differentiate a network forward, along its inputs (Lu & Song 2025, appendix F). Here the derivative is a
primitive of its own: forward it is computed with an online softmax, so that no matrix of all queries by all keys is
stored, and its transpose is the kernel's own rule for reverse mode.
"""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from genjax.citation import bibtex

BLOCK = 512  # keys that are looked at together

LU_2025 = bibtex("""
@inproceedings{lu2025simplifying,
  title = {Simplifying, Stabilizing and Scaling Continuous-Time Consistency Models},
  author = {Lu, Cheng and Song, Yang},
  booktitle = {International Conference on Learning Representations},
  year = {2025}
}""")


@functools.partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def flash(
    query: Array, key: Array, value: Array, implementation: Literal["xla", "cudnn"], differentiated: bool = False
) -> Array:
    """Returns softmax(q k^T / sqrt(D)) v, which can be differentiated in both modes.

    Args:
        query: [B, T, heads, D].
        key: [B, S, heads, D].
        value: [B, S, heads, D].
        implementation: of the value, and of the derivative in reverse mode.
        differentiated: whether the kernel keeps what its own rule for reverse mode needs.

    Returns:
        [B, T, heads, D] in the query's type.
    """
    kernel = functools.partial(jax.nn.dot_product_attention, implementation=implementation)
    return jax.vjp(kernel, query, key, value)[0] if differentiated else kernel(query, key, value)


@flash.defjvp
def _flash_jvp(
    implementation: Literal["xla", "cudnn"], differentiated: bool, primals: Any, tangents: Any
) -> tuple[Array, Array]:
    # The transpose of the derivative evaluates the kernel again, in the same way, so that XLA evaluates it once.
    return flash(*primals, implementation, True), _derivative.bind(*primals, *tangents, implementation=implementation)


def derivative(query: Array, key: Array, value: Array, d_query: Array, d_key: Array, d_value: Array) -> Array:
    """Returns the derivative of attention along a direction.

    With s = q k^T / sqrt(D), p = softmax(s) and ds its derivative along the direction, it is
    sum_j p_j (ds_j v_j + dv_j) - (sum_j p_j ds_j) (sum_j p_j v_j), each sum taken in one pass over blocks of keys.

    Args:
        query: as in `flash`.
        key: as in `flash`.
        value: as in `flash`.
        d_query: the direction, of the query's shape and type.
        d_key: of the key's.
        d_value: of the value's.

    Returns:
        [B, T, heads, D] in the query's type.
    """
    batch, length, heads, channels = query.shape
    keys = key.shape[1]
    size = min(BLOCK, keys)
    blocks = -(-keys // size)
    scale = channels**-0.5

    def cut(a: Array) -> Array:
        padded = jnp.pad(a, ((0, 0), (0, blocks * size - keys), (0, 0), (0, 0)))
        return padded.reshape(batch, blocks, size, heads, channels).swapaxes(0, 1)

    def product(a: Array, b: Array) -> Array:
        return jnp.einsum("btnd,bsnd->bnts", a, b, preferred_element_type=jnp.float32)

    def mean(weights: Array, of: Array) -> Array:
        return jnp.einsum("bnts,bsnd->bntd", weights.astype(of.dtype), of, preferred_element_type=jnp.float32)

    def body(carry: Any, block: Any) -> tuple[Any, None]:
        top, total, d_total, out, d_out = carry
        key, value, d_key, d_value, valid = block
        s = jnp.where(valid[None, None, None, :], scale * product(query, key), -jnp.inf)
        ds = scale * (product(d_query, key) + product(query, d_key))
        new = jnp.maximum(top, s.max(-1))
        shrink, p = jnp.exp(top - new), jnp.exp(s - new[..., None])
        carry = (
            new,
            shrink * total + p.sum(-1),
            shrink * d_total + (p * ds).sum(-1),
            shrink[..., None] * out + mean(p, value),
            shrink[..., None] * d_out + mean(p * ds, value) + mean(p, d_value),
        )
        return carry, None

    valid = (jnp.arange(blocks * size) < keys).reshape(blocks, size)
    rows = (batch, heads, length)
    nothing, nowhere = jnp.zeros(rows), jnp.zeros((*rows, channels))
    start = (jnp.full(rows, -jnp.inf), nothing, nothing, nowhere, nowhere)
    inputs = (cut(key), cut(value), cut(d_key), cut(d_value), valid)
    if blocks == 1:
        carry, _ = body(start, jax.tree.map(lambda a: a[0], inputs))
    else:
        carry, _ = lax.scan(body, start, inputs)
    _, total, d_total, out, d_out = carry
    d_out -= (d_total / total)[..., None] * out
    return (d_out / total[..., None]).swapaxes(1, 2).astype(query.dtype)


_derivative = Primitive("attention_derivative")


def _evaluate(*args: Array, implementation: str) -> Array:
    return derivative(*args)


def _jvp(primals: Any, tangents: Any, *, implementation: str) -> tuple[Array, Array]:
    at, along = primals[:3], primals[3:]
    total = _derivative.bind(*at, *map(ad.instantiate_zeros, tangents[3:]), implementation=implementation)
    if any(type(tangent) is not ad.Zero for tangent in tangents[:3]):
        total += jax.jvp(lambda *at: derivative(*at, *along), at, tuple(map(ad.instantiate_zeros, tangents[:3])))[1]
    return _derivative.bind(*primals, implementation=implementation), total


def _transpose(cotangent: Any, *args: Any, implementation: str) -> tuple[Any, ...]:
    if type(cotangent) is ad.Zero:
        return (None,) * 6
    kernel = functools.partial(jax.nn.dot_product_attention, implementation=implementation)
    found = jax.vjp(kernel, *args[:3])[1](cotangent)
    given = (g if ad.is_undefined_primal(a) else None for a, g in zip(args[3:], found, strict=True))
    return (None, None, None, *given)


def _batch(args: Any, dims: Any, *, implementation: str) -> tuple[Array, int]:
    """Examples of the new axis are more examples of the batch."""
    n = next(a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None)
    args = [batching.bdim_at_front(a, d, n) for a, d in zip(args, dims, strict=True)]
    flat = [a.reshape(-1, *a.shape[2:]) for a in args]
    out = _derivative.bind(*flat, implementation=implementation)
    return out.reshape(n, -1, *out.shape[1:]), 0


_derivative.def_impl(jax.jit(_evaluate, static_argnames="implementation"))
_derivative.def_abstract_eval(lambda query, *rest, implementation: query)
ad.primitive_jvps[_derivative] = _jvp
ad.primitive_transposes[_derivative] = _transpose
batching.primitive_batchers[_derivative] = _batch
mlir.register_lowering(_derivative, mlir.lower_fun(_evaluate, multiple_results=False))
