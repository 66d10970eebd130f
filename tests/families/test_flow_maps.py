"""Flow maps by MeanFlow and shortcut models: identities at exact maps, the grid's denoiser, and what is learnt."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import parameterizations, processes, sampling, solvers
from genjax.families import Diffusion, MeanFlow, Sampler, Shortcut
from genjax.families import time_samplers as samplers
from genjax.families.base import Keys
from genjax.families.flow_maps import flow_map_denoiser, next_time
from genjax.networks import MLP
from tests.families import exact
from tests.families.toy_training import relative, train

RF = processes.RectifiedFlow()
SPEC = types.SimpleNamespace(image_shape=(2, 2, 1), num_classes=3)
# Of a Gaussian N(0, SCALE^2) the path through x_t goes to x_s = x_t n(s) / n(t), with n^2 = (1 - t)^2 SCALE^2 + t^2.
SCALE = 0.5


def norm(t):
    return jnp.sqrt((1.0 - t) ** 2 * SCALE**2 + t**2)


def ratio(t, s):
    return norm(s) / norm(t)


@dataclasses.dataclass(frozen=True)
class GaussianMap:
    """A network that is the exact average velocity of the Gaussian, times its parameter."""

    scalars = ("step",)

    def check(self, image_shape):
        pass

    def init(self, key, x, label, cond):
        return {"params": {"w": jnp.ones(())}}

    def apply(self, variables, x, label, cond, dropout=None):
        t, step = label / 1000.0, cond["step"] / 1000.0
        safe = jnp.where(step > 0, step, 1.0)
        slope = ((t - 1.0) * SCALE**2 + t) / norm(t) ** 2
        coefficient = jnp.where(step > 0, (1.0 - ratio(t, t - step)) / safe, slope)
        return variables["params"]["w"] * coefficient.reshape(-1, 1, 1, 1) * x


EXACT = {"w": jnp.ones(())}


@pytest.fixture(scope="module")
def points():
    """Points, their times, earlier times, and the velocity there."""
    x_t = jax.random.normal(jax.random.key(0), (6, 2, 2, 1))
    t = jnp.array([1.0, 0.9, 0.7, 0.5, 0.5, 0.25])
    s = jnp.array([0.0, 0.3, 0.6, 0.0, 0.45, 0.1])
    v = (((t - 1.0) * SCALE**2 + t) / norm(t) ** 2).reshape(-1, 1, 1, 1) * x_t
    return x_t, t, s, v


def test_the_meanflow_target_of_an_exact_average_velocity_is_itself(points):
    """Geng et al. 2025, eq. 6: u = v - (t - s) du/dt."""
    family = MeanFlow(image_shape=SPEC.image_shape, network=GaussianMap())
    x_t, t, s, v = points
    with jax.enable_x64(True):
        x_t, t, s, v = (a.astype(jnp.float64) for a in points)
        u, target = family.output_and_target(EXACT, x_t, t, s, v)
        ends = ratio(t, s).reshape(-1, 1, 1, 1) * x_t
        np.testing.assert_allclose(u, (x_t - ends) / (t - s).reshape(-1, 1, 1, 1), rtol=1e-8)
        np.testing.assert_allclose(target, u, rtol=2e-6)  # v is rounded to float32
        wrong = family.output_and_target({"w": jnp.float64(1.1)}, x_t, t, s, v)
    assert np.abs(wrong[0] - wrong[1]).max() > 0.05


def test_two_halves_of_an_exact_shortcut_are_the_whole(points):
    """Frans et al. 2025, eq. 5."""
    family = Shortcut(image_shape=SPEC.image_shape, network=GaussianMap(), finest=128)
    x_t, t, s, _ = points
    whole = family.velocity(EXACT, x_t, t, s)
    np.testing.assert_allclose(family.two_steps(EXACT, x_t, t, t - s), whole, rtol=2e-4, atol=1e-6)
    wrong = {"w": jnp.float32(1.2)}
    assert np.abs(family.two_steps(wrong, x_t, t, t - s) - family.velocity(wrong, x_t, t, s)).max() > 0.02


def test_shortcuts_take_the_velocity_for_steps_that_they_have_not_learnt(points):
    family = Shortcut(image_shape=SPEC.image_shape, network=GaussianMap(), finest=8)
    x_t, t, _, v = points
    np.testing.assert_allclose(family.velocity(EXACT, x_t, t, t - 1 / 8), v, rtol=1e-5, atol=1e-6)
    assert np.abs(family.velocity(EXACT, x_t, t, t - 1 / 4) - v).max() > 0.01


def test_the_next_time_of_a_grid():
    at = next_time(np.array([1.0, 0.6, 0.1, 0.0]))
    t = jnp.array([1.0, 0.8, 0.6, 0.5, 0.1, 0.05, 0.0])
    np.testing.assert_allclose(at(t), [0.6, 0.6, 0.1, 0.1, 0.0, 0.0, 0.0], rtol=1e-6)
    fine = sampling.times.trailing(RF, 1000)
    np.testing.assert_allclose(next_time(fine)(jnp.asarray(fine, jnp.float32)[:-1]), fine[1:], atol=1e-6)


@pytest.mark.parametrize("solver", [solvers.DDIM(), solvers.Euler(coordinate="t")], ids=["ddim", "euler"])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_sampler_follows_an_exact_map_exactly_in_any_number_of_steps(solver, steps):
    family = MeanFlow(image_shape=SPEC.image_shape, network=GaussianMap())
    velocity = lambda x_t, t, s, cond: family.velocity(EXACT, x_t, t, s, cond)  # noqa: E731
    times, x = np.linspace(1.0, 0.2, steps + 1), jax.random.normal(jax.random.key(0), (3, 2, 2, 1))
    end = sampling.solve(jax.random.key(1), flow_map_denoiser(velocity, times), RF, solver, times, x)
    np.testing.assert_allclose(end, ratio(1.0, 0.2) * x, rtol=1e-4, atol=1e-5)


def test_generation_uses_the_grid_of_the_sampler_it_has():
    for steps in (1, 3):
        sampler = Sampler(times=sampling.times.trailing, steps=steps, final="none")
        family = MeanFlow(image_shape=SPEC.image_shape, network=GaussianMap(), sampler=sampler)
        x = family.generate({"model": EXACT}, jax.random.key(0), 4000)
        assert float(x.std()) == pytest.approx(SCALE, rel=0.02)


def batch(n):
    x = SCALE * jax.random.normal(jax.random.key(1), (n, 2, 2, 1))
    return {"image": x, "label": jnp.arange(n, dtype=jnp.int32) % 3}


def test_the_mean_of_meanflow_gradients_vanishes_at_the_exact_map():
    """A pair's own velocity stands for the path's: its target is right in the mean, not for each pair."""
    n = 40_000
    family = MeanFlow(
        image_shape=SPEC.image_shape, network=GaussianMap(), power=0.0, time_sampler=samplers.UniformTimes(0.05, 1.0)
    )
    loss = family.phases()[0].loss
    state = types.SimpleNamespace(extra={})

    @jax.jit
    def slope(w):
        return jax.grad(lambda w: loss({"w": w}, state, batch(n), Keys.of(jax.random.key(2), n))[0])(w)

    right, wrong = float(slope(jnp.float32(1.0))), float(slope(jnp.float32(1.3)))
    assert abs(right) < 0.05 * wrong


def test_the_adaptive_weight_is_that_of_the_paper():
    """With power 1 and c small the loss is 1 an example, and its gradient that of log(error)."""
    data, keys, state = batch(16), Keys.of(jax.random.key(3), 16), types.SimpleNamespace(extra={})
    kwargs = dict(image_shape=SPEC.image_shape, network=GaussianMap())
    plain, adaptive = MeanFlow(power=0.0, **kwargs), MeanFlow(power=0.75, c=1e-3, **kwargs)
    value, aux = adaptive.phases()[0].loss(EXACT, state, data, keys)
    keys_loss = keys.split(3)[2]
    error = 4 * plain._errors(EXACT, {}, data, keys_loss, None, None)
    np.testing.assert_allclose(value, jnp.mean(error / (error + 1e-3) ** 0.75), rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["mse"], jnp.mean(error) / 4, rtol=1e-5)
    np.testing.assert_allclose(plain.phases()[0].loss(EXACT, state, data, keys)[0], jnp.mean(error), rtol=1e-5)


@pytest.mark.slow
def test_guidance_is_in_the_target_and_not_where_the_condition_is_dropped():
    """Geng et al. 2025, eq. 19: omega v + kappa u(cond) + (1 - omega - kappa) u(null)."""

    def network(w, x, label, cond):
        return w * jnp.where(cond["label"] < 0, 10.0, cond["label"].astype(jnp.float32)).reshape(-1, 1, 1, 1) + 0.0 * x

    @dataclasses.dataclass(frozen=True)
    class Labelled(GaussianMap):
        num_classes = 3

        def apply(self, variables, x, label, cond, dropout=None):
            return network(variables["params"]["w"], x, label, cond)

    kwargs = dict(image_shape=SPEC.image_shape, network=Labelled(), condition=("label",), condition_dropout=0.5)
    family = MeanFlow(guidance=2.0, mixing=0.5, unequal=0.0, **kwargs)
    data, keys = batch(64), Keys.of(jax.random.key(3), 64)
    full, cond = {"label": data["label"]}, {"label": jnp.where(jnp.arange(64) < 32, -1, data["label"])}
    guided = family._errors(EXACT, {}, data, keys, full, cond)
    x_0, eps = family._pairs(keys.split(4)[3], data)
    v, label = eps - x_0, np.asarray(data["label"], np.float32).reshape(-1, 1, 1, 1)
    target = 2.0 * v + 0.5 * label - 1.5 * 10.0
    np.testing.assert_allclose(guided[32:], ((label - target) ** 2).mean((1, 2, 3))[32:], rtol=1e-4)
    np.testing.assert_allclose(guided[:32], ((10.0 - v) ** 2).mean((1, 2, 3))[:32], rtol=1e-4)


def test_shortcuts_bootstrap_the_first_share_of_a_batch_from_the_average():
    """With averaged weights of zero two steps go nowhere, so the long steps' target is 0; the rest do not see them."""
    family = Shortcut(image_shape=SPEC.image_shape, network=GaussianMap(), bootstrapped=0.25)
    data, keys = batch(64), Keys.of(jax.random.key(3), 64)
    zero, other = {"w": jnp.zeros(())}, {"w": jnp.full((), 2.0)}
    from_zero, from_other = (family._errors(EXACT, average, {}, data, keys, None) for average in (zero, other))
    assert np.all(from_zero[:16] != from_other[:16])
    np.testing.assert_array_equal(from_zero[16:], from_other[16:])
    nothing = family._errors(zero, zero, {}, data, keys, None)
    np.testing.assert_array_equal(nothing[:16], 0.0)
    state = types.SimpleNamespace(extra={}, ema={"model": zero}, step=0)
    _, aux = family.phases()[0].loss(zero, state, data, keys)
    assert aux.metrics["consistency_mse"] == 0.0 and float(aux.metrics["velocity_mse"]) > 0.5


