"""Floating-point operations: how many a step has, and how many a second a device can do.

Their quotient with the time of a step is the utilization of the model's FLOPs (MFU; Chowdhery et al. 2022, appendix B):
the share of the device's published peak that goes into the products which the model needs.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from genjax.families.base import Phase
from genjax.networks.counting import counting

_TERA = 1e12


def _gpu(half: float, float32: float) -> Mapping[str, float]:
    return {"bfloat16": half * _TERA, "float16": half * _TERA, "float32": float32 * _TERA}


def _volta(half: float, float32: float) -> Mapping[str, float]:
    return {"float16": half * _TERA, "float32": float32 * _TERA}  # bfloat16 runs beside the tensor cores


def _tpu(bfloat16: float) -> Mapping[str, float]:
    return {"bfloat16": bfloat16 * _TERA, "float32": bfloat16 * _TERA}


# Of one device, dense. Keys are regular expressions for the whole of JAX's `device_kind`; the slices of a divided GPU
# ("... MIG 1g.10gb") match none. Datasheets that count sparsity are halved. NVIDIA: data sheets of V100 (2020), T4
# (2019), A100 (2021), A10 (2021), L4 (2023), L40S (2023), H100 (2023, SXM, PCIe and NVL), H200 (2024) and HGX B200
# (2024); white papers of GA102 (RTX 3090, tensor cores accumulating in float32) and Ada (RTX 4090, the same). Google:
# cloud.google.com/tpu/docs, the pages on v4, v5e, v5p and v6e, a chip; JAX's device is a chip from v4 on.
_PEAKS: Mapping[str, Mapping[str, float]] = {
    r"Tesla V100-SXM[23].*": _volta(125, 15.7),
    r"Tesla V100-PCIE.*": _volta(112, 14),
    r"(Tesla|NVIDIA) T4": _volta(65, 8.1),
    r"(NVIDIA )?A100-(SXM4|PCIE)-\d+GB|NVIDIA A100 80GB PCIe": _gpu(312, 156),
    r"NVIDIA A10": _gpu(125, 62.5),
    r"NVIDIA L4": _gpu(121, 60),
    r"NVIDIA L40S": _gpu(362, 183),
    r"NVIDIA H100 (80GB HBM3|SXM5.*)": _gpu(989.5, 494.5),
    r"NVIDIA H100 PCIe": _gpu(756.5, 378),
    r"NVIDIA H100 NVL": _gpu(835.5, 417.5),
    r"NVIDIA H200": _gpu(989.5, 494.5),
    r"NVIDIA H200 NVL": _gpu(835.5, 417.5),
    r"NVIDIA B200": _gpu(2250, 1100),
    r"NVIDIA GeForce RTX 3090": _gpu(71, 35.6),
    r"NVIDIA GeForce RTX 4090": _gpu(165.2, 82.6),
    r"TPU v4": _tpu(275),
    r"TPU v5( lite|e)": _tpu(197),
    r"TPU v5p?": _tpu(459),
    r"TPU v6( lite|e)": _tpu(918),
}


def peak_flops(device_kind: str, dtype: str) -> float | None:
    """Returns the published dense peak of one device in FLOP/s, or None where it is not known, as for every CPU.

    Args:
        device_kind: what JAX calls the device, `jax.devices()[0].device_kind`.
        dtype: the compute type: "float32", "bfloat16" or "float16". For float32 it is the peak of what JAX computes
            float32 products in unless it is told otherwise: TensorFloat-32 on NVIDIA's GPUs from A100 on, and
            bfloat16 on TPUs.
    """
    for pattern, peaks in _PEAKS.items():
        if re.fullmatch(pattern, device_kind):
            return peaks.get(dtype)
    return None


def step_flops(step: Callable[..., Any], state: Any, batch: Any) -> float | None:
    """Returns the floating-point operations of one call `step(state, batch)`, or None where XLA does not count them.

    They are the model's, on all devices together, by XLA's cost analysis of the program as it is before any
    optimization. Nothing is compiled. Products and convolutions are exact (a convolution's padding is left out); an
    elementwise operation counts as one, a transcendental one as none. What XLA's analysis does not see or sees once is
    put right: the body of a scan is counted as often as it runs, and attention is counted as products where cuDNN
    would run it. What is recomputed to save memory counts, unless the network leaves it out while it is counted (see
    `genjax.networks.counting`). Of the branches of a `cond` the dearest counts; the body of a `while` counts once.

    Args:
        step: a function of JAX arrays, jitted or not.
        state: its first argument; shapes (`jax.ShapeDtypeStruct`) are enough.
        batch: its second argument; the same.
    """
    with counting(True):
        # Not of `step` itself: JAX would find this trace when it is asked for the one to run.
        program = jax.make_jaxpr(lambda state, batch: step(state, batch))(*map(_shapes, (state, batch)))
    return _flops(program)


def mean_step_flops(step_of: Callable[..., Any], phases: Iterable[Phase], state: Any, batch: Any) -> float | None:
    """Returns `step_flops` of the mean step: a phase that runs in every k-th step counts as a k-th of itself.

    Args:
        step_of: `step_of(without=names)` is the step without the phases of these names.
        phases: those of the step.
        state: as in `step_flops`.
        batch: the same.
    """
    whole = step_flops(step_of(), state, batch)
    if whole is None:
        return None
    total = whole
    for phase in phases:
        if phase.every > 1:
            rest = step_flops(step_of(without=[phase.name]), state, batch)
            if rest is None:
                return None
            total -= (1 - 1 / phase.every) * (whole - rest)
    return total


def cost(lowered: Any) -> float | None:
    """Returns the floating-point operations of `jax.jit(f).lower(...)`, as XLA counts them: a scan's body once."""
    analysis = lowered.cost_analysis()
    return analysis.get("flops") if analysis else None


def _shapes(tree: Any) -> Any:
    """Shapes and types without shardings, which the count does not depend on."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), tree)


def _flops(program: core.ClosedJaxpr) -> float | None:
    total = _counted_once(program)
    for body, length in _scans(program.jaxpr):
        once, whole = _counted_once(body), _flops(body)
        if total is None or once is None or whole is None:
            return None
        total += length * whole - once
    return total


def _counted_once(program: core.ClosedJaxpr) -> float | None:
    return cost(jax.jit(core.jaxpr_as_fun(program), keep_unused=True).lower(*program.in_avals))


def _scans(program: core.Jaxpr) -> Iterator[tuple[core.ClosedJaxpr, int]]:
    """Yields body and length of the scans of a program that are in no other scan."""
    for equation in program.eqns:
        if equation.primitive.name == "scan":
            yield equation.params["jaxpr"], equation.params["length"]
        else:
            for inner in core.jaxprs_in_params(equation.params):
                yield from _scans(inner)
