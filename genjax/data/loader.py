"""The stream of training batches: batch `step` is a pure function of (seed, step).

The stream is endless: one permutation of the data after another, each a pure function of (seed, epoch), with batches
that cross from one to the next. Resuming is starting at another step; there is no iterator state to save. grain runs
the reading, with whole batches as its items: item by item costs more than the gathering itself on small images.
"""

import functools
import os
import sys
from collections.abc import Iterator

import numpy as np

from genjax.config import require
from genjax.data.base import Source


@functools.lru_cache(maxsize=4)  # a batch may span two epochs, and the reading threads run ahead of the training
def permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """Returns the order of the data in one epoch, int64 [size].

    It sorts the raw output of a counter-based generator, which NumPy promises to keep the same in every version;
    it makes no such promise for `Generator.permutation`.
    """
    order = np.argsort(np.random.Philox(key=[seed, epoch]).random_raw(size), kind="stable")
    order.setflags(write=False)
    return order


def batch_indices(seed: int, step: int, batch_size: int, size: int) -> np.ndarray:
    """Returns the indices of batch `step`, int64 [batch_size].

    Args:
        seed: a number in [0, 2^64).
        step: batch number, from 0.
        batch_size: images in a batch; it may exceed `size`.
        size: number of images in the data.

    Raises:
        ValueError: a number is out of range.
    """
    require(0 <= seed < 2**64, f"seed = {seed}: must lie in [0, 2^64)")
    require(step >= 0, f"step = {step}: must be at least 0")
    require(batch_size >= 1, f"batch_size = {batch_size}: must be at least 1")
    require(size >= 1, f"size = {size}: the data are empty")
    start, stop = step * batch_size, (step + 1) * batch_size
    parts = []
    for epoch in range(start // size, (stop - 1) // size + 1):
        offset = epoch * size
        parts.append(permutation(seed, epoch, size)[max(start - offset, 0) : stop - offset])
    return np.concatenate(parts)


def batch_at(
    source: Source, seed: int, step: int, batch_size: int, shard: tuple[int, int] = (0, 1)
) -> dict[str, np.ndarray]:
    """Returns batch `step` of the stream, or one host's slice of it.

    Args:
        source: the data.
        seed: seed of the order.
        step: batch number, from 0.
        batch_size: images in the whole batch, over all hosts.
        shard: (index, count): this host gets the `index`-th of `count` equal slices.

    Returns:
        `{"image": uint8 [batch_size / count, H, W, C], "label": int32 [batch_size / count]}`; see `Source.gather`.

    Raises:
        ValueError: a number is out of range, or the batch does not split.
    """
    return source.gather(_shard_indices(source, seed, step, batch_size, shard))


def batches(
    source: Source,
    seed: int,
    batch_size: int,
    start_step: int = 0,
    shard: tuple[int, int] = (0, 1),
    prefetch: int | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the batches from `start_step` on, for ever.

    Args:
        source: the data.
        seed: seed of the order.
        batch_size: images in the whole batch, over all hosts.
        start_step: number of the first batch; starting at k equals skipping k batches.
        shard: (index, count), see `batch_at`.
        prefetch: batches that threads read ahead; 0 reads each batch when it is asked for. None is 0 for data in
            memory, where threads cost more than the copy that they save, and one batch a CPU core otherwise.

    Raises:
        ValueError: a number is out of range, or the batch does not split.
        DataError: the data are missing or damaged.
    """
    import grain  # takes a second to import

    require(prefetch is None or prefetch >= 0, f"prefetch = {prefetch}: must be at least 0")
    _shard_indices(source, seed, start_step, batch_size, shard)  # so that mistakes are raised here, not in a thread
    if prefetch is None:
        prefetch = 0 if source.spec.in_memory else os.cpu_count() or 1
    read = grain.ReadOptions(num_threads=min(prefetch, 16), prefetch_buffer_size=prefetch)
    dataset = grain.MapDataset.source(_Steps(source, seed, batch_size, start_step, shard))
    return iter(dataset.to_iter_dataset(read))


def _shard_indices(source: Source, seed: int, step: int, batch_size: int, shard: tuple[int, int]) -> np.ndarray:
    index, count = shard
    require(0 <= index < count, f"shard = {shard}: must be (index, count) with 0 <= index < count")
    require(batch_size % count == 0, f"batch_size = {batch_size}: does not split over {count} hosts")
    share = batch_size // count
    return batch_indices(seed, step, batch_size, source.spec.size)[index * share : (index + 1) * share]


class _Steps:
    """The stream as grain sees it: random access to whole batches."""

    def __init__(self, source: Source, seed: int, batch_size: int, start_step: int, shard: tuple[int, int]) -> None:
        self._batch = functools.partial(batch_at, source, seed, batch_size=batch_size, shard=shard)
        self._start_step = start_step

    def __len__(self) -> int:
        return sys.maxsize - self._start_step

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return self._batch(step=self._start_step + int(index))