def test_lengths_are_dyadic_and_times_their_multiples():
    family = Shortcut(image_shape=SPEC.image_shape, network=GaussianMap(), finest=16)
    t, step = jax.vmap(family._grid_step)(jax.random.split(jax.random.key(0), 4000))
    values, counts = np.unique(step, return_counts=True)
    np.testing.assert_array_equal(values, [1 / 8, 1 / 4, 1 / 2, 1.0])
    assert np.all(np.abs(counts - 1000) < 4 * np.sqrt(750))
    multiples = np.asarray(t / step)
    assert np.all(multiples == np.round(multiples)) and multiples.min() == 1 and np.all(t <= 1.0)
    np.testing.assert_array_equal(np.unique(multiples[np.asarray(step) == 1 / 8]), np.arange(1, 9))


@pytest.mark.parametrize("family", [MeanFlow, Shortcut])
@pytest.mark.slow
def test_a_teacher_s_velocity_takes_the_place_of_the_pair_s(family):
    """At the exact map, whose teacher is exact on another process, nothing is left to learn."""

    class Teacher:
        image_shape, condition, process = SPEC.image_shape, (), processes.EDM()
        parameterization = parameterizations.EDMPreconditioning()

        def init(self, key, spec):
            return {"model": {"w": jnp.ones(())}}, {}

        def denoiser(self, params):
            def denoise(x_t, t, cond=None):
                sigma = self.process.sigma(t).reshape(-1, 1, 1, 1)
                return params["model"]["w"] * SCALE**2 / (SCALE**2 + sigma**2) * x_t

            return denoise

    teacher = types.SimpleNamespace(family=Teacher(), load=lambda: {"model": {"w": jnp.float32(1.0)}})
    student = family(image_shape=SPEC.image_shape, network=GaussianMap(), teacher=teacher)
    assert set(student.init(jax.random.key(0), SPEC)[1]) == {"teacher"} and set(student.pretrained()) == {"teacher"}
    student.check(SPEC)
    params = {"model": EXACT, "teacher": teacher.load()}
    for error in student.evaluate(params, batch(200), jax.random.key(0)).values():
        assert float(error.max()) < 1e-3
    free = family(image_shape=SPEC.image_shape, network=GaussianMap())
    assert free.init(jax.random.key(0), SPEC)[1] == {} and free.pretrained() == {}
    assert float(next(iter(free.evaluate(params, batch(200), jax.random.key(0)).values())).mean()) > 0.1


