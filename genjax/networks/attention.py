"""Self-attention over tokens, with the implementation chosen on purpose.

`jax.nn.dot_product_attention` falls back to plain XLA when it is not told otherwise, and raises from deep inside when
it is told to use cuDNN on something that cuDNN lacks. Here the choice is made first, from shapes, type and device, and
`resolve` says what it is.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from genjax.config import require
from genjax.networks import attention_tangent
from genjax.networks.base import require_one_of
from genjax.networks.counting import counting

IMPLEMENTATIONS = ("auto", "xla", "cudnn")
_CUDNN_DTYPES = ("bfloat16", "float16")


def cudnn_obstacle(head_channels: int, dtype: DTypeLike) -> str | None:
    """Says why cuDNN's flash attention cannot run here, or returns None where it can.

    Args:
        head_channels: channels of one head.
        dtype: the compute type of query, key and value.
    """
    if jnp.dtype(dtype).name not in _CUDNN_DTYPES:
        return f"it takes {' or '.join(_CUDNN_DTYPES)}, not {jnp.dtype(dtype).name}"
    capability = _cuda_capability()
    if capability is None:
        return f"the default device is no CUDA GPU but {jax.devices()[0].platform!r}"
    if capability < (8, 0):
        return f"it needs compute capability 8.0, this GPU has {capability[0]}.{capability[1]}"
    most = 256 if capability >= (9, 0) else 128
    if head_channels % 8 or head_channels > most:
        return f"the channels of a head must be a multiple of 8 up to {most}, not {head_channels}"
    return None


def resolve(implementation: str, head_channels: int, dtype: DTypeLike) -> Literal["xla", "cudnn"]:
    """Returns the implementation that `attention` runs for these arguments on the default device.

    It is XLA while floating-point operations are counted: XLA cannot look into cuDNN's kernels.

    Args:
        implementation: "xla", "cudnn", or "auto": cuDNN wherever it can run, XLA elsewhere.
        head_channels: channels of one head.
        dtype: the compute type of query, key and value.

    Raises:
        ValueError: an unknown name, or "cudnn" where cuDNN cannot run, with the reason.
    """
    require_one_of("attention", implementation, IMPLEMENTATIONS)
    if implementation == "xla" or counting.value:
        return "xla"
    obstacle = cudnn_obstacle(head_channels, dtype)
    require(implementation == "auto" or obstacle is None, f"attention = 'cudnn' cannot run: {obstacle}")
    return "xla" if obstacle else "cudnn"


def attention(
    query: Array, key: Array, value: Array, implementation: str = "auto", perturbed: Array | None = None
) -> Array:
    """Returns softmax(q k^T / sqrt(D)) v for every head; the softmax is taken in float32 (Vaswani et al. 2017, eq. 1).

    It can be differentiated in both modes, whatever the implementation. Where there are many keys, or a kernel of
    cuDNN, the derivative along a direction is `attention_tangent.derivative`, which stores no matrix of all queries by
    all keys; in reverse mode it is the implementation's own.

    Args:
        query: [B, T, heads, D].
        key: [B, S, heads, D], of the query's type.
        value: [B, S, heads, D], of the query's type.
        implementation: see `resolve`.
        perturbed: [B] truth values: samples whose attention map is the identity, so that the result is their value
            (Ahn et al. 2024); S = T then. None for none.

    Returns:
        [B, T, heads, D] in the query's type.

    Raises:
        ValueError: see `resolve`.
    """
    chosen = resolve(implementation, query.shape[-1], query.dtype)
    if chosen == "cudnn" or key.shape[1] > 2 * attention_tangent.BLOCK:
        out = attention_tangent.flash(query, key, value, chosen)
    else:
        out = jax.nn.dot_product_attention(query, key, value, implementation="xla")
    return out if perturbed is None else jnp.where(perturbed[:, None, None, None], value, out)


def _cuda_capability() -> tuple[int, int] | None:
    """The compute capability of the default device, None where that is no CUDA GPU."""
    device = jax.devices()[0]
    # AMD's GPUs are platform "gpu" too; only CUDA's capability reads like "9.0".
    major, dot, minor = str(getattr(device, "compute_capability", "")).partition(".")
    if device.platform != "gpu" or not dot:
        return None
    return int(major), int(minor)
