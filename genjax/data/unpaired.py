"""The data source `unpaired`: images of two sources side by side, of which none belong together."""

import dataclasses
import functools

import numpy as np

from genjax.config import component, require
from genjax.data.base import DataSpec, Source
from genjax.data.loader import permutation
from genjax.registry import register


@register("data", "unpaired")
@dataclasses.dataclass(frozen=True)
class Unpaired:
    """Two sources in one batch: the first's images as `image` and `label`, the second's as `image_b` and `label_b`.

    The size is that of the larger source; the smaller is gone through again. The second source is read in a random
    order of its own. Of two sources of equal length, example i of the one never meets example i of the other, so that
    those that do belong together give no pair away. What meets what is the same in every epoch.

    Attributes:
        first: the source that the description is of.
        second: the other source.
        seed: of the second source's order.
    """

    first: Source = component("data")
    second: Source = component("data")
    seed: int = 0

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**64, f"seed = {self.seed}: must lie in [0, 2^64)")
        require(
            self.first.flip == self.second.flip,
            f"first.flip = {self.first.flip}, second.flip = {self.second.flip}: must be the same; each image is "
            "mirrored by a draw of its own",
        )

    @functools.cached_property
    def spec(self) -> DataSpec:
        """The description of the first source, with both sources' size and that of the second as `second`.

        Raises:
            DataError: data are missing or damaged.
        """
        first, second = self.first.spec, self.second.spec
        both = first.in_memory and second.in_memory
        return dataclasses.replace(first, size=max(first.size, second.size), in_memory=both, second=second)

    @property
    def flip(self) -> bool:
        """Whether training may mirror the images left to right: those of both sources, each by a draw of its own."""
        return self.first.flip

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the entries of the first source by their names, and those of the second with `_b` behind theirs."""
        first = self.first.gather(indices % self.first.spec.size)
        second = self.second.gather(self._order[indices] % self.second.spec.size)
        return {**first, **{f"{name}_b": array for name, array in second.items()}}

    @functools.cached_property
    def _order(self) -> np.ndarray:
        """A random cycle through all indices, int64 [size]: no index stands at its own place (but for one alone)."""
        turn = permutation(self.seed, 0, self.spec.size)
        order = np.empty_like(turn)
        order[turn] = np.roll(turn, -1)
        return order
