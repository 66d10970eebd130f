"""The phases of a GAN, followed by hand on a generator and a critic of a few numbers, and on small real networks."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax import config
from genjax.families import GAN
from genjax.families.adversarial import Wasserstein
from genjax.families.base import Keys, Mean
from genjax.training.ema import EMA
from genjax.training.optimizers import build_optimizer
from genjax.training.state import TrainState, trained_roles
from genjax.training.step import batches_per_step, make_train_step

SHAPE = (1, 1, 2)
SPEC = types.SimpleNamespace(image_shape=SHAPE, num_classes=3)
W = np.array([3.0, 4.0], np.float32)  # the gradient of the linear critic, of norm 5
BATCH = 4
X = np.random.default_rng(0).normal(size=(BATCH, *SHAPE)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Shift:
    """A generator that adds a number to its latent; it counts its calls in training."""

    image_shape: tuple[int, int, int] = SHAPE
    num_classes: int | None = None

    def init(self, key, z, cond):
        return {"params": {"shift": jnp.zeros((1, 2))}, "kept": {"calls": jnp.zeros(()), "shift": jnp.zeros(())}}

    def apply(self, variables, z, cond, train=False, mutable=()):
        images = (z + variables["params"]["shift"]).reshape(-1, *SHAPE)
        kept = variables["kept"]
        after = {"calls": kept["calls"] + 1, "shift": variables["params"]["shift"].sum()}
        return (images, {"kept": after}) if train else images


@dataclasses.dataclass(frozen=True)
class Linear:
    """A linear critic."""

    num_classes: int | None = None
    norm: str = "none"

    def check(self, image_shape):
        pass

    def init(self, key, x, cond):
        return {"params": {"w": jnp.asarray(W)}}

    def apply(self, variables, x, cond, train=False, mutable=()):
        logits = x.reshape(-1, 2) @ variables["params"]["w"]
        return (logits, {}) if train else logits


def gan(**kwargs):
    return GAN(generator=Shift(), discriminator=Linear(), latent=2, loss=Wasserstein(), **kwargs)


def initial(family, decay=None):
    params, extra = family.init(jax.random.key(0), SPEC)
    ema = {} if decay is None else {"generator": jax.tree.map(lambda p: p + 7.0, params["generator"])}
    return TrainState(jnp.int32(0), jax.random.key(0), params, {}, ema, extra)


def losses(family, state, names=("discriminator", "generator")):
    """Loss, metrics, new extra and gradient of each phase that is asked for."""
    found = []
    for phase in family.phases():
        if phase.name in names:
            run = jax.value_and_grad(phase.loss, has_aux=True)
            keys = Keys.of(jax.random.key(3), BATCH)
            (loss, aux), grads = run(state.params[phase.trains], state, {"image": jnp.asarray(X)}, keys)
            found.append((float(loss), aux, grads))
    return found


def test_discriminator_and_generator_minimize_the_losses_of_their_logits():
    family = gan()
    state = initial(family)
    (loss, aux, grads), (loss_g, aux_g, grads_g) = losses(family, state)
    fake = family.latents(Keys.of(jax.random.key(3), BATCH).split(2)[0].each)  # nothing is added yet
    real_logits, fake_logits = X.reshape(-1, 2) @ W, fake @ W
    assert loss == pytest.approx(float((fake_logits - real_logits).mean()), rel=1e-5)
    np.testing.assert_allclose(grads["w"], np.mean(fake - X.reshape(-1, 2), axis=0), rtol=1e-5)
    assert float(aux.metrics["real"]) == pytest.approx(float(real_logits.mean()), rel=1e-5)
    assert float(aux.metrics["fake"]) == pytest.approx(float(fake_logits.mean()), rel=1e-5)
    assert float(aux.metrics["accuracy"]) == np.mean(real_logits > fake_logits)
    np.testing.assert_allclose(grads_g["shift"], -W.reshape(1, 2), rtol=1e-5)
    # The discriminator's phase leaves the generator's variables alone, and the generator's counts one call.
    assert float(aux.extra["generator_state"]["kept"]["calls"]) == 0
    assert float(aux_g.extra["generator_state"]["kept"]["calls"]) == 1


def test_penalties_are_weighted_as_published():
    """The critic's gradient has norm 5 everywhere: lambda (5 - 1)^2, and gamma / 2 times 25 for either zero centre."""
    (plain, _, _), (plain_g, _, _) = losses(gan(), initial(gan()))
    for options, penalty in [
        (dict(gradient_penalty=10.0), 160.0),
        (dict(r1=2.0), 25.0),
        (dict(r2=4.0), 50.0),
        (dict(r1=2.0, r2=4.0), 75.0),
    ]:
        family = gan(**options)
        (loss, aux, _), (loss_g, _, _) = losses(family, initial(family))
        assert loss == pytest.approx(plain + penalty, rel=1e-5) and loss_g == plain_g
        assert float(aux.metrics["input_grad_norm"]) == pytest.approx(5.0)
        lazy = gan(**options, penalty_every=16)
        assert [(p.name, p.trains, p.every) for p in lazy.phases()] == [
            ("discriminator", "discriminator", 1),
            ("penalty", "discriminator", 16),
            ("generator", "generator", 1),
        ]
        (without, _, _), (alone, aux, _), _ = losses(lazy, initial(lazy), ("discriminator", "penalty", "generator"))
        assert without == plain and alone == pytest.approx(16 * penalty, rel=1e-5)
        assert float(aux.metrics["input_grad_norm"]) == pytest.approx(5.0)


