"""Guided distillation: the student's optimum is the guided teacher, at every scale."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import parameterizations, processes, solvers
from genjax.analytic import GaussianMixture
from genjax.families import Diffusion, GuidedDistillation, Sampler
from genjax.families.base import Keys
from genjax.sampling import guidance, times

SHAPE = (1, 1, 2)
SPEC = types.SimpleNamespace(image_shape=SHAPE, num_classes=3, levels=None, second=None)
TARGET = GaussianMixture(np.full(3, 1 / 3), np.array([[1.0, 0.0], [-1.0, 0.5], [0.0, -1.0]]), np.array([0.2, 0.3, 0.4]))
RF = processes.RectifiedFlow()
X0 = parameterizations.X0(time_scale=1.0)  # the noise label is the time


@dataclasses.dataclass(frozen=True)
class Exact:
    """The exact denoiser, or with a number for guidance the guided one, plus a weight."""

    scalars: tuple = ()
    num_classes: int = 3

    def check(self, image_shape):
        pass

    def init(self, key, x, label, cond):
        return {"params": {"w": jnp.zeros(())}}

    def apply(self, variables, x, label, cond, dropout=None):
        x_t = x.reshape(len(x), 2)
        found = TARGET.denoise(RF, x_t, label, {"label": cond["label"]})
        if self.scalars:
            null = TARGET.denoise(RF, x_t, label)
            found = null + cond["guidance"][:, None] * (found - null)
        return found.reshape(x.shape) + variables["params"]["w"]


@dataclasses.dataclass(frozen=True)
class Known:
    """A teacher whose weights are given."""

    family: object

    def load(self):
        return {"model": {"w": jnp.zeros(())}}


MODEL = dict(image_shape=SHAPE, process=RF, parameterization=X0, condition=("label",))
SAMPLER = Sampler(solvers.DDIM(), times.trailing, 3, final="none")
TEACHER = Diffusion(
    network=Exact(),
    **MODEL,
    sampler=dataclasses.replace(SAMPLER, guidance=lambda *a: guidance.classifier_free(*a, scale=2.5)),
)
STUDENT = GuidedDistillation(
    network=Exact(("guidance",)), **MODEL, teacher=Known(TEACHER), sampler=SAMPLER, guidance=2.5
)
BATCH = {
    "image": jnp.asarray(np.random.default_rng(0).normal(size=(32, *SHAPE)), jnp.float32),
    "label": jnp.arange(32, dtype=jnp.int32) % 3,
}


def test_the_guided_teacher_is_the_optimum():
    """At scales and times that are drawn; its null condition is the teacher's."""
    state = types.SimpleNamespace(extra={"teacher": {"model": {"w": jnp.zeros(())}}})
    student = dataclasses.replace(STUDENT, condition_dropout=0.3, guidance_range=(0.0, 9.0))
    keys = Keys.of(jax.random.key(1), 32)
    loss = jax.jit(lambda w: student._loss({"w": w}, state, BATCH, keys))
    (here, at), (there, off) = loss(jnp.float32(0.0)), loss(jnp.float32(0.1))
    assert float(here) < 1e-6 and float(at.metrics["mse"]) < 1e-9
    assert float(there) > 0.01  # the weight is at least 1
    np.testing.assert_allclose(off.metrics["mse"], 0.01, rtol=1e-3)


def test_it_generates_what_the_guided_teacher_does():
    """Of half of the evaluations; at another scale, something else."""
    weights, cond = {"model": {"w": jnp.zeros(())}}, {"label": BATCH["label"][:6]}
    generate = [
        np.asarray(jax.jit(lambda key, f=family: f.generate(weights, key, 6, cond))(jax.random.key(0)))
        for family in (TEACHER, STUDENT, dataclasses.replace(STUDENT, guidance=1.0))
    ]
    np.testing.assert_allclose(generate[1], generate[0], rtol=1e-4, atol=1e-5)
    assert np.abs(generate[2] - generate[0]).max() > 0.1


def test_the_denoiser_takes_a_scale_for_each_example():
    weights, x_t = {"model": {"w": jnp.zeros(())}}, BATCH["image"][:2]
    cond = {"label": BATCH["label"][:2]}
    both = STUDENT.denoiser(weights, jnp.array([1.0, 3.0]))(x_t, jnp.float32(0.5), cond)
    for i, scale in enumerate((1.0, 3.0)):
        one = STUDENT.denoiser(weights, scale)(x_t, jnp.float32(0.5), cond)
        np.testing.assert_allclose(both[i], one[i], rtol=1e-6)


def test_mistakes():
    STUDENT.check(SPEC)
    for change, words in [
        (dict(network=Exact()), r"network\.scalars = \(\)"),
        (dict(guidance_range=(3.0, 1.0)), "must be"),
        (dict(guidance=7.0), "guidance = 7.0: must be in the range"),
        (dict(condition=()), "nothing to guide by"),
        (dict(sampler=dataclasses.replace(SAMPLER, guidance=guidance.classifier_free), condition_dropout=0.1), "none"),
    ]:
        with pytest.raises(ValueError, match=words):
            dataclasses.replace(STUDENT, **change)
