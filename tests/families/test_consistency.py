"""Consistency models: what their losses are zero at, what training settles at, and how they are told of a teacher."""

import dataclasses
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import analytic, processes, sampling, solvers
from genjax.families import ConsistencyModel, Diffusion
from genjax.families.base import Keys
from genjax.families.consistency_losses import L2, InverseGap
from genjax.families.discretizations import Doubling, Fixed, SquareRoot
from genjax.networks import MLP
from genjax.parameterizations import ConsistencyPreconditioning, EDMPreconditioning, expand
from genjax.training.pretrained import Untrained

EDM = processes.EDM(sigma_min=0.02, sigma_max=10.0, rho=3.0)
V = 0.5  # variance of the Gaussian data
GAUSSIAN = analytic.Gaussian(np.zeros(1), V * np.eye(1))
SHAPE = (1, 1, 1)
SPEC = types.SimpleNamespace(image_shape=SHAPE, num_classes=None, levels=None)


@dataclasses.dataclass(frozen=True)
class Raw:
    """The network sees x_t and t, and its output is the estimate, but at t = 0, where x_t is."""

    def network_input(self, x_t, t, process):
        return x_t, t

    def to_x0(self, output, x_t, t, process):
        return jnp.where(expand(t, x_t) == 0.0, x_t, output)

    def eps_scale(self, t, process):
        return process.alpha(t) / process.sigma(t)


@dataclasses.dataclass(frozen=True)
class Function:
    """A network that is a function of (params, x_t, t, cond)."""

    function: Any
    scalars: tuple[str, ...] = ()

    def check(self, image_shape):
        pass

    def init(self, key, x, label, cond):
        return {"params": jnp.ones(())}

    def apply(self, variables, x, label, cond, dropout=None):
        return self.function(variables["params"], x, label, cond)


@dataclasses.dataclass(frozen=True)
class Exact:
    """A teacher whose denoiser is known, for images that are vectors."""

    denoise: Any
    image_shape: tuple[int, int, int] = SHAPE
    process: Any = EDM
    condition: tuple[str, ...] = ()

    @property
    def family(self):
        return self

    def denoiser(self, params):
        return lambda x, t, cond: self.denoise(x.reshape(len(x), -1), t, cond).reshape(x.shape)

    def init(self, key, spec):
        return {"model": jnp.zeros(())}, {}

    def load(self):
        return {"model": jnp.zeros(())}


TEACHER = Exact(lambda x, t, cond: GAUSSIAN.denoise(EDM, x, t))


@dataclasses.dataclass(frozen=True)
class ExactStep:
    """A solver that knows where the path of the Gaussian leads."""

    stochastic = False
    nfe_per_step = 1

    def plan(self, process, times):
        return times[:-1], times[1:]

    def init(self, x):
        return ()

    def step(self, denoise, x, plan, carry, noise):
        return GAUSSIAN.flow(EDM, x.reshape(1, 1), *plan).reshape(x.shape), carry


def model(function=lambda w, x, t, cond: w * x, **options):
    given = dict(
        image_shape=SHAPE, network=Function(function), process=EDM, parameterization=Raw(), distance=L2()
    )  # fmt: skip
    return ConsistencyModel(**given | options)


def state(step=0, **extra):
    return types.SimpleNamespace(step=jnp.asarray(step, jnp.int32), extra=extra)


def gaussian(n, key=0):
    return {"image": np.sqrt(V) * jax.random.normal(jax.random.key(key), (n, *SHAPE))}


def loss(family, params, batch, key=1, step=0, **extra):
    extra = {"teacher": {"model": jnp.zeros(())}} | extra if family.solver is not None else extra
    keys = Keys.of(jax.random.key(key), len(batch["image"]))
    return family.phases()[0].loss(params, state(step, **extra), batch, keys)


def exact_function(w, x, t, cond):
    """The end of the path, of noise level 0.02; w is 1."""
    return w * GAUSSIAN.flow(EDM, x.reshape(len(x), 1), t, jnp.float32(0.0)).reshape(x.shape)