def test_mistakes_are_named():
    shape, teacher = dict(image_shape=SPEC.image_shape), exact.teacher(processes.EDM())
    mlp = MLP(hidden=8, depth=1, scalars=("step",))
    for make, words in [
        (lambda: MeanFlow(network=MLP(hidden=8, depth=1), **shape), "needs 'step'"),
        (lambda: MeanFlow(network=mlp, process=processes.LinearVP(), **shape), "rectified_flow"),
        (lambda: MeanFlow(network=mlp, process=processes.RectifiedFlow(shift=3.0), **shape), "shift 1"),
        (lambda: MeanFlow(network=mlp, teacher=teacher, begin="teacher", **shape), "begin = 'scratch'"),
        (lambda: MeanFlow(network=mlp, begin="nowhere", **shape), "begin = 'nowhere'"),
        (lambda: MeanFlow(network=mlp, unequal=1.5, **shape), "unequal = 1.5"),
        (lambda: MeanFlow(network=mlp, power=-1.0, **shape), "power = -1.0"),
        (lambda: MeanFlow(network=mlp, mixing=1.0, **shape), "mixing = 1.0"),
        (lambda: MeanFlow(network=mlp, guidance=2.0, **shape), "guidance needs a condition"),
        (lambda: Shortcut(network=mlp, bootstrapped=-0.1, **shape), "bootstrapped = -0.1"),
        (lambda: Shortcut(network=mlp, finest=12, **shape), "finest = 12"),
    ]:
        with pytest.raises(ValueError, match=words):
            make()
    Diffusion(network=MLP(hidden=8, depth=1), **shape)


