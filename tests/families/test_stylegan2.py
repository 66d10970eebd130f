"""StyleGAN2's losses and generation on networks that are linear, where every value is known."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.families import StyleGAN2
from genjax.families.augmentation import Augmentation
from genjax.families.base import Keys
from genjax.families.stylegan2 import path_lengths
from genjax.networks import DCGANDiscriminator

jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # what compiles fast
SHAPE, LAYERS, STYLE = (2, 2, 1), 4, 3
RNG = np.random.default_rng(0)


@dataclasses.dataclass(frozen=True)
class Linear:
    """A generator whose w is z and whose image is the sum over the layers of matrices times styles, and noise."""

    image_shape: tuple[int, int, int] = SHAPE
    num_styles: int = LAYERS
    style: int = STYLE
    num_classes: int | None = None
    noise: float = 0.0

    def init(self, key, z, cond):
        return {"params": {"matrix": jnp.asarray(np.random.default_rng(1).standard_normal((LAYERS, STYLE, *SHAPE)))}}

    def apply(self, variables, x, other, method):
        if method == "map":
            return x if self.num_classes is None else x + 10.0 * other["label"][:, None]
        drawn = jax.vmap(lambda key: jax.random.normal(key, SHAPE))(other)
        return jnp.einsum("bld,ldhwc->bhwc", x, variables["params"]["matrix"]) + self.noise * drawn


@dataclasses.dataclass(frozen=True)
class Scalar:
    """A discriminator that is a linear function."""

    num_classes: int | None = None

    def check(self, image_shape):
        pass

    def init(self, key, x, cond):
        return {"params": {"a": jnp.asarray(np.random.default_rng(2).standard_normal(SHAPE))}}

    def apply(self, variables, x, cond):
        return jnp.einsum("bhwc,hwc->b", x, variables["params"]["a"])


def family(**options):
    return StyleGAN2(**{"generator": Linear(), "discriminator": Scalar(), "latent": STYLE, **options})


def state_of(model):
    params, extra = model.init(jax.random.key(0), None)
    return types.SimpleNamespace(step=jnp.int32(0), params=params, ema={}, extra=extra)


def run(model, name, n=6):
    """The loss, what it returns beside it, the state and the batch."""
    phase = next(phase for phase in model.phases() if phase.name == name)
    state = state_of(model)
    batch = {"image": jnp.asarray(RNG.uniform(-1, 1, (n, *SHAPE)), jnp.float32), "label": jnp.arange(n) % 3}
    loss = jit(lambda params: phase.loss(params, state, batch, Keys.of(jax.random.key(1), n)))
    return *loss(state.params[phase.trains]), state, batch


def test_path_length_of_a_linear_generator_is_that_of_its_matrix():
    model = family()
    matrix = state_of(model).params["generator"]["matrix"]
    direction = RNG.standard_normal((5, *SHAPE)).astype(np.float32)
    styles = RNG.standard_normal((5, LAYERS, STYLE)).astype(np.float32)
    found = path_lengths(lambda w: jnp.einsum("bld,ldhwc->bhwc", w, matrix), styles, direction)
    gradient = np.einsum("ldhwc,bhwc->bld", matrix, direction / 2.0)  # the root of H W is 2
    np.testing.assert_allclose(found, np.sqrt((gradient**2).sum(2).mean(1)), rtol=1e-5)


def test_path_length_penalty():
    """The mean square of the lengths about their running mean, times the weight and the steps between two."""
    n = 4096
    model = family(path_every=4, path_weight=3.0, path_shrink=2, path_momentum=0.99)
    loss, aux, state, _ = run(model, "path_length", n)
    assert {phase.name: phase.every for phase in model.phases()}["path_length"] == 4
    lengths = float(aux.metrics["path_length"])
    matrix = np.asarray(state.params["generator"]["matrix"]).reshape(LAYERS, STYLE, -1)
    y = RNG.standard_normal((200_000, 4)) / 2.0
    drawn = np.sqrt((np.einsum("ldp,bp->bld", matrix, y) ** 2).sum(2).mean(1))
    assert lengths == pytest.approx(drawn.mean(), rel=0.04)
    mean = 0.01 * lengths  # after one update from zero
    assert float(aux.extra["path_mean"]) == pytest.approx(mean, rel=1e-4)
    assert float(loss) == pytest.approx(4 * 3.0 * np.mean((drawn - mean) ** 2), rel=0.08)


def test_r1_of_a_linear_discriminator_is_its_square_norm():
    loss, aux, state, _ = run(family(r1=5.0, r1_every=16), "r1")
    square = float(jnp.sum(state.params["discriminator"]["a"] ** 2))
    assert float(aux.metrics["penalty"]) == pytest.approx(square, rel=1e-5)
    assert float(loss) == pytest.approx(16 * 5.0 / 2 * square, rel=1e-5)


def test_r1_is_taken_before_the_augmentation():
    """With contrast c the gradient at the image is c times as large."""
    aug = Augmentation(transforms=("contrast",), p=1.0, target=None)
    _, aux, state, batch = run(family(augmentation=aug), "r1")
    keys = Keys.of(jax.random.key(1), 6).each
    factors = np.asarray(jit(aug)(keys, jnp.ones((6, *SHAPE)), jnp.float32(1.0)))[:, 0, 0, 0]
    square = float(jnp.sum(state.params["discriminator"]["a"] ** 2))
    assert factors.std() > 0.05
    assert float(aux.metrics["penalty"]) == pytest.approx(square * np.mean(factors**2), rel=1e-4)


def test_losses_are_those_of_real_images_and_of_generated_ones():
    """Images here are normal of zero mean, and so are their logits: both players' losses of them have one mean."""
    n = 8192
    first, aux, state, batch = run(family(), "discriminator", n)
    a, matrix = state.params["discriminator"]["a"], state.params["generator"]["matrix"]
    real = np.einsum("bhwc,hwc->b", batch["image"], a)
    assert float(aux.metrics["real"]) == pytest.approx(real.mean(), abs=1e-4)
    assert float(aux.metrics["sign"]) == pytest.approx(np.sign(real).mean(), abs=1e-4)
    assert aux.extra is None
    second, aux, *_ = run(family(mixing=0.0), "generator", n)
    fake = np.einsum("bd,d->b", RNG.standard_normal((200_000, STYLE)), np.einsum("ldhwc,hwc->d", matrix, a))
    assert float(second) == pytest.approx(np.log1p(np.exp(-fake)).mean(), rel=0.06)
    mixed = float(first) - np.log1p(np.exp(-real)).mean()  # nearly all have two styles, and a smaller variance
    assert 0.69 < mixed < float(second)
    assert set(aux.extra) == {"w_mean", "path_mean"}