def test_penalties_go_with_logits_of_patches():
    """Six logits an image, each a sixth of the linear critic's: a sixth of its mean loss, the whole of its penalty."""

    class Patches(Linear):
        def apply(self, variables, x, cond, train=False, mutable=()):
            logits = jnp.tile(super().apply(variables, x, cond)[:, None, None] / 6, (1, 2, 3))
            return (logits, {}) if train else logits

    family = gan(r1=2.0)
    (plain, *_), _ = losses(gan(), initial(gan()))
    (loss, *_), _ = losses(dataclasses.replace(family, discriminator=Patches()), initial(family))
    assert loss == pytest.approx(plain / 6 + 25.0, rel=1e-5)


def test_running_statistics_are_those_of_the_average_where_there_is_one():
    family = gan()
    state = initial(family, decay=0.9)
    _, (_, aux, _) = losses(family, state)
    kept = aux.extra["generator_state"]["kept"]
    assert float(kept["shift"]) == 14.0 and float(kept["calls"]) == 1.0


def test_latents_are_of_their_key_alone_and_of_the_prior():
    keys = jax.random.split(jax.random.key(0), 500)
    normal, uniform = gan().latents(keys), gan(prior="uniform").latents(keys)
    np.testing.assert_array_equal(gan().latents(keys[:3]), normal[:3])
    assert float(normal.std()) == pytest.approx(1.0, abs=0.08) and float(jnp.abs(normal).max()) > 1.5
    assert float(uniform.std()) == pytest.approx(3**-0.5, abs=0.04) and float(jnp.abs(uniform).max()) <= 1.0


@functools.cache
def small():
    """A conditional GAN with batch normalization and a spectral critic that moves twice, and its compiled step."""
    family = config.build(
        "family",
        dict(
            name="gan",
            generator=dict(name="dcgan", image_shape=(8, 8, 1), channels=4, num_classes=3),
            discriminator=dict(name="dcgan", channels=4, norm="spectral", num_classes=3),
            latent=3,
            loss=dict(name="hinge"),
            r1=1.0,
            penalty_every=2,
            critic_steps=2,
            condition=("label",),
        ),
    )
    spec = types.SimpleNamespace(image_shape=(8, 8, 1), num_classes=3)
    family.check(spec)
    params, extra = family.init(jax.random.key(1), spec)
    optimizers = {
        "generator": build_optimizer(dict(name="adam", learning_rate=1e-2), params["generator"]),
        "discriminator": build_optimizer(
            dict(name="rmsprop", learning_rate=1e-2, clip_weights=0.03), params["discriminator"]
        ),
    }
    ema = EMA({"generator": 0.5})
    state = TrainState(
        jnp.int32(0),
        jax.random.key(2),
        params,
        {role: optimizers[role].init(params[role]) for role in trained_roles(family)},
        ema.init(params),
        extra,
    )
    step = jax.jit(make_train_step(family, optimizers, ema), compiler_options={"xla_backend_optimization_level": 0})
    return family, state, step


def batch(family, step, size=6):
    n = size * batches_per_step(family)
    rng = np.random.default_rng(step)
    return {"image": rng.uniform(-1, 1, (n, 8, 8, 1)).astype(np.float32), "label": np.arange(n, dtype=np.int32) % 3}


