"""Progressive distillation: what a student aims at, and when it becomes the teacher."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import parameterizations, processes, solvers
from genjax.analytic import Gaussian
from genjax.families import Diffusion, ProgressiveDistillation, Sampler
from genjax.families.base import Keys
from genjax.families.weightings import TruncatedSNR
from genjax.sampling import analysis, times
from genjax.training.ema import EMA
from genjax.training.optimizers import build_optimizer
from genjax.training.state import TrainState
from genjax.training.step import make_train_step

SHAPE = (1, 1, 2)
SPEC = types.SimpleNamespace(image_shape=SHAPE, num_classes=None, levels=None, second=None)
TARGET = Gaussian(np.array([0.5, -1.0]), np.array([[0.6, 0.2], [0.2, 0.3]]))
PROCESSES = {"vp": processes.CosineVP(), "edm": processes.EDM(), "rf": processes.RectifiedFlow()}
X0 = parameterizations.X0(time_scale=1.0)  # the noise label is the time


@dataclasses.dataclass(frozen=True)
class Affine:
    """A network that is an affine map of x_t, one for each time of a grid: weights [times, 3, 2] of (x_t, 1)."""

    process: object
    times: tuple

    def check(self, image_shape):
        pass

    def init(self, key, x, label, cond):
        return {"params": {"w": jnp.zeros((len(self.times), 3, 2))}}

    def apply(self, variables, x, label, cond, dropout=None):
        # The parameterization scales what the network sees.
        scale = jnp.maximum(1.0, jnp.hypot(self.process.alpha(label), self.process.sigma(label)))
        x_t = x.reshape(len(x), 2) * scale[:, None]
        which = jnp.argmin(jnp.abs(label[:, None] - jnp.asarray(self.times)[None]), axis=1)
        padded = jnp.concatenate([x_t, jnp.ones((len(x), 1), x.dtype)], axis=1)
        return jnp.einsum("bi,bij->bj", padded, variables["params"]["w"][which]).reshape(x.shape)


def exact(process, grid):
    """The weights of such a network with which it is the exact denoiser of the target."""
    probes = np.eye(3)[:, :2]  # the two unit vectors, and zero
    values = [TARGET.denoise(process, probes, np.float64(t)) for t in grid]
    return np.stack([np.concatenate([v[:2] - v[2:], v[2:]]) for v in values])


@dataclasses.dataclass(frozen=True)
class Known:
    """A teacher whose weights are given."""

    family: object
    params: object = None

    def load(self):
        return {"model": self.params}


def student(process, rounds=2, **options):
    """A student that takes 2 steps in the end, and its exact teacher, which takes `2 * 2**rounds`."""
    grid = times.uniform(process, 2 * 2**rounds)[:-1]
    model = dict(image_shape=SHAPE, network=Affine(process, tuple(grid)), process=process, parameterization=X0)
    sampler = Sampler(solvers.DDIM(), times.uniform, 2, final="none")
    teacher = Known(Diffusion(**model), {"w": jnp.asarray(exact(process, grid))})
    return ProgressiveDistillation(**model, teacher=teacher, rounds=rounds, sampler=sampler, **options)


@pytest.mark.parametrize("name", PROCESSES)
def test_one_step_to_the_aim_is_two_steps_of_ddim(name):
    """From every time of every round, of whose last step the end may be without noise."""
    process = PROCESSES[name]
    with jax.enable_x64(True):
        family = student(process)
        (plan, starts), denoise = family._plan(), TARGET.denoiser(process)
        assert starts.tolist() == [0, 4] and plan.shape == (5, 6)
        x = np.random.default_rng(0).normal(size=(6, 4, 2))  # 4 states at each of the 6 times
        t, *rest = (jnp.asarray(np.repeat(row, 4)) for row in plan)
        teacher = {"model": family.teacher.params}
        aims = np.asarray(family._aim(teacher, jnp.asarray(x.reshape(24, *SHAPE)), t, rest, None)).reshape(x.shape)
        for i in range(6):
            index = int(i >= 4)
            grid = times.uniform(process, 8)[:: 2**index][2 * (i - starts[index]) :][:3]
            two = analysis.follow(solvers.DDIM(), denoise, process, grid, x[i])
            one = analysis.follow(solvers.DDIM(), lambda x, t: aims[i], process, grid[::2], x[i])  # noqa: B023
            np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-12)


def test_the_optimum_on_a_gaussian_is_the_composed_map():
    """DDIM's steps are affine there, and so is what the student aims at: two steps, written as matrices on (x, 1)."""
    process = PROCESSES["edm"]
    fine = times.uniform(process, 8)
    weights, optimum = exact(process, fine[:-1]), np.zeros((8, 3, 2))
    for i in range(0, 8, 2):
        whole = np.eye(3)
        for t, s, w in zip(fine[i : i + 2], fine[i + 1 : i + 3], weights[i : i + 2], strict=True):
            ratio = process.sigma(s) / process.sigma(t)
            step = (process.alpha(s) - ratio * process.alpha(t)) * np.concatenate([w.T, np.zeros((1, 3))])
            whole = (step + np.diag([ratio, ratio, 1.0])) @ whole
        t, s = fine[i], fine[i + 2]
        ratio = process.sigma(s) / process.sigma(t)
        one = (whole - np.diag([ratio, ratio, 0.0]))[:2] / (process.alpha(s) - ratio * process.alpha(t))
        optimum[i] = one.T

    with jax.enable_x64(True):
        family = student(process)
        batch = {"image": np.random.default_rng(1).normal(size=(64, *SHAPE))}
        keys, teacher = Keys.of(jax.random.key(2), 64), {"model": family.teacher.params}
        loss = jax.jit(lambda w: family._losses({"w": w}, teacher, jnp.int32(0), batch, keys, None)[0].mean())
        # Nothing is less than 0, and elsewhere it is more: the teacher itself, and the optimum with one weight changed.
        at = float(loss(optimum))
        assert at < 1e-9 and float(loss(weights)) > 1e-3  # times and coefficients are float32
        for i in range(0, 8, 2):
            assert float(loss(optimum + 1e-2 * (np.arange(8) == i)[:, None, None])) > 1e3 * at


