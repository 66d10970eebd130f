"""What the solver tests share: exact denoisers, every registered solver, exact solutions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from genjax import analytic, processes, registry, sampling, solvers
from genjax.solvers.runge_kutta import COORDINATES, RungeKutta

MIXTURE = analytic.GaussianMixture(
    np.array([0.3, 0.5, 0.2]), np.array([[-1.0], [0.5], [1.5]]), np.array([0.3, 0.25, 0.4])
)
PROCESSES = {
    "linear_vp": processes.LinearVP(),
    "ve": processes.VE(0.01, 50.0),
    "rectified_flow": processes.RectifiedFlow(),
}
# Every registered solver as it comes, and the choices that change what it computes.
SOLVERS = {name: entry.build() for name, entry in registry.entries("solver").items()}
SOLVERS |= {"ddim, eta 1": solvers.DDIM(eta=1.0), "ddpm, large variance": solvers.DDPM(variance="large")}
SOLVERS |= {
    f"{name}, {coordinate}": registry.entries("solver")[name].build(coordinate=coordinate)
    for name, solver in SOLVERS.items()
    if isinstance(solver, RungeKutta) and solver.order > 1
    for coordinate in COORDINATES
    if coordinate != solver.coordinate
}
DETERMINISTIC = {name: solver for name, solver in SOLVERS.items() if not solver.stochastic}
STOCHASTIC = {name: solver for name, solver in SOLVERS.items() if solver.stochastic}

SIGMA_MAX, SIGMA_MIN = 10.0, 0.05
START = np.linspace(-8.0, 8.0, 9)[:, None]


def geometric_times(process, steps):
    """Times at which sigma / alpha is geometric from SIGMA_MAX to SIGMA_MIN."""
    return process.time_of_log_snr(-2.0 * np.log(np.geomspace(SIGMA_MAX, SIGMA_MIN, steps + 1)))


def error(solver, process, steps, exact):
    """The largest error at SIGMA_MIN, in x / alpha, of the paths that start at START. In float64."""
    times = geometric_times(process, steps)
    x = jnp.asarray(process.alpha(times[0]) * START)
    run = jax.jit(
        functools.partial(sampling.solve, jax.random.key(0), MIXTURE.denoiser(process), process, solver, times)
    )
    return float(jnp.abs(run(x) / process.alpha(times[-1]) - exact).max())


def exact_solution():
    """The paths' ends, by classical Runge-Kutta with 20,000 steps on dx/dsigma = (x - D(x, sigma)) / sigma, in NumPy.

    It shares no code with the solvers, nor with the exact denoiser.
    """
    w, m, s = MIXTURE.weights, MIXTURE.means[:, 0], MIXTURE.scales
    x = START.copy()

    def slope(log_sigma, x):
        sigma = np.exp(log_sigma)
        variance = s**2 + sigma**2
        p = w * np.exp(-0.5 * (x - m) ** 2 / variance) / np.sqrt(variance)
        mean = m + s**2 / variance * (x - m)
        return x - (p * mean).sum(1, keepdims=True) / p.sum(1, keepdims=True)

    grid = np.linspace(np.log(SIGMA_MAX), np.log(SIGMA_MIN), 20001)
    h = grid[1] - grid[0]
    for u in grid[:-1]:
        k1 = slope(u, x)
        k2 = slope(u + h / 2, x + h / 2 * k1)
        k3 = slope(u + h / 2, x + h / 2 * k2)
        k4 = slope(u + h, x + h * k3)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x
