"""Distribution matching distillation: a generator in few steps, between two scores."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from genjax.citation import bibtex
from genjax.config import component, require, section
from genjax.families.base import Aux, Batch, DataSpec, Extra, Keys, Params, Phase, State, conditions
from genjax.families.denoising import MODEL
from genjax.families.sampler import Sampler
from genjax.families.student import TEACHER, Student
from genjax.families.teacher import teacher_denoiser
from genjax.families.time_samplers import TimeSampler, UniformTimes
from genjax.families.weightings import Uniform, Weighting
from genjax.parameterizations import expand, noised
from genjax.registry import register
from genjax.sampling.keys import normal_like
from genjax.solvers import Consistency

YIN_2024 = bibtex(
    """
    @inproceedings{yin2024onestep,
      title = {One-step Diffusion with Distribution Matching Distillation},
      author = {Yin, Tianwei and Gharbi, Micha{\\"e}l and Zhang, Richard and Shechtman, Eli and Durand, Fr{\\'e}do and
                Freeman, William T. and Park, Taesung},
      booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
      year = {2024}
    }
    """
)
FAKE = "fake_score"  # the role of the network that knows the generator's distribution


@register("family", "dmd")
@dataclasses.dataclass(frozen=True, kw_only=True)
class DMD(Student):
    """Distribution matching distillation (Yin et al. 2024a, algorithm 1), without an adversary.

    The generator descends the reverse KL divergence between what it makes and what the teacher knows, both noised. Its
    gradient is the difference of two scores, the teacher's and that of a second network, `fake_score`, a denoiser that
    learns from the generator's images as they change. In a step come first its updates, then one of the generator.

    The generator is a denoiser at the times from which its sampler takes steps: at the first alone for one step. With
    more it learns at all of them, each example at one, from what it makes itself (the "backward simulation" of Yin et
    al. 2024b, DMD2, sec. 4.5), so that a step costs an evaluation more for each step of the sampler but the first.

    Without `regression` and with `fake_updates = 5` it is DMD2 without its adversary. With `regression` the batch has
    beside images also the `noise` [B, H, W, C], unit normal, that the teacher made each from: pairs that are stored
    before. The paper's distance between images is LPIPS, on which it needs a trained network; here it is the square
    error of pixels.

    Training measures of the generator's phase `matching`, the mean absolute difference of the two estimates of x_0, and
    with pairs `regression`; of the other `mse`, the plain square error of its output.

    Attributes beside those of `Student`:
        fake_updates: updates of the fake score in one step.
        weighting: of the fake score's loss.
        time_sampler: the noise levels at which the fake score learns.
        matching_times: the noise levels at which the two scores are compared.
        guidance: how the teacher's score uses the condition; None for the plain conditional one.
        regression: weight of the regression on the teacher's pairs; 0 is for none.
        sampler: how it generates; made for the solver `consistency` without a last evaluation.
    """

    sampler: Sampler = section(Sampler, Sampler(solver=Consistency(), steps=1, final="none"))
    fake_updates: int = 1
    weighting: Weighting = component("weighting", Uniform())
    time_sampler: TimeSampler = component("time_sampler", UniformTimes())
    matching_times: TimeSampler = component("time_sampler", UniformTimes(0.02, 0.98))
    guidance: Callable[..., Any] | None = component("guidance", None)
    regression: float = 0.0
    reference: ClassVar[str] = YIN_2024

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.fake_updates >= 1, f"fake_updates = {self.fake_updates}: must be at least 1")
        require(self.regression >= 0, f"regression = {self.regression}: must be at least 0")

    def init(self, key: Array, spec: DataSpec) -> tuple[dict[str, Params], Extra]:
        """Returns the initial parameters of the generator and of the fake score, and the teacher in `extra`."""
        params, extra = super().init(key, spec)
        fake = self.network.init(jax.random.fold_in(key, 2), *self._example(1))["params"]
        return {**params, FAKE: fake}, extra

    def pretrained(self) -> Mapping[str, Params]:
        """Reads the teacher, as which both networks begin."""
        given = super().pretrained()
        return {**given, FAKE: given[MODEL]} if MODEL in given else given

    def phases(self) -> tuple[Phase, ...]:
        """Returns the updates of the fake score, then that of the generator."""
        return (
            Phase(FAKE, FAKE, self._fake_loss, repeat=self.fake_updates),
            Phase("generator", MODEL, self._generator_loss),
        )

    def evaluate(self, params: dict[str, Params], batch: Batch, key: Array) -> dict[str, Array]:
        """Returns no figures: none of its losses says how good the images are."""
        return {}

    def make(self, params: Params, keys: Keys, cond: Any) -> Array:
        """Makes one image an example [B, H, W, C] in the last of a random number of steps, which gradients pass.

        Args:
            params: the generator's.
            keys: one an example.
            cond: the condition [B].
        """
        denoise, before = (self.denoiser({MODEL: tree}) for tree in (params, jax.lax.stop_gradient(params)))
        times = jnp.asarray(self.sampler.times(self.process, self.sampler.steps)[:-1], jnp.float32)
        keys_step, *keys_noise = keys.split(1 + len(times))
        step = jax.vmap(lambda key: jax.random.randint(key, (), 0, len(times)))(keys_step.each)
        like = jnp.zeros((len(step), *self.image_shape))
        x = chosen = self.process.sigma(times[0]) * normal_like(keys_noise[0].each, like)
        for i in range(1, len(times)):
            made = before(x, times[i - 1], cond)
            noise = normal_like(keys_noise[i].each, like)
            x = self.process.alpha(times[i]) * made + self.process.sigma(times[i]) * noise
            chosen = jnp.where(expand(step == i, x), x, chosen)
        return denoise(chosen, times[step], cond)

    def _fake_loss(self, params: Params, state: State, batch: Batch, keys: Keys) -> tuple[Array, Aux]:
        keys_made, keys_t, keys_eps, keys_dropout = keys.split(4)
        cond = conditions(batch, self.condition)
        x_0 = jax.lax.stop_gradient(self.make(state.params[MODEL], keys_made, cond))
        t = self.time_sampler(keys_t, self.process)
        x_t, eps = self._noised(x_0, t, keys_eps)
        x_in, label = self.parameterization.network_input(x_t, t, self.process)
        output = self._apply(params, x_in, label, cond, keys_dropout.each)
        error = jnp.mean((output - self.parameterization.target(x_0, eps, t, self.process)) ** 2, axis=(1, 2, 3))
        weight = self.weighting(t, self.process, self.parameterization)
        return jnp.mean(weight * error), Aux({"mse": error.mean()})

    def _generator_loss(self, params: Params, state: State, batch: Batch, keys: Keys) -> tuple[Array, Aux]:
        keys_made, keys_t, keys_eps = keys.split(3)
        cond = conditions(batch, self.condition)
        made = self.make(params, keys_made, cond)
        x_0, t = jax.lax.stop_gradient(made), self.matching_times(keys_t, self.process)
        x_t, _ = self._noised(x_0, t, keys_eps)
        real = teacher_denoiser(self.teacher, state.extra[TEACHER], self.process, self.guidance)(x_t, t, cond)
        fake = self.denoiser({MODEL: jax.lax.stop_gradient(state.params[FAKE])})(x_t, t, cond)
        # Of this square the gradient by the image is the direction over the number of pixels.
        losses = 0.5 * jnp.mean((made - (x_0 - direction(x_0, real, fake))) ** 2, axis=(1, 2, 3))
        metrics = {"matching": jnp.mean(jnp.abs(fake - real))}
        if self.regression:
            first = jnp.float32(self.sampler.times(self.process, self.sampler.steps)[0])
            again = self.denoiser({MODEL: params})(self.process.sigma(first) * batch["noise"], first, cond)
            errors = jnp.mean((again - batch["image"]) ** 2, axis=(1, 2, 3))
            losses, metrics["regression"] = losses + self.regression * errors, errors.mean()
        return losses.mean(), Aux(metrics)

    def _noised(self, x_0: Array, t: Array, keys: Keys) -> tuple[Array, Array]:
        """Images at times [B], and their noise."""
        eps = normal_like(keys.each, x_0)
        return noised(x_0, eps, t, self.process), eps


def direction(x_0: Array, real: Array, fake: Array) -> Array:
    """Returns where the generator's images [B, ...] are not to go: the fake estimate of x_0 less the real one.

    alpha^2 / sigma^2 times the difference is the gradient of the reverse KL divergence by x_0, see Yin et al. 2024a,
    eq. 3 and 7. Here it is divided by the mean absolute error of the real estimate (eq. 8), a number an example. Of
    that equation's weight the authors' code leaves out the factor alpha, which is 1 for the teachers with EDM's
    process; so does this.

    Args:
        x_0: the generator's images.
        real: the teacher's estimate of them, from noised ones.
        fake: the fake score's, from the same.
    """
    scale = jnp.mean(jnp.abs(x_0 - real), axis=tuple(range(1, x_0.ndim)), keepdims=True)
    return (fake - real) / jnp.maximum(scale, 1e-6)
