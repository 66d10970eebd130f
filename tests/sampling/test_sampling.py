"""The scan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import processes, sampling, solvers
from genjax.config import ConfigError, build
from tests.solvers.targets import MIXTURE, PROCESSES

VP = PROCESSES["linear_vp"]
KEY = jax.random.key(0)
X = jnp.linspace(-1.0, 1.0, 4)[:, None]


def test_final_denoise_is_one_more_evaluation():
    denoise, times = MIXTURE.denoiser(VP), np.array([0.9, 0.5, 0.1])
    plain = sampling.solve(KEY, denoise, VP, solvers.DDIM(), times, X)
    final = sampling.solve(KEY, denoise, VP, solvers.DDIM(), times, X, final="denoise")
    np.testing.assert_allclose(final, denoise(plain, 0.1), rtol=1e-6)


@pytest.mark.parametrize("concrete", [True, False])
def test_final_denoise_without_noise_is_the_state(concrete):
    times = np.array([0.9, 0.5, 0.0])
    run = lambda times, final: sampling.solve(KEY, MIXTURE.denoiser(VP), VP, solvers.DDIM(), times, X, final=final)  # noqa: E731
    if concrete:
        np.testing.assert_array_equal(run(times, "denoise"), run(times, "none"))
    else:
        traced = jax.jit(lambda times: (run(times, "denoise"), run(times, "none")))(times)
        np.testing.assert_allclose(*traced, rtol=1e-6)


def test_traced_times_give_the_same_as_concrete_ones():
    times = np.array([1.0, 0.6, 0.3, 0.05])
    for solver in (solvers.DDIM(), solvers.DPMpp2M(), solvers.Heun(), solvers.Heun("t")):
        with jax.enable_x64(True):  # in float32 the two round the plan differently
            x = jnp.asarray(X, jnp.float64)
            run = lambda times: sampling.solve(KEY, MIXTURE.denoiser(VP), VP, solver, times, x)  # noqa: B023, E731
            np.testing.assert_allclose(jax.jit(run)(times), run(times), rtol=1e-9, atol=1e-10)


def test_trace_has_the_state_and_its_estimate_before_each_step():
    denoise, times = MIXTURE.denoiser(VP), np.array([0.9, 0.5, 0.2, 0.1])
    for solver in (solvers.DDIM(), solvers.Heun(), solvers.DPMpp2M()):
        end, (states, estimates, at) = sampling.solve(
            KEY, denoise, VP, solver, times, X, trace=lambda x_t, x_0, t: (x_t, x_0, t)
        )
        assert states.shape == (3, *X.shape) and end.shape == X.shape
        np.testing.assert_allclose(at, times[:-1], rtol=1e-6)
        np.testing.assert_array_equal(states[0], X)
        for x_t, x_0, t in zip(states, estimates, at, strict=True):
            np.testing.assert_allclose(x_0, denoise(x_t, t), rtol=1e-5, atol=1e-6)


def test_memory_and_compile_size_do_not_grow_with_steps():
    def compiled(steps):
        times = sampling.times.uniform(VP, steps)
        run = jax.jit(lambda x: sampling.solve(KEY, MIXTURE.denoiser(VP), VP, solvers.DPMpp2M(), times, x))
        return run.lower(jnp.zeros((512, 1))).compile()

    short, long = compiled(10), compiled(1000)
    plan_bytes = 990 * 8 * 4  # the plan itself: a few numbers a step
    grown = long.memory_analysis().temp_size_in_bytes - short.memory_analysis().temp_size_in_bytes
    assert grown <= plan_bytes
    # Instructions, not lines: the text also has a table of the stack frames that the program was traced in.
    assert long.as_text().count(" = ") == short.as_text().count(" = ")


def test_sample_starts_at_the_noise_of_the_first_time():
    process = processes.VE()
    seen = sampling.sample(
        KEY, lambda x, t: x, process, solvers.DDIM(), [0.5, 0.4], (5000, 1), final="none", trace=lambda x, x_0, t: x
    )[1]
    assert float(seen[0].std()) == pytest.approx(float(process.sigma(np.float64(0.5))), rel=0.05)


@pytest.mark.parametrize(
    "times, words",
    [
        ([0.5], "at least 2"),
        ([1.0, 0.5, 0.5], r"times\[1\] = 0.5, times\[2\] = 0.5"),
        ([1.0, 0.2, 0.5, 0.1], r"times\[1\] = 0.2, times\[2\] = 0.5"),
        ([1.2, 0.5], r"in \[0, 1\]"),
        ([0.0, 0.5], "sigma = 0"),
    ],
)
def test_wrong_times_are_named(times, words):
    with pytest.raises(ValueError, match=words):
        sampling.solve(KEY, MIXTURE.denoiser(VP), VP, solvers.DDIM(), times, X)


def test_other_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="final = 'denoised'"):
        sampling.solve(KEY, MIXTURE.denoiser(VP), VP, solvers.DDIM(), [1.0, 0.5], X, final="denoised")
    with pytest.raises(ValueError, match="bfloat16"):
        sampling.solve(KEY, MIXTURE.denoiser(VP), VP, solvers.DDIM(), [1.0, 0.5], X.astype(jnp.bfloat16))
    with pytest.raises(ConfigError, match=r"^solver: eta = 1\.5"):
        build("solver", dict(name="ddim", eta=1.5))
    with pytest.raises(ConfigError, match="'dpmpp_2m'"):
        build("solver", dict(name="dpm++_2m"))


def test_keys_may_be_given_one_a_sample():
    """Any part of a batch can be drawn by itself; legacy keys are taken too."""
    run = lambda key, n: sampling.sample(  # noqa: E731
        key, MIXTURE.denoiser(VP), VP, solvers.DDPM(), sampling.times.uniform(VP, 4), (n, 1)
    )
    whole = run(KEY, 5)
    np.testing.assert_allclose(run(sampling.sample_keys(KEY, 5)[2:4], 2), whole[2:4], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run(jax.random.PRNGKey(0), 5), whole, rtol=1e-6)
    with pytest.raises(ValueError, match="one for each of 3 samples"):
        run(sampling.sample_keys(KEY, 5), 3)


def test_a_denoiser_of_another_shape_is_named():
    with pytest.raises(ValueError, match=r"returns shape \(4,\) for a state of shape \(4, 1\)"):
        sampling.solve(KEY, lambda x, t: x[:, 0], VP, solvers.DDIM(), [1.0, 0.5], X)
    with pytest.raises(ValueError, match="returns shape of a tuple"):
        sampling.solve(KEY, lambda x, t: (x, x), VP, solvers.DDIM(), [1.0, 0.5], X)


def test_debug_names_the_step_of_a_nan():
    times = np.array([1.0, 0.8, 0.5, 0.2])
    broken = lambda x, t: jnp.where(t < 0.6, jnp.nan, 0.5 * x)  # noqa: E731
    for solver in (solvers.DDIM(), solvers.DPMpp2M("singlestep")):
        run = jax.jit(lambda debug: sampling.solve(KEY, broken, VP, solver, times, X, debug=debug), static_argnums=0)  # noqa: B023
        assert np.all(np.isnan(run(False)))
        with pytest.raises(RuntimeError, match=r"NaN or infinity at step 2 of 3, from t = 0\.5 to 0\.2"):
            run(True).block_until_ready()
    late = lambda x, t: jnp.where(t < 0.3, jnp.nan, 0.5 * x)  # noqa: E731
    with pytest.raises(RuntimeError, match="at the last time, after all steps"):
        sampling.solve(KEY, late, VP, solvers.DDIM(), times, X, final="denoise", debug=True)


def test_a_denoiser_may_remember():
    """Its memory advances once a step, however many evaluations the step takes."""
    times = np.array([0.9, 0.7, 0.5, 0.2])
    counting = sampling.StatefulDenoiser(lambda x: jnp.zeros(()), lambda x, t, n: (0 * x + n, n + 1))
    for solver in (solvers.DDIM(), solvers.Heun(), solvers.DPMpp2M("singlestep")):
        end, seen = sampling.solve(
            KEY, counting, VP, solver, times, X, final="denoise", trace=lambda x_t, x_0, t: x_0[0, 0]
        )
        np.testing.assert_array_equal(seen, [0.0, 1.0, 2.0])
        np.testing.assert_array_equal(end, 3.0 * np.ones_like(X))


def test_what_has_no_steps_refuses_a_denoiser_that_remembers():
    counting = sampling.StatefulDenoiser(lambda x: jnp.zeros(()), lambda x, t, n: (0 * x + n, n + 1))
    times, x = np.array([0.9, 0.5, 0.2]), jnp.ones((2, 1))
    mask = jnp.ones((1, 1), bool)
    for run in (
        lambda: sampling.log_likelihood(KEY, counting, VP, solvers.DDIM(), times, x),
        lambda: sampling.continuous_bound(KEY, counting, VP, x, nodes=2),
        lambda: sampling.inverse_problems.replacement(counting, VP, mask, x)(x, jnp.float32(0.5)),
        lambda: sampling.encode(counting, VP, solvers.DDIM(), times, x),
        lambda: sampling.decode(counting, VP, solvers.DDIM(), times, x),
    ):
        with pytest.raises(ValueError, match="remembers"):
            run()
    edited = sampling.image_to_image(KEY, counting, VP, solvers.DDIM(), times, x)
    np.testing.assert_array_equal(edited, 2.0 * np.ones_like(x))