@pytest.mark.slow
def test_a_step_trains_both_and_clips_the_critic():
    family, state, step = small()
    assert batches_per_step(family) == 2
    measured = []
    for i in range(3):
        before = state
        state, metrics = step(state, batch(family, i))
        measured.append(metrics)
        for role in ("generator", "discriminator"):
            moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), state.params[role], before.params[role])
            assert optax.tree.norm(moved) > 0
            kept = role + "_state"
            assert jax.tree.structure(state.extra[kept]) == jax.tree.structure(before.extra[kept])
            for old, new in zip(*(jax.tree.leaves(s.extra[kept]) for s in (before, state)), strict=True):
                assert old.size == 1 or not np.array_equal(old, new)  # of one output, u is 1
        assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(state.params["discriminator"])) <= 0.03 + 1e-8
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(state.params["generator"])) > 0.03
    assert [float(m["penalty/r1"].weight) for m in measured] == [1.0, 0.0, 1.0]
    assert float(measured[0]["discriminator/real"].weight) == 2.0


def test_a_step_in_parts_is_that_of_the_whole_batch():
    """But for what the networks keep: the generator here counts its calls, of which there is one a part."""
    family = gan(r1=0.3, gradient_penalty=2.0, critic_steps=2)
    params = initial(family).params
    optimizers = {role: build_optimizer(dict(name="sgd", learning_rate=0.1), params[role]) for role in params}
    state = initial(family).replace(opt={role: optimizers[role].init(params[role]) for role in params})
    images = {"image": np.random.default_rng(1).normal(size=(2 * BATCH, *SHAPE)).astype(np.float32)}
    steps = (make_train_step(family, optimizers, EMA({}), accumulate=parts) for parts in (1, 2))
    whole, cut = (
        jax.jit(step, compiler_options={"xla_backend_optimization_level": 0})(state, images) for step in steps
    )
    for one, other in ((cut[0].params, whole[0].params), (cut[1], whole[1])):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), means(one), means(other))
    assert float(cut[0].extra["generator_state"]["kept"]["calls"]) == 2
    assert float(whole[0].extra["generator_state"]["kept"]["calls"]) == 1


def means(tree):
    """Metrics as the means that they are; any other tree as it is."""
    mean = lambda leaf: leaf.total / leaf.weight if isinstance(leaf, Mean) else leaf  # noqa: E731
    return jax.tree.map(mean, tree, is_leaf=lambda leaf: isinstance(leaf, Mean))


def test_images_are_of_their_key_and_class_alone():
    family, state, _ = small()
    params = {**state.extra, **state.params}
    run = jax.jit(family.generate, static_argnums=2)
    labels = jnp.array([0, 1, 2, 0, 1], jnp.int32)
    five = run(params, jax.random.key(0), 5, {"label": labels})
    assert five.shape == (5, 8, 8, 1)
    np.testing.assert_allclose(run(params, jax.random.key(0), 2, {"label": labels[:2]}), five[:2], rtol=1e-4, atol=1e-6)
    other = run(params, jax.random.key(0), 5, {"label": (labels + 1) % 3})
    assert float(jnp.abs(other - five).max(axis=(1, 2, 3)).min()) > 1e-4
    assert family.evaluate(params, {}, jax.random.key(0)) == {}


def test_pictures_are_paths_between_latents():
    """On the normal prior's circle: the ends are latents, and the middle is their sum over the root of 2."""
    family = GAN(generator=Shift(), discriminator=Linear(), latent=2)
    params, extra = family.init(jax.random.key(0), SPEC)
    sheet = family.pictures({**extra, **params}, {"image": jnp.asarray(X)}, jax.random.key(0))["interpolations"]
    assert sheet.shape == (8, 10, *SHAPE)
    third = np.cos(np.pi / 6) * sheet[:, 0] + np.sin(np.pi / 6) * sheet[:, -1]
    np.testing.assert_allclose(sheet[:, 3], third, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(penalty_every=4), "there is no gradient_penalty, r1 or r2"),
        (dict(r1=-1.0), "r1 = -1.0"),
        (dict(critic_steps=0), "critic_steps = 0"),
        (dict(prior="gauss"), "prior = 'gauss'"),
        (dict(condition=("text",)), "must be \\(\\) or \\('label',\\)"),
        (dict(condition=("label",)), "generator.num_classes = None"),
        (dict(r1=1.0, discriminator=Linear(norm="batch")), "must not depend on other examples"),
    ],
)
def test_mistakes_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(gan(), **wrong)


def test_data_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"\(1, 1, 2\), but the data have \(8, 8, 1\)"):
        gan().check(types.SimpleNamespace(image_shape=(8, 8, 1), num_classes=3))
    family = GAN(Shift(num_classes=5), Linear(num_classes=5), condition=("label",))
    with pytest.raises(ValueError, match="num_classes = 5, but the data have 3 classes"):
        family.check(SPEC)
    with pytest.raises(ValueError, match="no labels"):
        family.check(types.SimpleNamespace(image_shape=SHAPE, num_classes=None))
