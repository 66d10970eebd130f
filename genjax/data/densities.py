"""The data source `density`: points of 2-D densities whose log-density is known exactly.

Each density is a plain NumPy object too: `DENSITIES["ring"]().log_prob(points)`. Nearly all the mass lies in [-1, 1]^2.
Random numbers are the raw output of a counter-based generator, which NumPy promises to keep the same in every version.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Protocol

import numpy as np

from genjax.config import nearest, require
from genjax.data.base import DataSpec, batch_of
from genjax.registry import register

ON_A_CURVE = 256  # Gaussians along one curve: so close that the density has no visible beads at the width it comes with
_CHUNK = 1024


class Density2D(Protocol):
    """A distribution of points in the plane."""

    @property
    def num_classes(self) -> int | None:
        """Number of modes or arms that its points are labelled with, or None."""
        ...

    def draw(self, seed: int, n: int, stream: int = 0) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns points, float64 [n, 2], and their labels, int32 [n] or None; point i depends on all but n."""
        ...

    def sample(self, seed: int, n: int, stream: int = 0) -> np.ndarray:
        """Returns the points of `draw` alone."""
        ...

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """Returns the log-density in nats, float64 [N], at points [N, 2]."""
        ...

    def entropy(self) -> float:
        """Returns the differential entropy in nats, exact or by quadrature to about 1e-6."""
        ...


class _Sampled(abc.ABC):
    """What the densities share."""

    def draw(self, seed: int, n: int, stream: int = 0) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns points, float64 [n, 2], and their labels, int32 [n] or None.

        Args:
            seed: a number in [0, 2^64).
            n: number of points; the first ones do not depend on it.
            stream: a number in [0, 2^64); different streams are independent.
        """
        raw = np.random.Philox(key=np.array([seed, stream], np.uint64)).random_raw(4 * n).reshape(n, 4)
        return self._transform(((raw >> np.uint64(11)) + 0.5) * 2.0**-53)

    def sample(self, seed: int, n: int, stream: int = 0) -> np.ndarray:
        """Returns the points of `draw` alone."""
        return self.draw(seed, n, stream)[0]

    @abc.abstractmethod
    def _transform(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Turns uniform numbers of (0, 1), [n, 4], into points and labels."""