LEARNT = {
    "meanflow": lambda **kwargs: MeanFlow(unequal=0.75, power=0.5, time_sampler=samplers.UniformTimes(), **kwargs),
    "shortcut": lambda **kwargs: Shortcut(bootstrapped=0.5, finest=128, **kwargs),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNT)
def test_the_average_velocity_that_is_learnt_is_that_of_the_exact_flow(name):
    """On a mixture whose exact denoiser is the teacher, within 5%, in one step and in two."""
    family = LEARNT[name](
        image_shape=exact.SHAPE,
        network=MLP(hidden=64, depth=3, scalars=("step",)),
        parameterization=parameterizations.Velocity(time_scale=4.0),
        teacher=exact.teacher(),
    )
    params = train(family, steps=6000, batch=256, learning_rate=4e-3)
    x = jax.random.normal(jax.random.key(9), (2000, *exact.SHAPE))
    middle = exact.flow(RF, x, 1.0, 0.5)
    for x_t, t, s in [(x, 1.0, 0.0), (x, 1.0, 0.5), (middle, 0.5, 0.0)]:
        found = family.velocity(params["model"], x_t, jnp.full(2000, t), jnp.full(2000, s))
        assert relative(found, (x_t - exact.flow(RF, x_t, t, s)) / (t - s)) < 0.05, (t, s)
