"""DPM-Solver's single-step methods against the papers' formulas, each other and exact integrals."""

import jax
import numpy as np
import pytest

from genjax import processes, solvers
from genjax.sampling import analysis
from tests.solvers.targets import MIXTURE, PROCESSES, START, geometric_times, order, path_error

TIMES = np.array([0.95, 0.7, 0.45, 0.2, 0.05])
each_process = pytest.mark.parametrize(
    "process", [*PROCESSES.values(), processes.CosineVP(), processes.DiscreteVP()], ids=lambda p: type(p).__name__
)


def same(a, b, process, times=TIMES):
    """Both solvers' next states at every step, for a denoiser that is not linear."""
    denoise, x = MIXTURE.denoiser(process), np.linspace(-2.0, 2.0, 5)[:, None]
    for t, s in zip(times[:-1], times[1:], strict=True):
        ends = [analysis.follow(solver, denoise, process, np.array([t, s]), x) for solver in (a, b)]
        np.testing.assert_allclose(*ends, rtol=1e-9, atol=1e-12)


@each_process
def test_first_order_is_ddim(process):
    same(solvers.DPMSolver1(), solvers.DDIM(), process)


@each_process
def test_dpm2_is_dpm_solver_2(process):
    same(solvers.DPM2(), solvers.DPMSolver2(r1=0.5), process)


def test_dpm2_is_the_midpoint_rule_at_the_geometric_mean():
    """k-diffusion's form in x / alpha and sigma / alpha, written out."""
    process = PROCESSES["rectified_flow"]
    denoise, x = MIXTURE.denoiser(process), START
    for t, s in zip(TIMES[:-1], TIMES[1:], strict=True):
        ratio_t, ratio_s = t / (1 - t), s / (1 - s)
        middle = np.sqrt(ratio_t * ratio_s)
        at_middle = middle / (1 + middle)
        y = x / (1 - t)
        slope_t = (y - denoise(x, t)) / ratio_t
        y_middle = y + slope_t * (middle - ratio_t)
        slope_middle = (y_middle - denoise(y_middle * (1 - at_middle), at_middle)) / middle
        expected = (y + slope_middle * (ratio_s - ratio_t)) * (1 - s)
        got = analysis.follow(solvers.DPM2(), denoise, process, np.array([t, s]), x)
        np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12)


def papers_dpm_solver_3(eps, process, t, s, x, r_1=1 / 3, r_2=2 / 3):
    """Lu et al. 2022a, algorithm 5, line for line."""
    lam = lambda u: 0.5 * process.log_snr(u)  # noqa: E731
    h = lam(s) - lam(t)
    t_1, t_2 = (process.time_of_log_snr(2 * (lam(t) + r * h)) for r in (r_1, r_2))
    (a, a_1, a_2, a_s), (_, b_1, b_2, b_s) = ([f(u) for u in (t, t_1, t_2, s)] for f in (process.alpha, process.sigma))
    e = eps(x, t)
    u_1 = a_1 / a * x - b_1 * (np.exp(r_1 * h) - 1) * e
    d_1 = eps(u_1, t_1) - e
    u_2 = a_2 / a * x - b_2 * (np.exp(r_2 * h) - 1) * e
    u_2 = u_2 - b_2 * r_2 / r_1 * ((np.exp(r_2 * h) - 1) / (r_2 * h) - 1) * d_1
    d_2 = eps(u_2, t_2) - e
    return a_s / a * x - b_s * (np.exp(h) - 1) * e - b_s / r_2 * ((np.exp(h) - 1) / h - 1) * d_2


def papers_dpmpp_2s(denoise, process, t, s, x, r):
    """Lu et al. 2022b, algorithm 1, line for line."""
    lam = lambda u: 0.5 * process.log_snr(u)  # noqa: E731
    h = lam(s) - lam(t)
    middle = process.time_of_log_snr(2 * (lam(t) + r * h))
    sigma_t, sigma_m, sigma_s = (process.sigma(u) for u in (t, middle, s))
    u = sigma_m / sigma_t * x - process.alpha(middle) * (np.exp(-r * h) - 1) * denoise(x, t)
    d = (1 - 1 / (2 * r)) * denoise(x, t) + 1 / (2 * r) * denoise(u, middle)
    return sigma_s / sigma_t * x - process.alpha(s) * (np.exp(-h) - 1) * d


