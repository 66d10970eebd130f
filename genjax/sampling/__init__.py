"""Time grids, the one scan, guidance, random keys."""

from genjax.sampling import guidance, times
from genjax.sampling.core import sample, solve
from genjax.sampling.keys import sample_keys

__all__ = ["guidance", "sample", "sample_keys", "solve", "times"]
