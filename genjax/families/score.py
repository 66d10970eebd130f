"""Score models: a network that estimates the gradient of log-density, at one noise level or at all of a process."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from genjax.config import component, require
from genjax.families.base import Batch, DataSpec, Keys, Params
from genjax.families.denoising import MODEL
from genjax.families.diffusion import Diffusion
from genjax.families.likelihood_figures import dequantized
from genjax.families.score_matching import DenoisingScoreMatching, ScoreMatching
from genjax.families.time_samplers import FixedTime
from genjax.parameterizations import Parameterization, Score, expand
from genjax.processes import VE, Process
from genjax.registry import register
from genjax.sampling.core import Trace


@register("family", "score")
@dataclasses.dataclass(frozen=True)
class ScoreModel(Diffusion):
    """Noise-conditional score network: lambda(t) E|s(x_t, t) - grad log p_t(x_t)|^2, by any score matching.

    With the process `ve` and times of `levels` that is NCSN (Song & Ermon 2019, eq. 5-6), with uniform times and any
    process the SDE formulation (Song et al. 2021b, eq. 7). lambda is the weighting times the square of what the output
    is of the score: `uniform` is sigma^2 for a scaled output, which both papers have, and 1 for one that is not.

    One noise level is the time sampler `fixed`; at a time without noise the score of the data themselves is learnt, by
    an output that is not scaled. What training measures as `mse` is that up to a constant where the objective is not
    `denoising`, so it may be negative.

    Attributes beside those of `Diffusion`:
        matching: the objective.
        dequantize: whether noise within a level is added to 8-bit images, and taken off what is generated: for models
            that are judged by likelihood.
    """

    process: Process = component("process", VE())
    parameterization: Parameterization = component("parameterization", Score())
    matching: ScoreMatching = component("score_matching", DenoisingScoreMatching())
    dequantize: bool = False
    reference: ClassVar[str] = "song2021scorebased"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            isinstance(self.parameterization, Score),
            "a score model's output is the score: for another parameterization take the family 'diffusion'",
        )
        require(
            self.uncertainty is None or isinstance(self.matching, DenoisingScoreMatching),
            f"uncertainty is of a loss that is not negative; matching = {self.matching} can be",
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
        require(
            not self.dequantize or spec.levels == 256,
            f"dequantize = True, but the data have {spec.levels or 'no'} levels, not 256",
        )

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

    def _scale(self, t: Array) -> Array:
        """What the output is of the score, of the shape of t."""
        return self.process.sigma(t) if self._scaled else jnp.ones_like(t)

    def _error(self, output: Callable[[Array], Array], x_t: Array, t: Array, target: Array, keys: Keys) -> Array:
        return self.matching(output, x_t, target, self._scale(t), keys)

    def _pairs(self, keys: Keys, batch: Batch) -> tuple[Array, Array]:
        if self.dequantize:
            keys_data, keys = keys.split(2)
            batch = {**batch, "image": dequantized(batch["image"], keys_data.each)}
        return super()._pairs(keys, batch)
