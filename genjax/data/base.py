"""What a data source is: a description, and random access to whole batches of uint8 images or float32 points."""

import concurrent.futures
import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from genjax.config import ConfigError

MEMORY_LIMIT = 2 * 2**30  # bytes of decoded images that a source keeps in memory unless its config says otherwise
_CHUNK = 256


class DataError(ConfigError):
    """The data that a config names are missing, damaged or not what it says: one line with what, where and the cure."""


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """What may be known of the data before any are read.

    Attributes:
        image_shape: (height, width, channels).
        num_classes: number of labels, or None for unlabelled data.
        size: number of images.
        class_names: one name a class, or None where the classes have none.
        in_memory: whether the decoded images are in memory, so that gathering a batch is no more than a copy.
        levels: how many values a pixel can have, 256 in uint8 images; None for float32 data, which stay as they are.
        second: the description of `image_b`, where a batch has images of two sources; else None.
    """

    image_shape: tuple[int, int, int]
    num_classes: int | None
    size: int
    class_names: tuple[str, ...] | None = None
    in_memory: bool = True
    levels: int | None = 256
    second: "DataSpec | None" = None


class Source(Protocol):
    """A data set with random access to whole batches. Building one reads nothing; its first use does."""

    @property
    def spec(self) -> DataSpec:
        """The description of the data."""
        ...

    @property
    def flip(self) -> bool:
        """Whether training may mirror the images left to right."""
        ...

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns `{"image": uint8 [B, H, W, C], "label": int32 [B]}` for indices [B]; no label if unlabelled.

        Data without levels are float32 [B, H, W, C].
        """
        ...


@dataclasses.dataclass(frozen=True)
class Opened:
    """Opened data: the description, and the function that gathers a batch."""

    spec: DataSpec
    gather: Callable[[np.ndarray], dict[str, np.ndarray]]


def in_memory(images: np.ndarray, labels: np.ndarray | None) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Returns the gathering function of decoded images, uint8 [N, H, W, C], and labels, int32 [N] or None."""

    def gather(indices: np.ndarray) -> dict[str, np.ndarray]:
        return batch_of(np.take(images, indices, axis=0), None if labels is None else labels[indices])

    return gather


def batch_of(images: np.ndarray, labels: np.ndarray | None) -> dict[str, np.ndarray]:
    """Returns a batch; unlabelled data have no key `label`."""
    return {"image": images} if labels is None else {"image": images, "label": labels}


def read_all(
    size: int,
    shape: tuple[int, int, int],
    read_chunk: Callable[[range], Iterator[tuple[int, np.ndarray | None]]],
    keep: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Reads every image once, in parallel threads.

    Args:
        size: number of images.
        shape: (height, width, channels) of each.
        read_chunk: yields (i, image i) for the i of a range, with None for an image to leave out.
        keep: False to check the images without keeping them.

    Returns:
        The images that were read, uint8 [kept, H, W, C] (none unless `keep`), and their indices, int64 [kept].
    """
    images = np.empty((size if keep else 0, *shape), np.uint8)
    good = np.zeros(size, bool)

    def work(chunk: range) -> None:
        for i, image in read_chunk(chunk):
            if image is not None:
                good[i] = True
                if keep:
                    images[i] = image

    chunks = [range(i, min(i + _CHUNK, size)) for i in range(0, size, _CHUNK)]
    # Pillow releases the interpreter lock while it decodes.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        futures = [pool.submit(work, chunk) for chunk in chunks]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    kept = np.flatnonzero(good)
    return images[kept] if keep and len(kept) < size else images, kept


def fits(size: int, shape: tuple[int, int, int], memory_limit: int) -> bool:
    """Whether `size` decoded images of a shape stay within the limit, in bytes."""
    return size * int(np.prod(shape, dtype=np.int64)) <= memory_limit
