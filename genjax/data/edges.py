"""The data source `edges`: the images of another source as drawings of their edges."""

import dataclasses

import numpy as np

from genjax.config import component
from genjax.data.base import DataError, DataSpec, Source
from genjax.registry import register


@register("data", "edges")
@dataclasses.dataclass(frozen=True)
class Edges:
    """Another source with every image replaced by the size of its brightness gradient: bright lines on black.

    Attributes:
        source: uint8 images.
    """

    source: Source = component("data")

    @property
    def spec(self) -> DataSpec:
        """The description of the data.

        Raises:
            DataError: the source has no uint8 images, or they are missing or damaged.
        """
        spec = self.source.spec
        if spec.levels is None:
            raise DataError("edges: the source holds points, and only images have edges")
        return spec

    @property
    def flip(self) -> bool:
        """Whether training may mirror the images left to right."""
        return self.source.flip

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the edges and the labels of the indices; see `genjax.data.base.Source`."""
        batch = self.source.gather(indices)
        return {**batch, "image": gradient(batch["image"])}


def gradient(images: np.ndarray) -> np.ndarray:
    """Returns the length of Sobel's gradient, uint8 [B, H, W, C], of images uint8 [B, H, W, C].

    A straight edge from black to white along an axis is 255; what is more is clipped. Beyond its rim an image goes on
    as it ends.
    """
    x = np.pad(images.astype(np.int32), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    across = x[:, :, 2:] - x[:, :, :-2]
    down = x[:, 2:] - x[:, :-2]
    across = across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]
    down = down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]
    return np.minimum(np.rint(np.sqrt(across**2 + down**2) / 4), 255).astype(np.uint8)
