"""Two sources in one batch: each in an order of its own, and none paired."""

import dataclasses

import numpy as np
import pytest

from genjax.config import ConfigError, build
from genjax.data import TFDS, DataSpec, Density, Unpaired
from genjax.data.loader import batch_at


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Images that tell their index; labels, where there are any, too."""

    size: int
    classes: int | None = None
    flip: bool = False
    loaded: bool = True

    @property
    def spec(self):
        return DataSpec((1, 1, 1), self.classes, self.size, in_memory=self.loaded)

    def gather(self, indices):
        batch = {"image": indices.astype(np.uint8).reshape(-1, 1, 1, 1)}
        return batch if self.classes is None else {**batch, "label": (indices % self.classes).astype(np.int32)}


def both(source, indices):
    batch = source.gather(indices)
    return batch["image"].ravel(), batch["image_b"].ravel()


@pytest.mark.parametrize("seed", range(5))
def test_no_pair_and_every_image_once_an_epoch(seed):
    source = Unpaired(Numbers(20), Numbers(20), seed)
    a, b = both(source, np.arange(20))
    np.testing.assert_array_equal(a, np.arange(20))
    np.testing.assert_array_equal(np.sort(b), np.arange(20))
    assert np.all(a != b)


def test_order_is_a_function_of_the_seed():
    orders = [both(Unpaired(Numbers(50), Numbers(50), seed), np.arange(50))[1] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(orders[0], orders[1])
    assert np.mean(orders[0] == orders[2]) < 0.2
    some = np.array([7, 3, 3])
    np.testing.assert_array_equal(both(Unpaired(Numbers(50), Numbers(50)), some)[1], orders[0][some])


@pytest.mark.parametrize("sizes", [(5, 12), (12, 5)])
def test_smaller_source_is_gone_through_again(sizes):
    source = Unpaired(Numbers(sizes[0]), Numbers(sizes[1]))
    assert source.spec.size == 12
    for found, size in zip(both(source, np.arange(12)), sizes, strict=True):
        counts = np.bincount(found, minlength=size)
        assert len(counts) == size and counts.min() >= 12 // size and counts.max() <= -(-12 // size)


def test_one_image_each():
    np.testing.assert_array_equal(both(Unpaired(Numbers(1), Numbers(1)), np.zeros(3, int)), np.zeros((2, 3)))


def test_spec_and_labels():
    source = Unpaired(Numbers(4, 3, loaded=False), Numbers(6))
    assert source.spec.num_classes == 3 and not source.spec.in_memory
    assert source.spec.second == Numbers(6).spec
    assert sorted(source.gather(np.arange(2))) == ["image", "image_b", "label"]
    batch = Unpaired(Numbers(4), Numbers(6, 3)).gather(np.arange(6))
    assert sorted(batch) == ["image", "image_b", "label_b"]
    np.testing.assert_array_equal(batch["label_b"], batch["image_b"].ravel() % 3)


def test_stream_of_the_loader():
    batch = batch_at(Unpaired(Numbers(10), Numbers(10)), seed=0, step=3, batch_size=8)
    assert batch["image"].shape == batch["image_b"].shape == (8, 1, 1, 1)


def test_flip_is_that_of_both():
    assert Unpaired(Numbers(2, flip=True), Numbers(2, flip=True)).flip and not Unpaired(Numbers(2), Numbers(2)).flip
    with pytest.raises(ValueError, match="first.flip = True, second.flip = False"):
        Unpaired(Numbers(2, flip=True), Numbers(2))


def test_from_a_config(digits_dir):
    digits = {"name": "tfds", "data_dir": digits_dir}
    source = build(
        "data",
        {
            "name": "unpaired",
            "first": {**digits, "split": "train[:50%]"},
            "second": {"name": "edges", "source": {**digits, "split": "train[50%:]"}},
        },
    )
    assert isinstance(source.first, TFDS) and source.spec.size == 719 and source.spec.num_classes == 10
    batch = source.gather(np.arange(4))
    assert batch["image"].shape == batch["image_b"].shape == (4, 8, 8, 1)
    with pytest.raises(ConfigError, match="seed = -1"):
        build("data", {"name": "unpaired", "first": digits, "second": digits, "seed": -1})
    assert Unpaired(Density(size=8), source.first).spec.levels is None
