"""Precision and recall, density and coverage: what a distance cannot tell apart, by nearest neighbours of features.

Each set of features stands for the union of balls around its points, each as large as the distance to the k-th nearest
other point of the set. Distances are Euclidean, in float64, all of them, a block of rows at a time; a point on the rim
of a ball is within it, so that a set lies within its own balls even where features repeat.

All four depend on the sizes of both sets: they compare only at equal sizes.
"""

from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from genjax.citation import bibtex
from genjax.config import require
from genjax.evaluation.intervals import Estimate, Proportion, bootstrap, wilson

REFERENCES = (
    bibtex("""
    @inproceedings{kynkaanniemi2019improved,
      title     = {Improved Precision and Recall Metric for Assessing Generative Models},
      author    = {Kynk{\\"a}{\\"a}nniemi, Tuomas and Karras, Tero and Laine, Samuli and Lehtinen, Jaakko and
                   Aila, Timo},
      booktitle = {Advances in Neural Information Processing Systems},
      volume    = {32},
      year      = {2019}
    }"""),
    bibtex("""
    @inproceedings{naeem2020reliable,
      title     = {Reliable Fidelity and Diversity Metrics for Generative Models},
      author    = {Naeem, Muhammad Ferjad and Oh, Seong Joon and Uh, Youngjung and Choi, Yunjey and Yoo, Jaejun},
      booktitle = {International Conference on Machine Learning},
      year      = {2020}
    }"""),
)

_BLOCK = 2**24  # distances at a time, 128 MiB


class Neighbours(NamedTuple):
    """Fidelity and diversity of samples, each with a 95% interval.

    An interval says how far the figure would move if other points were asked; the balls are taken as they are. The
    shares have Wilson's, the density that of a bootstrap over the samples.

    Attributes:
        precision: share of the samples within a ball of a real image (Kynkaanniemi et al. 2019, eq. 2).
        recall: share of the real images within a ball of a sample (the same).
        density: in how many balls of real images a sample lies on average, over k; 1 is expected of real images, and
            more is possible (Naeem et al. 2020, eq. 4).
        coverage: share of the real images with a sample in their ball (Naeem et al. 2020, eq. 5).
    """

    precision: Proportion
    recall: Proportion
    density: Estimate
    coverage: Proportion


def neighbours(real: np.ndarray, samples: np.ndarray, k: int = 3, k_density: int = 5, seed: int = 0) -> Neighbours:
    """Returns precision and recall, density and coverage of samples.

    Args:
        real: features [N, D] of real images.
        samples: features [M, D] of the samples.
        k: neighbours of precision and recall; 3 in the paper.
        k_density: neighbours of density and coverage; 5 in the paper.
        seed: of the bootstrap.

    Raises:
        ValueError: shapes that do not fit, sets too small to have a k-th neighbour, or a value that is not finite.
    """
    real, samples = _checked(real, "real"), _checked(samples, "samples")
    require(real.shape[1] == samples.shape[1], f"features of {real.shape[1]} and {samples.shape[1]} dimensions")
    radii, wide = radii_of(real, (k, k_density))
    (own,) = radii_of(samples, (k,))
    precise, counts = np.zeros(len(samples), bool), np.zeros(len(samples))
    recalled, covered = np.zeros(len(real), bool), np.zeros(len(real), bool)
    for rows in _blocks(len(real), len(samples)):
        distances = cdist(real[rows], samples)
        precise |= (distances <= radii[rows, None]).any(0)
        recalled[rows] = (distances <= own[None]).any(1)
        within = distances <= wide[rows, None]
        counts += within.sum(0)
        covered[rows] = within.any(1)
    return Neighbours(
        precision=wilson(int(precise.sum()), len(samples)),
        recall=wilson(int(recalled.sum()), len(real)),
        density=bootstrap(counts / k_density, seed=seed),
        coverage=wilson(int(covered.sum()), len(real)),
    )


def radii_of(features: np.ndarray, ks: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Returns, for each k, the distances [N] of features [N, D] to their k-th nearest other point.

    Raises:
        ValueError: a k below 1, or no more points than k.
    """
    features = _checked(features, "features")
    require(min(ks) >= 1, f"k = {min(ks)}: must be at least 1")
    require(len(features) > max(ks), f"{len(features)} features have no {max(ks)}th nearest other one")
    radii = np.empty((len(ks), len(features)))
    for rows in _blocks(len(features), len(features)):
        # The point itself is among them, at distance 0, so the k-th other one has place k.
        radii[:, rows] = np.partition(cdist(features[rows], features), ks, axis=1)[:, ks].T
    return tuple(radii)


def _checked(features: np.ndarray, name: str) -> np.ndarray:
    features = np.asarray(features, np.float64)
    require(features.ndim == 2, f"{name}: features of shape {features.shape}; [N, D] is needed")
    require(bool(np.isfinite(features).all()), f"{name}: a value is not finite")
    return features


def _blocks(rows: int, columns: int) -> list[slice]:
    size = max(1, _BLOCK // columns)
    return [slice(start, start + size) for start in range(0, rows, size)]
