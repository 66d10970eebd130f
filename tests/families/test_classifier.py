"""Classifiers of noisy images, and guidance by them, on a mixture whose classifier is known at every noise level."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import parameterizations, processes, solvers
from genjax.analytic import GaussianMixture
from genjax.config import ConfigError
from genjax.families import Classifier, Diffusion, Sampler
from genjax.families.base import Keys
from genjax.networks import UNetEncoder
from genjax.sampling import guidance, times
from tests.families.functions import Function

SHAPE = (1, 1, 2)
VP, EDM = processes.LinearVP(), processes.EDM()
MIXTURE = GaussianMixture(np.array([0.3, 0.7]), np.array([[1.0, 0.5], [-0.6, 0.0]]), np.array([0.4, 0.5]))
TIME = parameterizations.Eps(time_scale=1.0)  # the noise label is the time


@dataclasses.dataclass(frozen=True)
class Exact:
    """Logits of the mixture's components given x_t, times a weight."""

    process: object
    num_classes: int = 2

    def check(self, image_shape):
        pass

    def init(self, key, x, label):
        return {"params": {"w": jnp.ones(())}}

    def apply(self, variables, x, label, dropout=None):
        alpha, sigma = self.process.alpha(label)[:, None], self.process.sigma(label)[:, None]
        x_t = x.reshape(len(x), -1)[:, :2] * jnp.maximum(1.0, jnp.hypot(alpha, sigma))  # without c_in
        return variables["params"]["w"] * MIXTURE._components(x_t, alpha, sigma)[0]


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A trained run, in memory."""

    family: object
    params: dict

    def load(self):
        return self.params


def classifier(process):
    family = Classifier(SHAPE, Exact(process), process, TIME)
    return Run(family, family.init(jax.random.key(0), None)[0])


def unconditional(x_t, t, cond):
    """The exact denoiser of the mixture, whatever the condition, on VP."""
    return MIXTURE.denoise(VP, x_t.reshape(len(x_t), -1), t).reshape(x_t.shape)


def of_first(x):
    """The mean probability of the first component, of points [n, 2]."""
    log_p = np.asarray(MIXTURE._components(x, np.ones((1, 1)), np.zeros((1, 1)))[0])
    return np.mean(np.exp(log_p[:, 0] - np.logaddexp.reduce(log_p, 1)))


@pytest.mark.parametrize("of", [VP, EDM], ids=["the same process", "another process"])
def test_the_exact_classifier_makes_the_exact_conditional_denoiser(of):
    """Bayes' rule: the score of p(x_t | y) is that of p(x_t) and the gradient of log p(y | x_t)."""
    x_t, label = jax.random.normal(jax.random.key(1), (6, *SHAPE)), jnp.array([0, 1, 0, 1, -1, -1])
    cond = {"label": label}

    @jax.jit
    def guided(x_t, t):
        return guidance.classifier(unconditional, cond, None, VP, log_prob=classifier(of))(x_t, t)

    for t in (0.1, 0.5, 0.9):
        expected = MIXTURE.denoise(VP, x_t.reshape(6, 2), t, cond).reshape(x_t.shape)
        np.testing.assert_allclose(guided(x_t, t), expected, rtol=2e-3, atol=2e-4)
    alone = guidance.classifier(unconditional, None, None, VP, log_prob=classifier(of))(x_t, 0.5)
    np.testing.assert_allclose(alone, unconditional(x_t, 0.5, None), rtol=1e-5)


@pytest.mark.slow
def test_guidance_by_a_run_raises_the_agreement_with_the_class():
    """Through the family, as a config has it: of the rarer class, by scale."""
    network = Function(lambda w, x, label, cond: unconditional(x, label, cond))
    share = {}
    for scale in (0.0, 1.0, 4.0):
        rule = functools.partial(guidance.classifier, log_prob=classifier(EDM), scale=scale)
        family = Diffusion(
            network=network,
            image_shape=SHAPE,
            process=VP,
            parameterization=parameterizations.X0(time_scale=1.0),
            condition=("label",),
            sampler=Sampler(solver=solvers.DPMpp2M(), times=times.log_snr, steps=20, guidance=rule),
        )
        run = jax.jit(functools.partial(family.generate, {"model": {"w": 1.0}}, n=2000))
        x = np.asarray(run(jax.random.key(0), cond={"label": jnp.zeros(2000, jnp.int32)})).reshape(-1, 2)
        share[scale] = of_first(x)
    x, label = map(np.asarray, MIXTURE.sample(jax.random.key(2), 20_000))
    assert share[0.0] == pytest.approx(0.3, abs=0.04)
    assert share[1.0] == pytest.approx(of_first(x[label == 0]), abs=0.02)
    assert share[4.0] > share[1.0] + 0.03


