"""Diffusion models: a network that removes noise, on any process, with any parameterization."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from genjax import sampling
from genjax.config import component, require, section
from genjax.families.base import (
    Aux,
    Batch,
    DataSpec,
    Extra,
    Keys,
    Params,
    Phase,
    State,
    check_data,
    check_image_shape,
    conditions,
)
from genjax.families.noise_levels import by_noise_level
from genjax.families.sampler import Sampler, null_condition
from genjax.families.time_samplers import TimeSampler, UniformTimes
from genjax.families.weightings import Uniform, Weighting
from genjax.parameterizations import ConditionalDenoiser, Eps, Parameterization, denoiser, expand
from genjax.processes import LinearVP, Process
from genjax.registry import register
from genjax.sampling.core import Trace
from genjax.sampling.keys import normal_like

MODEL = "model"  # the one role


@register("family", "diffusion")
@dataclasses.dataclass(frozen=True)
class Diffusion:
    """Denoising diffusion: regress on a target of x_0 and noise, at random noise levels (Ho et al. 2020, algorithm 1).

    Training measures `mse`, the plain square error of the network's output, and the same within ranges of the noise
    level sigma / alpha as `mse_by_noise/0.1-0.3` and so on.

    Attributes:
        image_shape: (H, W, C).
        network: maps (c_in x_t [B, H, W, C], noise label [B], cond) to an output [B, H, W, C].
        process: the path from data to noise.
        parameterization: what the output means.
        weighting: weight of the loss at each noise level.
        time_sampler: distribution of the noise levels in training.
        condition: names of the batch's entries that condition the network, such as ("label",).
        condition_dropout: share of the training samples whose condition is replaced by the null one, for
            classifier-free guidance.
        sampler: how it generates.
    """

    image_shape: tuple[int, int, int]
    network: Any = component("network")
    process: Process = component("process", LinearVP())
    parameterization: Parameterization = component("parameterization", Eps())
    weighting: Weighting = component("weighting", Uniform())
    time_sampler: TimeSampler = component("time_sampler", UniformTimes())
    condition: tuple[str, ...] = ()
    condition_dropout: float = 0.1
    sampler: Sampler = section(Sampler, Sampler())
    reference: ClassVar[str] = "ho2020denoising"

    def __post_init__(self) -> None:
        check_image_shape(self.image_shape)
        require(
            0.0 <= self.condition_dropout <= 1.0, f"condition_dropout = {self.condition_dropout}: must be in [0, 1]"
        )
        self.network.check(self.image_shape)
        times = self.sampler.times(self.process, self.sampler.steps)  # a grid that the process refuses is found here
        # So are wrong options of a rule: it is applied, but evaluates nothing here.
        never: ConditionalDenoiser = lambda x_t, t, cond: x_t  # noqa: E731
        sampling.guidance.guide(self.sampler.guidance, never, None, None, process=self.process, times=times)
        start = jnp.float32(times[0])
        require(
            bool(self.process.alpha(start) > 0 or self.parameterization.eps_scale(start, self.process) == 0),
            f"sampling starts at t = {times[0]} without signal, where this parameterization says nothing about x_0: "
            "take v, velocity, x0 or edm, or a time grid with t_max below 1",
        )
        require(
            not self.condition or self.condition_dropout > 0 or not sampling.guidance.needs_null(self.sampler.guidance),
            "condition_dropout = 0 never trains the null condition, which the sampler's guidance needs",
        )

    def check(self, spec: DataSpec) -> None:
        """Raises ValueError where the data do not fit the model; compiles nothing."""
        check_data(spec, self.image_shape, self.condition, {"network": getattr(self.network, "num_classes", None)})
        shapes = jax.eval_shape(lambda key: self.init(key, spec)[0][MODEL], jax.random.key(0))
        batch = jax.eval_shape(lambda: self._example(2))
        output = jax.eval_shape(lambda params, inputs: self._apply(params, *inputs), shapes, batch)
        require(
            output.shape == (2, *self.image_shape),
            f"the network returns {output.shape[1:]} for images of {self.image_shape}",
        )

    def _example(self, n: int) -> tuple[Array, Array, Any]:
        """Inputs of the network: images, noise labels and the condition, all zero."""
        cond = {name: jnp.zeros((n,), jnp.int32) for name in self.condition} or None
        return jnp.zeros((n, *self.image_shape)), jnp.zeros((n,)), cond

    def _apply(self, params: Params, x: Array, label: Array, cond: Any) -> Array:
        return self.network.apply({"params": params}, x, label, cond)

    def init(self, key: Array, spec: DataSpec) -> tuple[dict[str, Params], Extra]:
        """Returns the initial parameters of the role "model"."""
        return {MODEL: self.network.init(key, *self._example(1))["params"]}, {}

    def phases(self) -> tuple[Phase, ...]:
        """Returns the one phase, which trains the role "model"."""
        return (Phase("train", MODEL, self._loss),)

    def denoiser(self, params: dict[str, Params]) -> ConditionalDenoiser:
        """Returns `(x_t, t, cond) -> E[x_0 | x_t, cond]` of a set of parameters."""
        return denoiser(self._apply, params[MODEL], self.parameterization, self.process)

    def generate(
        self, params: dict[str, Params], key: Array, n: int, cond: Any = None, trace: Trace | None = None
    ) -> Any:
        """Returns n images [n, H, W, C]; with a trace, the pair of them and its results."""
        shape, cond = (n, *self.image_shape), conditions(cond, self.condition)
        return self.sampler(key, self.denoiser(params), self.process, shape, cond, trace)

    def evaluate(self, params: dict[str, Params], batch: Batch, key: Array) -> dict[str, Array]:
        """Returns the weighted loss of each example, without dropout, as `loss` [B]."""
        keys = Keys.of(key, len(batch["image"]))
        return {"loss": self._losses(params[MODEL], batch, keys, conditions(batch, self.condition))[0]}

    def _loss(self, params: Params, state: State, batch: Batch, keys: Keys) -> tuple[Array, Aux]:
        keys_condition, keys_dropout, keys_loss = keys.split(3)
        cond = conditions(batch, self.condition)
        if cond is not None:
            drop = jax.vmap(lambda key: jax.random.bernoulli(key, self.condition_dropout))(keys_condition.each)
            cond = jax.tree.map(lambda c, null: jnp.where(drop, null, c), cond, null_condition(cond))
        weighted, plain, t = self._losses(params, batch, keys_loss, cond, keys_dropout.each)
        levels = by_noise_level(plain, self.process.log_snr(t))
        return weighted.mean(), Aux({"mse": plain.mean()} | {f"mse_by_noise/{name}": levels[name] for name in levels})

    def _losses(
        self, params: Params, batch: Batch, keys: Keys, cond: Any, dropout: Array | None = None
    ) -> tuple[Array, Array, Array]:
        """The weighted and the plain square error of the output, averaged over pixels, and the times, each [B]."""
        keys_t, keys_eps = keys.split(2)
        x_0 = batch["image"]
        t = self.time_sampler(keys_t, self.process)
        eps = normal_like(keys_eps.each, x_0)
        x_t = expand(self.process.alpha(t), x_0) * x_0 + expand(self.process.sigma(t), x_0) * eps
        x_in, label = self.parameterization.network_input(x_t, t, self.process)
        output = self.network.apply({"params": params}, x_in, label, cond, dropout=dropout)
        error = jnp.mean((output - self.parameterization.target(x_0, eps, t, self.process)) ** 2, axis=(1, 2, 3))
        return self.weighting(t, self.process, self.parameterization) * error, error, t
