"""Stochastic solvers: equal where mathematics says so, exact on one point, and the papers' algorithms by hand."""

import functools

import numpy as np
import pytest
from scipy import integrate

from genjax import config, processes, solvers
from genjax.sampling import analysis
from tests.solvers.targets import MIXTURE, PROCESSES, PUBLISHED, STEPS, order

TIMES = np.linspace(1.0, 0.0, 9) ** 1.5
EVERY = [processes.LinearVP(), processes.VE(), processes.RectifiedFlow(3.0), processes.CosineVP()]
each_process = pytest.mark.parametrize("process", EVERY, ids=lambda p: type(p).__name__)
VE = PROCESSES["ve"]


def normal(i):
    """The draws of row i, the same for every solver."""
    return lambda j, span: np.random.default_rng([i, j]).normal(size=(3, 1))


def run(solver, process, times, denoise=None, noise=normal):
    x = process.sigma(times[0]) * np.array([[-1.0], [0.2], [1.5]])
    return analysis.follow(solver, denoise or MIXTURE.denoiser(process), process, times, x, noise)


# By the names of what is said: two solvers that compute the same from the same draws, from t = 1 to 0.
EQUAL = {
    "euler_ancestral of eta 1 is ddpm": (solvers.EulerAncestral(), solvers.DDPM()),
    "euler_ancestral is ddim": (solvers.EulerAncestral(0.4), solvers.DDIM(0.4)),
    "dpm2_ancestral without noise is dpm2": (solvers.DPM2Ancestral(0.0), solvers.DPM2()),
    "dpmpp_2s_ancestral without noise is dpmpp_2s": (solvers.DPMpp2SAncestral(0.0), solvers.DPMpp2S()),
    "dpmpp_sde without noise is dpmpp_2s": (solvers.DPMppSDE(0.0), solvers.DPMpp2S()),
    "dpmpp_2m_sde without noise is dpmpp_2m": (solvers.DPMpp2MSDE(0.0), solvers.DPMpp2M()),
    "dpmpp_2m_sde of type heun without noise is dpmpp_2m's": (
        solvers.DPMpp2MSDE(0.0, startup="singlestep", solver_type="heun"),
        solvers.DPMpp2M("singlestep", "heun"),
    ),
    "dpmpp_3m_sde without noise is dpmpp_3m": (
        solvers.DPMpp3MSDE(0.0, startup="singlestep"),
        solvers.DPMpp3M(),
    ),
    "published dpmpp_3m_sde without noise is dpmpp_3m's": (
        solvers.DPMpp3MSDE(0.0, startup="singlestep", variant="published"),
        solvers.DPMpp3M("published"),
    ),
    "edm_churn without noise is heun": (solvers.EDMChurn(0.0), solvers.Heun()),
    "edm_churn where no level is churned is heun": (solvers.EDMChurn(s_tmin=1e3, s_tmax=1e4), solvers.Heun()),
    "restart without intervals is heun": (solvers.Restart(()), solvers.Heun()),
    "repaint once is ddpm": (solvers.RePaint(2, 1), solvers.DDPM()),
    "repaint with jumps longer than the way is ddim": (solvers.RePaint(20, 5, 0.0), solvers.DDIM()),
    "seeds of one stage is ddpm": (solvers.SEEDS(1), solvers.DDPM()),
    "seeds of two stages is dpmpp_sde": (solvers.SEEDS(2), solvers.DPMppSDE()),
    "sa of order 1 is ddpm": (solvers.SA(1, 0), solvers.DDPM()),
    "sa of order 2 is dpmpp_2m_sde": (solvers.SA(2, 0, 0.7), solvers.DPMpp2MSDE(0.49, solver_type="heun")),
    "sa of order 3 is dpmpp_3m_sde": (solvers.SA(3, 0, 1.2), solvers.DPMpp3MSDE(1.44)),
    "sa without noise is the exponential Adams method": (
        solvers.SA(3, 0, 0.0),
        solvers.RESMultistep(3, startup="lower_order"),
    ),
    "sa whose levels are never met has no noise": (solvers.SA(tau_low=1e6, tau_high=1e7), solvers.SA(tau=0.0)),
    "er_sde of order 1 on the ode is ddim": (solvers.ERSDE(1, "ode"), solvers.DDIM()),
    "er_sde of order 1 on the sde is ddpm": (solvers.ERSDE(1, "sde"), solvers.DDPM()),
    "er_sde of order 1 on u^1.5 is sa": (solvers.ERSDE(1, "sde_2"), solvers.SA(1, 0, np.sqrt(0.5))),
    "er_sde of order 1 on u^2.5 is sa": (solvers.ERSDE(1, "sde_3"), solvers.SA(1, 0, np.sqrt(1.5))),
    "published er_sde of order 2 is the corrected one": (solvers.ERSDE(2, variant="published"), solvers.ERSDE(2)),
}


