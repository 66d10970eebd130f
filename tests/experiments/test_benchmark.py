import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmark import samplers, scaling, training
from genjax import processes, registry, sampling, solvers
from genjax.training.experiment import Experiment
from tests.training import toys


@pytest.mark.parametrize("sweep", [scaling.one_after_another, scaling.at_once])
def test_a_sweep_over_scales_and_seeds_is_one_compilation(sweep):
    assert scaling.compilations(sweep) == 1


@pytest.mark.parametrize("solver", scaling.SOLVERS.values(), ids=scaling.SOLVERS)
def test_memory_does_not_grow_with_the_steps(solver):
    assert scaling.memory_growth(solver) == 1.0


def test_the_idle_network_returns_the_value_and_keeps_its_input_in_memory():
    def twice(x, value, rounds):
        return samplers.idle(jnp.sin(x), value, rounds)

    x, value, rounds = jnp.ones((4, 4)), jnp.full((4, 4), 0.3), jnp.int32(0)
    program = jax.jit(twice).lower(x, value, rounds).compile()
    np.testing.assert_array_equal(program(x, value, rounds), value)
    assert program.memory_analysis().temp_size_in_bytes >= x.nbytes


def test_a_bare_pass_evaluates_the_network_as_often_as_the_solver():
    evaluations = 0

    def denoise(x, t):
        nonlocal evaluations
        evaluations += 1
        return x

    process = processes.LinearVP()
    for entry in registry.entries("solver").values():
        solver = entry.build()
        plan = solver.plan(process, sampling.times.uniform(process, 6))
        if not isinstance(plan, solvers.linear.LinearPlan):
            continue
        evaluations = 0
        jax.eval_shape(lambda x, plan=plan: samplers.bare(plan, denoise, lambda i, j: x, x), jnp.ones((2, 3)))
        assert evaluations == solver.nfe_per_step, entry.name


def test_the_loop_is_timed_batch_by_batch():
    experiment = Experiment.from_config(toys.denoiser_config(save_every=1))
    times = training.loop_times(experiment, 5, save_every=4)
    assert len(times) >= 5 and (np.diff(times) > 0).all()  # the loop looks at one batch more, for its shape


def test_a_save_costs_what_a_period_takes_beyond_its_quiet_windows(monkeypatch):
    def times(experiment, steps, save_every):
        assert save_every == 2 * training.PERIOD  # a checkpoint is begun every half of it
        seconds = np.full(steps, 0.01)
        seconds[training.PERIOD :: training.PERIOD] += 0.3  # the step after a checkpoint waits
        return np.cumsum(seconds)

    monkeypatch.setattr(training, "loop_times", times)
    assert training.cost_of_a_save(None) == pytest.approx(0.3)
