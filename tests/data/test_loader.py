"""The stream of batches: a pure function of (seed, step)."""

import itertools

import numpy as np
import pytest

from genjax.data import DataSpec, loader
from genjax.data.base import in_memory

SIZE = 103


class Numbers:
    """A source whose image i is made of i."""

    flip = False
    spec = DataSpec((2, 2, 1), None, SIZE)

    def __init__(self):
        images = np.broadcast_to(np.arange(SIZE, dtype=np.uint8)[:, None, None, None], (SIZE, 2, 2, 1))
        self.gather = in_memory(images, np.arange(SIZE, dtype=np.int32))


def first(stream, n):
    return [batch["label"] for batch in itertools.islice(stream, n)]


def test_every_epoch_is_a_permutation_and_all_differ():
    orders = [loader.permutation(3, epoch, SIZE) for epoch in range(20)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(SIZE))
    assert len({order.tobytes() for order in orders}) == 20
    assert loader.permutation(4, 0, SIZE).tobytes() != orders[0].tobytes()


@pytest.mark.parametrize("batch_size", [1, 10, SIZE, 250])
def test_batches_are_the_epochs_one_after_the_other(batch_size):
    steps = 6 * SIZE // batch_size
    stream = np.concatenate([loader.batch_indices(7, step, batch_size, SIZE) for step in range(steps)])
    epochs = np.concatenate([loader.permutation(7, epoch, SIZE) for epoch in range(7)])
    np.testing.assert_array_equal(stream, epochs[: steps * batch_size])
    assert stream.dtype == np.int64


def test_places_in_an_epoch_are_uniform():
    # Chi-squared of where image 0 stands, over 2,000 epochs and 8 places: 7 degrees of freedom, 99.99% below 29.9.
    places = [int(np.flatnonzero(loader.permutation(0, epoch, 8) == 0)[0]) for epoch in range(2000)]
    counts = np.bincount(places, minlength=8)
    assert ((counts - 250) ** 2 / 250).sum() < 29.9


@pytest.mark.parametrize("prefetch", [None, 0, 3])
@pytest.mark.parametrize("start", [0, 1, 17, 10**9])
def test_starting_at_a_step_is_skipping_to_it(prefetch, start):
    found = first(loader.batches(Numbers(), 5, 32, start_step=start, prefetch=prefetch), 5)
    expected = [loader.batch_at(Numbers(), 5, start + i, 32)["label"] for i in range(5)]
    np.testing.assert_array_equal(found, expected)
    if start < 100:
        skipped = loader.batches(Numbers(), 5, 32, prefetch=prefetch)
        np.testing.assert_array_equal(found, first(skipped, start + 5)[start:])


def test_image_and_label_belong_together():
    batch = loader.batch_at(Numbers(), 0, 3, 50)
    np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["label"])
    assert batch["image"].shape == (50, 2, 2, 1) and batch["label"].dtype == np.int32


def test_shards_make_up_the_whole():
    whole = first(loader.batches(Numbers(), 1, 24), 9)
    shards = [first(loader.batches(Numbers(), 1, 24, shard=(i, 4)), 9) for i in range(4)]
    np.testing.assert_array_equal(np.concatenate(shards, axis=1), whole)


def test_a_host_reads_its_slice_only():
    class Counting(Numbers):
        asked = 0

        def __init__(self):
            super().__init__()
            gather = self.gather
            self.gather = lambda indices: (setattr(self, "asked", self.asked + len(indices)), gather(indices))[1]

    source = Counting()
    loader.batch_at(source, 0, 0, 24, shard=(1, 4))
    assert source.asked == 6


def test_an_error_in_a_thread_reaches_the_reader():
    class Broken(Numbers):
        def __init__(self):
            self.gather = lambda indices: (_ for _ in ()).throw(ValueError("image 7 is broken"))

    with pytest.raises(ValueError, match="image 7 is broken"):
        next(loader.batches(Broken(), 0, 8, prefetch=2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, r"seed = -1"),
        ({"seed": 2**64}, r"seed = "),
        ({"batch_size": 0}, r"batch_size = 0"),
        ({"start_step": -3}, r"step = -3"),
        ({"shard": (2, 2)}, r"shard = \(2, 2\)"),
        ({"shard": (0, 3)}, r"batch_size = 8: does not split over 3 hosts"),
        ({"prefetch": -1}, r"prefetch = -1"),
    ],
)
def test_wrong_numbers_are_refused_at_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        loader.batches(Numbers(), **{"seed": 0, "batch_size": 8, **arguments})