@pytest.mark.parametrize("discretization", [Fixed(intervals=3), Fixed(intervals=50, skip=20)], ids=["few", "skip"])
def test_the_exact_function_has_no_distillation_loss_on_exact_paths(discretization):
    family = model(exact_function, teacher=TEACHER, solver=ExactStep(), discretization=discretization)
    measured = jax.jit(lambda w: loss(family, w, gaussian(256))[0])
    assert float(measured(1.0)) < 1e-10 and float(measured(1.1)) > 1e-4


def test_its_loss_on_paths_of_heuns_method_vanishes_with_the_square_of_their_error():
    """Of third order in a step, so a 64th in the mean square for half of it."""
    family = [
        model(exact_function, teacher=TEACHER, solver=solvers.Heun(), discretization=Fixed(intervals=n))
        for n in (10, 20)
    ]
    coarse, fine = (float(jax.jit(lambda each=each: loss(each, 1.0, gaussian(2000))[0])()) for each in family)
    assert 35 < coarse / fine < 110


@pytest.mark.parametrize("parameterization", [ConsistencyPreconditioning(0.5, 0.02), Raw()], ids=["edm", "raw"])
def test_at_the_lowest_noise_the_function_leaves_images_as_they_are(parameterization):
    family = model(lambda w, x, t, cond: jnp.full_like(x, w), parameterization=parameterization)
    x = jax.random.normal(jax.random.key(0), (5, *SHAPE))
    np.testing.assert_allclose(family.denoiser({"model": 7.0})(x, jnp.zeros(5), None), x, atol=1e-6)
    assert not np.allclose(family.denoiser({"model": 7.0})(x, jnp.full(5, 0.5), None), x, atol=0.1)


FINEST = 32


def linear(params, x, t, cond):
    """A factor for each time of the finest grid."""
    return expand(params[jnp.round(t * (len(params) - 1)).astype(int)], x) * x


