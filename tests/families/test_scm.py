"""sCM: the tangent at exact consistency functions, its normalization and weights, teachers, and what is learnt."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import parameterizations, processes, sampling
from genjax.families import SCM, Sampler
from genjax.families.base import Keys
from genjax.networks import MLP
from genjax.networks.uncertainty import FourierUncertainty
from genjax.solvers import Consistency
from tests.families import exact
from tests.families.toy_training import relative, train

SHAPE = (2, 2, 1)
SPEC = types.SimpleNamespace(image_shape=SHAPE, num_classes=3)
SIGMA_DATA = 0.5
SCALE = 0.8  # of the data N(0, SCALE^2), whose path through x_a goes to x_a SCALE / n(a)
TRIG = processes.TrigFlow()


def norm(a):
    return jnp.sqrt((jnp.cos(a) * SCALE) ** 2 + (jnp.sin(a) * SIGMA_DATA) ** 2)


def expand(a):
    return a.reshape(-1, 1, 1, 1)


@dataclasses.dataclass(frozen=True)
class GaussianFunction:
    """A network that makes the exact consistency function of the Gaussian, times its parameter."""

    def check(self, image_shape):
        pass

    def init(self, key, x, label, cond):
        return {"params": {"w": jnp.ones(())}}

    def apply(self, variables, x, label, cond, dropout=None):
        a = jnp.arctan(jnp.exp(4.0 * label) / SIGMA_DATA)
        f = (jnp.cos(a) - SCALE / norm(a)) / jnp.sin(a)  # the paper's F, of x_a / sigma_data
        return -variables["params"]["w"] * expand(f) * x


EXACT = {"w": jnp.ones(())}


def points(process=TRIG):
    x, t = jax.random.normal(jax.random.key(0), (5, *SHAPE)), jnp.array([0.02, 0.2, 0.5, 0.8, 0.99])
    a = process.last_angle * t
    v = expand(jnp.cos(a) * jnp.sin(a) * (SIGMA_DATA**2 - SCALE**2) / norm(a) ** 2) * x
    return x, t, v


def family(**kwargs):
    return SCM(**{"image_shape": SHAPE, "network": GaussianFunction(), **kwargs})


def test_the_tangent_of_the_exact_consistency_function_is_zero():
    with jax.enable_x64(True):
        x, t, v = (a.astype(jnp.float64) for a in points())
        output, tangent = family().output_and_tangent(EXACT, x, t, v)
        end = family().parameterization.to_x0(output, x, t, TRIG)
        np.testing.assert_allclose(end, expand(SCALE / norm(TRIG.last_angle * t)) * x, rtol=1e-6)
        np.testing.assert_allclose(tangent, 0.0, atol=1e-8)


def test_the_tangent_is_that_of_the_function_along_the_path():
    """cos(a) df/da, by differences; with r = 0 what is left is the error of the velocity (algorithm 1)."""
    with jax.enable_x64(True):
        x, t, v = (a.astype(jnp.float64) for a in points())
        model, h, wrong = family(), 1e-5, {"w": jnp.float64(1.3)}

        def function(step):
            moved = t + step / TRIG.last_angle
            x_in = model.parameterization.network_input(x + step * v, moved, TRIG)
            return model.parameterization.to_x0(model._apply(wrong, *x_in, None), x + step * v, moved, TRIG)

        slope = (function(h) - function(-h)) / (2 * h)
        output, tangent = model.output_and_tangent(wrong, x, t, v)
        cos = expand(jnp.cos(TRIG.last_angle * t))
        np.testing.assert_allclose(tangent, cos * slope, rtol=1e-5, atol=1e-7)
        assert np.abs(tangent).max() > 0.1
        _, velocity = model.output_and_tangent(wrong, x, t, v, share=0.0)
        np.testing.assert_allclose(velocity, -(cos**2) * (-SIGMA_DATA * output - v), rtol=1e-9)


def loss_and_gradient(model, params, n=32, step=0):
    data = {"image": SCALE * jax.random.normal(jax.random.key(1), (n, *SHAPE))}
    state = types.SimpleNamespace(step=step, extra={})
    keys = Keys.of(jax.random.key(2), n)
    value = jax.value_and_grad(model.phases()[0].loss, has_aux=True)
    (loss, aux), gradient = jax.jit(lambda params: value(params, state, data, keys))(params)
    x, t, v = model._points({}, data, keys.split(3)[2], None)
    return float(loss), aux.metrics, gradient, (x, t, v)


def test_the_loss_is_the_normalized_tangent_and_its_gradient_goes_along_it():
    """Its value is |g|^2 / D; its gradient that of -2 g . F / D, g held, with F = -F_edm (algorithm 1)."""
    model, params = family(warmup=10, normalizer=0.1), {"w": jnp.float32(1.3)}
    loss, metrics, gradient, (x, t, v) = loss_and_gradient(model, params, step=5)
    assert float(metrics["warmup"]) == 0.5
    _, tangent = model.output_and_tangent(params, x, t, v, share=0.5)
    length = jnp.sqrt((tangent**2).sum((1, 2, 3), keepdims=True))
    g = tangent / (length + 0.1)
    np.testing.assert_allclose(loss, jnp.mean(g**2), rtol=1e-5)
    np.testing.assert_allclose(metrics["tangent"], jnp.mean(tangent**2), rtol=1e-5)
    per_weight = -model.output_and_tangent(params, x, t, v)[0] / 1.3  # F is linear in the weight
    np.testing.assert_allclose(gradient["w"], -2 * jnp.mean(g * per_weight), rtol=1e-4)
    plain, *_ = loss_and_gradient(family(warmup=0, normalizer=None), params)
    np.testing.assert_allclose(plain, jnp.mean(model.output_and_tangent(params, x, t, v)[1] ** 2), rtol=1e-5)


@pytest.mark.slow
def test_the_learnt_weight_is_e_to_the_minus_u_and_costs_u():
    plain = family(warmup=0)
    model = dataclasses.replace(plain, uncertainty=FourierUncertainty(features=4))
    params = model.init(jax.random.key(0), SPEC)[0]["model"]
    assert float(loss_and_gradient(model, params)[0]) == pytest.approx(loss_and_gradient(plain, EXACT)[0], abs=1e-7)
    params = {"w": jnp.float32(1.3), "uncertainty": jax.tree.map(jnp.zeros_like, params["uncertainty"])}
    params["uncertainty"]["out"]["bias"] = jnp.full((1,), 0.7)
    expected = loss_and_gradient(plain, {"w": jnp.float32(1.3)})[0] * np.exp(-0.7) + 0.7
    assert float(loss_and_gradient(model, params)[0]) == pytest.approx(expected, rel=1e-5)


class Teacher:
    """The exact denoiser of the Gaussian on another process; its parameter must not be lost."""

    image_shape, condition, process = SHAPE, (), processes.EDM()
    parameterization = parameterizations.EDMPreconditioning()

    def init(self, key, spec):
        return {"model": {"w": jnp.zeros(())}}, {}

    def denoiser(self, params):
        def denoise(x_t, t, cond=None):
            return params["model"]["w"] * SCALE**2 / (SCALE**2 + expand(self.process.sigma(t)) ** 2) * x_t

        return denoise


@pytest.mark.slow
def test_a_teacher_s_paths_are_those_of_its_denoiser():
    teacher = types.SimpleNamespace(family=Teacher(), load=lambda: {"model": {"w": jnp.float32(1.0)}})
    data = {"image": SCALE * jax.random.normal(jax.random.key(1), (64, *SHAPE))}
    student = family(teacher=teacher, begin="teacher")
    student.check(SPEC)
    assert set(student.init(jax.random.key(0), SPEC)[1]) == {"teacher"}
    assert set(student.pretrained()) == {"teacher", "model"}
    params = {"model": EXACT, "teacher": teacher.load()}
    assert float(student.evaluate(params, data, jax.random.key(0))["loss"].max()) < 1e-4
    # Training without distillation takes the weights alone; its velocity is a pair's, right in the mean.
    trained = family(teacher=teacher, begin="teacher", distill=False)
    assert trained.init(jax.random.key(0), SPEC)[1] == {} and set(trained.pretrained()) == {"model"}
    assert float(trained.evaluate({"model": EXACT}, data, jax.random.key(0))["loss"].mean()) > 1e-2


def test_generation_goes_to_the_ends_of_paths():
    sampler = Sampler(solver=Consistency(), times=sampling.times.trailing, steps=1, final="none")
    x = family(sampler=sampler).generate({"model": EXACT}, jax.random.key(0), 4000)
    assert float(x.std()) == pytest.approx(SCALE, rel=0.03)


def test_mistakes_are_named():
    other = types.SimpleNamespace(family=exact.Exact(), load=lambda: {})
    for kwargs, words in [
        (dict(process=processes.CosineVP()), "trigflow"),
        (dict(process=processes.TrigFlow(sigma_data=1.0)), "same sigma_data"),
        (dict(parameterization=parameterizations.V()), "trigflow"),
        (dict(normalizer=0.0), "normalizer = 0.0"),
        (dict(warmup=-1), "warmup = -1"),
        (dict(teacher=other, begin="teacher"), "begin = 'scratch'"),
    ]:
        with pytest.raises(ValueError, match=words):
            family(**kwargs)


@pytest.mark.slow
def test_the_consistency_function_that_is_learnt_is_that_of_the_exact_flow():
    """On a mixture whose exact denoiser is the teacher, within 5% (relative L2)."""
    model = SCM(
        image_shape=exact.SHAPE,
        network=MLP(hidden=64, depth=3),
        teacher=exact.teacher(processes.EDM()),
        warmup=1000,
        uncertainty=FourierUncertainty(),
    )
    params = train(model, steps=8000, batch=256, learning_rate=2e-3)
    t = sampling.times.trailing(TRIG, 2)[1]
    x = TRIG.prior(jax.random.key(9), (2000, *exact.SHAPE))
    for x_t, start in [(x, 1.0), (exact.flow(TRIG, x, 1.0, t), t)]:
        found = model.denoiser(params)(x_t, jnp.full(2000, start), None)
        assert relative(found, exact.flow(TRIG, x_t, start, 0.0)) < 0.05, start
