"""Variational diffusion models: the bound itself is the loss, and the noise schedule is learnt."""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from genjax.config import component, nearest, require
from genjax.families.base import Aux, Batch, DataSpec, Extra, Keys, Params, Phase, State, conditions
from genjax.families.denoising import MODEL, Denoising
from genjax.families.noise_levels import by_noise_level
from genjax.families.time_samplers import LowDiscrepancy, TimeSampler
from genjax.parameterizations import noised
from genjax.processes import LinearLogSNR, Process
from genjax.registry import register
from genjax.sampling import bound
from genjax.sampling.core import Trace
from genjax.sampling.keys import normal_like

SCHEDULE = "schedule"  # the role of the noise schedule
_DECODERS: dict[str, bound.Reconstruction] = {"categorical": bound.categorical, "gaussian": bound.gaussian}


@register("family", "vdm")
@dataclasses.dataclass(frozen=True)
class VDM(Denoising):
    """A variational diffusion model in continuous time (Kingma et al. 2021).

    With u uniform in [0, 1], log-SNR(u) is learnt: it falls from one end to the other in the shape of a monotone
    network. The loss is the variational bound, of which the diffusion loss
    -1/2 d(log-SNR)/du |eps - eps_hat|^2 (eq. 17-18) depends on the ends alone, not on the shape. So the ends are
    trained for the bound, and the shape for the variance of this estimate (section 5.2 and appendix I.2): two roles,
    "model" and "schedule", each with a phase. All is in bits a dimension.

    The process is fixed, and the schedule says which of its times go with u. So a denoiser is of the process, as in any
    family, and the sampler's time grid gives u: `uniform` is the paper's. Solvers that need concrete times cannot take
    it.

    Attributes beside those of `Denoising`:
        process: any whose log-SNR covers what may be learnt.
        noise_schedule: the shape; None for a straight line.
        log_snr_max: log-SNR at u = 0, to begin with. The data are reconstructed from there.
        log_snr_min: log-SNR at u = 1, to begin with.
        time_sampler: of u in training.
        decoder: "categorical" of 8-bit images (section 3.3), or "gaussian" of real numbers.
        fourier: exponents n for which the network gets sin(2^n pi x) and cos(2^n pi x) as further channels (section
            C); then `network.out_channels` is that of the images.
        schedule_every: steps between updates of the schedule. One costs as much as one of the model.
        draws: times, one in each part of [0, 1], that evaluation draws for an example.
    """

    process: Process = component("process", LinearLogSNR(20.0, -12.0))
    noise_schedule: Any = component("noise_schedule", None)
    log_snr_max: float = 13.3
    log_snr_min: float = -5.0
    time_sampler: TimeSampler = component("time_sampler", LowDiscrepancy(t_min=0.0))
    decoder: str = "categorical"
    fourier: tuple[int, ...] = ()
    schedule_every: int = 1
    draws: int = 16
    reference: ClassVar[str] = "kingma2021variational"

    def __post_init__(self) -> None:
        super().__post_init__()
        most, least = (float(self.process.log_snr(np.float64(t))) for t in (0.0, 1.0))
        require(
            least <= self.log_snr_min < self.log_snr_max <= most,
            f"log_snr_min = {self.log_snr_min}, log_snr_max = {self.log_snr_max}: must rise, within the {least:g} to "
            f"{most:g} of the process",
        )
        require(self.decoder in _DECODERS, f"decoder = {self.decoder!r}{nearest(self.decoder, _DECODERS)}")
        require(self.draws >= 1, f"draws = {self.draws}: must be at least 1")

    def check(self, spec: DataSpec) -> None:
        """Raises ValueError where the data do not fit the model; compiles nothing."""
        super().check(spec)
        require(
            (self.decoder == "categorical") == (spec.levels == 256),
            f"decoder = {self.decoder!r}, but the data are "
            + ("real numbers" if spec.levels is None else f"pixels of {spec.levels} levels"),
        )

    def init(self, key: Array, spec: DataSpec) -> tuple[dict[str, Params], Extra]:
        """Returns the initial parameters of the roles "model" and "schedule"."""
        x, label, cond = self._example(1)
        schedule: Params = {"ends": jnp.asarray([self.log_snr_max, self.log_snr_min], jnp.float32)}
        if self.noise_schedule is not None:
            schedule["shape"] = self.noise_schedule.init(jax.random.fold_in(key, 1), jnp.zeros(1))["params"]
        return {MODEL: self.network.init(key, self._featured(x), label, cond)["params"], SCHEDULE: schedule}, {}

    def phases(self) -> tuple[Phase, ...]:
        """Returns the phases that train the roles "model" and "schedule"."""
        return (
            Phase("train", MODEL, self._loss),
            Phase("schedule", SCHEDULE, self._schedule_loss, every=self.schedule_every),
        )

    def log_snr(self, schedule: Params, u: Array) -> Array:
        """Returns the learnt log-SNR [B] at u [B]; differentiable with respect to both."""
        high, low = schedule["ends"]
        return high + (low - high) * self._shape(schedule, u)

    def generate(
        self, params: dict[str, Params], key: Array, n: int, cond: Any = None, trace: Trace | None = None
    ) -> Any:
        """Returns n images [n, H, W, C]; with a trace, the pair of them and its results."""
        grid = self.sampler.times

        def times(process: Process, steps: int) -> Array:
            u = jnp.asarray(grid(process, steps), jnp.float32)
            return process.time_of_log_snr(self.log_snr(params[SCHEDULE], u))

        sampler, shape = dataclasses.replace(self.sampler, times=times), (n, *self.image_shape)
        return sampler(key, self.denoiser(params), self.process, shape, conditions(cond, self.condition), trace)

    def evaluate(self, params: dict[str, Params], batch: Batch, key: Array) -> dict[str, Array]:
        """Returns the bound of each example [B]: `elbo_bpd` in bits a dimension, or in nats of real numbers `elbo`.

        `loss` is that in bits a dimension, which of real numbers may be negative.
        """
        x_0, cond = batch["image"], conditions(batch, self.condition)
        schedule = params[SCHEDULE]
        keys = Keys.of(key, len(x_0))
        fold = jax.vmap(jax.random.fold_in, (0, None))

        def one(draw: Array) -> Array:
            pair = jax.vmap(jax.random.split)(fold(keys.each, draw))
            u = (draw + jax.vmap(jax.random.uniform)(pair[:, 0])) / self.draws
            eps = normal_like(pair[:, 1], x_0)
            return self._diffusion(params[MODEL], *self._at(schedule, u), x_0, eps, cond)

        diffusion = jax.lax.map(one, jnp.arange(self.draws)).mean(0)
        eps = normal_like(fold(keys.each, self.draws), x_0)
        bits = diffusion + self._ends(params[MODEL], schedule, x_0, eps, cond)
        if self.decoder == "categorical":
            return {"loss": bits, "elbo_bpd": bits}
        return {"loss": bits, "elbo": -bits * math.log(2.0) * x_0[0].size}

    def _loss(self, params: Params, state: State, batch: Batch, keys: Keys) -> tuple[Array, Aux]:
        """The part of the bound that depends on the model."""
        keys_condition, keys_dropout, keys_u, keys_eps, keys_end = keys.split(5)
        x_0, cond = batch["image"], self._partly_dropped(keys_condition, conditions(batch, self.condition))
        schedule, u = state.params[SCHEDULE], self.time_sampler(keys_u, self.process)
        log_snr, rate = self._at(schedule, u)
        eps = normal_like(keys_eps.each, x_0)
        loss = self._diffusion(params, log_snr, rate, x_0, eps, cond, keys_dropout.each)
        mse = 2.0 * math.log(2.0) * loss / rate  # of eps, where a bit a dimension is log(2) nats
        levels = by_noise_level(mse, log_snr)
        if self.decoder == "gaussian":  # the other reads no network
            loss += self._ends(params, schedule, x_0, normal_like(keys_end.each, x_0), cond)
        return loss.mean(), Aux({"mse": mse.mean()} | {f"mse_by_noise/{name}": levels[name] for name in levels})

    def _schedule_loss(self, schedule: Params, state: State, batch: Batch, keys: Keys) -> tuple[Array, Aux]:
        """The bound, whose gradient is for the ends, and its square's for the shape (appendix I.2).

        The estimate knows the schedule by log-SNR and its slope alone, so one derivative by these serves both.
        """
        keys_condition, keys_u, keys_eps, keys_end = keys.split(4)
        params = jax.lax.stop_gradient(state.params[MODEL])
        x_0, cond = batch["image"], self._partly_dropped(keys_condition, conditions(batch, self.condition))
        u, eps = self.time_sampler(keys_u, self.process), normal_like(keys_eps.each, x_0)

        def estimate(log_snr: Array, rate: Array) -> Array:
            return self._diffusion(params, log_snr, rate, x_0, eps, cond)

        losses, pull = jax.vjp(estimate, *self._at(jax.lax.stop_gradient(schedule), u))
        slopes = jax.lax.stop_gradient(pull(jnp.ones_like(losses)))
        fixed = jax.lax.stop_gradient(schedule)

        def along(part: str) -> Array:
            """A number whose gradient, by one part of the schedule, is that of `losses`."""
            varied = self._at({**fixed, **{name: schedule[name] for name in schedule if name == part}}, u)
            return slopes[0] * varied[0] + slopes[1] * varied[1]

        gradient = along("ends") + 2.0 * jax.lax.stop_gradient(losses) * along("shape")
        ends = self._ends(params, schedule, x_0, normal_like(keys_end.each, x_0), cond)
        total = jax.lax.stop_gradient(losses) + ends + gradient - jax.lax.stop_gradient(gradient)
        metrics = {
            "diffusion": losses.mean(),
            "ends": ends.mean(),
            "variance": losses.var(),
            "log_snr_max": schedule["ends"][0],
            "log_snr_min": schedule["ends"][1],
        }
        return total.mean(), Aux(jax.lax.stop_gradient(metrics))

    def _shape(self, schedule: Params, u: Array) -> Array:
        """From 0 at u = 0 to 1 at u = 1, [B]."""
        if self.noise_schedule is None:
            return u
        raw = self.noise_schedule.apply({"params": schedule["shape"]}, jnp.concatenate([u, jnp.array([0.0, 1.0])]))
        return (raw[:-2] - raw[-2]) / (raw[-1] - raw[-2])

    def _at(self, schedule: Params, u: Array) -> tuple[Array, Array]:
        """Log-SNR at u and the rate at which it falls, both [B]."""
        log_snr, slope = jax.jvp(lambda u: self.log_snr(schedule, u), (u,), (jnp.ones_like(u),))
        return log_snr, -slope

    def _diffusion(
        self,
        params: Params,
        log_snr: Array,
        rate: Array,
        x_0: Array,
        eps: Array,
        cond: Any,
        dropout: Array | None = None,
    ) -> Array:
        """Estimates of the diffusion loss from one log-SNR each, in bits a dimension [B]."""
        t = self.process.time_of_log_snr(log_snr)
        x_t = noised(x_0, eps, t, self.process)
        x_in, label = self.parameterization.network_input(x_t, t, self.process)
        error = self._apply(params, x_in, label, cond, dropout) - self.parameterization.target(
            x_0, eps, t, self.process
        )
        scale = self.parameterization.eps_scale(t, self.process)
        return 0.5 * rate * scale**2 * jnp.sum(error**2, axis=(1, 2, 3)) * _bits(x_0)

    def _ends(self, params: Params, schedule: Params, x_0: Array, eps: Array, cond: Any) -> Array:
        """What the bound has beside the diffusion loss: the prior's cost and the reconstruction's, in bits [B]."""
        high, low = schedule["ends"]
        prior = 0.5 * jnp.exp(low) * jnp.sum(x_0**2, axis=(1, 2, 3))  # to N(0, sigma^2), where sampling begins
        t = self.process.time_of_log_snr(high)
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        z = alpha * x_0 + sigma * eps
        guess = self.denoiser({MODEL: params})(z, t, cond) if self.decoder == "gaussian" else z
        return (prior - _DECODERS[self.decoder](x_0, z, guess, alpha, sigma)) * _bits(x_0)

    def _apply(self, params: Params, x: Array, label: Array, cond: Any, dropout: Array | None = None) -> Array:
        return super()._apply(params, self._featured(x), label, cond, dropout)

    def _featured(self, x: Array) -> Array:
        """Images with their Fourier features as further channels."""
        waves = [wave(2.0**n * math.pi * x) for n in self.fourier for wave in (jnp.sin, jnp.cos)]
        return jnp.concatenate([x, *waves], axis=-1)


def _bits(x: Array) -> float:
    """Bits a dimension in a nat of a whole image of x [B, H, W, C]."""
    return 1.0 / (math.log(2.0) * x[0].size)