@dataclasses.dataclass(frozen=True, eq=False)
class Mixture(_Sampled):
    """Equal shares of isotropic Gaussians of one width.

    Attributes:
        centres: of the Gaussians, [M, 2].
        sigma: their standard deviation.
        labels: class of each Gaussian, int32 [M].
    """

    centres: np.ndarray
    sigma: float
    labels: np.ndarray

    def __post_init__(self) -> None:
        require(self.sigma > 0, f"sigma = {self.sigma}: must be positive")

    @property
    def num_classes(self) -> int:
        """Number of modes, or of curves."""
        return int(self.labels.max()) + 1

    def _transform(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        which = _choose(u[:, 0], len(self.centres))
        return self.centres[which] + self.sigma * _gaussian(u[:, 1:3]), self.labels[which]

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """Returns the log-density in nats, float64 [N], at points [N, 2]."""
        return _in_chunks(self._log_prob, x)

    def _log_prob(self, x: np.ndarray) -> np.ndarray:
        squares = np.sum(x**2, axis=-1)[:, None] - 2 * x @ self.centres.T + np.sum(self.centres**2, axis=-1)
        squares /= self.sigma**2
        return _log_mean_exp(-0.5 * squares) - np.log(2 * np.pi * self.sigma**2)

    def entropy(self) -> float:
        """Returns the differential entropy in nats, by quadrature."""
        return _entropy(self.log_prob, float(np.abs(self.centres).max()) + 8 * self.sigma, self.sigma / 2)


@dataclasses.dataclass(frozen=True)
class Checkerboard(_Sampled):
    """Uniform on the squares of one colour of a 4 x 4 board over [-1, 1]^2; the log-density elsewhere is -inf."""

    @property
    def num_classes(self) -> None:
        """There are no modes."""
        return None

    def _transform(self, u: np.ndarray) -> tuple[np.ndarray, None]:
        square = _choose(u[:, 0], 8)
        column, row = square // 2, 2 * (square % 2) + square // 2 % 2
        return (np.stack([column, row], axis=-1) + u[:, 1:3]) / 2 - 1, None

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """Returns the log-density in nats, float64 [N], at points [N, 2]."""
        squares = np.floor((np.asarray(x, np.float64) + 1) * 2)
        inside = np.all((squares >= 0) & (squares < 4), axis=-1) & (squares.sum(axis=-1) % 2 == 0)
        return np.where(inside, -np.log(2.0), -np.inf)

    def entropy(self) -> float:
        """Returns the differential entropy in nats: the log of the area."""
        return float(np.log(2.0))


@dataclasses.dataclass(frozen=True)
class Pinwheel(_Sampled):
    """Long Gaussians, like the blades of a wheel, each point turned by an angle that grows with its radius.

    The angle of z is rate * exp(|z| / radius). As a turn keeps the radius, it is undone exactly and its Jacobian's
    determinant is 1: the log-density is that of the Gaussians at the point turned back.

    Attributes:
        blades: number of Gaussians.
        radius: distance of their centres from the origin.
        length: standard deviation along the radius.
        width: standard deviation across it.
        rate: how fast the angle grows, in radians.
    """

    blades: int = 5
    radius: float = 0.5
    length: float = 0.15
    width: float = 0.05
    rate: float = 0.25

    @property
    def num_classes(self) -> int:
        """Number of blades."""
        return self.blades

    def _angle(self, z: np.ndarray) -> np.ndarray:
        return self.rate * np.exp(np.linalg.norm(z, axis=-1) / self.radius)

    def _transform(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        blade = _choose(u[:, 0], self.blades)
        z = _gaussian(u[:, 1:3]) * [self.length, self.width] + [self.radius, 0.0]
        return _turn(z, self._angle(z) + 2 * np.pi * blade / self.blades), blade

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """Returns the log-density in nats, float64 [N], at points [N, 2]."""
        return _in_chunks(self._log_prob, x)

    def _log_prob(self, x: np.ndarray) -> np.ndarray:
        back = self._angle(x)[:, None] + 2 * np.pi * np.arange(self.blades) / self.blades
        z = (_turn(x[:, None, :], -back) - [self.radius, 0.0]) / [self.length, self.width]
        return _log_mean_exp(-0.5 * np.sum(z**2, axis=-1)) - np.log(2 * np.pi * self.length * self.width)

    def entropy(self) -> float:
        """Returns the differential entropy in nats, by quadrature."""
        return _entropy(self.log_prob, self.radius + 8 * self.length, self.width / 8)


def ring(modes: int = 8, radius: float = 0.8, sigma: float = 0.008) -> Mixture:
    """Returns Gaussians on a circle; the width is 1% of the radius, as in Srivastava et al. 2017 (VEEGAN)."""
    angles = 2 * np.pi * np.arange(modes) / modes
    return Mixture(radius * _unit(angles), sigma, np.arange(modes, dtype=np.int32))


def grid(side: int = 5, spacing: float = 0.4, sigma: float = 0.02) -> Mixture:
    """Returns Gaussians on a square grid; the width is 5% of the spacing, as in Gulrajani et al. 2017 (WGAN-GP)."""
    line = spacing * (np.arange(side) - (side - 1) / 2)
    centres = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
    return Mixture(centres, sigma, np.arange(side**2, dtype=np.int32))


def moons(sigma: float = 0.06) -> Mixture:
    """Returns two interleaved half circles, placed as scikit-learn's `make_moons` and scaled by 0.6; blurred."""
    half = _unit(np.pi * (np.arange(ON_A_CURVE) + 0.5) / ON_A_CURVE)
    return _curves(0.6 * (half - [0.5, 0.25]), 0.6 * ([1.0, 0.5] - half - [0.5, 0.25]), sigma=sigma)


def spirals(sigma: float = 0.02) -> Mixture:
    """Returns two Archimedean spirals of one turn and a half, uniform in the squared angle; blurred."""
    fraction = np.sqrt((np.arange(ON_A_CURVE) + 0.5) / ON_A_CURVE)
    arm = 0.9 * fraction[:, None] * _unit(3 * np.pi * fraction)
    return _curves(arm, -arm, sigma=sigma)


DENSITIES: dict[str, Callable[..., Density2D]] = {
    "ring": ring,
    "grid": grid,
    "moons": moons,
    "spirals": spirals,
    "checkerboard": Checkerboard,
    "pinwheel": Pinwheel,
}
_BLURRED = ("ring", "grid", "moons", "spirals")


@register("data", "density")
@dataclasses.dataclass(frozen=True)
class Density:
    """Points of a 2-D density with a known log-density, as float32 images of one pixel and two channels.

    Attributes:
        density: "ring" (8 Gaussians), "grid" (5 x 5 Gaussians), "moons", "spirals", "checkerboard" or "pinwheel". The
            labels are the modes of ring and grid, and the arms of moons, spirals and pinwheel.
        size: number of points.
        split: "train" or "test", which are independent.
        seed: of the points.
        sigma: width of the Gaussians of ring and grid, or of the blur of moons and spirals; None is the density's own.
    """

    density: str = "ring"
    size: int = 100_000
    split: str = "train"
    seed: int = 0
    sigma: float | None = None

    def __post_init__(self) -> None:
        require(self.density in DENSITIES, f"density = {self.density!r}: unknown{nearest(self.density, DENSITIES)}")
        require(self.size >= 1, f"size = {self.size}: must be at least 1")
        require(self.split in ("train", "test"), f'split = {self.split!r}: must be "train" or "test"')
        require(0 <= self.seed < 2**64, f"seed = {self.seed}: must lie in [0, 2^64)")
        blurred = self.sigma is None or self.density in _BLURRED
        require(blurred, f"sigma: {self.density} has none; {', '.join(_BLURRED)} have")
        require(self.sigma is None or self.sigma > 0, f"sigma = {self.sigma}: must be positive")

    @functools.cached_property
    def truth(self) -> Density2D:
        """The distribution that the points are drawn from."""
        return DENSITIES[self.density](**({} if self.sigma is None else {"sigma": self.sigma}))

    @property
    def spec(self) -> DataSpec:
        """The description of the data."""
        return DataSpec((1, 1, 2), self.truth.num_classes, self.size, levels=None)

    @property
    def flip(self) -> bool:
        """Whether training may mirror the points: never."""
        return False

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns `{"image": float32 [B, 1, 1, 2], "label": int32 [B]}`; no label of the checkerboard."""
        points, labels = self._points
        return batch_of(points[indices], None if labels is None else labels[indices])

    @functools.cached_property
    def _points(self) -> tuple[np.ndarray, np.ndarray | None]:
        points, labels = self.truth.draw(self.seed, self.size, ("train", "test").index(self.split))
        return points.astype(np.float32)[:, None, None, :], labels


def _choose(u: np.ndarray, count: int) -> np.ndarray:
    return np.minimum(u * count, count - 1).astype(np.int32)


def _gaussian(u: np.ndarray) -> np.ndarray:
    """Returns two independent standard normal numbers a row, by Box and Muller 1958."""
    return np.sqrt(-2 * np.log(u[:, :1])) * _unit(2 * np.pi * u[:, 1])


def _unit(angles: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def _turn(z: np.ndarray, angles: np.ndarray) -> np.ndarray:
    cos, sin = np.cos(angles), np.sin(angles)
    return np.stack([cos * z[..., 0] - sin * z[..., 1], sin * z[..., 0] + cos * z[..., 1]], axis=-1)


def _curves(*curves: np.ndarray, sigma: float) -> Mixture:
    labels = np.repeat(np.arange(len(curves), dtype=np.int32), [len(curve) for curve in curves])
    return Mixture(np.concatenate(curves), sigma, labels)


def _log_mean_exp(x: np.ndarray) -> np.ndarray:
    top = x.max(axis=-1, keepdims=True)
    return np.log(np.mean(np.exp(x - top), axis=-1)) + top[..., 0]


def _in_chunks(log_prob: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
    """Bounds the memory: points times Gaussians may be many."""
    x = np.asarray(x, np.float64)
    return np.concatenate([log_prob(x[i : i + _CHUNK]) for i in range(0, max(len(x), 1), _CHUNK)])


def _entropy(log_prob: Callable[[np.ndarray], np.ndarray], limit: float, spacing: float) -> float:
    """Returns -integral p log p over [-limit, limit]^2 by the trapezoidal rule."""
    count = int(np.ceil(2 * limit / spacing)) + 1
    line = np.linspace(-limit, limit, count)
    step = line[1] - line[0]
    total = 0.0
    for rows in np.array_split(line, max(count // 16, 1)):
        logp = log_prob(np.stack(np.meshgrid(rows, line, indexing="ij"), axis=-1).reshape(-1, 2))
        total -= float(np.sum(np.exp(logp) * np.maximum(logp, -1e3)))
    return total * step**2