def test_autoguidance_by_a_run_is_that_by_its_denoiser():
    family = Diffusion(
        network=Function(lambda w, x, label, cond: 0.3 * x),
        image_shape=SHAPE,
        process=EDM,
        parameterization=parameterizations.X0(),
    )
    x_t = jax.random.normal(jax.random.key(1), (4, *SHAPE))
    by_run = guidance.autoguidance(unconditional, None, None, VP, weak=Run(family, {"model": {"w": 1.0}}))
    t = 0.4
    # The weak model's input is c_in x / alpha, with sigma / alpha of VP.
    ratio = VP.sigma(t) / VP.alpha(t)
    weak = 0.3 * x_t / VP.alpha(t) / np.sqrt(1 + ratio**2)
    expected = 2.0 * unconditional(x_t, t, None) - weak
    np.testing.assert_allclose(by_run(x_t, t), expected, rtol=1e-4, atol=1e-5)


def test_evaluation_is_by_noise_level():
    run = classifier(VP)
    x, label = MIXTURE.sample(jax.random.key(0), 4000)
    batch = {"image": x.reshape(-1, *SHAPE), "label": label}
    score = jax.jit(run.family.evaluate)
    found = {name: float(value.mean()) for name, value in score(run.params, batch, jax.random.key(1)).items()}
    log_p = np.asarray(MIXTURE._components(np.asarray(x), np.ones((1, 1)), np.zeros((1, 1)))[0])
    assert found["accuracy_at_0"] == pytest.approx(np.mean(log_p.argmax(1) == np.asarray(label)), abs=1e-3)
    at = [found[f"accuracy_at_{level}"] for level in ("0", "0.3", "1", "3")]
    assert at == sorted(at, reverse=True) and at[0] > 0.9 and at[-1] == pytest.approx(0.7, abs=0.05)
    loss, aux = jax.jit(run.family._loss)(run.params["classifier"], None, batch, Keys.of(jax.random.key(2), 4000))
    assert float(loss) == pytest.approx(found["loss"], rel=0.05)
    assert float(aux.metrics["accuracy"]) == pytest.approx(found["accuracy"], abs=0.02)
    clean = aux.metrics["accuracy_by_noise/0-0.1"]
    assert float(clean.total / clean.weight) == pytest.approx(found["accuracy_at_0.1"], abs=0.03)
    # One that knows nothing has the loss of a guess.
    blind = score({"classifier": {"w": 0.0}}, batch, jax.random.key(1))["loss"]
    np.testing.assert_allclose(blind, np.log(2), rtol=1e-5)


def test_mistakes_are_named():
    run = classifier(VP)
    with pytest.raises(ConfigError, match="generates no images: train it with training.sample_every = 0"):
        run.family.generate(run.params, jax.random.key(0), 4)
    family = Classifier((8, 8, 1), UNetEncoder(num_classes=5))
    with pytest.raises(ValueError, match="network.num_classes = 5, but the data have 10"):
        family.check(types.SimpleNamespace(image_shape=(8, 8, 1), num_classes=10))
    with pytest.raises(ValueError, match="no labels"):
        family.check(types.SimpleNamespace(image_shape=(8, 8, 1), num_classes=None))
    with pytest.raises(ValueError, match="has no denoiser; it is a Classifier"):
        guidance.autoguidance(unconditional, None, None, VP, weak=run)
    with pytest.raises(ValueError, match="needs process"):
        weak = Run(Diffusion(network=Function(None), image_shape=SHAPE), {})
        guidance.autoguidance(unconditional, None, None, weak=weak)