def test_the_bias_of_consistency_training_shrinks_with_the_discretization():
    """On a Gaussian the best linear f(x_t) of x_s has a factor that is E[x_s x_t] / E[x_t^2] of the one below.

    E[x_s x_t] = V + sigma_s sigma_t, so the fixed point is a product, and its limit the exact function.
    """
    family, batch = model(linear, discretization=Doubling(steps=300, start=8, end=FINEST)), gaussian(2**15)

    @jax.jit
    def settled(step):
        """Newton's method, for the gradient is affine and each of it depends on its own factor alone."""
        gradient = jax.grad(lambda w: loss(family, w, batch, step=step)[0])

        def newton(w, _):
            value, curvature = jax.jvp(gradient, (w,), (jnp.ones_like(w),))
            return w - jnp.where(curvature > 0, value / jnp.maximum(curvature, 1e-30), 0.0), None

        return jax.lax.scan(newton, jnp.ones(FINEST + 1), None, FINEST)[0]

    bias = []
    for stage, n in enumerate((8, 16, 32)):
        sigma = EDM.sigma(np.arange(n + 1) / n)
        expected = np.cumprod((V + sigma[:-1] * sigma[1:]) / (V + sigma[1:] ** 2))
        found = np.asarray(settled(100 * stage), np.float64)[:: FINEST // n][1:]
        np.testing.assert_allclose(found, expected, rtol=0.03)
        exact = np.sqrt((V + sigma[0] ** 2) / (V + sigma[-1] ** 2))
        bias.append(found[-1] / exact - 1.0)
    assert bias[0] < 0 and 1.6 < bias[0] / bias[1] < 2.4 and 1.6 < bias[1] / bias[2] < 2.4, bias


def test_the_gradient_of_training_becomes_that_of_distillation():
    """Weighted by the inverse of the gap, both have a limit, and it is the same (Song et al. 2023, theorem 2)."""

    def curved(w, x, t, cond):
        return x + expand(EDM.sigma(t) - EDM.sigma(0.0 * t), x) * jnp.tanh(w * x)

    batch = gaussian(2**16)
    same = dict(discretization=Doubling(steps=500, start=4, end=64), weighting=InverseGap())  # 4, 8, 16, 32, 64
    families = [model(curved, teacher=TEACHER, solver=solvers.Heun(), **same), model(curved, **same)]
    gradients = [
        jax.jit(jax.grad(lambda w, step, family=family: loss(family, w, batch, step=step)[0])) for family in families
    ]
    differences = []
    for step in (0, 200, 400):
        distilled, trained = (float(gradient(-0.8, step)) for gradient in gradients)
        differences.append(abs(trained / distilled - 1.0))
    assert differences[0] > 3 * differences[2] and differences[2] < 0.03, differences


def test_for_a_linear_function_training_is_distillation_by_eulers_method_at_any_discretization():
    """Given x_t, the mean of x_s is Euler's step with the exact denoiser."""
    batch = gaussian(2**16)
    same = dict(discretization=Fixed(intervals=5))
    families = [model(linear, teacher=TEACHER, solver=solvers.Euler(), **same), model(linear, **same)]
    w = jnp.array([1.0, 0.9, 0.7, 0.7, 0.3, 0.4])
    distilled, trained = (
        jax.jit(jax.grad(lambda w, family=family: loss(family, w, batch)[0]))(w) for family in families
    )
    np.testing.assert_allclose(trained[1:], distilled[1:], rtol=0.1, atol=0.03 * float(jnp.abs(distilled).max()))


@pytest.mark.parametrize("solver", [solvers.Heun(), solvers.DDIM(), solvers.DPMpp2S()], ids=str)
@pytest.mark.parametrize("process", [EDM, processes.LinearVP(), processes.RectifiedFlow()], ids=["edm", "vp", "rf"])
def test_examples_follow_the_teacher_each_between_its_own_times(solver, process):
    """As the sampler does with each alone, to the end of the path and on processes that begin without signal."""
    teacher = Exact(lambda x, t, cond: GAUSSIAN.denoise(process, x, t), process=process)
    family = model(process=process, teacher=teacher, solver=solver)
    t, s = jnp.array([1.0, 0.8, 0.3], jnp.float32), jnp.array([0.9, 0.2, 0.0], jnp.float32)
    x_t = jax.random.normal(jax.random.key(0), (3, *SHAPE))
    found = jax.jit(lambda: family._followed_path({"model": None}, x_t, t, s, None))()
    for i in range(3):
        denoise = lambda x, t: teacher.denoiser(None)(x, t, None)  # noqa: E731
        times = np.array([t[i], s[i]], np.float64)
        alone = sampling.solve(jax.random.key(0), denoise, process, solver, times, x_t[i : i + 1])
        np.testing.assert_allclose(found[i], alone[0], rtol=1e-4, atol=1e-5)


MIXTURE = analytic.GaussianMixture(np.array([0.5, 0.5]), np.array([[-1.0], [1.0]]), np.array([0.3, 0.3]))


def guided_model(seen, guidance_range=(2.0, 4.0), **options):
    def function(w, x, t, cond):
        if not isinstance(x, jax.core.Tracer):
            seen.append((x, t, cond))
        return w * x

    mixture = Exact(lambda x, t, cond: MIXTURE.denoise(EDM, x, t, cond), condition=("label",))
    given = dict(
        network=Function(function, ("guidance",)), teacher=mixture, solver=solvers.DDIM(), condition=("label",),
        condition_dropout=0.0, guidance_range=guidance_range, discretization=Fixed(intervals=4),
    )  # fmt: skip
    return model(**given | options)


@pytest.mark.slow
def test_guided_distillation_follows_the_guided_path_of_the_scale_it_tells():
    """x_s = D + sigma_s / sigma_t (x_t - D) with D = D_null + scale (D_cond - D_null) (Luo et al. 2023, eq. 13-14)."""
    seen, n = [], 64
    family = guided_model(seen)
    batch = gaussian(n) | {"label": jnp.arange(n, dtype=jnp.int32) % 2}
    seen.clear()
    loss(family, 1.0, batch)
    (x_t, t, cond), (x_s, s, told) = seen
    scale = np.asarray(cond["guidance"], np.float64)
    np.testing.assert_array_equal(told["guidance"], cond["guidance"])
    np.testing.assert_array_equal(cond["label"], batch["label"])
    assert 2.0 <= scale.min() < 2.3 and 3.7 < scale.max() <= 4.0
    x, sigma_t, sigma_s = (np.asarray(a, np.float64) for a in (x_t[:, 0, 0], EDM.sigma(t), EDM.sigma(s)))
    null, given = (
        MIXTURE.denoise(EDM, x, np.asarray(t, np.float64), c) for c in (None, {"label": np.asarray(cond["label"])})
    )
    ends = null + scale[:, None] * (given - null)
    np.testing.assert_allclose(x_s[:, 0, 0], ends + (sigma_s / sigma_t)[:, None] * (x - ends), rtol=1e-3, atol=1e-4)


def test_guided_models_generate_at_their_own_scale():
    seen = []
    family = guided_model(seen, guidance=3.5)
    seen.clear()
    x, label = jnp.ones((3, *SHAPE)), jnp.arange(3)
    family.denoiser({"model": 1.0})(x, jnp.float32(0.5), {"label": label})
    np.testing.assert_array_equal(seen[0][2]["guidance"], 3.5)
    np.testing.assert_array_equal(seen[0][2]["label"], label)
    images = family.generate({"model": 0.5}, jax.random.key(0), 3, {"label": label})
    assert images.shape == (3, *SHAPE)


def test_two_evaluations_generate_the_data_with_the_exact_function():
    family = model(
        exact_function, sampler=dataclasses.replace(model().sampler, solver=solvers.Consistency(epsilon=0.02))
    )  # fmt: skip
    images = family.generate({"model": 1.0}, jax.random.key(0), 20_000)
    # Its prior is N(0, sigma^2) in the place of N(0, V + sigma^2).
    expected = V + 0.02**2 if family.sampler.steps > 1 else V
    assert float(jnp.var(images)) == pytest.approx(expected, rel=4 * np.sqrt(2 / 20_000) + 0.005)


def test_the_average_that_is_aimed_at_follows_the_weights_once_a_step():
    """mu^(N(0) / N(k)) of the average before (Song et al. 2023, algorithm 3); parts of a batch share a step."""
    discretization = SquareRoot(steps=100, start=2, end=10)
    family = model(target_decay=0.9, discretization=discretization)
    _, extra = family.init(jax.random.key(0), SPEC)
    np.testing.assert_array_equal(extra["target"]["weights"], 1.0)
    average = 1.0
    for step, weights in [(0, 2.0), (0, 2.0), (50, 5.0), (50, 5.0), (100, -1.0)]:
        if step > int(extra["target"]["step"]):
            decay = 0.9 ** (2.0 / float(discretization.points(jnp.int32(step))))
            average = decay * average + (1 - decay) * weights
        _, aux = loss(family, jnp.float32(weights), gaussian(4), step=step, **extra)
        extra = aux.extra
        np.testing.assert_allclose(extra["target"]["weights"], average, rtol=1e-5)
    assert loss(model(), 1.0, gaussian(4))[1].extra is None


def test_no_gradient_comes_through_the_aim():
    """The derivative of E[(w x_t - x_s')^2], in which x_s' = w x_s stays as it is."""
    family = model(discretization=Fixed(intervals=4))
    batch = gaussian(64)
    w, h = jnp.float32(0.5), 0.25
    found = float(jax.grad(lambda w: loss(family, w, batch)[0])(w))
    kept = model(discretization=Fixed(intervals=4), target_decay=0.5)  # with an average that is not due
    held = {"target": {"weights": w, "step": jnp.int32(10)}}
    ends = [float(loss(kept, w + d, batch, **held)[0]) for d in (h, -h)]
    assert found == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-4)


