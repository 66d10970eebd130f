"""Edge drawings: Sobel's gradient, as SciPy has it."""

import numpy as np
import pytest
from scipy import ndimage

from genjax.config import ConfigError, build
from genjax.data import TFDS
from genjax.data.edges import gradient


def test_is_the_gradient_of_scipy():
    images = np.random.default_rng(0).integers(0, 256, (3, 9, 7, 2)).astype(np.uint8)
    flat = images.transpose(0, 3, 1, 2).reshape(6, 9, 7).astype(float)  # SciPy's smooths along every other axis
    lengths = [np.hypot(ndimage.sobel(x, 0, mode="nearest"), ndimage.sobel(x, 1, mode="nearest")) for x in flat]
    expected = np.minimum(np.rint(np.stack(lengths) / 4), 255).reshape(3, 2, 9, 7).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(gradient(images), expected)
    assert gradient(images).dtype == np.uint8


@pytest.mark.parametrize("axis", [1, 2])
def test_straight_edge_is_white_and_flat_ground_black(axis):
    images = np.zeros((1, 6, 6, 1), np.uint8)
    images[(slice(None),) * axis + (slice(3, None),)] = 255
    edges = np.moveaxis(gradient(images), axis, 1)[0, :, 0, 0]
    np.testing.assert_array_equal(edges, [0, 0, 255, 255, 0, 0])


def test_source(digits_dir):
    plain = {"name": "tfds", "data_dir": digits_dir, "flip": True}
    source, under = build("data", {"name": "edges", "source": plain}), TFDS(data_dir=digits_dir, flip=True)
    assert source.spec == under.spec and source.flip
    some = np.array([5, 0])
    np.testing.assert_array_equal(source.gather(some)["label"], under.gather(some)["label"])
    np.testing.assert_array_equal(source.gather(some)["image"], gradient(under.gather(some)["image"]))


def test_points_have_no_edges():
    with pytest.raises(ConfigError, match="holds points"):
        build("data", {"name": "edges", "source": {"name": "density"}}).spec  # noqa: B018
