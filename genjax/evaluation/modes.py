"""Counting the modes of a mixture that samples have found."""

from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from genjax.citation import bibtex
from genjax.config import require
from genjax.evaluation.intervals import Proportion, wilson

REFERENCE = bibtex("""
    @inproceedings{srivastava2017veegan,
      title     = {{VEEGAN}: Reducing Mode Collapse in {GANs} using Implicit Variational Learning},
      author    = {Srivastava, Akash and Valkov, Lazar and Russell, Chris and Gutmann, Michael U. and Sutton, Charles},
      booktitle = {Advances in Neural Information Processing Systems},
      volume    = {30},
      year      = {2017}
    }""")


class Modes(NamedTuple):
    """What samples found of a mixture whose components have equal weights.

    Attributes:
        found: modes with enough samples near them.
        total: modes that there are.
        within: share of all samples within the radius of a mode, with its 95% interval. Of the mixture itself, in two
            dimensions and at 3 sigma, 98.9%.
        kl: Kullback-Leibler divergence, in nats, of the histogram of those samples over the modes from the uniform one:
            0 for equal numbers, log(total) for one mode alone; NaN where no sample is near a mode.
        tv: total variation distance of the two, from 0 to 1 - 1 / total; NaN as above.
        counts: those samples by mode, int64 [total].
    """

    found: int
    total: int
    within: Proportion
    kl: float
    tv: float
    counts: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, ready for JSON."""
        return self._asdict() | {"within": self.within._asdict(), "counts": self.counts.tolist()}


def count_modes(
    samples: np.ndarray, centres: np.ndarray, sigma: float, *, least: int = 1, radius: float = 3.0
) -> Modes:
    """Counts the modes that samples have found (Srivastava et al. 2017, section 5.1).

    A sample is near a mode when it lies within `radius` standard deviations of the nearest centre; a mode is found when
    at least `least` samples are near it. The papers take one sample for enough.

    Args:
        samples: [N, D].
        centres: of the components, [K, D].
        sigma: standard deviation of each component, in every direction.
        least: samples that make a mode found.
        radius: in standard deviations.

    Raises:
        ValueError: shapes that do not fit, no samples, or a number that is not positive.
    """
    samples, centres = np.asarray(samples, np.float64), np.asarray(centres, np.float64)
    require(
        samples.ndim == centres.ndim == 2 and samples.shape[1] == centres.shape[1] and samples.size * centres.size > 0,
        f"samples {samples.shape} and centres {centres.shape}: [N, D] and [K, D] are needed, with N and K at least 1",
    )
    require(
        sigma > 0 and radius > 0 and least >= 1, f"sigma = {sigma}, radius = {radius}, least = {least}: not positive"
    )
    distances = cdist(samples, centres)
    near = distances.min(1) <= radius * sigma  # never true of a sample that is not finite
    counts = np.bincount(distances.argmin(1)[near], minlength=len(centres))
    share = counts / counts.sum() if counts.any() else np.full(len(centres), np.nan)
    return Modes(
        found=int((counts >= least).sum()),
        total=len(centres),
        within=wilson(int(near.sum()), len(samples)),
        kl=float(np.sum(share * np.log(np.where(share == 0, 1.0, share * len(centres))))),
        tv=float(np.abs(share - 1 / len(centres)).sum() / 2),
        counts=counts,
    )
