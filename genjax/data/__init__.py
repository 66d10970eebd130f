"""Data: sources of whole batches, the stream that is a pure function of (seed, step), and what runs on the device."""

from genjax.data.base import DataError, DataSpec, Source
from genjax.data.densities import Density
from genjax.data.edges import Edges
from genjax.data.folder import Folder
from genjax.data.pairs import Pairs
from genjax.data.tfds import TFDS
from genjax.data.unpaired import Unpaired

__all__ = ["TFDS", "DataError", "DataSpec", "Density", "Edges", "Folder", "Pairs", "Source", "Unpaired"]
