"""Distances between sets of features, and the agreement of samples with their classes. NumPy in float64 throughout."""

import math
from typing import NamedTuple

import numpy as np
import scipy.stats

from genjax.citation import bibtex
from genjax.config import require

# What to cite beside a Frechet distance in the features of a network.
REFERENCES = (
    bibtex("""
    @article{dowson1982frechet,
      title   = {The {Fr\\'echet} distance between multivariate normal distributions},
      author  = {Dowson, D. C. and Landau, B. V.},
      journal = {Journal of Multivariate Analysis},
      volume  = {12},
      number  = {3},
      pages   = {450--455},
      year    = {1982}
    }"""),
    bibtex("""
    @inproceedings{heusel2017gans,
      title     = {{GANs} Trained by a Two Time-Scale Update Rule Converge to a Local {Nash} Equilibrium},
      author    = {Heusel, Martin and Ramsauer, Hubert and Unterthiner, Thomas and Nessler, Bernhard and
                   Hochreiter, Sepp},
      booktitle = {Advances in Neural Information Processing Systems},
      volume    = {30},
      year      = {2017}
    }"""),
)


class Floor(NamedTuple):
    """Distances of subsets of the training split to the test split: what real images get.

    Attributes:
        mean: over the subsets.
        std: standard deviation over the subsets; 0 for a single one.
        n: images in a subset.
        repeats: number of subsets.
    """

    mean: float
    std: float
    n: int
    repeats: int


class Proportion(NamedTuple):
    """A share with its confidence interval.

    Attributes:
        value: successes / n.
        low: lower end of the interval.
        high: upper end of the interval.
        n: number of trials.
        confidence: nominal coverage of the interval.
    """

    value: float
    low: float
    high: float
    n: int
    confidence: float


