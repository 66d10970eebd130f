"""Consistency models in continuous time: the tangent of the consistency function by one Jacobian-vector product."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from genjax import sampling
from genjax.config import component, require, section
from genjax.families.base import Aux, Batch, DataSpec, Extra, Keys, Params, Phase, State, conditions
from genjax.families.denoising import MODEL, by_uncertainty, with_uncertainty
from genjax.families.noise_levels import by_noise_level
from genjax.families.sampler import Sampler
from genjax.families.student import TEACHER, FreeStudent
from genjax.families.teacher import teacher_denoiser
from genjax.families.time_samplers import LogNormal, TimeSampler
from genjax.parameterizations import EDMPreconditioning, Parameterization, expand
from genjax.processes import Process
from genjax.processes.trigflow import LU_2025, TrigFlow
from genjax.registry import register
from genjax.sampling.keys import normal_like
from genjax.solvers import Consistency


@register("family", "scm")
@dataclasses.dataclass(frozen=True, kw_only=True)
class SCM(FreeStudent):
    """sCM: simplified, stabilized consistency models in continuous time (Lu & Song 2025, algorithm 1).

    With a teacher that is asked it is sCD, distillation: paths are the teacher's. Without it is sCT, training: the
    velocity of a pair stands for that of the path. The consistency function is f = cos(a) x_t - sin(a) sigma_data F at
    the angle a of the process `trigflow`; with F = -F_edm that is the denoiser of EDM's preconditioning there, so an
    EDM teacher's weights mean the same here. The network's derivative is that along (cos(a) sin(a) dx/da,
    cos(a) sin(a)) (sec. 4.3, JVP rearrangement). The noise label is EDM's log(sigma) / 4, whose own derivative along
    that is 1/4 everywhere; the paper's is the angle.

    Training measures `tangent`, the mean square of cos(a) df/da before its normalization, the same within ranges of the
    noise level, and `warmup`, the r of the paper.

    Attributes beside those of `FreeStudent`:
        distill: whether the paths are the teacher's; if not, a teacher gives its weights alone.
        time_sampler: of the angles; log(sigma_data tan(a)) is normal in the paper.
        normalizer: the c of the tangent's normalization g / (|g| + c); None for a tangent that is not normalized.
        warmup: training steps over which r rises from 0 to 1; 0 for none. At r = 0 it learns the velocity.
        uncertainty: the adaptive weighting's learnt log-variance, -w of the paper; None for none.
    """

    process: Process = component("process", TrigFlow())
    parameterization: Parameterization = component("parameterization", EDMPreconditioning())
    sampler: Sampler = section(
        Sampler, Sampler(solver=Consistency(), times=sampling.times.trailing, steps=2, final="none")
    )
    distill: bool = True
    time_sampler: TimeSampler = component("time_sampler", LogNormal(-1.0, 1.4))
    normalizer: float | None = 0.1
    warmup: int = 10_000
    uncertainty: Any = component("uncertainty", None)
    reference: ClassVar[str] = LU_2025

    def __post_init__(self) -> None:
        process, parameterization = self.process, self.parameterization
        require(
            isinstance(process, TrigFlow)
            and type(parameterization) is EDMPreconditioning
            and process.sigma_data == parameterization.sigma_data,
            "sCM takes the process trigflow and the parameterization edm, with the same sigma_data",
        )
        super().__post_init__()
        require(
            self.begin != "teacher" or self.teacher is None or self.teacher.family.parameterization == parameterization,
            "begin = 'teacher': the teacher's parameterization is not edm with this sigma_data, so its weights mean "
            "something else; take begin = 'scratch'",
        )
        require(self.normalizer is None or self.normalizer > 0, f"normalizer = {self.normalizer}: must be positive")
        require(self.warmup >= 0, f"warmup = {self.warmup}: must be at least 0")

    @property
    def asks(self) -> bool:
        """Whether the loss asks the teacher."""
        return self.teacher is not None and self.distill

    def init(self, key: Array, spec: DataSpec) -> tuple[dict[str, Params], Extra]:
        """Returns the initial parameters of the role "model", of which the uncertainty is a branch."""
        params, extra = super().init(key, spec)
        if self.uncertainty is not None:
            params = params | {MODEL: with_uncertainty(params[MODEL], self.uncertainty, jax.random.fold_in(key, 2))}
        return params, extra

    def phases(self) -> tuple[Phase, ...]:
        """Returns the one phase, which trains the role "model"."""
        return (Phase("train", MODEL, self._loss),)

    def evaluate(self, params: dict[str, Params], batch: Batch, key: Array) -> dict[str, Array]:
        """Returns the mean square of each example's tangent cos(a) df/da, without dropout, as `loss` [B]."""
        keys, cond = Keys.of(key, len(batch["image"])), conditions(batch, self.condition)
        x_t, t, velocity = self._points(params, batch, keys, cond)
        _, tangent = self.output_and_tangent(params[MODEL], x_t, t, velocity, cond)
        return {"loss": jnp.mean(tangent**2, axis=(1, 2, 3))}

    def _loss(self, params: Params, state: State, batch: Batch, keys: Keys) -> tuple[Array, Aux]:
        keys_condition, keys_dropout, keys_loss = keys.split(3)
        cond = self._partly_dropped(keys_condition, conditions(batch, self.condition))
        x_t, t, velocity = self._points(state.extra, batch, keys_loss, cond)
        share = jnp.minimum(1.0, state.step / self.warmup) if self.warmup else jnp.float32(1.0)
        output, tangent = self.output_and_tangent(params, x_t, t, velocity, cond, share, keys_dropout.each)

        size = jnp.mean(tangent**2, axis=(1, 2, 3))
        if self.normalizer is not None:
            norm = jnp.sqrt(size * tangent[0].size)
            tangent = tangent / expand(norm + self.normalizer, tangent)
        # Of F = -F_edm the paper's residual is F - F_minus - g: g in value, with the gradient of F.
        target = jax.lax.stop_gradient(output - tangent)
        loss = jnp.mean((output - target) ** 2, axis=(1, 2, 3))
        log_snr = self.process.log_snr(t)
        if self.uncertainty is not None:
            loss = by_uncertainty(loss, params, self.uncertainty, log_snr)
        levels = by_noise_level(size, log_snr)
        metrics = {"tangent": size.mean(), "warmup": share} | {
            f"tangent_by_noise/{name}": levels[name] for name in levels
        }
        return loss.mean(), Aux(metrics)

    def _points(self, frozen: Extra, batch: Batch, keys: Keys, cond: Any) -> tuple[Array, Array, Array]:
        """Noisy images, their times [B] and dx/da, the velocity of the paths that are learned."""
        keys_t, keys_eps = keys.split(2)
        t, x_0 = self.time_sampler(keys_t, self.process), batch["image"]
        cos, sin = self._circle(t, x_0)
        z = self._sigma_data * normal_like(keys_eps.each, x_0)
        x_t = cos * x_0 + sin * z
        if not self.asks:
            return x_t, t, cos * z - sin * x_0
        estimate = teacher_denoiser(self.teacher, frozen[TEACHER], self.process)(x_t, t, cond)
        return x_t, t, jax.lax.stop_gradient((cos * x_t - estimate) / sin)

    def output_and_tangent(
        self,
        params: Params,
        x_t: Array,
        t: Array,
        velocity: Array,
        cond: Any = None,
        share: Any = 1.0,
        dropout: Array | None = None,
    ) -> tuple[Array, Array]:
        """Returns the network's output, and without gradient cos(a) df/da along the velocity (algorithm 1).

        Args:
            params: of the network.
            x_t: [B, ...].
            t: [B].
            velocity: dx/da at x_t [B, ...].
            cond: the condition.
            share: the paper's r, of the terms that make the tangent unstable.
            dropout: one key an example, or None.
        """
        assert isinstance(self.process, TrigFlow)

        def network(x_t: Array, t: Array) -> Array:
            return self._apply(params, *self.parameterization.network_input(x_t, t, self.process), cond, dropout)

        cos, sin = self._circle(t, x_t)
        speed = (cos * sin).reshape(t.shape) / self.process.last_angle
        output, change = jax.jvp(network, (x_t, t), (cos * sin * velocity, speed))
        f, d_f = -self._sigma_data * output, -self._sigma_data * change
        tangent = -(cos**2) * (f - velocity) - share * (cos * sin * x_t + d_f)
        return output, jax.lax.stop_gradient(tangent)

    @property
    def _sigma_data(self) -> float:
        assert isinstance(self.process, TrigFlow)
        return self.process.sigma_data

    def _circle(self, t: Array, like: Array) -> tuple[Array, Array]:
        """Cosine and sine of the angle, to multiply images by."""
        return expand(self.process.alpha(t), like), expand(self.process.sigma(t) / self._sigma_data, like)