@pytest.mark.parametrize("pair", EQUAL.values(), ids=EQUAL)
@each_process
def test_equal(pair, process):
    first, second = (run(solver, process, TIMES) for solver in pair)
    assert np.all(np.isfinite(first))
    np.testing.assert_allclose(first, second, rtol=1e-8, atol=1e-10)


# What is registered, and the choices that change what it computes; without those of a factor of the noise.
CHOICES = {
    "euler_ancestral, eta 0.5": solvers.EulerAncestral(0.5),
    "dpm2_ancestral": solvers.DPM2Ancestral(),
    "dpm2_ancestral, eta 0.5": solvers.DPM2Ancestral(0.5),
    "dpmpp_2s_ancestral": solvers.DPMpp2SAncestral(),
    "dpmpp_sde": solvers.DPMppSDE(),
    "dpmpp_sde, eta 0.5": solvers.DPMppSDE(0.5),
    "dpmpp_sde, r 1": solvers.DPMppSDE(r=1.0),
    "dpmpp_2m_sde": solvers.DPMpp2MSDE(),
    "dpmpp_2m_sde, heun, eta 0.5": solvers.DPMpp2MSDE(0.5, solver_type="heun"),
    "dpmpp_2m_sde, lower order final": solvers.DPMpp2MSDE(lower_order_final=True),
    "dpmpp_3m_sde": solvers.DPMpp3MSDE(),
    "dpmpp_3m_sde, published": solvers.DPMpp3MSDE(variant="published"),
    "dpmpp_3m_sde, diffusers": solvers.DPMpp3MSDE(variant="diffusers"),
    "dpmpp_3m_sde, singlestep": solvers.DPMpp3MSDE(startup="singlestep"),
    "seeds 1": solvers.SEEDS(1),
    "seeds 2": solvers.SEEDS(2),
    "seeds 3": solvers.SEEDS(3),
    "sa": solvers.SA(),
    "sa, published": solvers.SA(2, 2, variant="published"),
    "sa, no corrector": solvers.SA(2, 0),
    "sa, implicit Euler": solvers.SA(1, 1),
    "sa, between two levels": solvers.SA(3, 3, 1.0, 0.05, 1.0),
    "sa, lower order final": solvers.SA(3, 3, lower_order_final=True),
    "er_sde": solvers.ERSDE(),
    "er_sde 1": solvers.ERSDE(1),
    "er_sde 3, sde": solvers.ERSDE(3, "sde"),
    "er_sde 3, published": solvers.ERSDE(3, variant="published"),
    "edm_churn": solvers.EDMChurn(),
    "edm_churn, ddpm": solvers.EDMChurn(10.0, base=solvers.DDPM()),
    "restart": solvers.Restart(),
    "restart, two intervals": solvers.Restart(((0.06, 0.3, 2), (0.3, 2.0, 1))),
    "restart, inner steps": solvers.Restart(inner_steps=3),
    "repaint, ddim": solvers.RePaint(5, 3, 0.0),
}
# Without noise the order is that of the paths.
DETERMINISTIC = {
    "sa of predictor 2 and corrector 3, tau 0": solvers.SA(2, 3, 0.0),
    "sa, published, tau 0": solvers.SA(2, 2, 0.0, variant="published"),
    "er_sde 3, ode": solvers.ERSDE(3, "ode", "singlestep"),
    "er_sde 3, ode, published": solvers.ERSDE(3, "ode", variant="published"),
    "dpmpp_3m_sde, eta 0, singlestep": solvers.DPMpp3MSDE(0.0, startup="singlestep"),
    "dpmpp_3m_sde, eta 0": solvers.DPMpp3MSDE(0.0),
}


