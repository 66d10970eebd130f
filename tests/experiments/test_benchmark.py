import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmark import autoencoders, samplers, scaling, training
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


def test_the_loop_runs_and_says_when_it_asks_for_a_batch():
    asked = []
    training.run_loop(Experiment.from_config(toys.denoiser_config()), asked.append, 5, save_every=4)
    assert asked[:5] == [0, 1, 2, 3, 4]


def test_a_save_costs_what_the_half_period_with_it_takes_beyond_the_other(monkeypatch):
    clock = types.SimpleNamespace(now=0.0)

    def run_loop(experiment, before, steps, save_every):
        assert save_every == 2 * training.PERIOD  # a checkpoint is begun every half of it
        for batch in range(steps):
            clock.now += 0.01 + 0.3 * (batch % training.PERIOD == 0)  # the step after a checkpoint waits
            before(batch)

    monkeypatch.setattr(training, "run_loop", run_loop)
    monkeypatch.setattr(training.time, "perf_counter", lambda: clock.now)
    assert training.cost_of_a_save(None) == pytest.approx(0.3)


def test_a_vae_is_timed_without_pytorch_too(monkeypatch):
    for name, value in dict(HIDDEN=8, LATENT=2, BATCH=4).items():
        monkeypatch.setattr(autoencoders, name, value)
    monkeypatch.setattr(autoencoders.importlib.util, "find_spec", lambda name: None)
    ours, *theirs = autoencoders.measure(1, 0.0)
    assert ours > 0 and theirs == [None, None]
