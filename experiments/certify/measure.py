"""What a solver is measured on and how: exact denoisers, exact solutions, in NumPy.

The tests of the solvers use the same routines: `genjax.sampling.analysis` runs a solver's own plan and steps without
compiling anything.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from genjax import analytic, processes, registry, sampling, solvers
from genjax.processes import Process
from genjax.sampling import analysis, times
from genjax.solvers.runge_kutta import COORDINATES, RungeKutta

MIXTURE = analytic.GaussianMixture(
    np.array([0.3, 0.5, 0.2]), np.array([[-1.0], [0.5], [1.5]]), np.array([0.3, 0.25, 0.4])
)
GAUSSIAN = analytic.Gaussian(np.array([0.5]), np.array([[0.25]]))
PROCESSES: dict[str, Process] = {
    "linear_vp": processes.LinearVP(),
    "ve": processes.VE(0.002, 80.0),
    "rectified_flow": processes.RectifiedFlow(),
}
# Every registered solver as it comes.
REGISTERED: dict[str, Any] = {name: entry.build() for name, entry in registry.entries("solver").items()}
# Choices that change what is computed.
OPTIONS: dict[str, Any] = {
    "ddim, eta 1": solvers.DDIM(eta=1.0),
    "ddpm, large variance": solvers.DDPM(variance="large"),
    # Multistep methods.
    "dpmpp_2m, singlestep": solvers.DPMpp2M("singlestep"),
    "dpmpp_2m, heun, singlestep": solvers.DPMpp2M("singlestep", "heun"),
    "dpmpp_3m, published": solvers.DPMpp3M("published"),
    "res_multistep 3": solvers.RESMultistep(3),
    "res_multistep 4": solvers.RESMultistep(4),
    "deis 1": solvers.DEIS(1),
    "deis 2": solvers.DEIS(2),
    "deis 2, rho": solvers.DEIS(2, "rho"),
    "deis 4": solvers.DEIS(4),
    "deis, t": solvers.DEIS(basis="t"),
    "pndm, published": solvers.PNDM("published"),
    "ipndm, published, lower order": solvers.IPNDM(variant="published", startup="lower_order"),
    "unipc 1": solvers.UniPC(1),
    "unipc 1, bh1": solvers.UniPC(1, "bh1"),
    "unipc 2, bh1": solvers.UniPC(2, "bh1"),
    "unipc 3": solvers.UniPC(3),
    "unipc 3, bh1": solvers.UniPC(3, "bh1"),
    "unipc 2, eps": solvers.UniPC(prediction="eps"),
    "unip 3": solvers.UniPC(3, corrector=False),
    # Multistep methods that start as other libraries do.
    "deis, lower order": solvers.DEIS(startup="lower_order"),
    "dpmpp_3m, lower order": solvers.DPMpp3M(startup="lower_order"),
    "dpmpp_3m, published, lower order": solvers.DPMpp3M("published", "lower_order"),
    "ipndm, lower order": solvers.IPNDM(startup="lower_order"),
    "lms, lower order": solvers.LMS(startup="lower_order"),
    "pndm, lower order": solvers.PNDM(startup="lower_order"),
    "res_multistep 3, lower order": solvers.RESMultistep(3, "lower_order"),
    "unipc 2, lower order": solvers.UniPC(startup="lower_order"),
    "unipc 3, bh1, lower order": solvers.UniPC(3, "bh1", startup="lower_order"),
    # Single-step methods.
    "dpmpp_2s, heun": solvers.DPMpp2S(solver_type="heun"),
    "dpm_solver_3, heun": solvers.DPMSolver3(solver_type="heun"),
    # Stochastic methods.
    "dpmpp_3m_sde, singlestep": solvers.DPMpp3MSDE(startup="singlestep"),
    "er_sde 1": solvers.ERSDE(1),
    "er_sde 3": solvers.ERSDE(3),
    "seeds 1": solvers.SEEDS(1),
    "seeds 2": solvers.SEEDS(2),
    "sa, between two levels, no corrector": solvers.SA(3, 0, 1.0, 0.1, 2.0),
    "langevin, rate 0.3": solvers.Langevin(0.3),
    "predictor_corrector, heun, 2 corrections": solvers.PredictorCorrector(solvers.Heun(), 2),
    "tcd, gamma 0": solvers.TCD(gamma=0.0),
} | {
    f"{name}, {coordinate}": type(solver)(coordinate=coordinate)
    for name, solver in REGISTERED.items()
    if isinstance(solver, RungeKutta) and solver.order > 1
    for coordinate in COORDINATES
    if coordinate != solver.coordinate
}

BUDGETS = (5, 10, 20, 50, 100)  # denoiser evaluations
STEPS = (80, 160, 320)


class Levels(NamedTuple):
    """Between which noise levels sigma / alpha a solver is measured, and how far out its paths start."""

    high: float
    low: float
    reach: float

    @property
    def start(self) -> np.ndarray:
        """Where the paths start, in x / alpha, [9, 1]."""
        return np.linspace(-self.reach, self.reach, 9)[:, None]

    def times(self, process: Process, steps: int) -> np.ndarray:
        """Times [steps + 1] at which sigma / alpha is geometric."""
        return process.time_of_log_snr(-2.0 * np.log(np.geomspace(self.high, self.low, steps + 1)))


PUBLISHED = Levels(10.0, 0.05, 8.0)  # where errors were measured outside this project
# Orders show where the mixture's modes part, from the first step on. From a level of 10, where the denoiser is next to
# linear, the error of a start of lower order stays out of sight.
ORDERS = Levels(1.0, 0.05, 3.0)
# What remains of an error that does not vanish shows soonest over a short range that many steps fill.
REMAINS, MANY_STEPS = Levels(2.0, 1.0, 3.0), (320, 640, 1280)


def path_error(solver: Any, process: Process, steps: int, levels: Levels = PUBLISHED) -> float:
    """The largest error, in x / alpha, of paths of the mixture."""
    grid = levels.times(process, steps)
    x = analysis.follow(solver, MIXTURE.denoiser(process), process, grid, process.alpha(grid[0]) * levels.start)
    return float(np.abs(x / process.alpha(grid[-1]) - exact_paths(levels)).max())


def moment_error(solver: Any, process: Process, steps: int, levels: Levels = PUBLISHED) -> float:
    """The larger error of mean and, relatively, of variance on the Gaussian, exactly; its noised law is the start."""
    grid = levels.times(process, steps)
    alpha, sigma = process.alpha(grid), process.sigma(grid)
    mean, variance = GAUSSIAN.mean, np.diag(GAUSSIAN.covariance)
    start = analysis.Moments(alpha[0] * mean, alpha[0] ** 2 * variance + sigma[0] ** 2)
    end = analysis.moments(solver, GAUSSIAN.denoiser(process), process, grid, start)
    exact = alpha[-1] ** 2 * variance + sigma[-1] ** 2
    return float(max(np.abs(end.mean / alpha[-1] - mean).max(), np.abs(end.variance / exact - 1.0).max()))


def order(
    solver: Any, process: Process, levels: Levels | None = None, steps: Sequence[int] | None = None
) -> tuple[float, list[float]]:
    """The measured order, and the errors that it is fitted to.

    Deterministic solvers are measured along paths of the mixture, stochastic ones in the moments of the Gaussian.

    Args:
        solver: the solver.
        process: the process.
        levels: by default `ORDERS`, or `REMAINS` where the solver declares 0.
        steps: by default `STEPS`, or `MANY_STEPS` where it declares 0.
    """
    levels = levels or (ORDERS if solver.order else REMAINS)
    steps = steps or (STEPS if solver.order else MANY_STEPS)
    measure = moment_error if solver.stochastic else path_error
    errors = [measure(solver, process, n, levels) for n in steps]
    return float(-np.polyfit(np.log(steps), np.log(errors), 1)[0]), errors


@functools.cache
def exact_paths(levels: Levels = PUBLISHED) -> np.ndarray:
    """The paths' ends, by classical Runge-Kutta with 20,000 steps on dx/dsigma = (x - D(x, sigma)) / sigma.

    It shares no code with the solvers, nor with the exact denoiser.
    """
    w, m, s = MIXTURE.weights, MIXTURE.means[:, 0], MIXTURE.scales
    x = levels.start

    def slope(log_sigma: float, x: np.ndarray) -> np.ndarray:
        variance = s**2 + np.exp(2.0 * log_sigma)
        p = w * np.exp(-0.5 * (x - m) ** 2 / variance) / np.sqrt(variance)
        mean = m + s**2 / variance * (x - m)
        return x - (p * mean).sum(1, keepdims=True) / p.sum(1, keepdims=True)

    grid = np.linspace(np.log(levels.high), np.log(levels.low), 20001)
    h = grid[1] - grid[0]
    for u in grid[:-1]:
        k1 = slope(u, x)
        k2 = slope(u + h / 2, x + h / 2 * k1)
        k3 = slope(u + h / 2, x + h / 2 * k2)
        k4 = slope(u + h, x + h * k3)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


def sampling_times(process: Process, steps: int) -> np.ndarray:
    """The grid of EDM, sigma / alpha from 80 to 0.002 with rho = 7 (Karras et al. 2022, eq. 5)."""
    ends = process.time_of_log_snr(-2.0 * np.log(np.array([80.0, 0.002])))
    return times.karras(process, steps, t_max=float(ends[0]), t_min=float(ends[1]))


def longest(solver: Any, process: Process, budget: int) -> np.ndarray | None:
    """The longest grid that a solver follows with a number of evaluations, or None."""
    for steps in range(budget // max(solver.nfe_per_step, 1), 0, -1):
        try:
            grid = sampling_times(process, steps)
            if analysis.evaluations(solver, process, grid) <= budget:
                return grid
        except ValueError:  # too few steps for the method
            return None
    return None


def distance(solver: Any, process: Process, grid: np.ndarray, samples: int = 16384) -> float:
    """2-Wasserstein distance of what a solver makes of the noised mixture to the mixture at the last time.

    In one dimension it is that of the quantiles. A deterministic solver is given 512 quantiles of the start, and makes
    no error but its own; a stochastic one `samples`, whose own error is `distance_floor`.
    """
    n = samples if solver.stochastic else 512
    first, last = (_quantiles(process, t, n) for t in (grid[0], grid[-1]))
    draws = np.random.default_rng(0)
    x = analysis.follow(
        solver,
        MIXTURE.denoiser(process),
        process,
        grid,
        first,
        lambda i: lambda j, span: draws.standard_normal((n, 1)),
    )
    return float(np.sqrt(np.mean((np.sort(x, axis=0) - last) ** 2)) / process.alpha(grid[-1]))


def distance_floor(samples: int = 16384, repeats: int = 20) -> float:
    """The distance of that many independent samples of the mixture itself, the mean of several."""
    exact, rng = _quantiles(None, None, samples), np.random.default_rng(0)
    results = []
    for _ in range(repeats):
        k = rng.choice(3, samples, p=MIXTURE.weights)
        x = MIXTURE.means[k, 0] + MIXTURE.scales[k] * rng.standard_normal(samples)
        results.append(np.sqrt(np.mean((np.sort(x)[:, None] - exact) ** 2)))
    return float(np.mean(results))


def _quantiles(process: Process | None, t: Any, n: int) -> np.ndarray:
    alpha, sigma = (1.0, 0.0) if process is None else (process.alpha(t), process.sigma(t))
    levels = (np.arange(n) + 0.5) / n
    return analysis.mixture_quantiles(MIXTURE, levels, alpha, sigma)


def is_adaptive(solver: Any) -> bool:
    """Whether a solver chooses its own steps."""
    return solver.nfe_per_step == 0


def declared_order(solver: Any) -> int:
    """The declared order; 1 of an adaptive method, whose error is to be proportional to its tolerance."""
    return 1 if is_adaptive(solver) else solver.order


def adaptive(process: Process, budgets: Sequence[int]) -> tuple[float, list[float | None]]:
    """What `order` and `distance` measure, of an adaptive method.

    Returns:
        The power of the tolerance at which path errors fall; and for every budget the distance at the smallest of
        some tolerances whose mean number of evaluations it covers.
    """
    ends = PUBLISHED.times(process, 1)
    tolerances = (1e-8, 1e-10, 1e-12)
    results = [
        _adapt(process, tolerance, ends, process.alpha(ends[0]) * PUBLISHED.start)[0] for tolerance in tolerances
    ]
    errors = [np.abs(x / process.alpha(ends[-1]) - exact_paths()).max() for x in results]
    ends = sampling_times(process, 1)
    first, last = (_quantiles(process, t, 512) for t in ends)
    found: list[float | None] = [None] * len(budgets)
    for tolerance in (0.3, 0.03, 3e-3, 3e-4, 3e-5):
        x, count = _adapt(process, tolerance, ends, first)
        error = float(np.sqrt(np.mean((np.sort(x, axis=0) - last) ** 2)) / process.alpha(ends[-1]))
        found = [error if count <= budget else known for budget, known in zip(budgets, found, strict=True)]
    return float(np.polyfit(np.log(tolerances), np.log(errors), 1)[0]), found


def _adapt(process: Process, tolerance: float, ends: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, float]:
    """The result and the mean number of evaluations of a sample."""
    solver = solvers.Adaptive(rtol=tolerance, atol=tolerance)
    denoise = MIXTURE.denoiser(process)
    with jax.enable_x64(True):
        run = jax.jit(lambda x: sampling.solve(jax.random.key(0), denoise, process, solver, ends, x, carry=True))
        result, counts = run(jnp.asarray(x))
    return np.asarray(result), float(np.mean(counts.evaluations))


def certify(name: str) -> list[dict[str, Any]]:
    """Measures one solver on every process: a row a process."""
    solver = (REGISTERED | OPTIONS)[name]
    rows = []
    for process_name, process in PROCESSES.items():
        if is_adaptive(solver):
            found, errors = adaptive(process, BUDGETS)
        else:
            found, _ = order(solver, process)
            grids = [longest(solver, process, budget) for budget in BUDGETS]
            errors = [None if grid is None else distance(solver, process, grid) for grid in grids]
        rows.append(
            {
                "solver": name,
                "process": process_name,
                "stochastic": solver.stochastic,
                "declared": declared_order(solver),
                "measured": round(found, 3),
                "nfe_per_step": solver.nfe_per_step or "adaptive",
            }
            | {f"error_{budget}": error for budget, error in zip(BUDGETS, errors, strict=True)}
        )
    return rows