@pytest.mark.parametrize("solver", (CHOICES | DETERMINISTIC).values(), ids=CHOICES | DETERMINISTIC)
def test_order(solver):
    """On one process: `test_equal` and the registered solvers' test say that all are alike."""
    measured, errors = order(solver, PROCESSES["rectified_flow"], PUBLISHED, STEPS)
    assert abs(measured - solver.order) < 0.2, (measured, errors)


@pytest.mark.parametrize("solver", CHOICES.values(), ids=CHOICES)
@each_process
def test_data_of_one_point_are_exact(solver, process):
    """Then D is constant, and x_t ~ N(alpha c, sigma^2): every method has that at every time, however few its steps."""
    point = 0.7
    for times in (np.array([1.0, 0.6, 0.5, 0.2, 0.04]), np.array([0.8, 0.5, 0.3, 0.1, 0.01, 0.0])):
        first, last = times[0], times[-1]
        mean = process.alpha(first) * point
        start = analysis.Moments(np.array([mean]), process.sigma(times[:1]) ** 2)
        end = analysis.moments(solver, lambda x, t: point + 0.0 * x, process, times, start)
        np.testing.assert_allclose(end.mean, process.alpha(last) * point, rtol=1e-9)
        np.testing.assert_allclose(end.variance, process.sigma(last) ** 2, rtol=1e-8, atol=1e-15)


def increments(solver, process, times, output):
    """What every step after the first adds to its multiple of the state, without noise.

    `output` is a denoiser that knows the time alone; the multiples are those of a denoiser that returns 0.
    """

    def ends(denoise):
        silent = lambda i: lambda j, span: 0.0  # noqa: E731
        return np.array([run(solver, process, times[:i], denoise, silent)[0, 0] for i in range(2, len(times) + 1)])

    states, multiples = ends(output), ends(lambda x, t: 0.0 * x)
    return states[1:] - multiples[1:] / multiples[:-1] * states[:-1]


@pytest.mark.parametrize(
    "solver, degree",
    [
        (solvers.DPMpp2MSDE(0.7, solver_type="heun"), 1),
        (solvers.DPMpp3MSDE(0.7), 2),
        (solvers.SA(4, 0, np.sqrt(0.7)), 3),
    ],
    ids=str,
)
def test_polynomials_in_lambda_are_integrated_exactly(solver, degree):
    """The variation of constants, by quadrature, from the step on that has its history; uneven steps."""
    process, times = processes.LinearVP(), np.array([0.9, 0.7, 0.6, 0.45, 0.4, 0.3, 0.22])
    lam = 0.5 * process.log_snr(times)
    got = increments(solver, process, times, lambda x, t: (0.5 * process.log_snr(t)) ** degree + 0.0 * x)
    for i in range(degree + 1, len(times) - 1):
        kernel = lambda u, end=lam[i + 1]: 1.7 * np.exp(-1.7 * (end - u)) * u**degree  # noqa: E731
        exact = process.alpha(times[i + 1]) * integrate.quad(kernel, lam[i], lam[i + 1], epsabs=1e-13)[0]
        assert got[i - 1] == pytest.approx(exact, rel=1e-9)