def tiny(**options):
    network = MLP(hidden=8, depth=1)
    teacher = Untrained(
        Diffusion(image_shape=SHAPE, network=network, process=EDM, parameterization=EDMPreconditioning())
    )
    return ConsistencyModel(**dict(image_shape=SHAPE, network=network, process=EDM, teacher=teacher) | options)


def test_what_begins_as_the_teacher():
    distilled = tiny(solver=solvers.Heun(), target_decay=0.9)
    loaded = distilled.teacher.load()
    given = distilled.pretrained()
    for tree in (given["model"], given["teacher"]["model"], given["target"]["weights"]):
        jax.tree.map(np.testing.assert_array_equal, tree, loaded["model"])
    _, extra = distilled.init(jax.random.key(0), SPEC)
    assert set(extra) == {"teacher", "target"}
    # Without its paths, the teacher gives its weights and is not kept.
    assert set(tiny().pretrained()) == {"model"} and tiny().init(jax.random.key(0), SPEC)[1] == {}
    assert set(tiny(solver=solvers.Heun(), begin="scratch").pretrained()) == {"teacher"}
    assert tiny(teacher=None).pretrained() == {}


@pytest.mark.slow
def test_figures_of_held_out_data_are_of_the_end_of_the_discretization():
    family = tiny(solver=solvers.Heun(), discretization=SquareRoot(steps=10, start=2, end=20))
    params, extra = family.init(jax.random.key(0), SPEC)
    batch = gaussian(16)
    params = {**params, **extra}
    found = jax.jit(family.evaluate)(params, batch, jax.random.key(3))["loss"]
    assert found.shape == (16,) and np.all(np.isfinite(found))
    fixed = tiny(solver=solvers.Heun(), discretization=Fixed(intervals=20))
    np.testing.assert_allclose(jax.jit(fixed.evaluate)(params, batch, jax.random.key(3))["loss"], found, rtol=1e-5)


