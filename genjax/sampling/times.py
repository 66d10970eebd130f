"""Time grids: `grid(process, steps) -> times [steps + 1]`, float64, falling from noise to data.

Grids that are spaced in log-SNR need it finite at both ends. Where a process has an infinite end, they stop `EDGE`
short of it in t. Grids of published samplers that evaluate the network at `steps` times and then return its estimate of
x_0 end at t = 0; follow them with `final="none"` or `final="denoise"` alike.
"""

import numpy as np

from genjax.config import require
from genjax.processes import Process
from genjax.registry import register

EDGE = 1e-3


def _ends(process: Process, steps: int, t_max: float | None, t_min: float | None) -> tuple[float, float]:
    """The first and the last time: the ends of the process, or EDGE from those where log-SNR is infinite."""
    require(steps >= 1, f"steps = {steps}: must be at least 1")
    finite_start, finite_end = np.isfinite(process.log_snr(np.array([1.0, 0.0])))
    t_max = t_max if t_max is not None else 1.0 if finite_start else 1.0 - EDGE
    t_min = t_min if t_min is not None else 0.0 if finite_end else EDGE
    require(0.0 <= t_min < t_max <= 1.0, f"t_max = {t_max}, t_min = {t_min}: must be 0 <= t_min < t_max <= 1")
    return t_max, t_min


def _finite_ends(
    process: Process, steps: int, t_max: float | None, t_min: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """The ends, and their log-SNR, which must be finite."""
    ends = np.array(_ends(process, steps, t_max, t_min))
    log_snr = process.log_snr(ends)
    require(
        bool(np.all(np.isfinite(log_snr))),
        f"t_max = {ends[0]}, t_min = {ends[1]}: log-SNR is infinite there, keep away from that end",
    )
    return ends, log_snr


def _from_log_snr(process: Process, log_snr: np.ndarray, ends: np.ndarray) -> np.ndarray:
    times = process.time_of_log_snr(log_snr)
    times[0], times[-1] = ends  # without the inverse's rounding
    return times


@register("times", "uniform")
def uniform(process: Process, steps: int, *, t_max: float = 1.0, t_min: float | None = None) -> np.ndarray:
    """Uniform in t.

    Args:
        process: the process.
        steps: number of steps.
        t_max: first time.
        t_min: last time; by default 0 where the process has noise left there, else 0.001. Zero is allowed.

    Returns:
        Times [steps + 1].

    Raises:
        ValueError: `steps` or the ends are out of range.
    """
    return np.linspace(*_ends(process, steps, t_max, t_min), steps + 1)


@register("times", "log_snr", reference="lu2022dpmsolverpp")
def log_snr(process: Process, steps: int, *, t_max: float | None = None, t_min: float | None = None) -> np.ndarray:
    """Uniform in log-SNR.

    Args:
        process: the process.
        steps: number of steps.
        t_max: first time, by default 1, or 0.999 where log-SNR is infinite at 1.
        t_min: last time, by default 0, or 0.001 where log-SNR is infinite at 0.

    Returns:
        Times [steps + 1].

    Raises:
        ValueError: `steps` or the ends are out of range, or log-SNR is infinite at one of them.
    """
    ends, limits = _finite_ends(process, steps, t_max, t_min)
    return _from_log_snr(process, np.linspace(limits[0], limits[1], steps + 1), ends)


@register("times", "karras", reference="karras2022elucidating")
def karras(
    process: Process, steps: int, *, rho: float = 7.0, t_max: float | None = None, t_min: float | None = None
) -> np.ndarray:
    """Uniform in (sigma / alpha)^(1 / rho) (Karras et al. 2022, eq. 5).

    Args:
        process: the process.
        steps: number of steps.
        rho: 7 as published; larger puts more steps near the data.
        t_max: first time, by default 1, or 0.999 where log-SNR is infinite at 1.
        t_min: last time, by default 0, or 0.001 where log-SNR is infinite at 0.

    Returns:
        Times [steps + 1].

    Raises:
        ValueError: an argument is out of range, or log-SNR is infinite at an end.
    """
    require(rho > 0, f"rho = {rho}: must be positive")
    ends, limits = _finite_ends(process, steps, t_max, t_min)
    start, end = np.exp(-0.5 / rho * limits)
    ratio = np.linspace(start, end, steps + 1) ** rho
    return _from_log_snr(process, -2.0 * np.log(ratio), ends)


@register("times", "trailing", reference="lin2024common")
def trailing(process: Process, steps: int) -> np.ndarray:
    """Uniform from exactly t = 1 to exactly t = 0 (Lin et al. 2024, sec. 3.3).

    On a chain of T steps these are the indices round(T - i T / steps) - 1, without the rounding.

    Args:
        process: the process.
        steps: number of steps.

    Returns:
        Times [steps + 1].

    Raises:
        ValueError: `steps` is below 1.
    """
    return np.linspace(*_ends(process, steps, 1.0, 0.0), steps + 1)


@register("times", "leading", reference="song2021denoising")
def leading(process: Process, steps: int, *, timesteps: int | None = None, offset: int = 1) -> np.ndarray:
    """The indices i (T // steps) + offset of a chain of T steps, then t = 0 (Lin et al. 2024, table 2).

    It starts short of t = 1: of 1000 steps, ten are 901, 801, ..., 1.

    Args:
        process: the process.
        steps: number of steps.
        timesteps: T, by default that of the process where it has one, else 1000.
        offset: 1 as in latent diffusion, 0 as in DDIM.

    Returns:
        Times [steps + 1].

    Raises:
        ValueError: there are not `steps` indices in the chain.
    """
    timesteps = _chain(process, steps, timesteps)
    return _of_indices(np.arange(steps)[::-1] * (timesteps // steps) + offset, timesteps)


@register("times", "linspace", reference="nichol2021improved")
def linspace(process: Process, steps: int, *, timesteps: int | None = None) -> np.ndarray:
    """Evenly from the last index of a chain of T steps to its first, then t = 0 (Nichol & Dhariwal 2021, sec. 4).

    Args:
        process: the process.
        steps: number of steps.
        timesteps: T, by default that of the process where it has one, else 1000.

    Returns:
        Times [steps + 1].

    Raises:
        ValueError: there are not `steps` indices in the chain.
    """
    timesteps = _chain(process, steps, timesteps)
    return _of_indices(np.linspace(0, timesteps - 1, steps).round()[::-1], timesteps)


def _chain(process: Process, steps: int, timesteps: int | None) -> int:
    """The length of the chain that a grid indexes."""
    timesteps = getattr(process, "timesteps", 1000) if timesteps is None else timesteps
    require(1 <= steps <= timesteps, f"steps = {steps}: must be from 1 to timesteps = {timesteps}")
    return timesteps


def _of_indices(indices: np.ndarray, timesteps: int) -> np.ndarray:
    """Index i of a chain of T steps stands at t = (i + 1) / T."""
    require(
        bool(indices[0] < timesteps), f"index {int(indices[0])} is not one of the chain's {timesteps}: lower the offset"
    )
    return np.append((indices + 1.0) / timesteps, 0.0)
