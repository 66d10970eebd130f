"""How finely consistency models divide the path from noise to data as training goes on."""

import abc
import dataclasses
import math
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from genjax.citation import bibtex
from genjax.config import require
from genjax.processes import Process
from genjax.registry import register

SONG_2024 = bibtex(
    """
    @inproceedings{song2024improved,
      title = {Improved Techniques for Training Consistency Models},
      author = {Song, Yang and Dhariwal, Prafulla},
      booktitle = {International Conference on Learning Representations},
      year = {2024}
    }
    """
)
GENG_2025 = bibtex(
    """
    @inproceedings{geng2025consistency,
      title = {Consistency Models Made Easy},
      author = {Geng, Zhengyang and Pokle, Ashwini and Luo, Weijian and Lin, Justin and Kolter, J. Zico},
      booktitle = {International Conference on Learning Representations},
      year = {2025}
    }
    """
)


class Discretization(Protocol):
    """Which two times of a path are compared at a training step."""

    def __call__(self, t: Array, process: Process, step: Array) -> tuple[Array, Array]:
        """Returns times t [B], moved up to the grid where there is one, and the lower times s [B] of their pairs.

        Args:
            t: times [B] in [0, 1].
            process: whose times they are.
            step: the training step, int32 [].
        """
        ...

    def points(self, step: Array) -> Array:
        """Returns how many times the path has, its two ends counted, float32 []: N of the papers."""
        ...


class _Grid(abc.ABC):
    """Times at equal distances in t; of the process `edm` that is the papers' grid (Karras et al. 2022, eq. 5)."""

    skip = 1

    @abc.abstractmethod
    def points(self, step: Array) -> Array:
        """Returns how many times the grid has."""

    def __call__(self, t: Array, process: Process, step: Array) -> tuple[Array, Array]:
        """Returns the next time of the grid above each of t, and the one that is `skip` below that."""
        n = self.points(step) - 1.0
        upper = jnp.clip(jnp.ceil(t * n), 1.0, n)
        return upper / n, jnp.maximum(upper - self.skip, 0.0) / n


def _require_steps(steps: int) -> None:
    require(steps >= 1, f"steps = {steps}: must be at least 1")


def _require_ends(start: int, end: int) -> None:
    require(1 <= start <= end, f"start = {start}, end = {end}: must be 1 <= start <= end")


@register("discretization", "fixed", reference="song2023consistency")
@dataclasses.dataclass(frozen=True)
class Fixed(_Grid):
    """The same grid all along (Song et al. 2023, algorithm 2).

    Attributes:
        intervals: how many, one less than the paper's N, which is 18.
        skip: how many of them lie between two times that are compared (Luo et al. 2023, sec. 4.3: 20 of 1000). Times
            below so many are compared with the end of the path.
    """

    intervals: int = 17
    skip: int = 1

    def __post_init__(self) -> None:
        require(
            1 <= self.skip <= self.intervals,
            f"intervals = {self.intervals}, skip = {self.skip}: must be 1 <= skip <= intervals",
        )

    def points(self, step: Array) -> Array:
        """Returns `intervals` + 1."""
        return jnp.float32(self.intervals + 1)


@register("discretization", "square_root", reference="song2023consistency")
@dataclasses.dataclass(frozen=True)
class SquareRoot(_Grid):
    """Consistency training's: the square of the number of times rises evenly (Song et al. 2023, appendix C).

    N(k) = ceil(sqrt(k / K ((s1 + 1)^2 - s0^2) + s0^2) - 1) + 1.

    Attributes:
        steps: training steps until the end, K.
        start: how many times there are at first, s0.
        end: how many intervals in the end, s1.
    """

    steps: int
    start: int = 2
    end: int = 150

    def __post_init__(self) -> None:
        _require_steps(self.steps)
        require(2 <= self.start <= self.end, f"start = {self.start}, end = {self.end}: must be 2 <= start <= end")

    def points(self, step: Array) -> Array:
        """Returns N(k)."""
        share = jnp.minimum(step / self.steps, 1.0).astype(jnp.float32)
        return jnp.ceil(jnp.sqrt(share * ((self.end + 1) ** 2 - self.start**2) + self.start**2) - 1.0) + 1.0


@register("discretization", "doubling")
@dataclasses.dataclass(frozen=True)
class Doubling(_Grid):
    """Improved consistency training's: the number of intervals doubles (Song & Dhariwal 2024, eq. 10).

    N(k) = min(s0 2^floor(k / K'), s1) + 1 with K' = floor(K / (log2 floor(s1 / s0) + 1)).

    Attributes:
        steps: training steps until the end, K.
        start: how many intervals there are at first, s0.
        end: how many in the end, s1.
    """

    steps: int
    start: int = 10
    end: int = 1280
    reference: ClassVar[str] = SONG_2024

    def __post_init__(self) -> None:
        _require_steps(self.steps)
        _require_ends(self.start, self.end)

    def points(self, step: Array) -> Array:
        """Returns N(k)."""
        each = max(int(self.steps / (math.log2(self.end // self.start) + 1)), 1)
        most = math.ceil(math.log2(self.end / self.start))
        doublings = jnp.minimum(step // each, most).astype(jnp.int32)
        return jnp.minimum(jnp.int32(self.start) << doublings, self.end).astype(jnp.float32) + 1.0


@register("discretization", "ect")
@dataclasses.dataclass(frozen=True)
class ECT:
    """Easy consistency tuning's: a share of the noise in continuous time, less from stage to stage (Geng et al. 2025).

    Of the noise levels sigma / alpha, r = max(0, t (1 - n(t) / q^a)) with n(t) = 1 + k sigmoid(-b t), a = 1, 2, ...
    the stage (sec. 3.2, "mapping function"). A level below the lowest of the process is that one; in the first stages,
    where it is r = 0, the loss is that of a diffusion model.

    Attributes:
        steps_per_stage: training steps of a stage.
        stages: how many there are; the last one goes on for as long as the run.
        q: by how much a stage divides the distance.
        k, b: how much longer distances are at low noise, and up to which noise.
    """

    steps_per_stage: int
    stages: int = 8
    q: float = 2.0
    k: float = 8.0
    b: float = 1.0
    reference: ClassVar[str] = GENG_2025

    def __post_init__(self) -> None:
        for name in ("steps_per_stage", "stages"):
            require(getattr(self, name) >= 1, f"{name} = {getattr(self, name)}: must be at least 1")
        require(self.q > 1 and self.k >= 0, f"q = {self.q}, k = {self.k}: must be q > 1 and k >= 0")
        # Beyond that, r is t in float32.
        require(self.q**self.stages <= 1e5, f"q = {self.q}, stages = {self.stages}: q^stages must be at most 1e5")

    def _divisor(self, step: Array) -> Array:
        stage = jnp.minimum(step // self.steps_per_stage + 1, self.stages)
        return jnp.float32(self.q) ** stage.astype(jnp.float32)

    def __call__(self, t: Array, process: Process, step: Array) -> tuple[Array, Array]:
        """Returns t itself and r."""
        noise = jnp.exp(-0.5 * process.log_snr(t))
        share = jnp.maximum(1.0 - (1.0 + self.k * jax.nn.sigmoid(-self.b * noise)) / self._divisor(step), 0.0)
        # In logarithms, since the noise may be infinite where there is no signal, and the share may be zero.
        return t, process.time_of_log_snr(process.log_snr(t) - 2.0 * jnp.log(share))

    def points(self, step: Array) -> Array:
        """Returns q^a + 1: how many steps of the share at high noise it takes to there."""
        return self._divisor(step) + 1.0
