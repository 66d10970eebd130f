"""How training draws noise levels: `(keys, process) -> t [B]`, for each example from its own key."""

import dataclasses
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from genjax.config import component, require
from genjax.families.base import Keys
from genjax.families.weightings import SONG_2021_LIKELIHOOD, noise_rate
from genjax.processes import Process
from genjax.registry import register


class TimeSampler(Protocol):
    """A distribution of training times.

    The loss is a mean over it. One that is there for less variance alone has a method `correction(t, process) -> [B]`,
    which is the density of uniform times over its own; see `correction`.
    """

    def __call__(self, keys: Keys, process: Process) -> Array:
        """Returns times [B] in [0, 1]."""
        ...


def correction(time_sampler: TimeSampler, t: Array, process: Process) -> Array:
    """Returns the weights [B] that make a mean over drawn times the one that is meant: 1 for most samplers."""
    return time_sampler.correction(t, process) if hasattr(time_sampler, "correction") else jnp.ones_like(t)


@dataclasses.dataclass(frozen=True)
class _Interval:
    """Times between t_min and t_max. At t = 0 most processes have no noise to predict, so t_min is not quite 0."""

    t_min: float = 1e-5
    t_max: float = 1.0

    def __post_init__(self) -> None:
        require(
            0.0 <= self.t_min < self.t_max <= 1.0,
            f"t_min = {self.t_min}, t_max = {self.t_max}: must be 0 <= t_min < t_max <= 1",
        )

    def _scale(self, u: Array) -> Array:
        return self.t_min + (self.t_max - self.t_min) * u


@register("time_sampler", "uniform", reference="song2021scorebased")
@dataclasses.dataclass(frozen=True)
class UniformTimes(_Interval):
    """Independent and uniform in t."""

    def __call__(self, keys: Keys, process: Process) -> Array:
        """Returns times [B]."""
        return self._scale(jax.vmap(jax.random.uniform)(keys.each))


@register("time_sampler", "low_discrepancy")
@dataclasses.dataclass(frozen=True)
class LowDiscrepancy(_Interval):
    """Uniform in t, for a batch of B one time in each B-th of the interval (Kingma et al. 2021, appendix I.1)."""

    reference: ClassVar[str] = "kingma2021variational"

    def __call__(self, keys: Keys, process: Process) -> Array:
        """Returns times [B]."""
        return self._scale((jax.random.uniform(keys.shared) + keys.place) % 1.0)


@register("time_sampler", "log_normal", reference="karras2022elucidating")
@dataclasses.dataclass(frozen=True)
class LogNormal:
    """log(sigma / alpha) is normal (Karras et al. 2022, table 1), within the noise levels of the process.

    Attributes:
        mean: its mean.
        std: its standard deviation.
        truncated: whether what lies beyond the process is drawn again, as in Song & Dhariwal 2024, or moved to its end.
    """

    mean: float = -1.2
    std: float = 1.2
    truncated: bool = False

    def __post_init__(self) -> None:
        require(self.std > 0, f"std = {self.std}: must be positive")

    def __call__(self, keys: Keys, process: Process) -> Array:
        """Returns times [B]."""
        if self.truncated:
            low, high = (float(-0.5 * process.log_snr(np.float64(t)) - self.mean) / self.std for t in (0.0, 1.0))
            drawn = jax.vmap(lambda key: jax.random.truncated_normal(key, low, high))(keys.each)
        else:
            drawn = jax.vmap(jax.random.normal)(keys.each)
        return process.time_of_log_snr(-2.0 * (self.mean + self.std * drawn))


@register("time_sampler", "logit_normal")
@dataclasses.dataclass(frozen=True)
class LogitNormal:
    """logit(t) is normal: more of the middle of the path (Esser et al. 2024, eq. 19)."""

    mean: float = 0.0
    std: float = 1.0
    reference: ClassVar[str] = "esser2024scaling"

    def __post_init__(self) -> None:
        require(self.std > 0, f"std = {self.std}: must be positive")

    def __call__(self, keys: Keys, process: Process) -> Array:
        """Returns times [B]."""
        return jax.nn.sigmoid(self.mean + self.std * jax.vmap(jax.random.normal)(keys.each))


