"""The gradient of few-step models' losses, with their Jacobian-vector product, beside that of a diffusion model."""

import time
import types
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from experiments.benchmark.report import Figures
from genjax.families import SCM, Diffusion, MeanFlow
from genjax.families.base import Keys
from genjax.networks import MLP, DiT, UNet

SHAPE, BATCH, TURNS = (8, 8, 1), 64, 7
NETWORKS: Mapping[str, Callable[..., Any]] = {
    "an MLP": lambda **more: MLP(hidden=128, depth=3, **more),
    "a U-Net of the digits' size": lambda **more: UNet(
        channels=32, multipliers=(1, 2), blocks_per_level=1, resampling="conv", **more
    ),
    "a DiT of the digits' size": lambda **more: DiT(patch_size=2, depth=6, hidden=128, heads=4, **more),
}
MODELS: Mapping[str, Callable[..., Any]] = {
    "diffusion": lambda network: Diffusion(image_shape=SHAPE, network=network()),
    "MeanFlow": lambda network: MeanFlow(image_shape=SHAPE, network=network(scalars=("step",)), unequal=0.75),
    "sCM": lambda network: SCM(image_shape=SHAPE, network=network()),
}


def figures() -> Figures:
    """Returns the table."""
    rows = [
        (f"a gradient of {model}'s loss over a diffusion model's, {name}", f"{ratio:.2f}", "at most 2")
        for name, network in NETWORKS.items()
        for model, ratio in ratios(network).items()
    ]
    return Figures("Few-step models", ("figure", "measured", "bar"), rows)


def ratios(network: Callable[..., Any], turns: int = TURNS, batch: int = BATCH) -> dict[str, float]:
    """Returns what the gradient of each model's loss costs over diffusion's, without a teacher.

    The models take turns, and the shortest time of each counts.

    Args:
        network: makes the network; takes `scalars`.
        turns: how often each is timed.
        batch: examples.
    """
    gradients = {name: gradient(make(network), batch) for name, make in MODELS.items()}
    for run in gradients.values():
        _seconds(run)  # compiles
    times = [{name: _seconds(run) for name, run in gradients.items()} for _ in range(turns)]
    best = {name: min(turn[name] for turn in times) for name in MODELS}
    return {name: best[name] / best["diffusion"] for name in MODELS if name != "diffusion"}


def gradient(family: Any, batch: int) -> Callable[[], Any]:
    """Returns the compiled gradient of a family's loss, on a batch of its own."""
    spec = types.SimpleNamespace(image_shape=SHAPE, num_classes=None)
    params, extra = family.init(jax.random.key(0), spec)
    # Networks begin with zeros in their last layers: then what XLA computes would be as much, but no number.
    params = jax.tree.map(lambda leaf: leaf + 0.01, params["model"])
    data = {"image": jax.random.normal(jax.random.key(1), (batch, *SHAPE))}
    state = types.SimpleNamespace(step=jnp.int32(10), extra=extra)
    value = jax.value_and_grad(family.phases()[0].loss, has_aux=True)
    run = jax.jit(lambda params, data, key: value(params, state, data, Keys.of(key, batch)))
    return lambda: run(params, data, jax.random.key(2))


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start
