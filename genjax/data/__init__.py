"""Data: sources of whole batches, the stream that is a pure function of (seed, step), and what runs on the device."""

from genjax.data.base import DataError, DataSpec, Source
from genjax.data.densities import Density
from genjax.data.folder import Folder
from genjax.data.tfds import TFDS

__all__ = ["TFDS", "DataError", "DataSpec", "Density", "Folder", "Source"]
