"""Grids that were made for certain models or data: optimised noise levels, and shifts for the resolution."""

import numpy as np

from genjax.citation import bibtex
from genjax.config import nearest, require
from genjax.processes import Process
from genjax.processes.base import log
from genjax.processes.rectified_flow import flux_shift
from genjax.registry import register
from genjax.sampling.times.base import Grid, ends_of, from_log_snr
from genjax.sampling.times.spacings import trailing

SABOUR_2024 = bibtex(
    """
    @inproceedings{sabour2024align,
      title = {Align Your Steps: Optimizing Sampling Schedules in Diffusion Models},
      author = {Sabour, Amirmojtaba and Fidler, Sanja and Kreis, Karsten},
      booktitle = {International Conference on Machine Learning},
      year = {2024}
    }
    """
)
BLACK_FOREST_LABS_2024 = bibtex(
    """
    @misc{blackforestlabs2024flux,
      title = {FLUX},
      author = {{Black Forest Labs}},
      year = {2024},
      url = {https://github.com/black-forest-labs/flux}
    }
    """
)

# Sabour et al. 2024, table 3: sigma / alpha at the ends of ten steps.
_AYS_LEVELS = {
    "sd15": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "sdxl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
    "deepfloyd": (160.41, 8.081, 3.315, 1.885, 1.207, 0.785, 0.553, 0.293, 0.186, 0.030, 0.006),
    "svd": (700.00, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002),
}


@register("times", "ays", reference=SABOUR_2024)
def ays(process: Process, steps: int, *, model: str = "sd15") -> np.ndarray:
    """Align Your Steps: the noise levels optimised for published models (Sabour et al. 2024, table 3).

    Published for ten steps; for another number they are interpolated as the authors do, log(sigma / alpha) linearly in
    the step's index. They are the same noise levels on every process, whatever its t, but were optimised for one model.
    A process that ends within the first or the last published step, such as by the table's rounding, ends there.

    Args:
        process: the process.
        steps: number of steps.
        model: "sd15", "sdxl", "deepfloyd" (stage 1) or "svd" (Stable Video Diffusion).

    Returns:
        Times [steps + 1].

    Raises:
        ValueError: an argument is out of range, or the process lacks more of the noise levels.
    """
    require(steps >= 1, f"steps = {steps}: must be at least 1")
    require(model in _AYS_LEVELS, f"model = {model!r}{nearest(model, _AYS_LEVELS)}")
    levels = np.array(_AYS_LEVELS[model])
    log_snr = -2.0 * np.log(levels)
    ends = process.time_of_log_snr(log_snr[[0, -1]])  # clipped to the process
    log_snr[[0, -1]] = process.log_snr(ends)
    require(
        bool(np.all(np.diff(log_snr) > 0)),
        f"model = {model!r} has noise levels sigma / alpha from {levels[0]} to {levels[-1]}; "
        f"this process has them from {np.exp(-0.5 * log_snr[0]):.4g} to {np.exp(-0.5 * log_snr[-1]):.4g}",
    )
    index = np.linspace(0.0, len(levels) - 1.0, steps + 1)
    return from_log_snr(process, np.interp(index, np.arange(len(levels)), log_snr), ends)


@register("times", "kl_optimal", reference=SABOUR_2024)
def kl_optimal(
    process: Process, steps: int, *, data_std: float = 1.0, t_max: float = 1.0, t_min: float = 0.0
) -> np.ndarray:
    """Uniform in the angle arctan(sigma / (alpha data_std)): the best of DDIM for Gaussian data (Sabour et al. 2024).

    By their theorem 3.1 no other grid between these ends brings DDIM closer to the solution for data N(mean, data_std^2
    I). It is the same noise levels on every process, and finite where alpha or sigma is 0; on `cosine_vp` with data_std
    = 1 it is `uniform`.

    Args:
        process: the process.
        steps: number of steps.
        data_std: standard deviation of the data, c in the paper.
        t_max: first time.
        t_min: last time.

    Returns:
        Times [steps + 1].

    Raises:
        ValueError: an argument is out of range.
    """
    require(data_std > 0, f"data_std = {data_std}: must be positive")
    ends = np.array(ends_of(process, steps, t_max, t_min))
    first, last = np.arctan2(process.sigma(ends), data_std * process.alpha(ends))
    ratio = data_std * np.tan(np.linspace(first, last, steps + 1))
    return from_log_snr(process, -2.0 * log(ratio), ends)


def shifted(grid: Grid, shift: float) -> Grid:
    """Moves any grid towards noise, for higher resolutions (Esser et al. 2024, eq. 23).

    The equation is for the straight path, u -> shift u / (1 + (shift - 1) u), where u is the noise's share sigma /
    (alpha + sigma); it multiplies sigma / alpha by `shift` and keeps u = 0 and u = 1. Here it is applied to that share
    on every process, so wherever alpha and sigma reach 0 (`cosine_vp`) it does the same. On a process with finite ends
    it is applied to u as scaled from 0 to 1 between these, which keeps them. `RectifiedFlow(shift=...)` has the same
    noise levels on the grid that is not shifted: do one or the other.

    Args:
        grid: `(process, steps) -> times`, such as one of this module.
        shift: 3 in the paper at 1024 x 1024; 1 changes nothing, below 1 moves towards the data.

    Returns:
        The shifted grid.

    Raises:
        ValueError: `shift` is not positive.
    """
    require(shift > 0, f"shift = {shift}: must be positive")

    def shifted_grid(process: Process, steps: int) -> np.ndarray:
        times = np.array(grid(process, steps))
        inner = (times > 0.0) & (times < 1.0)  # the ends stay, without the inverse's rounding
        t = np.append(times[inner], [0.0, 1.0])
        alpha, sigma = process.alpha(t), process.sigma(t)
        share = sigma / (alpha + sigma)
        low, high = share[-2:]
        u = (share[:-2] - low) / (high - low)
        share = low + (high - low) * shift * u / (1.0 + (shift - 1.0) * u)
        times[inner] = process.time_of_log_snr(2.0 * (np.log1p(-share) - np.log(share)))
        return times

    return shifted_grid


@register("times", "flow_shift", reference="esser2024scaling")
def flow_shift(process: Process, steps: int, *, shift: float = 3.0) -> np.ndarray:
    """Uniform from t = 1 to t = 0, then shifted towards noise, as Stable Diffusion 3 (Esser et al. 2024, eq. 23).

    Args:
        process: the process; `shifted` says what it does where the path is not straight.
        steps: number of steps.
        shift: 3 in the paper at 1024 x 1024; 1 changes nothing.

    Returns:
        Times [steps + 1].

    Raises:
        ValueError: an argument is out of range.
    """
    return shifted(trailing, shift)(process, steps)


@register("times", "flux", reference=BLACK_FOREST_LABS_2024)
def flux(process: Process, steps: int, *, tokens: int = 4096) -> np.ndarray:
    """`flow_shift` whose shift grows with the image, as FLUX.1-dev: from e^0.5 at 256 tokens to e^1.15 at 4096.

    The logarithm of the shift is linear in the tokens, also beyond these two.

    Args:
        process: the process; `shifted` says what it does where the path is not straight.
        steps: number of steps.
        tokens: what the transformer attends to: (height / 16) (width / 16) pixels, 4096 at 1024 x 1024.

    Returns:
        Times [steps + 1].

    Raises:
        ValueError: an argument is out of range.
    """
    return shifted(trailing, flux_shift(tokens))(process, steps)
