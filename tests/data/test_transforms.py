"""What runs on the device: scaling, mirroring, and back to pixels."""

import jax
import jax.numpy as jnp
import numpy as np

from genjax.data import transforms


def pixels(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 4, 6, 3), np.uint8)


def test_round_trip_of_every_pixel_value(key):
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    batch = jax.jit(transforms.preprocess, static_argnames="flip")({"image": images}, key, flip=False)
    assert batch["image"].dtype == jnp.float32 and set(batch) == {"image"}
    np.testing.assert_allclose(batch["image"], images / 127.5 - 1, atol=1e-6)
    np.testing.assert_array_equal(transforms.to_uint8(batch["image"]), images)


def test_to_uint8_clips_and_rounds_to_the_nearest():
    found = transforms.to_uint8(jnp.array([-3.0, -1.0, -0.997, 0.001, 0.999, 1.0, 7.0]))
    np.testing.assert_array_equal(found, [0, 0, 0, 128, 255, 255, 255])


def test_flips_mirror_half_of_the_images_and_nothing_else(key):
    images = pixels(1000)
    labels = np.arange(1000, dtype=np.int32)
    batch = transforms.preprocess({"image": images, "label": labels}, key, flip=True)
    found = np.asarray(transforms.to_uint8(batch["image"]))
    same = (found == images).all((1, 2, 3))
    mirrored = (found == images[:, :, ::-1]).all((1, 2, 3))
    assert (same ^ mirrored).all()
    assert abs(mirrored.sum() - 500) < 4 * np.sqrt(250)  # four standard deviations of a fair coin
    np.testing.assert_array_equal(batch["label"], labels)


def test_images_of_two_domains_are_mirrored_apart_and_points_stay_as_they_are(key):
    images, points = pixels(64), np.float32([[[[0.3, 7.0]]]])
    found = transforms.preprocess({"image": images, "image_b": images, "points": points}, key, flip=True)
    first, second = (np.asarray(transforms.to_uint8(found[name])) for name in ("image", "image_b"))
    assert first.dtype == np.uint8 and (first != second).any()
    for domain in (first, second):
        assert ((domain == images) | (domain == images[:, :, ::-1])).all((1, 2, 3)).all()
    np.testing.assert_array_equal(found["points"], points)
    np.testing.assert_array_equal(transforms.to_data(found["points"], None), points)
    assert transforms.to_data(found["image"], 256).dtype == np.uint8


def test_a_flip_depends_on_the_key_and_the_sample_alone(key):
    images = pixels(64)
    whole = transforms.preprocess({"image": images}, key, flip=True)["image"]
    part = transforms.preprocess({"image": images[:5]}, key, flip=True)["image"]
    other = transforms.preprocess({"image": images}, jax.random.key(1), flip=True)["image"]
    np.testing.assert_array_equal(whole[:5], part)
    assert (whole != other).any()
