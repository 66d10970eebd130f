"""Progressive distillation: students that take half of their teacher's steps, one after another."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from genjax.config import component, require, section
from genjax.families.base import Aux, Batch, DataSpec, Extra, Keys, Params, Phase, State, conditions
from genjax.families.denoising import MODEL
from genjax.families.sampler import Sampler
from genjax.families.student import TEACHER, Student
from genjax.families.weightings import TruncatedSNR, Weighting
from genjax.parameterizations import Parameterization, V, expand, noised
from genjax.registry import register
from genjax.sampling.keys import normal_like
from genjax.solvers.steps import steps

ROUND = "round"  # in `extra`: the round that the teacher there is of, int32 []


@register("family", "progressive_distillation")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ProgressiveDistillation(Student):
    """Progressive distillation: in each round one step learns to do two of the teacher's (Salimans & Ho 2022, alg. 2).

    The steps are DDIM's, on any process. In the last round the student takes the `steps` of its sampler, in the one
    before twice as many, and so on; the first teacher takes `steps * 2^rounds`. When a round begins, the student's
    weights become the teacher. The student is the teacher's network, but for its dropout, on the teacher's process and
    with its parameterization: one that says something about x_0 without signal, such as x0, v, velocity or edm.

    The optimizer knows nothing of rounds: its moments go on, where the authors' begin anew. A learning rate that falls
    in every round is the schedule "linear_restarts" with a period of `steps_per_round`.

    Training measures `mse`, the plain square error of the network's output, and `steps`, those of the round's student.

    Attributes beside those of `Student`:
        rounds: how many.
        steps_per_round: training steps of a round; the last one goes on for as long as the run.
        averaged: whether it is the average of the student's weights that becomes the teacher. The paper has none.
        weighting: weight of the loss at each noise level.
        sampler: its grid of times, at the last round's number of steps, has every `2^rounds`-th time of the first
            teacher's.
    """

    parameterization: Parameterization = component("parameterization", V())
    sampler: Sampler = section(Sampler, Sampler(steps=4, final="none"))
    rounds: int = 3
    steps_per_round: int = 50_000
    averaged: bool = False
    weighting: Weighting = component("weighting", TruncatedSNR())
    reference: ClassVar[str] = "salimans2022progressive"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rounds", "steps_per_round"):
            require(getattr(self, name) >= 1, f"{name} = {getattr(self, name)}: must be at least 1")
        require(
            self.begin == "teacher", "begin = 'scratch': in progressive distillation a student begins as its teacher"
        )
        finest, coarse = self._grid(0), self.sampler.times(self.process, self.sampler.steps)
        require(
            len(finest[:: 2**self.rounds]) == len(coarse)
            and bool(np.allclose(finest[:: 2**self.rounds], coarse, rtol=0, atol=1e-9)),
            "sampler.times: with half of the steps it is not every second time; take uniform, trailing or another grid "
            "that is a function of the share of the steps",
        )

    def check(self, spec: DataSpec) -> None:
        """Raises ValueError where the data or the teacher do not fit the model; compiles nothing."""
        super().check(spec)
        for name in ("process", "parameterization"):
            mine, theirs = getattr(self, name), getattr(self.teacher.family, name)
            require(mine == theirs, f"{name} = {mine}: must be the teacher's, which is {theirs}")

    def init(self, key: Array, spec: DataSpec) -> tuple[dict[str, Params], Extra]:
        """Returns the initial parameters of the role "model", and in `extra` the teacher and its round."""
        params, extra = super().init(key, spec)
        return params, {TEACHER: {MODEL: extra[TEACHER][MODEL]}, ROUND: jnp.zeros((), jnp.int32)}

    def pretrained(self) -> Mapping[str, Params]:
        """Reads the teacher, as which the student begins."""
        loaded = self.teacher.load()[MODEL]
        return {TEACHER: {MODEL: loaded}, MODEL: loaded}

    def phases(self) -> tuple[Phase, ...]:
        """Returns the one phase, which trains the role "model"."""
        return (Phase("train", MODEL, self._loss),)

    def evaluate(self, params: dict[str, Params], batch: Batch, key: Array) -> dict[str, Array]:
        """Returns the weighted loss of each example against the teacher of the round, as `loss` [B]."""
        keys, cond = Keys.of(key, len(batch["image"])), conditions(batch, self.condition)
        return {"loss": self._losses(params[MODEL], params[TEACHER], params[ROUND], batch, keys, cond)[0]}

    def steps_of_round(self, index: Any) -> Any:
        """Returns how many steps the student of a round takes."""
        return self.sampler.steps * 2 ** (self.rounds - 1 - index)

    def _grid(self, index: int) -> np.ndarray:
        """The times of the teacher of a round [2 N + 1]."""
        finest: np.ndarray = self.sampler.times(self.process, self.sampler.steps * 2**self.rounds)
        return finest[:: 2**index]

    def _plan(self) -> tuple[np.ndarray, np.ndarray]:
        """What depends on times alone, in float64: coefficients [5, N], one round after another, and their starts.

        They are the times t and t' of the teacher's two steps, (a, b) of the first, x_t' = a x_t + b D(x_t), and the
        share of the second estimate of x_0 in what one step must aim at to come where the two come.
        """
        rows = []
        for index in range(self.rounds):
            times = self._grid(index)
            a, b = steps(self.process, times).first_order
            # Both steps are x_t'' = a2 a x_t + a2 b D + b2 D', the one is x_t'' = a2 a x_t + (a2 b + b2) x_0.
            share = b[1::2] / (a[1::2] * b[::2] + b[1::2])
            rows.append(np.stack([times[:-1:2], times[1::2], a[::2], b[::2], share]))
        counts = [row.shape[1] for row in rows]
        return np.concatenate(rows, axis=1), np.cumsum([0, *counts[:-1]])

    def _loss(self, params: Params, state: State, batch: Batch, keys: Keys) -> tuple[Array, Aux]:
        keys_condition, keys_dropout, keys_loss = keys.split(3)
        cond = self._partly_dropped(keys_condition, conditions(batch, self.condition))
        now = jnp.minimum(state.step // self.steps_per_round, self.rounds - 1).astype(jnp.int32)
        student = jax.lax.stop_gradient(state.ema.get(MODEL, params) if self.averaged else params)
        # Asked of the state, not of the step: a step that is undone does not lose the change.
        teacher = jax.lax.cond(now > state.extra[ROUND], lambda: {MODEL: student}, lambda: state.extra[TEACHER])
        weighted, plain = self._losses(params, teacher, now, batch, keys_loss, cond, keys_dropout.each)
        metrics = {"mse": plain.mean(), "steps": self.steps_of_round(now.astype(jnp.float32))}
        return weighted.mean(), Aux(metrics, {**state.extra, TEACHER: teacher, ROUND: now})

    def _losses(
        self,
        params: Params,
        teacher: dict[str, Params],
        index: Array,
        batch: Batch,
        keys: Keys,
        cond: Any,
        dropout: Array | None = None,
    ) -> tuple[Array, Array]:
        """The weighted and the plain square error of the output, averaged over pixels, each [B]."""
        keys_t, keys_eps = keys.split(2)
        plan, starts = self._plan()
        n = self.steps_of_round(index)
        place = jnp.asarray(starts)[index] + jax.vmap(lambda key: jax.random.randint(key, (), 0, n))(keys_t.each)
        t, *rest = jnp.asarray(plan, jnp.float32)[:, place]
        x_0 = batch["image"]
        x_t = noised(x_0, normal_like(keys_eps.each, x_0), t, self.process)
        aim = jax.lax.stop_gradient(self._aim(teacher, x_t, t, rest, cond))
        eps = (x_t - expand(self.process.alpha(t), x_0) * aim) / expand(self.process.sigma(t), x_0)
        x_in, label = self.parameterization.network_input(x_t, t, self.process)
        output = self._apply(params, x_in, label, cond, dropout)
        error = jnp.mean((output - self.parameterization.target(aim, eps, t, self.process)) ** 2, axis=(1, 2, 3))
        return self.weighting(t, self.process, self.parameterization) * error, error

    def _aim(self, teacher: dict[str, Params], x_t: Array, t: Array, plan: list[Array], cond: Any) -> Array:
        """The x_0 that takes x_t in one step where the teacher's two take it."""
        t_mid, a, b, share = plan
        denoise = self.denoiser(teacher)
        first = denoise(x_t, t, cond)
        second = denoise(expand(a, x_t) * x_t + expand(b, x_t) * first, t_mid, cond)
        return first + expand(share, x_t) * (second - first)
