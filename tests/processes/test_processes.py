"""Every process: edges, inverses, derivatives, and the published numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import processes, registry
from genjax.config import ConfigError, build
from genjax.sampling import times

PROCESSES = {name: entry.build() for name, entry in registry.entries("process").items()}
PROCESSES |= {
    "rectified_flow, shift 3": processes.RectifiedFlow(shift=3.0),
    "rectified_flow, sigma_min": processes.RectifiedFlow(shift=2.0, sigma_min=1e-2),
    "trigflow to the right angle": processes.TrigFlow(sigma_max=np.inf),
    "discrete_vp, scaled linear": processes.DiscreteVP("scaled_linear", beta_start=0.00085, beta_end=0.012),
    "discrete_vp, cosine": processes.DiscreteVP("cosine"),
    "discrete_vp, sigmoid": processes.DiscreteVP("sigmoid"),
    "discrete_vp, zero terminal SNR": processes.DiscreteVP(
        "scaled_linear", beta_start=0.00085, beta_end=0.012, zero_terminal_snr=True
    ),
}
each_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


@each_process
def test_edges_are_finite_in_float32(process):
    t = jnp.array([0.0, 1e-6, 1e-4, 0.5, 1.0 - 1e-4, 1.0 - 1e-6, 1.0], jnp.float32)
    for function in (process.alpha, process.sigma, process.d_alpha, process.d_sigma):
        values = jax.jit(function)(t)
        assert values.dtype == jnp.float32 and values.shape == t.shape
        assert np.all(np.isfinite(values)), function
    assert np.all(np.isfinite(process.log_snr(t)[1:-1]))
    assert np.all(process.alpha(t) >= 0) and np.all(process.sigma(t) >= 0)
    # A log-SNR that is infinite is so for a reason, and its time is the edge it belongs to.
    for edge in (0.0, 1.0):
        if not np.isfinite(process.log_snr(np.float64(edge))):
            assert process.alpha(np.float64(edge)) * process.sigma(np.float64(edge)) == 0.0
            assert process.time_of_log_snr(process.log_snr(np.float64(edge))) == edge


@each_process
def test_log_snr_is_that_of_alpha_and_sigma_and_falls(process):
    t = np.linspace(1e-3, 1 - 1e-3, 997)
    ratio = 2.0 * (np.log(process.alpha(t)) - np.log(process.sigma(t)))
    np.testing.assert_allclose(process.log_snr(t), ratio, rtol=1e-9, atol=1e-9)
    assert np.all(np.diff(process.log_snr(t)) < 0)


@each_process
@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-10), (np.float32, 2e-5)])
def test_time_of_log_snr_is_the_inverse(process, dtype, tolerance):
    xp = np if dtype is np.float64 else jnp
    t = xp.linspace(1e-3, 1 - 1e-3, 1001).astype(dtype)
    back = process.time_of_log_snr(process.log_snr(t))
    assert back.dtype == dtype
    np.testing.assert_allclose(back, t, rtol=0, atol=tolerance)
    beyond = process.time_of_log_snr(xp.array([-xp.inf, -500.0, 500.0, xp.inf], dtype))
    np.testing.assert_allclose(beyond, [1.0, 1.0, 0.0, 0.0], atol=1e-7)


@each_process
def test_derivatives_agree_with_differences(process):
    # Off the nodes of a discrete chain, where the slope jumps.
    t, h = np.array([0.01033, 0.1003, 0.5003, 0.9003, 0.98953, 0.99953]), 1e-6
    for function, derivative in ((process.alpha, process.d_alpha), (process.sigma, process.d_sigma)):
        difference = (function(t + h) - function(t - h)) / (2 * h)
        np.testing.assert_allclose(derivative(t), difference, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(jax.vmap(derivative)(jnp.asarray(t)), difference, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["linear_vp", "cosine_vp", "discrete_vp"])
def test_variance_is_preserved(name):
    t = np.linspace(0, 1, 101)
    process = PROCESSES[name]
    np.testing.assert_allclose(process.alpha(t) ** 2 + process.sigma(t) ** 2, 1.0, rtol=1e-12)


def test_trigflow_is_the_circle_with_the_paper_s_noise_levels():
    """Lu & Song 2025, sec. 3: variance sigma_data^2 at all times, noise level sigma_data tan(a), first step at 80."""
    process, t = PROCESSES["trigflow"], np.linspace(0, 1, 101)
    np.testing.assert_allclose(process.alpha(t) ** 2 + (process.sigma(t) / 0.5) ** 2, 1.0, rtol=1e-12)
    np.testing.assert_allclose(process.sigma(t[:-1]), 0.5 * np.sin(t[:-1] * np.arctan(80 / 0.5)), rtol=1e-12)
    assert process.sigma(np.float64(1)) / process.alpha(np.float64(1)) == pytest.approx(80.0, rel=1e-10)
    assert PROCESSES["trigflow to the right angle"].alpha(np.float64(1)) == 0.0


@each_process
def test_prior_has_the_last_sigma(process):
    x = process.prior(jax.random.key(1), (4000,))
    assert abs(float(x.std()) / float(process.sigma(np.float64(1.0))) - 1.0) < 4 / np.sqrt(2 * 4000)


def test_published_discrete_schedules():
    def at(process, index):
        return process.alpha(np.float64((index + 1) / 1000)) ** 2

    linear = processes.DiscreteVP()
    assert at(linear, 499) == pytest.approx(0.0785872, rel=1e-5)
    assert at(linear, 999) == pytest.approx(4.03583e-5, rel=1e-5)
    assert linear.sigma(np.float64(1)) / linear.alpha(np.float64(1)) == pytest.approx(157.40728, rel=1e-6)
    scaled = PROCESSES["discrete_vp, scaled linear"]
    assert at(scaled, 499) == pytest.approx(0.2776697, rel=1e-6)
    ratio = np.exp(-0.5 * scaled.log_snr(np.array([0.001, 1.0])))
    np.testing.assert_allclose(ratio, [0.0291672, 14.6146412], rtol=2e-6)
    rescaled = PROCESSES["discrete_vp, zero terminal SNR"]
    assert at(rescaled, 499) == pytest.approx(0.2423592, rel=1e-6)
    assert at(rescaled, 999) == 0.0
    assert at(PROCESSES["discrete_vp, cosine"], 499) == pytest.approx(0.4938436, rel=1e-6)


def test_discrete_chain_is_met_at_every_step():
    for name in ("discrete_vp", "discrete_vp, zero terminal SNR", "discrete_vp, cosine"):
        process = PROCESSES[name]
        alpha = process.alpha(np.arange(1, 1001) / 1000)
        np.testing.assert_allclose(alpha, np.sqrt(process.alpha_bar), rtol=1e-9, atol=1e-12)


def test_published_continuous_schedules():
    vp = processes.LinearVP(0.1, 20.0)
    assert vp.sigma(np.float64(1)) / vp.alpha(np.float64(1)) == pytest.approx(152.16697, rel=1e-7)
    assert processes.RectifiedFlow(shift=3.0).sigma(np.float64(0.5)) == pytest.approx(0.75)
    karras = [80, 17.527832, 2.515219, 0.1697528, 0.002]
    np.testing.assert_allclose(processes.EDM().sigma(np.linspace(1, 0, 5)), karras, rtol=1e-6)
    ve = processes.VE(0.002, 80.0)
    np.testing.assert_allclose(ve.sigma(times.karras(ve, 4)), karras, rtol=1e-6)


@pytest.mark.parametrize(
    "spec, words",
    [
        (dict(name="liner_vp"), "'linear_vp'"),
        (dict(name="linear_vp", beta_mn=0.1), "'beta_min'"),
        (dict(name="linear_vp", beta_min=-1.0), "beta_min = -1.0"),
        (dict(name="discrete_vp", schedule="linaer"), "'linear'"),
        (dict(name="ve", sigma_min=5.0, sigma_max=1.0), "sigma_min = 5.0"),
        (dict(name="rectified_flow", shift=0.0), "shift = 0.0"),
        (dict(name="rectified_flow", sigma_min=1.0), "sigma_min = 1.0"),
        (dict(name="trigflow", sigma_data=0.0), "sigma_data = 0.0"),
    ],
)
def test_mistakes_are_named(spec, words):
    with pytest.raises(ConfigError, match="^config.process") as error:
        build("process", spec, "config.process")
    assert words in str(error.value) and "\n" not in str(error.value)
