"""Diffusion models: a network that removes noise, on any process, with any parameterization."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from genjax.config import component, section
from genjax.families.base import Aux, Batch, DataSpec, Extra, Keys, Params, Phase, State, conditions
from genjax.families.couplings import Coupling, Independent
from genjax.families.denoising import MODEL, Denoising, by_uncertainty, with_uncertainty
from genjax.families.likelihood_figures import Likelihood
from genjax.families.noise_levels import by_noise_level
from genjax.families.time_samplers import TimeSampler, UniformTimes, correction
from genjax.families.weightings import Uniform, Weighting
from genjax.parameterizations import noised
from genjax.registry import register

LIKELIHOOD = 2**31 - 1  # folded into a key; no draw of the loss has this number


@register("family", "diffusion")
@dataclasses.dataclass(frozen=True)
class Diffusion(Denoising):
    """Denoising diffusion: regress on a target of x_0 and noise, at random noise levels (Ho et al. 2020, algorithm 1).

    Training measures `mse`, the plain square error of the network's output, and the same within ranges of the noise
    level sigma / alpha as `mse_by_noise/0.1-0.3` and so on.

    Attributes beside those of `Denoising`:
        weighting: weight of the loss at each noise level.
        time_sampler: distribution of the noise levels in training.
        coupling: which noise each image of a batch goes to. One that exchanges noise between examples makes an
            example's loss depend on the others that are computed with it.
        likelihood: what evaluation says of likelihood.
        uncertainty: a learnt log-variance u of the loss L at each noise level, which is then trained as L / exp(u) + u
            (Karras et al. 2024b, eq. 16): every level gets the same weight, whatever the weighting. None for none.
    """

    weighting: Weighting = component("weighting", Uniform())
    time_sampler: TimeSampler = component("time_sampler", UniformTimes())
    coupling: Coupling = component("coupling", Independent())
    likelihood: Likelihood = section(Likelihood, Likelihood())
    uncertainty: Any = component("uncertainty", None)
    reference: ClassVar[str] = "ho2020denoising"

    def check(self, spec: DataSpec) -> None:
        """Raises ValueError where the data do not fit the model; compiles nothing."""
        super().check(spec)
        self.likelihood.check(spec)

    def init(self, key: Array, spec: DataSpec) -> tuple[dict[str, Params], Extra]:
        """Returns the initial parameters of the role "model", of which the uncertainty is a branch."""
        params, extra = super().init(key, spec)
        if self.uncertainty is not None:
            params = params | {MODEL: with_uncertainty(params[MODEL], self.uncertainty, jax.random.fold_in(key, 1))}
        return params, extra

    def phases(self) -> tuple[Phase, ...]:
        """Returns the one phase, which trains the role "model"."""
        return (Phase("train", MODEL, self._loss),)

    def evaluate(self, params: dict[str, Params], batch: Batch, key: Array) -> dict[str, Array]:
        """Returns the weighted loss of each example, without dropout, as `loss` [B], and what is said of likelihood.

        There is no loss where the coupling needs more than the batch has.
        """
        keys, cond = Keys.of(key, len(batch["image"])), conditions(batch, self.condition)
        known = set(self.coupling.needs) <= set(batch)
        figures = {"loss": self._losses(params[MODEL], batch, keys, cond)[0]} if known else {}
        denoise, fold = self.denoiser(params), jax.vmap(jax.random.fold_in, (0, None))
        return figures | self.likelihood(
            fold(keys.each, LIKELIHOOD), lambda x_t, t: denoise(x_t, t, cond), self.process, batch["image"]
        )

    def _loss(self, params: Params, state: State, batch: Batch, keys: Keys) -> tuple[Array, Aux]:
        keys_condition, keys_dropout, keys_loss = keys.split(3)
        cond = self._partly_dropped(keys_condition, conditions(batch, self.condition))
        weighted, plain, t = self._losses(params, batch, keys_loss, cond, keys_dropout.each)
        levels = by_noise_level(plain, self.process.log_snr(t))
        metrics = {"mse": plain.mean()} | {f"mse_by_noise/{name}": levels[name] for name in levels}
        if self.uncertainty is not None:
            weighted = by_uncertainty(weighted, params, self.uncertainty, self.process.log_snr(t))
        return weighted.mean(), Aux(metrics)

    def _losses(
        self, params: Params, batch: Batch, keys: Keys, cond: Any, dropout: Array | None = None
    ) -> tuple[Array, Array, Array]:
        """The weighted and the plain square error of the output, averaged over pixels, and the times, each [B]."""
        keys_t, keys_eps, keys_error = keys.split(3)
        t = self.time_sampler(keys_t, self.process)
        x_0, eps = self._pairs(keys_eps, batch)
        x_t = noised(x_0, eps, t, self.process)

        def output(x_t: Array) -> Array:
            return self._output(params, x_t, t, cond, dropout)

        error = self._error(output, x_t, t, self.parameterization.target(x_0, eps, t, self.process), keys_error)
        weight = self.weighting(t, self.process, self.parameterization) * correction(self.time_sampler, t, self.process)
        return weight * error, error, t

    def _output(self, params: Params, x_t: Array, t: Array, cond: Any, dropout: Array | None = None) -> Array:
        """What the network says of x_t [B, H, W, C] at times t [B]."""
        x_in, label = self.parameterization.network_input(x_t, t, self.process)
        return self._apply(params, x_in, label, cond, dropout)

    def _error(self, output: Callable[[Array], Array], x_t: Array, t: Array, target: Array, keys: Keys) -> Array:
        """The square error [B] of an output, a function of x_t, averaged over pixels."""
        return jnp.mean((output(x_t) - target) ** 2, axis=(1, 2, 3))

    def _pairs(self, keys: Keys, batch: Batch) -> tuple[Array, Array]:
        """Images and the noise that each goes to, both [B, H, W, C]."""
        return self.coupling(keys, batch)