def test_the_third_order_term_as_published_is_half():
    """REFERENCE's check, for the SDE: the corrected formula is exact on lambda^2; what the published lacks is half."""
    process, times = processes.LinearVP(), np.array([0.9, 0.7, 0.6, 0.45, 0.4])
    output = lambda x, t: (0.5 * process.log_snr(t)) ** 2 + 0.0 * x  # noqa: E731
    third, published = (
        increments(solvers.DPMpp3MSDE(variant=name), process, times, output) for name in ("corrected", "published")
    )
    lam = 0.5 * process.log_snr(times)
    # Of lambda^2 = (lambda_t + v h)^2 the term of phi_3 is the integral of v^2 h^2.
    for i in (2, 3):
        h = lam[i + 1] - lam[i]
        square = integrate.quad(lambda v, h=h: 2 * h * np.exp(-2 * h * (1 - v)) * v**2, 0, 1)[0]
        assert third[i - 1] - published[i - 1] == pytest.approx(
            0.5 * process.alpha(times[i + 1]) * square * h**2, rel=1e-8
        )


PHI = {
    "ode": (lambda u: u, lambda u: 1.0),
    "sde_1": (lambda u: u * (np.exp(-1 / u) + 10), lambda u: np.exp(-1 / u) * (1 + 1 / u) + 10),
    "sde_4": (
        lambda u: u**0.9 * np.log10(1 + 100 * u**1.5),
        lambda u: 0.9 * u**-0.1 * np.log10(1 + 100 * u**1.5) + u**0.9 * 150 * u**0.5 / (1 + 100 * u**1.5) / np.log(10),
    ),
    "sde_5": (lambda u: u * (np.exp(u**0.3) + 10), lambda u: np.exp(u**0.3) * (1 + 0.3 * u**0.3) + 10),
}


@pytest.mark.parametrize("name", PHI)
def test_er_sde_integrates_parabolas_in_the_noise_level_exactly(name):
    """x_s / alpha_s = phi_s / phi_t x_t / alpha_t + phi_s int phi' / phi^2 D du (Cui et al. 2025)."""
    phi, slope_of_phi = PHI[name]
    process, times = processes.RectifiedFlow(), np.array([0.97, 0.9, 0.7, 0.45, 0.3, 0.1])
    u = process.sigma(times) / process.alpha(times)
    output = lambda x, t: (process.sigma(t) / process.alpha(t)) ** 2 + 0.0 * x  # noqa: E731
    got = increments(solvers.ERSDE(3, name), process, times, output)
    for i in range(2, 5):
        value = integrate.quad(lambda v: slope_of_phi(v) / phi(v) ** 2 * v**2, u[i + 1], u[i], epsabs=1e-13)[0]
        assert got[i - 1] == pytest.approx(process.alpha(times[i + 1]) * phi(u[i + 1]) * value, rel=1e-9)


def test_er_sde_by_hand_on_the_ode():
    """phi = u and D = u: u_s int u du / u^2 = u_s log(u_t / u_s), from u = 2 to 1 with an output at 4 before."""
    times = VE.time_of_log_snr(-2 * np.log(np.array([4.0, 2.0, 1.0])))
    got = increments(solvers.ERSDE(2, "ode"), VE, times, lambda x, t: VE.sigma(t) + 0.0 * x)
    assert got[0] == pytest.approx(np.log(2.0), rel=1e-12)


@each_process
def test_churn_is_algorithm_2(process):
    """Karras et al. 2022, algorithm 2, written out in sigma / alpha and x / alpha."""
    churn, low, high, inflate = 3.0, 0.3, 8.0, 1.003
    times = process.time_of_log_snr(-2.0 * np.log(np.array([12.0, 7.0, 3.0, 1.0, 0.4, 0.2, 0.1])))
    levels = process.sigma(times) / process.alpha(times)
    denoise = MIXTURE.denoiser(VE)  # of sigma / alpha and x / alpha

    def d(x, level):
        return (x - denoise(x, VE.time_of_log_snr(-2.0 * np.log(level)))) / level

    x = start = 12.0 * np.array([[-1.0], [0.2], [1.5]])
    for i in range(6):
        gamma = min(churn / 6, np.sqrt(2) - 1) if low <= levels[i] <= high else 0.0
        hat = levels[i] * (1 + gamma)
        x_hat = x + np.sqrt(hat**2 - levels[i] ** 2) * inflate * normal(i)(0, None)
        slope_hat = d(x_hat, hat)
        x = x_hat + (levels[i + 1] - hat) * slope_hat
        x = x_hat + (levels[i + 1] - hat) * 0.5 * (slope_hat + d(x, levels[i + 1]))
    solver = solvers.EDMChurn(churn, low, high, inflate)
    got = analysis.follow(solver, MIXTURE.denoiser(process), process, times, process.alpha(times[0]) * start, normal)
    np.testing.assert_allclose(got / process.alpha(times[-1]), x, rtol=1e-7)


