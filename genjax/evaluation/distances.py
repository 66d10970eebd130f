"""Distances between sets of features, and the agreement of samples with their classes. NumPy in float64 throughout."""

import math
from typing import NamedTuple

import numpy as np
import scipy.special

from genjax.citation import bibtex
from genjax.config import require
from genjax.evaluation.intervals import NORMAL, Estimate, Proportion, student, wilson

# What to cite beside the figures of this file: the first two of them for a Frechet distance in features.
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
    bibtex("""
    @inproceedings{binkowski2018demystifying,
      title     = {Demystifying {MMD GANs}},
      author    = {Bi{\\'n}kowski, Miko{\\l}aj and Sutherland, Danica J. and Arbel, Michael and Gretton, Arthur},
      booktitle = {International Conference on Learning Representations},
      year      = {2018}
    }"""),
    bibtex("""
    @inproceedings{salimans2016improved,
      title     = {Improved Techniques for Training {GANs}},
      author    = {Salimans, Tim and Goodfellow, Ian and Zaremba, Wojciech and Cheung, Vicki and Radford, Alec and
                   Chen, Xi},
      booktitle = {Advances in Neural Information Processing Systems},
      volume    = {29},
      year      = {2016}
    }"""),
)


_KERNEL_BLOCKS = 10  # at least, for an interval
_KERNEL_BLOCK = 1000  # images in one, at most
_KERNEL_SHUFFLES = 10


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


def frechet_estimate(features: np.ndarray, reference: tuple[np.ndarray, np.ndarray]) -> Estimate:
    """Returns the Frechet distance of samples to a Gaussian, with its 95% interval.

    The interval says how far the distance would move with other samples of the same model, as many and against the same
    reference. It is asymptotic, from the influence of each sample on the distance (the infinitesimal jackknife, Efron
    1982), and says nothing of the reference's own images or of the bias: an estimate is too high by as much as `floor`
    shows.

    Args:
        features: of the samples [N, D].
        reference: mean [D] and covariance [D, D] of what they are compared with.

    Raises:
        ValueError: fewer than two samples, a shape that does not fit, or a value that is not finite.
    """
    features = np.asarray(features, np.float64)
    mean, covariance = moments(features)
    value = frechet(mean, covariance, *reference)
    root = _root(reference[1])
    _, overlaps, vt = np.linalg.svd(_root(covariance) @ root)
    rounding = 1e2 * np.finfo(np.float64).eps * len(overlaps) * overlaps.max(initial=0.0)
    inverse = np.divide(1.0, overlaps, out=np.zeros_like(overlaps), where=overlaps > rounding)
    # The map that carries the samples' Gaussian to the reference's is x -> transport (x - mean) + its mean. Derivatives
    # of the distance: 2 (mean - its mean) by the mean, identity - transport by the covariance.
    transport = (root @ vt.T * inverse[None]) @ vt @ root
    centred = features - mean[None]
    influence = centred @ (2 * (mean - reference[0])) + (centred**2 - centred * (centred @ transport)).sum(1)
    half = NORMAL * influence.std(ddof=1) / math.sqrt(len(features))
    return Estimate(value, float(max(0.0, value - half)), float(value + half))


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


def kernel_distance(features1: np.ndarray, features2: np.ndarray, seed: int = 0) -> Estimate:
    """Returns the squared maximum mean discrepancy by the kernel (x.y / D + 1)^3, with its 95% interval.

    The kernel and the unbiased estimator are those of Binkowski et al. 2018, section 4. Both sets are shuffled and cut
    into as many blocks, at least ten where they are large enough, and pairs of blocks are compared. So no image is used
    twice, and Student's interval over the blocks is of both sets: other samples and other reference images. Estimate
    and interval are means over ten shuffles, for one alone would move the estimate; the interval is a little too wide
    for that. The estimate is 0 on average for equal distributions at any size of the sets, and may be negative.

    Args:
        features1: [N, D].
        features2: [M, D].
        seed: of the shuffling.

    Raises:
        ValueError: shapes that do not fit, fewer than two rows, or a value that is not finite.
    """
    sets = [np.asarray(features, np.float64) for features in (features1, features2)]
    sizes = [len(features) for features in sets]
    require(
        all(features.ndim == 2 and features.shape[1] == sets[0].shape[1] for features in sets) and min(sizes) >= 2,
        f"features of shapes {sets[0].shape} and {sets[1].shape}: [N, D] and [M, D] are needed, N and M at least 2",
    )
    require(all(np.isfinite(features).all() for features in sets), "features: a value is not finite")
    count = min(max(_KERNEL_BLOCKS, -(-max(sizes) // _KERNEL_BLOCK)), min(sizes) // 2)
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(_KERNEL_SHUFFLES):
        parts = [np.array_split(features[rng.permutation(len(features))], count) for features in sets]
        found.append(student(np.array([_discrepancy(x, y) for x, y in zip(*parts, strict=True)])))
    value, low, high, *_ = np.mean(found, axis=0).tolist()
    return Estimate(value, low, high)


def class_score(logits: np.ndarray, splits: int = 10) -> Estimate:
    """Returns how sure a classifier is of each sample and how even its classes are, with a 95% interval.

    exp(mean KL(p(class | sample) || p(class))), the inception score's formula (Salimans et al. 2016, section 4) with
    another network's classes: 1 where all samples look alike to the classifier, and K for K classes in equal numbers
    without doubt. The mean over splits of the samples, with Student's interval; fewer than 50 samples a split make
    fewer splits.

    Args:
        logits: [N, K].
        splits: at most.

    Raises:
        ValueError: another shape, no samples, or a value that is not finite.
    """
    logits = np.asarray(logits, np.float64)
    require(logits.ndim == 2 and len(logits) >= 1, f"logits of shape {logits.shape}: [N, K] is needed")
    require(bool(np.isfinite(logits).all()), "logits: a value is not finite")
    scores = []
    for part in np.array_split(logits, min(splits, max(1, len(logits) // 50))):
        log_p = scipy.special.log_softmax(part, axis=1)
        p = np.exp(log_p)
        log_mean = scipy.special.logsumexp(log_p, axis=0) - math.log(len(part))
        scores.append(math.exp((p * (log_p - log_mean[None])).sum(1).mean()))
    return student(np.array(scores))


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


def _discrepancy(x: np.ndarray, y: np.ndarray) -> float:
    """Returns the unbiased estimate of MMD^2; a row is never compared with itself."""

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1) ** 3

    within = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (kernel(x, x), kernel(y, y))]
    return float(sum(within) - 2 * kernel(x, y).mean())


def _root(covariance: np.ndarray) -> np.ndarray:
    """Returns the symmetric square root; eigenvalues within rounding of zero are zero.

    Without the cut, an eigenvalue of 1e-16 that should be 0 would enter as 1e-8.
    """
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    rounding = np.finfo(np.float64).eps * len(values) * np.abs(values).max(initial=0.0)
    require(values.min(initial=0.0) >= -1e3 * rounding, f"covariance: its eigenvalue {values.min():.3g} is negative")
    return (vectors * np.sqrt(np.where(values > rounding, values, 0.0))[None]) @ vectors.T