@pytest.mark.parametrize("averaged", [False, True])
def test_the_student_becomes_the_teacher_when_a_round_begins(averaged):
    """Also where the step in which that is due is undone, for its loss is not finite."""
    family = student(PROCESSES["rf"], rounds=3, steps_per_round=2, averaged=averaged)
    given = {"model": {"w": jnp.asarray(family.teacher.params["w"], jnp.float32)}}
    params, extra = given, {"teacher": given, "round": jnp.int32(0)}
    ema = EMA(decay=0.5, warmup=False)
    optimizer = build_optimizer({"name": "sgd", "learning_rate": 0.01}, params["model"])
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        key=jax.random.key(3),
        params=params,
        opt={"model": optimizer.init(params["model"])},
        ema=ema.init(params),
        extra=extra,
    )
    step = jax.jit(make_train_step(family, {"model": optimizer}, ema))
    good = {"image": jnp.asarray(np.random.default_rng(1).normal(size=(8, *SHAPE)), jnp.float32)}
    bad = {"image": jnp.full((8, *SHAPE), jnp.nan)}
    steps, students, teachers = [], [], []
    for i in range(8):
        students.append((state.ema if averaged else state.params)["model"]["w"])
        state, metrics = step(state, bad if i == 4 else good)
        steps.append(int(metrics["train/steps"].total))
        teachers.append(state.extra["teacher"]["model"]["w"])
    assert steps == [8, 8, 4, 4, 2, 2, 2, 2]
    for i, of in enumerate([0, 0, 2, 2, 2, 5, 5, 5]):  # it begins as the first
        np.testing.assert_array_equal(teachers[i], students[of])
    assert len({np.asarray(w).tobytes() for w in students}) == 7  # it learns in every step but one
    assert int(state.extra["round"]) == 2


def test_the_student_begins_as_its_teacher_and_is_scored_by_its_round():
    family = student(PROCESSES["rf"])
    given = family.teacher.params
    assert family.pretrained() == {"model": given, "teacher": {"model": given}}
    family.check(SPEC)
    batch = {"image": jnp.asarray(np.random.default_rng(1).normal(size=(64, *SHAPE)), jnp.float32)}
    weights = {"model": given, "teacher": {"model": given}}
    key, found = jax.random.key(0), []
    for index in (0, 1):
        found.append(family.evaluate({**weights, "round": jnp.int32(index)}, batch, key)["loss"])
        args = (given, {"model": given}, jnp.int32(index), batch, Keys.of(key, 64), None)
        np.testing.assert_array_equal(found[-1], family._losses(*args)[0])
    assert found[0].shape == (64,) and not np.allclose(*found)


def test_truncated_snr_is_at_least_one_on_x0():
    snr = np.array([1e-3, 0.5, 2.0, 50.0])
    for name, process in PROCESSES.items():
        t = jnp.asarray(process.time_of_log_snr(np.log(snr)), jnp.float32)
        # A weight is of the output's square error, and x0's output is x_0.
        np.testing.assert_allclose(TruncatedSNR()(t, process, X0), np.maximum(snr, 1.0), rtol=1e-3, err_msg=name)
    assert np.isfinite(TruncatedSNR()(jnp.ones(1), PROCESSES["rf"], parameterizations.V())).all()


def test_what_cannot_be_distilled_is_refused():
    family = student(PROCESSES["rf"])
    with pytest.raises(ValueError, match=r"parameterization = .* must be the teacher's"):
        dataclasses.replace(family, parameterization=parameterizations.V()).check(SPEC)
    with pytest.raises(ValueError, match=r"process = .* must be the teacher's"):
        dataclasses.replace(family, process=processes.CosineVP()).check(SPEC)
    uneven = Sampler(solvers.DDIM(), lambda process, n: np.linspace(1.0, 0.0, n + 1) ** n, 2)
    with pytest.raises(ValueError, match="not every second time"):
        dataclasses.replace(family, sampler=uneven)
    with pytest.raises(ValueError, match="rounds = 0"):
        dataclasses.replace(family, rounds=0)
    with pytest.raises(ValueError, match="begins as its teacher"):
        dataclasses.replace(family, begin="scratch")