class Estimate(NamedTuple):
    """A figure with its confidence interval.

    Attributes:
        value: the estimate.
        low: lower end of the interval; NaN where it cannot be told.
        high: upper end of the interval; NaN as well.
        confidence: nominal coverage of the interval.
    """

    value: float
    low: float
    high: float
    confidence: float = 0.95


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean [D] and the unbiased covariance [D, D] of features [N, D], in float64.

    Raises:
        ValueError: fewer than two rows, or a value that is not finite.
    """
    features = np.asarray(features, np.float64)
    require(
        features.ndim == 2 and len(features) >= 2,
        f"features of shape {features.shape}: [N, D] with N of at least 2 is needed",
    )
    require(bool(np.isfinite(features).all()), "features: a value is not finite")
    mean = features.mean(0)
    centred = features - mean[None]
    return mean, centred.T @ centred / (len(features) - 1)


def frechet(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
    """Returns the squared Frechet (2-Wasserstein) distance of two Gaussians (Dowson and Landau 1982).

    `|m1 - m2|^2 + tr(C1) + tr(C2) - 2 tr((C1^1/2 C2 C1^1/2)^1/2)`. The last trace is the sum of the singular values of
    `C1^1/2 C2^1/2`: symmetric in the two, real, and exact for covariances without full rank, where a square root of the
    product C1 C2 is none of these.

    Args:
        mean1: [D].
        cov1: [D, D], symmetric and positive semi-definite.
        mean2: [D].
        cov2: [D, D], symmetric and positive semi-definite.

    Raises:
        ValueError: shapes that do not fit, a value that is not finite, or a covariance that is none.
    """
    mean1, cov1, mean2, cov2 = (np.asarray(x, np.float64) for x in (mean1, cov1, mean2, cov2))
    size = mean1.shape
    require(
        mean1.ndim == 1 and mean2.shape == size and cov1.shape == cov2.shape == size * 2,
        f"shapes {mean1.shape}, {cov1.shape}, {mean2.shape}, {cov2.shape}: [D], [D, D], [D], [D, D] are needed",
    )
    require(all(np.isfinite(x).all() for x in (mean1, cov1, mean2, cov2)), "moments: a value is not finite")
    overlap = np.linalg.svd(_root(cov1) @ _root(cov2), compute_uv=False).sum()
    gap = mean1 - mean2
    return max(0.0, float(gap @ gap + np.trace(cov1) + np.trace(cov2) - 2 * overlap))


def frechet_from_features(features1: np.ndarray, features2: np.ndarray) -> float:
    """Returns the Frechet distance of the Gaussians fitted to two sets of features [N, D] and [M, D].

    The estimate is too high by an amount that shrinks like 1/N + 1/M (it is positive even for two samples of one
    distribution), so distances compare only at equal N and M. `floor` gives the value that stands beside it.

    Raises:
        ValueError: a set of fewer than two rows, or a value that is not finite.
    """
    return frechet(*moments(features1), *moments(features2))


def floor(train: np.ndarray, test: np.ndarray, n: int, seed: int = 0, repeats: int = 10) -> Floor:
    """Returns the distance of n training images to the test split: the least that samples can be expected to reach.

    A distance of n generated images to the test split carries a bias from n and one from the size of the test split.
    The floor carries the same two, because it is taken between n training images, drawn without replacement, and the
    same whole test split. Several draws give its spread. At n near the size of the training split the draws are nearly
    the same images and the spread says nothing.

    Args:
        train: features [N, D] of the training split.
        test: features [M, D] of the test split.
        n: number of images in the distance that the floor stands beside.
        seed: of the draws.
        repeats: number of draws.

    Raises:
        ValueError: n is above the size of the training split or below 2, or no repeats.
    """
    train = np.asarray(train)
    require(2 <= n <= len(train), f"n = {n}: must be from 2 to {len(train)}, the size of the training split")
    require(repeats >= 1, f"repeats = {repeats}: must be at least 1")
    reference = moments(test)
    rng = np.random.default_rng(seed)
    draws = [rng.choice(len(train), n, replace=False) for _ in range(repeats)]
    values = [frechet(*moments(train[rows]), *reference) for rows in draws]
    return Floor(float(np.mean(values)), float(np.std(values, ddof=1)) if repeats > 1 else 0.0, n, repeats)


def wilson(successes: int, n: int) -> Proportion:
    """Returns a share with its 95% score interval without continuity correction (Wilson 1927; Newcombe 1998, method 3).

    Raises:
        ValueError: no trials, or more successes than trials.
    """
    require(n >= 1 and 0 <= successes <= n, f"{successes} successes in {n} trials")
    z = 1.959963984540054  # the 97.5% point of the normal distribution
    share = successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Proportion(share, max(0.0, centre - half), min(1.0, centre + half), n, 0.95)


def student(values: np.ndarray) -> Estimate:
    """Returns the mean of independent values [N] with its 95% interval by Student's t; one value has none."""
    values = np.asarray(values, np.float64)
    n = len(values)
    require(n >= 1, "values: there are none")
    half = scipy.stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / math.sqrt(n) if n > 1 else math.nan
    mean = float(values.mean())
    return Estimate(mean, float(mean - half), float(mean + half))


def bootstrap(values: np.ndarray, draws: int = 1000, seed: int = 0) -> Estimate:
    """Returns the mean of independent values [N] with the 95% interval of its percentile bootstrap (Efron 1979)."""
    values = np.asarray(values, np.float64)
    require(len(values) >= 1, "values: there are none")
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(draws)]
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(values.mean()), float(low), float(high))


def agreement(logits: np.ndarray, labels: np.ndarray) -> Proportion:
    """Returns the share of samples that the classifier gives the class they were asked for.

    Args:
        logits: [N, K] of the samples.
        labels: [N], the classes requested.

    Raises:
        ValueError: shapes that do not fit, no samples, or a logit that is not finite.
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    require(
        logits.ndim == 2 and labels.shape == logits.shape[:1],
        f"logits {logits.shape} and labels {labels.shape}: [N, K] and [N] are needed",
    )
    require(bool(np.isfinite(logits).all()), "logits: a value is not finite")
    return wilson(int((logits.argmax(1) == labels).sum()), len(labels))


def _root(covariance: np.ndarray) -> np.ndarray:
    """Returns the symmetric square root; eigenvalues within rounding of zero are zero.

    Without the cut, an eigenvalue of 1e-16 that should be 0 would enter as 1e-8.
    """
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    rounding = np.finfo(np.float64).eps * len(values) * np.abs(values).max(initial=0.0)
    require(values.min(initial=0.0) >= -1e3 * rounding, f"covariance: its eigenvalue {values.min():.3g} is negative")
    return (vectors * np.sqrt(np.where(values > rounding, values, 0.0))[None]) @ vectors.T
