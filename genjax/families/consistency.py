"""Consistency models: one evaluation from any point of a path to its end, learnt in discrete time."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from genjax import sampling, solvers
from genjax.config import component, require, section
from genjax.families.base import Aux, Batch, DataSpec, Extra, Keys, Params, Phase, State, conditions
from genjax.families.consistency_losses import ConsistencyWeighting, Constant, Distance, PseudoHuber
from genjax.families.denoising import MODEL
from genjax.families.discretizations import Discretization, Fixed
from genjax.families.noise_levels import by_noise_level
from genjax.families.sampler import Sampler
from genjax.families.student import TEACHER, FreeStudent
from genjax.families.teacher import teacher_denoiser
from genjax.families.time_samplers import TimeSampler, UniformTimes
from genjax.parameterizations import ConditionalDenoiser, ConsistencyPreconditioning, Parameterization, denoiser, noised
from genjax.processes import EDM, Process
from genjax.registry import register
from genjax.sampling.keys import normal_like

TARGET = "target"  # in `extra`
GUIDANCE = "guidance"  # the network's scalar
END = 2**30  # a training step after which no discretization changes


@register("family", "consistency")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ConsistencyModel(FreeStudent):
    """A consistency function f(x_t, t): the end of the path through x_t (Song et al. 2023, algorithms 2 and 3).

    The loss is the distance of f(x_t, t) from f(x_s, s), s < t, at which no gradient arrives. With a `solver` it is
    consistency distillation: x_s is where the teacher's probability-flow ODE leads from x_t. Without one it is
    consistency training: x_s has the noise of x_t. The function is a denoiser that leaves images at the lowest noise
    level as they are, so the solver `consistency` samples it.

    | method | solver | discretization | time_sampler | distance | weighting |
    | --- | --- | --- | --- | --- | --- |
    | CD (Song et al. 2023) | heun | fixed | uniform | l2, l1 | constant |
    | CT (Song et al. 2023) | None | square_root | uniform | l2, l1 | constant |
    | iCT (Song & Dhariwal 2024) | None | doubling | log_normal, truncated | pseudo_huber | inverse_gap |
    | ECT (Geng et al. 2025), from a teacher's weights | None | ect | log_normal | pseudo_huber | inverse_variance |
    | LCM (Luo et al. 2023), with `guidance_range` | ddim | fixed, skip | uniform | l2, pseudo_huber | constant |

    Training measures `mse`, the plain square of the difference, the same within ranges of the noise level, and
    `points`, how many times the path has.

    Attributes beside those of `FreeStudent`:
        parameterization: one whose estimate at t = 0 is x_t itself, whatever the network says.
        begin: see `Student`; "teacher" needs one whose network's output means the same, as that of edm and of
            consistency does.
        solver: how the teacher goes from t to s in one step; None where x_s is of the data.
        discretization: which times are compared.
        time_sampler: the distribution of t, before it is moved to a grid.
        distance: of two estimates.
        weighting: of the distance at each pair of times.
        target_decay: f(x_s, s) has the average of the weights of this decay mu; 0 for the weights themselves. The decay
            rises with the number of times N to mu^(N(0) / N) (Song et al. 2023, appendix C).
        guidance_range: of scales of classifier-free guidance with which the teacher is followed; drawn evenly, and
            told to the network by its scalar "guidance" (Luo et al. 2023, sec. 4.2). 1 + w of the paper: 1 is none.
        guidance: the scale that the model generates with, where it has a range.
    """

    process: Process = component("process", EDM())
    parameterization: Parameterization = component("parameterization", ConsistencyPreconditioning())
    sampler: Sampler = section(Sampler, Sampler(solver=solvers.Consistency(epsilon=0.002), steps=2, final="none"))
    begin: str = "teacher"
    solver: solvers.Solver | None = component("solver", None)
    discretization: Discretization = component("discretization", Fixed())
    time_sampler: TimeSampler = component("time_sampler", UniformTimes())
    distance: Distance = component("distance", PseudoHuber())
    weighting: ConsistencyWeighting = component("consistency_weighting", Constant())
    target_decay: float = 0.0
    guidance_range: tuple[float, float] | None = None
    guidance: float = 1.0
    reference: ClassVar[str] = "song2023consistency"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0.0 <= self.target_decay < 1.0, f"target_decay = {self.target_decay}: must be in [0, 1)")
        require(self.solver is None or self.teacher is not None, "solver: needs a teacher, whose paths it follows")
        require(
            self.solver is None or (not self.solver.stochastic and self.solver.nfe_per_step > 0),
            f"solver = {self.solver}: must be one without randomness, and without steps of its own",
        )
        x, t = jnp.ones((1, 1)), jnp.float32(0.0)
        at_rest, moved = (self.parameterization.to_x0(output, x, t, self.process) for output in (0.0 * x, x))
        require(
            float(jnp.abs(at_rest - x)[0, 0] + jnp.abs(moved - at_rest)[0, 0]) < 0.03,
            f"parameterization = {self.parameterization}: at t = 0 of this process the estimate is not x_t; take "
            "consistency or edm, or eps, v or velocity on a process that begins without noise",
        )
        scalar = GUIDANCE in getattr(self.network, "scalars", ())
        require(
            scalar == (self.guidance_range is not None),
            f"guidance_range = {self.guidance_range}: a range and network.scalars = ('{GUIDANCE}',) need each other",
        )
        if self.guidance_range is not None:
            low, high = self.guidance_range
            require(low <= high, f"guidance_range = {self.guidance_range}: must be (low, high)")
            require(
                self.solver is not None and len(self.condition) > 0,
                "guidance_range: needs a teacher, a solver and a condition to guide by",
            )

    @property
    def asks(self) -> bool:
        """Whether the loss asks the teacher."""
        return self.teacher is not None and self.solver is not None

    def init(self, key: Array, spec: DataSpec) -> tuple[dict[str, Params], Extra]:
        """Returns the parameters of the role "model"; in `extra` the teacher that is asked, and the target's average.

        Beside the average stands the step that it was last updated in, lest it is so for every part of a batch.
        """
        params, extra = super().init(key, spec)
        if self.target_decay:
            extra = {**extra, TARGET: {"weights": params[MODEL], "step": jnp.full((), -1, jnp.int32)}}
        return params, extra

    def pretrained(self) -> Mapping[str, Params]:
        """Reads the teacher where it is asked, and what begins as it."""
        trees = super().pretrained()
        follows = MODEL in trees and self.target_decay > 0
        return {**trees, TARGET: {"weights": trees[MODEL]}} if follows else trees

    def phases(self) -> tuple[Phase, ...]:
        """Returns the one phase, which trains the role "model"."""
        return (Phase("train", MODEL, self._loss),)

    def denoiser(self, params: dict[str, Params]) -> ConditionalDenoiser:
        """Returns the function `(x_t, t, cond) -> end of the path`, at the scale `guidance` where it has one."""
        function = super().denoiser(params)
        if self.guidance_range is None:
            return function

        def guided(x_t: Array, t: Array, cond: Any = None) -> Array:
            return function(x_t, t, self._told(cond, jnp.full(x_t.shape[:1], self.guidance)))

        return guided

    def evaluate(self, params: dict[str, Params], batch: Batch, key: Array) -> dict[str, Array]:
        """Returns the loss of each example at the end of the discretization, without dropout, as `loss` [B]."""
        keys, cond = Keys.of(key, len(batch["image"])), conditions(batch, self.condition)
        model = params[MODEL]
        return {"loss": self._losses(model, model, params.get(TEACHER), jnp.int32(END), batch, keys, cond)[0]}

    def _loss(self, params: Params, state: State, batch: Batch, keys: Keys) -> tuple[Array, Aux]:
        keys_condition, keys_dropout, keys_loss = keys.split(3)
        cond = self._partly_dropped(keys_condition, conditions(batch, self.condition))
        extra = self._followed(state, params) if self.target_decay else None
        target = params if extra is None else extra[TARGET]["weights"]
        teacher, dropout = state.extra.get(TEACHER), keys_dropout.each
        weighted, plain, t = self._losses(params, target, teacher, state.step, batch, keys_loss, cond, dropout)
        levels = by_noise_level(plain, self.process.log_snr(t))
        metrics = {"mse": plain.mean(), "points": self.discretization.points(state.step)}
        return weighted.mean(), Aux(metrics | {f"mse_by_noise/{name}": levels[name] for name in levels}, extra)

    def _followed(self, state: State, params: Params) -> Extra:
        """All of `extra` with the target's average one update on: at the begin of a step, as of the end of the last."""
        points = self.discretization.points
        decay = self.target_decay ** (points(jnp.int32(0)) / points(state.step))
        share = jnp.where(state.step > state.extra[TARGET]["step"], 1.0 - decay, 0.0)
        weights = jax.tree.map(
            lambda average, now: average + share * (now - average), state.extra[TARGET]["weights"], params
        )
        return {**state.extra, TARGET: jax.lax.stop_gradient({"weights": weights, "step": state.step})}

    def _losses(
        self,
        params: Params,
        target: Params,
        teacher: dict[str, Params] | None,
        step: Array,
        batch: Batch,
        keys: Keys,
        cond: Any,
        dropout: Array | None = None,
    ) -> tuple[Array, Array, Array]:
        """The weighted distance and the mean square of the difference, and the times t, each [B]."""
        keys_t, keys_eps, keys_guidance = keys.split(3)
        t, s = self.discretization(self.time_sampler(keys_t, self.process), self.process, step)
        x_0 = batch["image"]
        eps = normal_like(keys_eps.each, x_0)
        x_t, told = noised(x_0, eps, t, self.process), cond
        if teacher is None:
            x_s = noised(x_0, eps, s, self.process)
        elif self.guidance_range is None:
            x_s = self._followed_path(teacher, x_t, t, s, cond)
        else:
            low, high = self.guidance_range
            scale = low + (high - low) * jax.vmap(jax.random.uniform)(keys_guidance.each)
            x_s, told = self._followed_path(teacher, x_t, t, s, cond, scale), self._told(cond, scale)
        # Both meet the same dropout (Song & Dhariwal 2024, sec. 3.1).
        apply = functools.partial(self._apply, dropout=dropout)
        end = denoiser(apply, params, self.parameterization, self.process)(x_t, t, told)
        aim = denoiser(apply, target, self.parameterization, self.process)(x_s, s, told)
        difference = end - jax.lax.stop_gradient(aim)
        weighted = self.weighting(t, s, self.process) * self.distance(difference)
        return weighted, jnp.mean(difference**2, axis=(1, 2, 3)), t

    def _told(self, cond: Any, scale: Array) -> dict[str, Any]:
        """A condition with the scale of guidance [B] beside it."""
        return {**(cond or {}), GUIDANCE: scale}

    def _followed_path(
        self, params: dict[str, Params], x_t: Array, t: Array, s: Array, cond: Any, scale: Array | None = None
    ) -> Array:
        """Takes each example from its own time t [B] to s [B] on the teacher's path, in one step of the solver."""
        solver, teacher = self.solver, self.teacher
        assert solver is not None and teacher is not None

        def one(x: Array, t: Array, s: Array, cond: Any, scale: Array | None) -> Array:
            guide = None if scale is None else functools.partial(sampling.guidance.classifier_free, scale=scale)
            denoise = teacher_denoiser(teacher, params, self.process, guide)
            plan = jax.tree.map(lambda row: row[0], solver.plan(self.process, jnp.stack([t, s])))
            return solver.step(lambda x, t: denoise(x, t, cond), x, plan, solver.init(x), _no_noise)[0]

        single = functools.partial(jax.tree.map, lambda leaf: leaf[:, None])  # a batch of one each
        return jax.vmap(one)(single(x_t), t, s, single(cond), scale)[:, 0]


def _no_noise(index: int, span: Any) -> Array:
    raise AssertionError("a solver without randomness draws nothing")