def test_bases_and_intervals_come_from_configs():
    spec = {"name": "edm_churn", "s_churn": 10.0, "base": {"name": "rk4"}}
    assert config.build("solver", spec) == solvers.EDMChurn(10.0, base=solvers.RK4())
    spec = {"name": "restart", "intervals": [[0.1, 0.5, 3]], "base": {"name": "ddim", "eta": 1.0}}
    assert config.build("solver", spec) == solvers.Restart(((0.1, 0.5, 3),), base=solvers.DDIM(1.0))


def rows(solver, times):
    """The noise levels from which every row solves, for a process whose signal keeps its size."""
    plan = solver.plan(VE, times)
    return VE.sigma(plan.stages[0].t)


def test_restart_goes_where_the_authors_go():
    """Xu et al. 2023: down to the grid's point nearest to the lower level, up to the upper, K times."""
    grid = np.array([20.0, 10.0, 5.0, 2.0, 1.0, 0.5, 0.2])
    times = VE.time_of_log_snr(-2.0 * np.log(grid))
    solver = solvers.Restart(((0.9, 6.0, 2), (9.0, 15.0, 1)))
    expected = [20, 15, 10, 5, 2, 6, 5, 2, 6, 5, 2, 1, 0.5]
    np.testing.assert_allclose(rows(solver, times), expected, rtol=1e-9)
    # EDM's grid of rho = 2 between 4 and 1, in two steps: ((2 + 1) / 2)^2.
    solver = solvers.Restart(((1.1, 4.0, 1),), inner_steps=2, rho=2.0)
    np.testing.assert_allclose(rows(solver, times), [20, 10, 5, 2, 4, 2.25, 1, 0.5], rtol=1e-9)
    # Intervals that lie wholly above or below the grid are left out.
    np.testing.assert_allclose(rows(solvers.Restart(((30.0, 40.0, 1), (0.01, 0.1, 1))), times), grid[:-1], rtol=1e-9)
    # One that ends without noise starts from there.
    process, times = processes.RectifiedFlow(), np.array([0.9, 0.5, 0.25, 0.0])
    plan = solvers.Restart(((0.0, 1.0 / 3.0, 2),)).plan(process, times)
    np.testing.assert_allclose(plan.stages[0].t, [0.9, 0.5, 0.25, 0.25, 0.25], rtol=1e-9)


def test_without_intervals_restart_is_its_base():
    """A method for the ODE, then: with rising times too, and without a draw."""
    times = np.array([0.1, 0.4, 0.8])
    for solver in (solvers.Restart(()), solvers.Restart(((0.06, 0.3, 0),))):
        plan, base = solver.plan(VE, times), solvers.Heun().plan(VE, times)
        assert not solver.stochastic and plan.spans == () and solver.order == 2
        np.testing.assert_array_equal(plan.result.terms["x"], base.result.terms["x"])


def test_repaint_goes_where_its_schedule_goes():
    """Lugmayr et al. 2022, appendix: of 6 steps with jumps of 2, taken twice, the times are

    5 4 3 2 | 3 4 | 3 2 1 0 | 1 2 | 1 0 -1, where | parts ways down and up. Ours count from the noise: 0 is their 5.
    """
    times = np.linspace(0.9, 0.0, 7)
    plan = solvers.RePaint(jump_length=2, resamples=2).plan(processes.LinearVP(), times)
    np.testing.assert_array_equal(plan.stages[0].t, times[[0, 1, 2, 1, 2, 3, 4, 3, 4, 5]])