@each_process
def test_formulas_of_the_papers(process):
    denoise, x = MIXTURE.denoiser(process), np.linspace(-2.0, 2.0, 5)[:, None]
    eps = lambda x, t: (x - process.alpha(t) * denoise(x, t)) / process.sigma(t)  # noqa: E731

    def step(solver, t, s):
        return analysis.follow(solver, denoise, process, np.array([t, s]), x)

    for t, s in zip(TIMES[:-1], TIMES[1:], strict=True):
        for r in ((1 / 3, 2 / 3), (0.2, 0.5)):
            expected = papers_dpm_solver_3(eps, process, t, s, x, *r)
            np.testing.assert_allclose(step(solvers.DPMSolver3(*r), t, s), expected, rtol=1e-8, atol=1e-10)
        for r in (0.5, 0.3):
            expected = papers_dpmpp_2s(denoise, process, t, s, x, r)
            np.testing.assert_allclose(step(solvers.DPMpp2S(r), t, s), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    "solver, degree, predict",
    [
        (solvers.DPMSolver2(0.3, "heun"), 1, "eps"),
        (solvers.DPMpp2S(0.7, "heun"), 1, "x0"),
        (solvers.DPMSolver3(0.2, 0.5, "heun"), 2, "eps"),
        (solvers.DPMpp3S(solver_type="heun"), 2, "x0"),
    ],
    ids=str,
)
def test_polynomials_in_lambda_are_integrated_exactly(solver, degree, predict):
    """For an output that depends on lambda alone, `heun` is exact to its degree, by quadrature of the exact solution.

    In x_s / sigma_s = x_t / sigma_t + int exp(lambda) D, or x_s / alpha_s = x_t / alpha_t - int exp(-lambda) eps.
    """
    process, t, s, x = processes.LinearVP(), 0.8, 0.4, np.array([[0.7]])
    lam = lambda u: 0.5 * process.log_snr(u)  # noqa: E731

    def denoise(x, u):
        value = lam(u) ** degree * np.ones_like(x)
        return value if predict == "x0" else (x - process.sigma(u) * value) / process.alpha(u)

    nodes, weights = np.polynomial.legendre.leggauss(30)
    at = 0.5 * (lam(s) + lam(t)) + 0.5 * (lam(s) - lam(t)) * nodes
    sign, scale = (1.0, process.sigma) if predict == "x0" else (-1.0, process.alpha)
    integral = 0.5 * (lam(s) - lam(t)) * np.sum(weights * np.exp(sign * at) * at**degree)
    expected = scale(s) * (x / scale(t) + sign * integral)
    got = analysis.follow(solver, denoise, process, np.array([t, s]), x)
    np.testing.assert_allclose(got, expected, rtol=1e-10)


# Measured outside this project; REFERENCE: largest error at 320 steps against RK4 with 20,000.
@pytest.mark.parametrize(
    "solver, expected",
    [(solvers.DPM2(), 1.365e-5), (solvers.DPMpp2S(), 4.28e-5), (solvers.DPMSolver3(), 1.00e-8)],
    ids=str,
)
@each_process
def test_published_error(solver, expected, process):
    assert path_error(solver, process, 320) == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize(
    "solver",
    [
        solvers.DPMSolver2(None, "heun"),
        solvers.DPMpp2S(None),
        solvers.DPMSolver3(None, None),
        solvers.DPMpp3S(None, None, "heun"),
        solvers.DPMSolver3(0.2, 0.5),
        solvers.DPMpp3S(0.2, 0.5, "heun"),
    ],
    ids=str,
)
def test_order_of_other_stages(solver):
    """With stages at given times a step takes several intervals; without a stage at 2/3 the third order is lost."""
    measured, errors = order(solver, PROCESSES["linear_vp"], steps=(90, 180, 360))
    assert abs(measured - solver.order) < 0.2, (measured, errors)
    assert solver.order == (2 if solver.nfe_per_step == 2 or getattr(solver, "r2", None) == 0.5 else 3)


@each_process
def test_stages_at_given_times_that_lie_at_the_fractions(process):
    """On a grid that is even in lambda the two ways to place the stages are one."""
    times = geometric_times(process, 6)
    denoise, x = MIXTURE.denoiser(process), process.alpha(times[0]) * START
    for given, placed, size in (
        (solvers.DPMSolver2(None), solvers.DPMSolver2(), 2),
        (solvers.DPMpp2S(None, "heun"), solvers.DPMpp2S(0.5, "heun"), 2),
        (solvers.DPMSolver3(None, None, "heun"), solvers.DPMSolver3(solver_type="heun"), 3),
    ):
        expected = analysis.follow(placed, denoise, process, times[::size], x)
        got = analysis.follow(given, denoise, process, times, x)
        np.testing.assert_allclose(got, expected, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("solver", [solvers.DPMpp2S(None), solvers.DPMSolver3(None, None)], ids=str)
def test_stages_at_given_times_from_pure_noise_to_no_noise(solver):
    """At the ends the intervals are taken one by one: the last result is the last estimate, as in diffusers."""
    process, seen = processes.RectifiedFlow(), []

    def denoise(x, t):
        seen.append(MIXTURE.denoiser(process)(x, t))
        return seen[-1]

    times = np.linspace(1.0, 0.0, 13)
    end = analysis.follow(solver, denoise, process, times, START)
    np.testing.assert_allclose(end, seen[-1], rtol=1e-12)
    assert len(seen) == 12
    with jax.enable_x64(True):
        slopes = jax.jacrev(lambda times: solver.plan(process, times))(jax.numpy.asarray(times))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slopes))


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="did you mean 'midpoint'"):
        solvers.DPMSolver2(solver_type="midpont")
    with pytest.raises(ValueError, match="between 0 and 1"):
        solvers.DPMpp2S(r=1.0)
    with pytest.raises(ValueError, match="must rise"):
        solvers.DPMSolver3(0.6, 0.3)
    with pytest.raises(ValueError, match="both"):
        solvers.DPMSolver3(None, 0.3)
    with pytest.raises(ValueError, match="4 intervals are no multiple of 3"):
        solvers.DPMSolver3(None, None).plan(PROCESSES["ve"], TIMES)
