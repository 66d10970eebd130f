"""CycleGAN's losses on networks that are functions, against the paper's equations by hand."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax.data import DataSpec
from genjax.families import CycleGAN, adversarial
from genjax.families.base import Keys
from genjax.training.ema import EMA
from genjax.training.state import TrainState
from genjax.training.step import batches_per_step, make_train_step

SHAPE, BATCH = (2, 2, 1), 6
SPEC = DataSpec(SHAPE, None, 100, second=DataSpec(SHAPE, None, 100))


@dataclasses.dataclass(frozen=True)
class Scale:
    """A translator: images times a weight."""

    def check(self, image_shape):
        pass

    def init(self, key, x):
        return {"params": {"w": jax.random.uniform(key, (), minval=0.5, maxval=2.0)}}

    def apply(self, variables, x):
        return variables["params"]["w"] * x


@dataclasses.dataclass(frozen=True)
class Rows:
    """A discriminator: a logit for each row of pixels, their sum times a weight."""

    def check(self, image_shape):
        pass

    def init(self, key, x):
        return {"params": {"w": jax.random.uniform(key, (), minval=0.5, maxval=2.0)}}

    def apply(self, variables, x):
        return variables["params"]["w"] * x.sum(axis=(2, 3))[..., None]


FAMILY = CycleGAN(SHAPE, Scale(), Rows(), buffer=4, sources=8)
# Weights of the tests.
G, D = {"ab": {"w": 2.0}, "ba": {"w": 0.25}}, {"a": {"w": 0.5}, "b": {"w": -1.5}}


# Compiled as a whole and without optimization, which here costs far less than operation by operation.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(scope="module")
def batch():
    image, image_b = np.random.default_rng(3).uniform(-1, 1, (2, BATCH, *SHAPE)).astype(np.float32)
    return {"image": image, "image_b": image_b}


def nothing_kept(family=FAMILY):
    """What `extra` is before any training."""
    extra = jax.eval_shape(lambda: family.init(jax.random.key(0), SPEC)[1])
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), extra)


def all_of(extra):
    return {**extra, "generators": G, "discriminators": D}


@functools.partial(jit, static_argnames=("family", "phase"))
def loss_of(family, phase, extra, batch):
    """The loss of a phase and what it returns beside it."""
    both = {"generators": G, "discriminators": D}
    chosen, state = family.phases()[phase], types.SimpleNamespace(params=both, extra=extra)
    return chosen.loss(both[chosen.trains], state, batch, Keys.of(jax.random.key(0), BATCH))


@functools.partial(jit, static_argnames="family")
def evaluate(family, batch):
    return family.evaluate({"generators": G, "discriminators": D}, batch, jax.random.key(0))


generate = jit(FAMILY.generate, static_argnums=2)


def by_hand(a, b):
    """Adversarial, cycle and identity losses of both ways, [B] each: Zhu et al. 2017, eq. 1 (least squares), 2, 5.2."""
    logits = lambda x, w: w * x.sum(axis=(2, 3))  # noqa: E731
    adversarial = ((logits(2 * a, -1.5) - 1) ** 2).mean(1), ((logits(0.25 * b, 0.5) - 1) ** 2).mean(1)
    cycle = np.abs(0.5 * a - a).mean((1, 2, 3)), np.abs(0.5 * b - b).mean((1, 2, 3))
    identity = np.abs(2 * b - b).mean((1, 2, 3)), np.abs(0.25 * a - a).mean((1, 2, 3))
    return sum(adversarial), sum(cycle), sum(identity)


@pytest.mark.parametrize("identity", [0.0, 5.0])
def test_objective_of_the_generators(batch, identity):
    family = dataclasses.replace(FAMILY, identity=identity)
    gan, cycle, same = by_hand(batch["image"], batch["image_b"])
    expected = gan + 10 * cycle + identity * same
    found = evaluate(family, batch)
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(found["cycle"], cycle / 2, rtol=1e-5)
    loss, aux = loss_of(family, 0, {}, batch)
    np.testing.assert_allclose(loss, expected.mean(), rtol=1e-5)
    assert ("identity_a" in aux.metrics) == bool(identity) and aux.extra is None


def test_objective_of_the_discriminators(batch):
    """Until the buffer is full, the discriminators see the new translations."""
    family = dataclasses.replace(FAMILY, buffer=BATCH)
    loss, aux = loss_of(family, 1, nothing_kept(family), batch)
    a, b = batch["image"], batch["image_b"]
    logits = lambda x, w: w * x.sum(axis=(2, 3))  # noqa: E731
    of_a = (logits(a, 0.5) - 1) ** 2 + logits(0.25 * b, 0.5) ** 2
    of_b = (logits(b, -1.5) - 1) ** 2 + logits(2 * a, -1.5) ** 2
    np.testing.assert_allclose(loss, 0.5 * (of_a.mean() + of_b.mean()), rtol=1e-5)
    np.testing.assert_allclose(aux.extra["buffers"]["a"]["images"], 0.25 * b, rtol=1e-6)
    np.testing.assert_allclose(aux.extra["buffers"]["b"]["images"], 2 * a, rtol=1e-6)
    np.testing.assert_array_equal(aux.extra["sources"]["images"][:BATCH], b)
    np.testing.assert_allclose(aux.metrics["fake_b"], logits(2 * a, -1.5).mean(), rtol=1e-5)


def test_discriminators_see_the_history(batch):
    """Of a full buffer about half of what they see comes, so their loss is another than that of the translations."""
    old = {name: {"images": np.full((4, *SHAPE), 9.0, np.float32), "count": np.int32(4)} for name in ("a", "b")}
    _, aux = loss_of(FAMILY, 1, {**nothing_kept(), "buffers": old}, batch)
    assert aux.metrics["fake_a"] > 1.0  # a logit of the old is 9
    assert np.any(np.asarray(aux.extra["buffers"]["a"]["images"]) != 9.0)


@pytest.mark.parametrize("buffer", [0, BATCH])
def test_step_trains_both_roles_by_phases_alone(batch, buffer):
    family = dataclasses.replace(FAMILY, buffer=buffer)
    assert batches_per_step(family) == 1
    params, extra = jit(lambda: family.init(jax.random.key(0), SPEC))()
    assert not set(params) & set(extra)
    sgd = optax.sgd(0.01)
    optimizer = types.SimpleNamespace(
        update=lambda grads, opt, params, step: sgd.update(grads, opt, params), learning_rate=lambda step: 0.01
    )
    state = TrainState(
        jnp.int32(0), jax.random.key(0), params, {role: sgd.init(params[role]) for role in params}, {}, extra
    )
    step = jit(make_train_step(family, dict.fromkeys(params, optimizer), EMA()))
    after, metrics = step(state, batch)
    moved = jax.tree.map(lambda new, old: bool(new != old), after.params, state.params)
    assert all(jax.tree.leaves(moved))
    assert after.extra["sources"]["count"] == BATCH
    # The second phase translates with the weights that the first has updated.
    if buffer:
        expected = after.params["generators"]["ab"]["w"] * batch["image"]
        np.testing.assert_allclose(after.extra["buffers"]["b"]["images"], expected, rtol=1e-5)
    assert {"generators/cycle_a", "discriminators/real_b"} <= set(metrics)


def test_generates_translations_of_kept_images(batch):
    params = all_of(loss_of(FAMILY, 1, nothing_kept(), batch)[1].extra)
    images = np.asarray(generate(params, jax.random.key(5), 40))
    assert images.shape == (40, *SHAPE)
    sources = {(np.float32(0.25) * x).tobytes() for x in batch["image_b"]}
    assert {x.tobytes() for x in images} == sources
    np.testing.assert_array_equal(generate(params, jax.random.key(5), 3), images[:3])
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(5), jnp.arange(40))
    np.testing.assert_array_equal(generate(params, keys[7:9], 2), images[7:9])
    assert np.all(np.isfinite(generate(all_of(nothing_kept()), jax.random.key(0), 2)))  # before any training


def test_pictures(batch):
    (sheet,) = FAMILY.pictures(all_of({}), batch, jax.random.key(0)).values()
    assert sheet.shape == (6, BATCH, *SHAPE)
    for row, (name, scale) in enumerate([(name, scale) for name in ("image", "image_b") for scale in (1, None, 0.5)]):
        there = 2.0 if name == "image" else 0.25
        np.testing.assert_allclose(sheet[row], (scale or there) * batch[name], rtol=1e-6)


def test_any_adversarial_loss(batch):
    hinge = dataclasses.replace(FAMILY, loss=adversarial.Hinge(), adversarial=1.0, cycle=0.0, identity=0.0)
    a, b = batch["image"], batch["image_b"]
    expected = -(-1.5 * 2 * a.sum((2, 3))).mean(1) - (0.5 * 0.25 * b.sum((2, 3))).mean(1)
    np.testing.assert_allclose(evaluate(hinge, batch)["loss"], expected, rtol=1e-4)


def test_what_does_not_fit_is_refused(batch):
    with pytest.raises(ValueError, match="one source, where two are needed"):
        FAMILY.check(DataSpec(SHAPE, None, 100))
    with pytest.raises(ValueError, match=r"second source has \(4, 4, 1\)"):
        FAMILY.check(DataSpec(SHAPE, None, 100, second=DataSpec((4, 4, 1), None, 100)))
    FAMILY.check(SPEC)
    with pytest.raises(ValueError, match="held-out data are of one source"):
        FAMILY.evaluate(all_of({}), {"image": batch["image"]}, jax.random.key(0))
    for field, wrong in {"cycle": -1.0, "buffer": -1, "sources": 0}.items():
        with pytest.raises(ValueError, match=f"{field} = {wrong}"):
            dataclasses.replace(FAMILY, **{field: wrong})
