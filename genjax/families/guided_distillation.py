"""Guided distillation: one evaluation does what classifier-free guidance does in two, at any scale."""

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from genjax import sampling
from genjax.citation import bibtex
from genjax.config import component, require
from genjax.families.base import Aux, Batch, Keys, Params, Phase, State, conditions
from genjax.families.denoising import MODEL
from genjax.families.student import TEACHER, Student
from genjax.families.teacher import teacher_denoiser
from genjax.families.time_samplers import TimeSampler, UniformTimes
from genjax.families.weightings import TruncatedSNR, Weighting
from genjax.parameterizations import ConditionalDenoiser, Parameterization, V, denoiser, expand
from genjax.registry import register
from genjax.sampling.guidance import needs_null
from genjax.sampling.keys import normal_like

MENG_2023 = bibtex(
    """
    @inproceedings{meng2023distillation,
      title = {On Distillation of Guided Diffusion Models},
      author = {Meng, Chenlin and Rombach, Robin and Gao, Ruiqi and Kingma, Diederik and Ermon, Stefano and
                Ho, Jonathan and Salimans, Tim},
      booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
      year = {2023}
    }
    """
)
SCALE = "guidance"  # the network's number beside the noise label


@register("family", "guided_distillation")
@dataclasses.dataclass(frozen=True, kw_only=True)
class GuidedDistillation(Student):
    """The first stage of distilling a guided model: a student that is told the scale (Meng et al. 2023, algorithm 1).

    It learns what the teacher says with classifier-free guidance, at scales that are uniform in a range, so that it
    generates for each of them with half of the evaluations. Scales are those of
    `genjax.sampling.guidance.classifier_free`, the paper's w + 1: 1 is no guidance. The network is the teacher's with
    `scalars = ("guidance",)`.

    Training measures `mse`, the plain square error of the network's output.

    Attributes beside those of `Student`:
        guidance_range: of the scales in training.
        guidance: the scale at which it generates; the sampler has none of its own.
        weighting: weight of the loss at each noise level.
        time_sampler: distribution of the noise levels in training.
    """

    parameterization: Parameterization = component("parameterization", V())
    condition: tuple[str, ...] = ("label",)
    condition_dropout: float = 0.0
    guidance_range: tuple[float, float] = (1.0, 5.0)
    guidance: float = 2.0
    weighting: Weighting = component("weighting", TruncatedSNR())
    time_sampler: TimeSampler = component("time_sampler", UniformTimes())
    reference: ClassVar[str] = MENG_2023

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.guidance_range
        require(low < high, f"guidance_range = {self.guidance_range}: must be (low, high)")
        require(
            low <= self.guidance <= high,
            f"guidance = {self.guidance}: must be in the range of the scales in training, {self.guidance_range}",
        )
        scalars = tuple(getattr(self.network, "scalars", ()))
        require(scalars == (SCALE,), f"network.scalars = {scalars}: must be ({SCALE!r},), which tells it the scale")
        require(len(self.condition) > 0, "condition = (): there is nothing to guide by")
        require(
            not needs_null(self.sampler.guidance),
            "sampler.guidance: the network has learnt it; take 'none', and the family's `guidance`",
        )

    def phases(self) -> tuple[Phase, ...]:
        """Returns the one phase, which trains the role "model"."""
        return (Phase("train", MODEL, self._loss),)

    def denoiser(self, params: dict[str, Params], scale: float | Array | None = None) -> ConditionalDenoiser:
        """Returns `(x_t, t, cond) -> x_0_hat` at one scale, or at one an example [B]; None for the family's own."""
        scale = self.guidance if scale is None else scale

        def told(params: Params, x: Array, label: Array, cond: Any) -> Array:
            numbers = jnp.broadcast_to(jnp.asarray(scale, jnp.float32), label.shape)
            return self._apply(params, x, label, {**(cond or {}), SCALE: numbers})

        return denoiser(told, params[MODEL], self.parameterization, self.process)

    def evaluate(self, params: dict[str, Params], batch: Batch, key: Array) -> dict[str, Array]:
        """Returns the weighted loss of each example, without dropout, as `loss` [B]."""
        keys, cond = Keys.of(key, len(batch["image"])), conditions(batch, self.condition)
        return {"loss": self._losses(params[MODEL], params[TEACHER], batch, keys, cond)[0]}

    def _loss(self, params: Params, state: State, batch: Batch, keys: Keys) -> tuple[Array, Aux]:
        keys_condition, keys_dropout, keys_loss = keys.split(3)
        cond = self._partly_dropped(keys_condition, conditions(batch, self.condition))
        weighted, plain = self._losses(params, state.extra[TEACHER], batch, keys_loss, cond, keys_dropout.each)
        return weighted.mean(), Aux({"mse": plain.mean()})

    def _losses(
        self, params: Params, teacher: Params, batch: Batch, keys: Keys, cond: Any, dropout: Array | None = None
    ) -> tuple[Array, Array]:
        """The weighted and the plain square error of the output, averaged over pixels, each [B]."""
        keys_t, keys_eps, keys_scale = keys.split(3)
        t, x_0 = self.time_sampler(keys_t, self.process), batch["image"]
        low, high = self.guidance_range
        scale = jax.vmap(lambda key: jax.random.uniform(key, minval=low, maxval=high))(keys_scale.each)
        alpha, sigma = expand(self.process.alpha(t), x_0), expand(self.process.sigma(t), x_0)
        x_t = alpha * x_0 + sigma * normal_like(keys_eps.each, x_0)
        rule = functools.partial(sampling.guidance.classifier_free, scale=expand(scale, x_0))
        aim = jax.lax.stop_gradient(teacher_denoiser(self.teacher, teacher, self.process, rule)(x_t, t, cond))
        x_in, label = self.parameterization.network_input(x_t, t, self.process)
        output = self._apply(params, x_in, label, {**cond, SCALE: scale}, dropout)
        target = self.parameterization.target(aim, (x_t - alpha * aim) / sigma, t, self.process)
        error = jnp.mean((output - target) ** 2, axis=(1, 2, 3))
        return self.weighting(t, self.process, self.parameterization) * error, error