@register("time_sampler", "importance")
@dataclasses.dataclass(frozen=True)
class ImportanceTimes(_Interval):
    """The mean over uniform times, from times whose density goes as g(t)^2 / sigma(t)^2 (Song et al. 2021c).

    That is -d(log-SNR)/dt, so log-SNR is uniform, whatever the process. It is the density with the least variance for
    the weighting `likelihood` while the error of eps is about the same everywhere; the correction makes that weight a
    constant.
    """

    reference: ClassVar[str] = SONG_2021_LIKELIHOOD

    def _ends(self, process: Process) -> np.ndarray:
        ends = process.log_snr(np.array([self.t_min, self.t_max]))
        require(
            bool(np.all(np.isfinite(ends))),
            f"t_min = {self.t_min}, t_max = {self.t_max}: log-SNR is infinite there, keep away from that end",
        )
        return ends

    def __call__(self, keys: Keys, process: Process) -> Array:
        """Returns times [B]."""
        high, low = self._ends(process)
        return process.time_of_log_snr(high + (low - high) * jax.vmap(jax.random.uniform)(keys.each))

    def correction(self, t: Array, process: Process) -> Array:
        """Returns the density of uniform times over that of these [B]."""
        high, low = self._ends(process)
        return (high - low) / ((self.t_max - self.t_min) * noise_rate(t, process))


@register("time_sampler", "levels", reference="song2019generative")
@dataclasses.dataclass(frozen=True)
class Levels:
    """One of n times, from 0 to 1 in equal steps; of `ve`, geometric noise levels (Song & Ermon 2019, sec. 4.2)."""

    n: int = 10

    def __post_init__(self) -> None:
        require(self.n >= 2, f"n = {self.n}: must be at least 2")

    def __call__(self, keys: Keys, process: Process) -> Array:
        """Returns times [B]."""
        index = jax.vmap(lambda key: jax.random.randint(key, (), 0, self.n))(keys.each)
        return index / (self.n - 1.0)


@register("time_sampler", "fixed")
@dataclasses.dataclass(frozen=True)
class FixedTime:
    """Always the same time: one noise level, or none where the process has no noise at t."""

    t: float = 0.0

    def __post_init__(self) -> None:
        require(0.0 <= self.t <= 1.0, f"t = {self.t}: must be in [0, 1]")

    def __call__(self, keys: Keys, process: Process) -> Array:
        """Returns times [B]."""
        return jnp.full(keys.each.shape, self.t, jnp.float32)


@register("time_sampler", "mode")
@dataclasses.dataclass(frozen=True)
class Mode:
    """More, or less, of the middle, and the ends as often as need be (Esser et al. 2024, eq. 20).

    t = 1 - u - scale (cos^2(pi u / 2) - 1 + u) for uniform u.

    Attributes:
        scale: in [-1, 2 / (pi - 2)]; 0 is uniform, positive prefers the middle. 1.29 in the paper's best.
    """

    scale: float = 1.29
    reference: ClassVar[str] = "esser2024scaling"

    def __post_init__(self) -> None:
        most = 2.0 / (np.pi - 2.0)
        require(-1.0 <= self.scale <= most, f"scale = {self.scale}: must be in [-1, {most:.4f}]")

    def __call__(self, keys: Keys, process: Process) -> Array:
        """Returns times [B]."""
        u = jax.vmap(jax.random.uniform)(keys.each)
        return jnp.clip(1.0 - u - self.scale * (jnp.cos(0.5 * np.pi * u) ** 2 - 1.0 + u), 0.0, 1.0)


@register("time_sampler", "cosmap")
@dataclasses.dataclass(frozen=True)
class CosMap:
    """On the straight path, the noise levels of the cosine schedule with uniform times (Esser et al. 2024, eq. 21)."""

    reference: ClassVar[str] = "esser2024scaling"

    def __call__(self, keys: Keys, process: Process) -> Array:
        """Returns times [B]."""
        angle = 0.5 * np.pi * jax.vmap(jax.random.uniform)(keys.each)
        return jnp.sin(angle) / (jnp.sin(angle) + jnp.cos(angle))


@register("time_sampler", "shifted")
@dataclasses.dataclass(frozen=True)
class Shifted:
    """Other times moved towards noise, for high resolutions: shift t / (1 + (shift - 1) t) (Esser et al. 2024, eq. 23).

    It moves the times alone, as the paper does; the process `rectified_flow(shift=...)` counts time anew, so that its
    velocity is another. To generate, take the grid `flow_shift` with the same shift.

    Attributes:
        times: the times that are moved.
        shift: 3 in the paper at 1024 x 1024; 1 changes nothing. See `processes.resolution_shift` and `flux_shift`.
    """

    times: TimeSampler = component("time_sampler", LogitNormal())
    shift: float = 3.0
    reference: ClassVar[str] = "esser2024scaling"

    def __post_init__(self) -> None:
        require(self.shift > 0, f"shift = {self.shift}: must be positive")

    def __call__(self, keys: Keys, process: Process) -> Array:
        """Returns times [B]."""
        t = self.times(keys, process)
        return self.shift * t / (1.0 + (self.shift - 1.0) * t)
