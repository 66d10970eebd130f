"""Augmentation: each transformation where its effect is known, the probability, and how it adapts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.families import augmentation
from genjax.families.augmentation import TRANSFORMS, Augmentation

jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # what compiles fast
RNG = np.random.default_rng(0)
COLOURED = RNG.uniform(-1, 1, (6, 6, 3)).astype(np.float32)
EVERY = Augmentation(transforms=TRANSFORMS)


def apply(name, image=COLOURED, uniform=(0.0, 0.0), normal=(0.0, 0.0), **options):
    """The image with one transformation, of which the random numbers are given."""
    aug = Augmentation(transforms=(name,), **options)

    @jit
    def run(image, uniform, normal):
        zeros, row = jnp.zeros((len(TRANSFORMS), 2)), TRANSFORMS.index(name)
        tables = (zeros, zeros.at[row].set(uniform), zeros.at[row].set(normal))
        return aug._one(augmentation._Draws(jax.random.key(0), jnp.float32(1.0), aug.transforms, *tables), image)

    return np.asarray(run(image, jnp.array(uniform), jnp.array(normal)))


def test_blitting_moves_whole_pixels():
    np.testing.assert_allclose(apply("flip", uniform=(-0.5, 0)), COLOURED[:, ::-1], atol=1e-6)
    np.testing.assert_allclose(apply("flip", uniform=(0.5, 0)), COLOURED, atol=1e-6)
    for quarters, uniform in enumerate((-0.9, -0.4, 0.1, 0.6)):
        found = apply("rotate90", uniform=(uniform, 0))
        np.testing.assert_allclose(found, np.rot90(COLOURED, quarters), atol=1e-5)
    # By 0.5 * 0.5 * 6 = 1.5 -> 2 columns to the right and one row up; what comes in is the mirror image.
    padded = np.pad(COLOURED, ((1, 1), (2, 2), (0, 0)), "reflect")
    found = apply("translate", uniform=(0.5, -1 / 3), translate_max=0.5)
    np.testing.assert_allclose(found, padded[2:, :6], atol=1e-6)


def test_geometry():
    wide = np.pad(COLOURED, ((0, 0), (1, 1), (0, 0)), "reflect")
    half = apply("shift", normal=(0.5 / 6, 0.0), shift_std=1.0)  # half a pixel to the right
    np.testing.assert_allclose(half, 0.5 * (wide[:, :6] + wide[:, 1:7]), atol=1e-5)
    # Twice the size about the centre: the pixels of the result lie every half pixel.
    ramp = np.broadcast_to(np.arange(6, dtype=np.float32)[:, None, None], (6, 6, 1))
    np.testing.assert_allclose(
        apply("scale", ramp, normal=(1.0, 0), scale_std=1.0)[:, 0, 0], 2.5 + (np.arange(6) - 2.5) / 2
    )
    # Twice as wide and half as high.
    stretched = apply("anisotropy", ramp, normal=(1.0, 0), anisotropy_std=1.0)[1:5, 0, 0]
    np.testing.assert_allclose(stretched, [0.5, 1.5, 3.5, 4.5], atol=1e-5)
    # A quarter and another one are the half turn.
    found = apply("rotate", uniform=(0.5, 0.5), rotate_max=1.0)
    np.testing.assert_allclose(found, COLOURED[::-1, ::-1], atol=1e-5)


def test_colour():
    grey = COLOURED.mean(-1, keepdims=True)
    np.testing.assert_allclose(apply("brightness", normal=(1.5, 0)), COLOURED + 0.3, atol=1e-6)
    np.testing.assert_allclose(apply("contrast", normal=(-2.0, 0)), COLOURED / 2.0, atol=1e-6)
    np.testing.assert_allclose(apply("luma_flip", uniform=(-0.1, 0)), COLOURED - 2 * grey, atol=1e-5)
    np.testing.assert_allclose(apply("saturation", normal=(1.0, 0)), grey + 2 * (COLOURED - grey), atol=1e-5)
    # A third of a turn takes red to green, green to blue and blue to red.
    np.testing.assert_allclose(apply("hue", uniform=(2 / 3, 0)), np.roll(COLOURED, 1, -1), atol=1e-5)


def test_colour_of_grey_images():
    image = COLOURED[..., :1]
    np.testing.assert_allclose(apply("brightness", image, normal=(1.5, 0)), image + 0.3, atol=1e-6)
    np.testing.assert_allclose(apply("contrast", image, normal=(-2.0, 0)), image / 2.0, atol=1e-6)
    np.testing.assert_allclose(apply("luma_flip", image, uniform=(-0.1, 0)), -image, atol=1e-5)


def test_corruption():
    hole = apply("cutout", uniform=(-0.5, 0.5)) == 0  # about (1/4, 3/4) of the image, of half its size
    expected = np.zeros((6, 6, 3), bool)
    expected[:3, 3:] = True
    np.testing.assert_array_equal(hole, expected)
    image = np.zeros((64, 64, 1), np.float32)
    assert apply("noise", image, normal=(-2.0, 0)).std() == pytest.approx(0.2, rel=0.05)


def every(key, images, p):
    return EVERY(jax.random.split(key, len(images)), images, p)


def test_at_zero_it_is_the_identity_and_at_one_it_is_not():
    images, run = RNG.uniform(-1, 1, (4, 6, 6, 3)).astype(np.float32), jit(every)
    np.testing.assert_array_equal(run(jax.random.key(0), images, 0.0), images)
    moved = np.asarray(run(jax.random.key(0), images, 1.0))
    assert np.all(np.abs(moved - images).max((1, 2, 3)) > 0.05) and np.all(np.isfinite(moved))


def test_each_is_applied_with_probability_p_and_by_the_image_s_own_key():
    aug = Augmentation(transforms=("brightness", "contrast"))
    run = jit(aug)
    keys, images = jax.random.split(jax.random.key(1), 4096), np.ones((4096, 2, 2, 1), np.float32)
    for p in (0.1, 0.7):
        values = np.asarray(run(keys, images, p))[:, 0, 0, 0]
        assert np.mean(values == 1.0) == pytest.approx((1 - p) ** 2, abs=4 * 0.5 / 64)
    np.testing.assert_array_equal(run(keys[::-1], images, 0.7)[::-1, 0, 0, 0], values)


def test_gradients_go_through_it():
    """It is affine in the image, so that its derivative in a direction is a difference."""
    one, other = RNG.uniform(-1, 1, (2, 4, 6, 6, 3)).astype(np.float32)
    y = RNG.standard_normal((4, 6, 6, 3)).astype(np.float32)
    value = lambda images: jnp.sum(every(jax.random.key(0), images, 1.0) * y)  # noqa: E731
    both = jit(jax.value_and_grad(value))
    (start, gradient), (end, _) = both(one), both(one + other)
    assert float(jnp.sum(gradient * other)) == pytest.approx(float(end - start), rel=1e-3)


def test_p_adapts_to_the_sign_of_real_logits():
    aug = Augmentation(target=0.6, speed=1000, adjust_every=20)
    up = aug.adapt(aug.init(), jnp.ones(10))
    assert float(up["p"]) == 0.0  # not yet
    up = aug.adapt(up, jnp.ones(10))
    assert float(up["p"]) == pytest.approx(0.02) and float(up["count"]) == float(up["signs"]) == 0.0
    # Half are positive: r = 0 is below the target.
    down = aug.adapt(up, jnp.array([1.0, -1.0] * 10))
    assert float(down["p"]) == pytest.approx(0.0, abs=1e-6)
    assert float(aug.adapt(down, -jnp.ones(20))["p"]) == 0.0
    top = Augmentation(p=0.995, speed=1000, adjust_every=20)
    assert float(top.adapt(top.init(), 5 * jnp.ones(20))["p"]) == 1.0
    fixed = Augmentation(p=0.3, target=None)
    assert float(fixed.adapt(fixed.init(), jnp.ones(1000))["p"]) == pytest.approx(0.3)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="transforms: 'flipp'; did you mean 'flip'"):
        Augmentation(transforms=("flipp",))
    with pytest.raises(ValueError, match="p = 1.5"):
        Augmentation(p=1.5)
    with pytest.raises(ValueError, match="hue, saturation are for images of 3 channels, not of 1"):
        Augmentation().check((8, 8, 1))
    with pytest.raises(ValueError, match="rotate90 is for square images"):
        Augmentation(transforms=("rotate90",)).check((8, 4, 1))
    with pytest.raises(ValueError, match="of 1 or 3 channels, not of 2"):
        Augmentation(transforms=("contrast",)).check((8, 8, 2))