def test_mean_style_is_a_running_mean():
    model = family(generator=Linear(num_classes=3), discriminator=Scalar(num_classes=3), condition=("label",))
    _, aux, *_ = run(dataclasses.replace(model, w_momentum=0.75), "generator", 3000)
    np.testing.assert_allclose(aux.extra["w_mean"], 0.25 * 10.0, atol=0.05)  # the mean label is 1


def test_augmentation_follows_real_logits():
    aug = Augmentation(transforms=("brightness",), target=0.6, speed=100, adjust_every=8, p=0.5)
    _, aux, *_ = run(family(augmentation=aug), "discriminator", 8)
    moved = float(aux.extra["augmentation"]["p"]) - 0.5
    assert moved == pytest.approx(0.08 if float(aux.metrics["sign"]) > 0.6 else -0.08)


def test_no_weight_no_phase():
    names = [phase.name for phase in family().phases()]
    assert names == ["discriminator", "r1", "generator", "path_length"]
    assert [phase.name for phase in family(r1=0.0, path_weight=0.0).phases()] == ["discriminator", "generator"]


def sampling_params(model):
    state = state_of(model)
    return {**state.extra, "w_mean": jnp.array([1.0, -2.0, 0.5]), **state.params}


def test_truncation():
    params = sampling_params(family())
    models = {psi: family(truncation=psi) for psi in (0.0, 0.5, 1.0)}
    run = jit(lambda key: {psi: model.generate(params, key, 64) for psi, model in models.items()})
    images = jax.device_get(run(jax.random.key(0)))
    mean = np.einsum("d,ldhwc->hwc", params["w_mean"], params["generator"]["matrix"])
    np.testing.assert_allclose(images[0.0], np.broadcast_to(mean, (64, *SHAPE)), atol=1e-5)
    np.testing.assert_allclose(images[0.5] - mean, 0.5 * (images[1.0] - mean), atol=1e-5)
    assert np.std(images[1.0], 0).min() > 0.1


