"""Diffusion whose network gives the variances of the reverse chain too."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from genjax import sampling
from genjax.config import require
from genjax.families.base import Batch, DataSpec, Keys, Params, conditions
from genjax.families.denoising import MODEL
from genjax.families.diffusion import LIKELIHOOD, Diffusion
from genjax.families.time_samplers import LowDiscrepancy, UniformTimes
from genjax.parameterizations import ConditionalDenoiser, expand, noised
from genjax.registry import register
from genjax.sampling import bound
from genjax.sampling.core import Trace
from genjax.sampling.guidance.base import Evaluate, Evaluated, Rule, wrap
from genjax.sampling.keys import normal_like
from genjax.solvers import DDPM, Denoiser
from genjax.solvers.learned_variance import LearnedVariance, Transition, transitions


@register("family", "improved_diffusion")
@dataclasses.dataclass(frozen=True)
class ImprovedDiffusion(Diffusion):
    """A chain with learnt variances, by the hybrid loss L_simple + 0.001 L_vlb (Nichol & Dhariwal 2021, eq. 15-16).

    The network has twice the channels of the images: the output as in any diffusion model, then v, from which the
    variances of the chain come; `network.out_channels` says so. L_vlb is the variational bound of the chain in bits a
    dimension, of which every example estimates one step; it trains v alone.

    The sampler's `ddpm` with variance "learned" samples the chain, or a shorter one on any grid. Guidance acts on the
    estimate of x_0, and the variances are those of the conditional prediction; rules that measure an image (`rescaled`,
    `apg`) measure v with it. All other solvers, and the figures of `likelihood`, take the estimate of x_0 alone.

    Attributes beside those of `Diffusion`:
        timesteps: T, the steps of the chain, at t = 1/T, ..., 1; training times are taken up to the next of them.
        vlb_weight: weight of L_vlb.
        chain_bound: whether evaluation gives the bound of the whole chain, T evaluations of the network an example.
            Whether the data have 8-bit values, in training too, is `likelihood.eight_bit`.
    """

    timesteps: int = 1000
    vlb_weight: float = 0.001
    chain_bound: bool = False
    gives_variances: ClassVar[bool] = True
    reference: ClassVar[str] = "nichol2021improved"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.timesteps >= 2, f"timesteps = {self.timesteps}: must be at least 2")
        require(self.vlb_weight >= 0, f"vlb_weight = {self.vlb_weight}: must be at least 0")
        require(
            isinstance(self.time_sampler, UniformTimes | LowDiscrepancy),
            "time_sampler: the steps of the chain are drawn alike, take uniform or low_discrepancy",
        )
        require(
            not (self.chain_bound and self.likelihood.bound_nodes),
            "chain_bound and likelihood.bound_nodes are both on: a bound is that of the chain, or the continuous one",
        )
        require(
            float(self.process.sigma(np.float64(0.0))) == 0.0,
            "process: the chain ends in the data, so it must have no noise at t = 0",
        )

    def check(self, spec: DataSpec) -> None:
        """Raises ValueError where the data do not fit the model; compiles nothing."""
        super().check(spec)
        require(
            self.likelihood.eight_bit == (spec.levels == 256),
            f"likelihood.eight_bit = {self.likelihood.eight_bit}, but the data are "
            + ("real numbers" if spec.levels is None else f"pixels of {spec.levels} levels"),
        )
        shapes = jax.eval_shape(lambda key: self.init(key, spec)[0][MODEL], jax.random.key(0))
        inputs = jax.eval_shape(lambda: self._example(2))
        v = jax.eval_shape(lambda params, inputs: self._both(params, *inputs)[1], shapes, inputs)
        channels = self.image_shape[-1]
        require(
            v.shape[-1] == channels,
            f"the network returns {channels + v.shape[-1]} channels: for images of {channels} and their variances set "
            f"network.out_channels = {2 * channels}",
        )

    def _both(self, params: Params, *inputs: Any) -> tuple[Array, Array]:
        """The output and v, both [B, H, W, C]."""
        output = super()._apply(params, *inputs)
        channels = self.image_shape[-1]
        return output[..., :channels], output[..., channels:]

    def _apply(self, params: Params, x: Array, label: Array, cond: Any, dropout: Array | None = None) -> Array:
        return self._both(params, x, label, cond, dropout)[0]

    @functools.cached_property
    def _chain(self) -> tuple[np.ndarray, Transition]:
        """Times and transitions of the steps from the data upwards [T], float64."""
        times = np.arange(self.timesteps, -1, -1) / self.timesteps
        found = transitions(self.process, times)
        return times[-2::-1], Transition(*(values[::-1] for values in found))

    def _losses(
        self, params: Params, batch: Batch, keys: Keys, cond: Any, dropout: Array | None = None
    ) -> tuple[Array, Array, Array]:
        """The hybrid loss, the plain square error of the output and the times, each [B]."""
        keys_t, keys_eps = keys.split(2)
        drawn = jnp.ceil(self.time_sampler(keys_t, self.process) * self.timesteps).astype(jnp.int32)
        step = jnp.clip(drawn - 1, 0, self.timesteps - 1)
        x_0, eps = self._pairs(keys_eps, batch)
        t = jnp.asarray(self._chain[0], x_0.dtype)[step]
        x_t = noised(x_0, eps, t, self.process)
        x_in, label = self.parameterization.network_input(x_t, t, self.process)
        output, v = self._both(params, x_in, label, cond, dropout)
        error = jnp.mean((output - self.parameterization.target(x_0, eps, t, self.process)) ** 2, axis=(1, 2, 3))
        guess = self.parameterization.to_x0(jax.lax.stop_gradient(output), x_t, t, self.process)
        vlb = self.timesteps * self._term(step, x_0, x_t, guess, v)
        loss = self.weighting(t, self.process, self.parameterization) * error + self.vlb_weight * vlb
        return loss, error, t

    def _term(self, step: Array, x_0: Array, x_t: Array, guess: Array, v: Array) -> Array:
        """What steps of the chain [B] add to the bound, in bits a dimension [B] (Ho et al. 2020, eq. 5).

        Args:
            step: which of them, 0 for that to the data.
            x_0: the data.
            x_t: the state before the step.
            guess: the network's estimate of the data.
            v: its output for the variance.
        """
        of = Transition(*(expand(jnp.asarray(values, x_0.dtype)[step], x_0) for values in self._chain[1]))
        log_variance = of.log_variance(v)
        mean = of.a * x_t + of.b * guess
        divergence = 0.5 * (
            log_variance
            - of.least
            + jnp.expm1(of.least - log_variance)
            + (of.b * (x_0 - guess)) ** 2 * jnp.exp(-log_variance)
        )
        decode = bound.discretized_gaussian if self.likelihood.eight_bit else bound.gaussian
        one = jnp.ones((), x_0.dtype)
        cost = -decode(x_0, x_t, mean, one, jnp.exp(0.5 * log_variance))
        nats = jnp.where(step == 0, cost, divergence.sum(axis=(1, 2, 3)))
        return nats / (math.log(2.0) * x_0[0].size)

    def evaluate(self, params: dict[str, Params], batch: Batch, key: Array) -> dict[str, Array]:
        """Returns the hybrid loss, and what is said of likelihood; with `chain_bound` the bound of the chain.

        That is `elbo_bpd`, or in nats of real numbers `elbo`, each [B], from one draw of noise a step.
        """
        figures = super().evaluate(params, batch, key)
        if not self.chain_bound:
            return figures
        x_0, cond = batch["image"], conditions(batch, self.condition)
        keys = jax.vmap(jax.random.fold_in, (0, None))(sampling.sample_keys(key, len(x_0)), LIKELIHOOD - 1)
        times = jnp.asarray(self._chain[0], x_0.dtype)

        def add(total: Array, step: Array) -> tuple[Array, None]:
            t = times[step]
            eps = normal_like(jax.vmap(jax.random.fold_in, (0, None))(keys, step), x_0)
            x_t = self.process.alpha(t) * x_0 + self.process.sigma(t) * eps
            guess, v = jnp.split(self._wide_denoiser(params)(x_t, t, cond), 2, axis=-1)
            return total + self._term(jnp.broadcast_to(step, total.shape), x_0, x_t, guess, v), None

        bits, _ = jax.lax.scan(add, jnp.zeros(len(x_0), x_0.dtype), jnp.arange(self.timesteps))
        at_prior = 0.5 * math.exp(float(self.process.log_snr(np.float64(1.0))))
        bits += at_prior * jnp.sum(x_0**2, axis=(1, 2, 3)) / (math.log(2.0) * x_0[0].size)
        if self.likelihood.eight_bit:
            return figures | {"elbo_bpd": bits}
        return figures | {"elbo": -bits * math.log(2.0) * x_0[0].size}

    def _wide_denoiser(self, params: dict[str, Params]) -> ConditionalDenoiser:
        """`(x_t, t, cond) -> [x_0, v]` [B, H, W, 2 C]; of x_t the first C channels."""

        def denoise(x_t: Array, t: Array, cond: Any = None) -> Array:
            x_t = x_t[..., : self.image_shape[-1]]
            t = jnp.asarray(t, x_t.dtype)
            x_in, label = self.parameterization.network_input(x_t, t, self.process)
            output, v = self._both(params[MODEL], x_in, jnp.broadcast_to(label, x_t.shape[:1]), cond)
            x_0 = self.parameterization.to_x0(output.astype(x_t.dtype), x_t, t, self.process)
            return jnp.concatenate([x_0, v.astype(x_t.dtype)], axis=-1)

        return denoise

    def generate(
        self, params: dict[str, Params], key: Array, n: int, cond: Any = None, trace: Trace | None = None
    ) -> Any:
        """Returns n images [n, H, W, C]; with a trace, the pair of them and its results."""
        solver = self.sampler.solver
        if not (isinstance(solver, DDPM) and solver.variance == "learned"):
            return super().generate(params, key, n, cond, trace)
        height, width, channels = self.image_shape
        rule = functools.partial(_unguided_variance, guidance=self.sampler.guidance)
        sampler = dataclasses.replace(self.sampler, solver=LearnedVariance(), guidance=rule)
        narrow: Trace | None = trace and (lambda x_t, x_0, t: trace(x_t[..., :channels], x_0[..., :channels], t))
        drawn = sampler(
            key,
            self._wide_denoiser(params),
            self.process,
            (n, height, width, 2 * channels),
            conditions(cond, self.condition),
            narrow,
        )
        if trace is None:
            return drawn[..., :channels]
        return drawn[0][..., :channels], drawn[1]


def _unguided_variance(
    denoise: ConditionalDenoiser,
    cond: Any,
    null_cond: Any,
    process: Any = None,
    times: Any = None,
    *,
    guidance: Rule = sampling.guidance.conditional,
) -> Denoiser | sampling.StatefulDenoiser:
    """The rule around a rule that leaves the second half, v, as the condition has it."""

    def around(inner: Evaluate, x_t: Array, t: Array, memory: Any, also: Sequence[Any]) -> Evaluated:
        guided, predictions, memory = inner(x_t, t, memory, also)
        x_0, _ = jnp.split(guided, 2, axis=-1)
        _, v = jnp.split(predictions[0], 2, axis=-1)
        return jnp.concatenate([x_0, v], axis=-1), predictions, memory

    return wrap(guidance, denoise, cond, null_cond, process, times, around)
