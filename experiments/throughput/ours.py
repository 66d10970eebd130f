"""The training step of the library."""

import functools
import math
import os
import resource
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.throughput.presets import Case
from genjax.data.base import DataSpec
from genjax.data.transforms import preprocess
from genjax.training.experiment import Experiment
from genjax.training.flops import step_flops
from genjax.training.state import TrainState, build_optimizers, create_state
from genjax.training.step import make_train_step

ROLE = "model"


class Program:
    """The compiled step on random data, with its state."""

    def __init__(self, case: Case) -> None:
        """Compiles it."""
        self.experiment = Experiment.from_config(case.config())
        family = self.experiment.family
        classes = getattr(family.network, "num_classes", None)
        self.prepare = functools.partial(preprocess, flip=self.experiment.data.flip)
        create = functools.partial(create_state, self.experiment, DataSpec(family.image_shape, classes, case.batch))
        shapes = jax.eval_shape(create)
        self.optimizers = build_optimizers(self.experiment, shapes.params)
        step = make_train_step(family, self.optimizers, self.experiment.ema, self.prepare)
        self.batch = jax.device_put(random_batch(family.image_shape, classes, case.batch))

        start = time.perf_counter()
        self.step = jax.jit(step, donate_argnums=0).lower(shapes, self.batch).compile()
        memory = self.step.memory_analysis()
        device = jax.devices()[0]
        self.about: dict[str, Any] = {
            "parameters": sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes.params)),
            "compile_seconds": time.perf_counter() - start,
            "flops_per_image": (step_flops(step, shapes, self.batch) or math.nan) / case.batch,
            "program_bytes": memory.argument_size_in_bytes
            + memory.temp_size_in_bytes
            + memory.output_size_in_bytes
            - memory.alias_size_in_bytes,
            "device": device.device_kind,
            "versions": f"jax {jax.__version__}",
        }
        options = {"xla_backend_optimization_level": 1} if device.platform == "cpu" else None
        self.state: TrainState = jax.jit(create, compiler_options=options)()
        self.run(2)

    def run(self, steps: int) -> None:
        """Takes steps and waits for the last."""
        for _ in range(steps):
            self.state, metrics = self.step(self.state, self.batch)
        jax.block_until_ready((self.state, metrics))

    def forget_peak(self) -> None:
        """Starts the measurement of memory: the operating system's; a device's peak cannot be set back."""
        forget_peak_of_process()

    def peak(self) -> dict[str, int | None]:
        """Returns the most memory in bytes: of the device where there is one with a memory of its own."""
        on_device = jax.devices()[0].memory_stats()
        return {"device_bytes": on_device["peak_bytes_in_use"] if on_device else None, "rss_bytes": peak_of_process()}

    def parts(self, time_of: Callable[[Callable[[], Any]], float]) -> dict[str, float]:
        """Returns the seconds of the parts of a step, each compiled for itself.

        The loss is that of `Family.evaluate`: without dropout and without dropped conditions.
        """
        family, role = self.experiment.family, ROLE
        key, state = self.state.key, self.state

        def loss(params: Any, batch: Any) -> jax.Array:
            return family.evaluate({role: params}, self.prepare(batch, key), key)["loss"].mean()

        def adam(grads: Any, opt: Any, params: Any) -> Any:
            updates, opt = self.optimizers[role].update(grads, opt, params, jnp.int32(1))
            return optax.apply_updates(params, updates), opt, optax.tree.norm(grads)

        forward, gradient = jax.jit(loss), jax.jit(jax.grad(loss))
        update = jax.jit(adam, donate_argnums=(1, 2))
        average = jax.jit(self.experiment.ema.update, donate_argnums=0)
        params, opt, ema = state.params[role], state.opt[role], state.ema
        grads = gradient(params, self.batch)
        seconds = {"forward": time_of(lambda: jax.block_until_ready(forward(params, self.batch)))}
        both = time_of(lambda: jax.block_until_ready(gradient(params, self.batch)))
        seconds["backward"] = both - seconds["forward"]

        def optimize() -> None:
            nonlocal params, opt
            params, opt, _ = jax.block_until_ready(update(grads, opt, params))

        def follow() -> None:
            nonlocal ema
            ema = jax.block_until_ready(average(ema, {role: params}, jnp.int32(1)))

        seconds |= {"optimizer": time_of(optimize), "average": time_of(follow)}
        return seconds


def random_batch(shape: tuple[int, ...], classes: int | None, n: int) -> dict[str, np.ndarray]:
    """Returns n images uint8 [n, H, W, C] and, where there are classes, labels int32 [n]."""
    rng = np.random.default_rng(0)
    batch = {"image": rng.integers(0, 256, (n, *shape), np.uint8)}
    return batch if classes is None else batch | {"label": rng.integers(0, classes, n).astype(np.int32)}


def forget_peak_of_process() -> None:
    """Sets Linux's record of the most memory that the process has had to what it has now."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass  # no Linux: the peak is that of the whole life, compilation included


def peak_of_process() -> int:
    """Returns the most memory of the process since `forget_peak_of_process`, in bytes."""
    try:
        with open("/proc/self/status") as file:
            peak = next(line for line in file if line.startswith("VmHWM"))
        return int(peak.split()[1]) * 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if os.uname().sysname == "Darwin" else 1024)