def test_mistakes_are_named():
    for make, words in [
        (lambda: tiny(begin="student"), "begin = 'student'"),
        (lambda: tiny(target_decay=1.0), r"target_decay = 1\.0"),
        (lambda: tiny(teacher=None, solver=solvers.Heun()), "needs a teacher"),
        (lambda: tiny(solver=solvers.DDPM()), "without randomness"),
        (lambda: tiny(solver=solvers.Adaptive()), "steps of its own"),
        (lambda: tiny(guidance_range=(1.0, 2.0)), "need each other"),
        (lambda: guided_model([], guidance_range=(3.0, 2.0)), "low, high"),
        (lambda: guided_model([], condition=()), "a condition to guide by"),
        (lambda: guided_model([], solver=None), "a condition to guide by"),
        (lambda: tiny().check(types.SimpleNamespace(image_shape=(2, 2, 1), num_classes=None, levels=None)), "the data"),
        (lambda: tiny(image_shape=(2, 2, 1)).check(types.SimpleNamespace(image_shape=(2, 2, 1))), "the teacher's is"),
    ]:
        with pytest.raises(ValueError, match=words):
            make()


@pytest.mark.parametrize("name, process, good", [
    ("X0", processes.EDM(), False),
    ("Eps", processes.LinearVP(), True),
    ("V", processes.LinearVP(), True),
    ("Velocity", processes.RectifiedFlow(), True),
    ("EDMPreconditioning", processes.EDM(), True),
    ("EDMPreconditioning", processes.EDM(sigma_min=0.1), False),
])  # fmt: skip
def test_the_estimate_at_the_end_of_the_path_must_be_the_image_itself(name, process, good):
    from genjax import parameterizations

    options = dict(image_shape=SHAPE, network=MLP(hidden=8, depth=1), process=process)
    make = lambda: ConsistencyModel(parameterization=getattr(parameterizations, name)(), **options)  # noqa: E731
    if good:
        make()
    else:
        with pytest.raises(ValueError, match="the estimate is not x_t"):
            make()