def test_generation_does_not_depend_on_the_batch_and_takes_one_key_a_sample():
    model = family(generator=Linear(noise=1.0))
    params = sampling_params(model)

    @jit
    def both(key):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(6))
        return model.generate(params, key, 6), model.generate(params, keys[3:], 3)

    images, last = both(jax.random.key(0))
    np.testing.assert_allclose(last, images[3:], rtol=1e-5)
    assert np.abs(np.asarray(images[1:] - images[:-1])).max((1, 2, 3)).min() > 1e-2


def test_mixing_takes_a_second_style_from_some_layer_on():
    model = family()
    first, second = jnp.zeros((3, STYLE)), jnp.ones((3, STYLE))
    mixed = model.mix(first, second, jnp.array([1, 3, LAYERS]))
    np.testing.assert_array_equal(mixed[..., 0], [[0, 1, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]])


def test_how_often_styles_are_mixed():
    mixing, n = 0.6, 3000
    model = family(mixing=mixing)
    keys = Keys.of(jax.random.key(0), n).split(2)
    styles, w = jit(lambda: model._mixed(state_of(model).params["generator"], *keys, None))()
    np.testing.assert_array_equal(styles[:, 0], w)  # never from the first layer on
    own = np.asarray((styles == w[:, None]).all(-1).sum(1))  # layers with the first style
    expected = np.array([mixing / 3] * 3 + [1 - mixing])
    np.testing.assert_allclose(np.bincount(own, minlength=LAYERS + 1)[1:] / n, expected, atol=4 * 0.5 / np.sqrt(n))


def test_pictures():
    model = family()
    params = sampling_params(model)
    sheets = jit(lambda key: model.pictures(params, {"label": jnp.arange(4)}, key))(jax.random.key(0))
    assert {name: sheet.shape for name, sheet in sheets.items()} == {
        "style_mixing": (8, 10, *SHAPE),
        "truncation": (8, 10, *SHAPE),
    }
    mean = np.einsum("d,ldhwc->hwc", params["w_mean"], params["generator"]["matrix"])
    np.testing.assert_allclose(sheets["truncation"][:, 0], np.broadcast_to(mean, (8, *SHAPE)), atol=1e-5)
    # Half of the layers are the row's, half the column's: an image is the sum of a part of each.
    mixed = np.asarray(sheets["style_mixing"])
    np.testing.assert_allclose(mixed[0, 0] + mixed[1, 1], mixed[0, 1] + mixed[1, 0], atol=1e-4)


def test_mistakes_are_named():
    for options, words in [
        ({"truncation_psi": 1}, "truncation_psi"),
        ({"mixing": 1.5}, "mixing = 1.5"),
        ({"w_momentum": 1.0}, "w_momentum = 1.0"),
        ({"r1_every": 0}, "r1_every = 0"),
        ({"condition": ("label",)}, "generator.num_classes = None"),
        ({"augmentation": Augmentation()}, "not of 1"),
        ({"generator": Scalar()}, "needs a mapping and a synthesis"),
        ({"discriminator": DCGANDiscriminator(norm="spectral")}, "discriminator.norm = 'spectral': keeps variables"),
    ]:
        with pytest.raises((ValueError, TypeError), match=words):
            family(**options)
    with pytest.raises(ValueError, match=r"\(2, 2, 1\), but the data have \(8, 8, 1\)"):
        family().check(types.SimpleNamespace(image_shape=(8, 8, 1), num_classes=10))
