"""Time grids, the one scan, guidance."""

from genjax.sampling import guidance, times
from genjax.sampling.core import sample, solve

__all__ = ["guidance", "sample", "solve", "times"]
