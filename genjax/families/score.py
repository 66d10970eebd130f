"""Score models: a network that estimates the gradient of log-density, at one noise level or at all of a process."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from genjax.config import component, require, section
from genjax.families.base import Aux, Batch, DataSpec, Keys, Params, Phase, State, conditions
from genjax.families.denoising import MODEL, Denoising
from genjax.families.likelihood_figures import Likelihood, dequantized
from genjax.families.noise_levels import by_noise_level
from genjax.families.score_matching import DenoisingScoreMatching, ScoreMatching
from genjax.families.time_samplers import FixedTime, TimeSampler, UniformTimes, correction
from genjax.families.weightings import Uniform, Weighting
from genjax.parameterizations import Parameterization, Score, expand
from genjax.processes import VE, Process
from genjax.registry import register
from genjax.sampling.core import Trace
from genjax.sampling.keys import normal_like


@register("family", "score")
@dataclasses.dataclass(frozen=True)
class ScoreModel(Denoising):
    """Noise-conditional score network: 1/2 lambda(t) E|s(x_t, t) - grad log p_t(x_t)|^2, by any score matching.

    With the process `ve` and times of `levels` that is NCSN (Song & Ermon 2019, eq. 5-6), with uniform times and any
    process the SDE formulation (Song et al. 2021b, eq. 7). lambda is the weighting times the square of what the output
    is of the score: `uniform` is sigma^2 for a scaled output, which both papers have, and 1 for one that is not.

    One noise level is the time sampler `fixed`; at a time without noise the score of the data themselves is learnt, by
    an output that is not scaled. Training measures `error`, the objective without weight, which for denoising is the
    mean square error of the output and for the others is that up to a constant, and the same within ranges of the
    noise level.

    Attributes beside those of `Denoising`:
        matching: the objective.
        weighting: weight of the square error of the output at each noise level.
        time_sampler: distribution of the noise levels in training.
        dequantize: whether noise within a level is added to 8-bit images, and taken off what is generated: for models
            that are judged by likelihood.
        likelihood: figures that `evaluate` adds, off by default.
    """

    process: Process = component("process", VE())
    parameterization: Parameterization = component("parameterization", Score())
    matching: ScoreMatching = component("score_matching", DenoisingScoreMatching())
    weighting: Weighting = component("weighting", Uniform())
    time_sampler: TimeSampler = component("time_sampler", UniformTimes())
    dequantize: bool = False
    likelihood: Likelihood = section(Likelihood, Likelihood())
    reference: ClassVar[str] = "song2021scorebased"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            isinstance(self.parameterization, Score),
            "a score model's output is the score: for another parameterization take the family 'diffusion'",
        )
        noisy = True
        if isinstance(self.time_sampler, FixedTime):
            noisy = bool(self.process.sigma(np.float64(self.time_sampler.t)) > 0)
            require(
                noisy or not self._scaled,
                f"time_sampler.t = {self.time_sampler.t}: the process has no noise there, so the output must not be "
                "scaled by it; take parameterization.scaled = False",
            )
        self.matching.check(self.image_shape, noisy)

    @property
    def _scaled(self) -> bool:
        return getattr(self.parameterization, "scaled", False)

    def check(self, spec: DataSpec) -> None:
        """Raises ValueError where the data do not fit the model; compiles nothing."""
        super().check(spec)
        self.likelihood.check(spec)
        require(
            not self.dequantize or spec.levels == 256,
            f"dequantize = True, but the data have {spec.levels or 'no'} levels, not 256",
        )

    def phases(self) -> tuple[Phase, ...]:
        """Returns the one phase, which trains the role "model"."""
        return (Phase("train", MODEL, self._loss),)

    def score(self, params: dict[str, Params]) -> Callable[[Array, Array, Any], Array]:
        """Returns `(x_t [B, H, W, C], t [B], cond) -> grad log p_t(x_t)` of a set of parameters."""

        def score(x_t: Array, t: Array, cond: Any = None) -> Array:
            return self._output(params[MODEL], x_t, t, cond) / expand(self._scale(t), x_t)

        return score

    def generate(
        self, params: dict[str, Params], key: Array, n: int, cond: Any = None, trace: Trace | None = None
    ) -> Any:
        """Returns n images [n, H, W, C]; with a trace, the pair of them and its results."""
        drawn = super().generate(params, key, n, cond, trace)
        if not self.dequantize:
            return drawn
        images, *seen = (drawn,) if trace is None else drawn
        images = jnp.floor((images + 1.0) * 128.0) / 127.5 - 1.0
        return images if trace is None else (images, *seen)

    def evaluate(self, params: dict[str, Params], batch: Batch, key: Array) -> dict[str, Array]:
        """Returns of each example [B] the `loss`, without dropout, and the figures of `likelihood` that are on."""
        keys_loss, keys_figures = Keys.of(key, len(batch["image"])).split(2)
        cond, denoise = conditions(batch, self.condition), self.denoiser(params)
        figures = self.likelihood(keys_figures.each, lambda x_t, t: denoise(x_t, t, cond), self.process, batch["image"])
        return {"loss": self._losses(params[MODEL], batch, keys_loss, cond)[0], **figures}

    def _scale(self, t: Array) -> Array:
        """What the output is of the score, of the shape of t."""
        return self.process.sigma(t) if self._scaled else jnp.ones_like(t)

    def _output(self, params: Params, x_t: Array, t: Array, cond: Any, dropout: Array | None = None) -> Array:
        x_in, label = self.parameterization.network_input(x_t, t, self.process)
        return self._apply(params, x_in, label, cond, dropout)

    def _loss(self, params: Params, state: State, batch: Batch, keys: Keys) -> tuple[Array, Aux]:
        keys_condition, keys_dropout, keys_loss = keys.split(3)
        cond = self._partly_dropped(keys_condition, conditions(batch, self.condition))
        weighted, plain, t = self._losses(params, batch, keys_loss, cond, keys_dropout.each)
        levels = by_noise_level(plain, self.process.log_snr(t))
        return weighted.mean(), Aux(
            {"error": plain.mean()} | {f"error_by_noise/{name}": levels[name] for name in levels}
        )

    def _losses(
        self, params: Params, batch: Batch, keys: Keys, cond: Any, dropout: Array | None = None
    ) -> tuple[Array, Array, Array]:
        """The weighted and the plain objective, and the times, each [B]."""
        keys_t, keys_eps, keys_data, keys_matching = keys.split(4)
        t = self.time_sampler(keys_t, self.process)
        x_0 = dequantized(batch["image"], keys_data.each) if self.dequantize else batch["image"]
        eps = normal_like(keys_eps.each, x_0)
        x_t = expand(self.process.alpha(t), x_0) * x_0 + expand(self.process.sigma(t), x_0) * eps
        target = self.parameterization.target(x_0, eps, t, self.process)

        def output(x_t: Array) -> Array:
            return self._output(params, x_t, t, cond, dropout)

        plain = self.matching(output, x_t, target, self._scale(t), keys_matching)
        weight = self.weighting(t, self.process, self.parameterization) * correction(self.time_sampler, t, self.process)
        return weight * plain, plain, t