def test_the_noise_of_stages_adds_up():
    """A stage's noise is part of the step's: cov(stage, step) is what a Brownian path has in the SDE's solution."""
    times = np.array([0.8, 0.3])
    process = processes.LinearVP()
    sigma_s, h = process.sigma(0.3), 0.5 * (process.log_snr(0.3) - process.log_snr(0.8))
    for solver in (solvers.SEEDS(3), solvers.SEEDS(2), solvers.DPMppSDE(r=0.3)):
        plan = solver.plan(process, times)
        draws = [f"z{j}" for j in range(len(plan.spans))]
        step = np.array([plan.result.terms[z][0] for z in draws])
        assert np.sum(step**2) == pytest.approx(sigma_s**2 * -np.expm1(-2 * h), rel=1e-12)
        for stage in plan.stages[1:]:
            noise = np.array([stage.at.terms[z][0] if z in stage.at.terms else 0.0 for z in draws])
            left = 0.5 * (process.log_snr(0.3) - process.log_snr(stage.t[0]))
            ratio = sigma_s / process.sigma(stage.t[0]) * np.exp(-left)
            # The stage's noise, carried on by the linear part, and noise that is independent of it.
            assert noise @ step == pytest.approx(ratio * noise @ noise, rel=1e-12)


@pytest.mark.parametrize(
    "build, message",
    [
        (functools.partial(solvers.EulerAncestral, 1.5), "eta"),
        (functools.partial(solvers.DPMppSDE, 1.5), "eta"),
        (functools.partial(solvers.DPMppSDE, r=0.0), "r = "),
        (functools.partial(solvers.DPMpp2MSDE, -1.0), "eta"),
        (functools.partial(solvers.DPMpp2MSDE, s_noise=-1.0), "s_noise"),
        (functools.partial(solvers.DPMpp2MSDE, solver_type="midpont"), "did you mean 'midpoint'"),
        (functools.partial(solvers.DPMpp3MSDE, variant="correct"), "did you mean 'corrected'"),
        (functools.partial(solvers.DPMpp3MSDE, startup="single"), "startup"),
        (functools.partial(solvers.SA, 5), "predictor_order"),
        (functools.partial(solvers.SA, 3, 5), "corrector_order"),
        (functools.partial(solvers.SA, 3, 2.0), "corrector_order"),
        (functools.partial(solvers.SA, tau=-1.0), "tau"),
        (functools.partial(solvers.SA, tau_low=2.0, tau_high=1.0), "tau_low"),
        (functools.partial(solvers.ERSDE, 4), "solver_order"),
        (functools.partial(solvers.ERSDE, scaling="sde5"), "did you mean 'sde_5'"),
        (functools.partial(solvers.SEEDS, 4), "stages"),
        (functools.partial(solvers.EDMChurn, -1.0), "s_churn"),
        (functools.partial(solvers.EDMChurn, s_tmin=2.0, s_tmax=1.0), "s_tmin"),
        (functools.partial(solvers.EDMChurn, base=solvers.DPMpp2M()), "single steps"),
        (functools.partial(solvers.EDMChurn, base=solvers.DPMpp2S(r=None)), "one given time to the next"),
        (functools.partial(solvers.Restart, base=solvers.RePaint()), "single steps"),
        (functools.partial(solvers.Restart, ((0.3, 0.6),)), r"\(lower, upper, repeats\)"),
        (functools.partial(solvers.Restart, ((0.3, 0.06, 2),)), "lower < upper"),
        (functools.partial(solvers.Restart, inner_steps=0), "inner_steps"),
        (functools.partial(solvers.RePaint, 0), "jump_length"),
        (functools.partial(solvers.RePaint, 1, 0), "resamples"),
        (functools.partial(solvers.RePaint, eta=2.0), "eta"),
    ],
)
def test_wrong_options_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_restart_needs_steps_where_it_restarts():
    times = VE.time_of_log_snr(-2.0 * np.log(np.array([20.0, 5.0, 0.5, 0.02])))
    with pytest.raises(ValueError, match="too few steps"):
        solvers.Restart(((1.0, 2.0, 1), (0.3, 0.4, 1))).plan(VE, times)
    with pytest.raises(ValueError, match="not one of the process"):
        solvers.Restart(((0.4, 100.0, 1),)).plan(VE, times)
