"""What a step does, followed by hand on the game of two numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.training.experiment import Experiment
from genjax.training.state import build_optimizers, create_state
from genjax.training.step import make_train_step, skipped
from tests.training import toys


@pytest.fixture(scope="module")
def history():
    """States and metrics of seven steps, the first state included."""
    experiment = Experiment.from_config(toys.game_config())
    state = create_state(experiment, experiment.data.spec)
    step = jax.jit(make_train_step(experiment.family, build_optimizers(experiment, state.params), experiment.ema))
    states, metrics = [state], []
    for _ in range(7):
        state, measured = step(state, {"image": jnp.zeros((8, 4, 4, 1))})
        states.append(state)
        metrics.append(measured)
    return states, metrics


def test_phases_run_in_order_on_updated_weights(history):
    states, metrics = history
    c, g, r = 1.0, 2.0, toys.Game.rate
    for k in range(7):
        losses = []
        for _ in range(2):
            losses.append(c * g)
            c -= r * g
        assert float(metrics[k]["critic/loss"]) == pytest.approx(np.mean(losses), rel=1e-5)
        if k % 3 == 0:
            assert float(metrics[k]["shrink/loss"]) == pytest.approx(c**2 / 2, rel=1e-5)
            c -= r * c
        else:
            assert np.isnan(metrics[k]["shrink/loss"])
        assert float(metrics[k]["generator/loss"]) == pytest.approx(-c * g, rel=1e-5)
        assert float(metrics[k]["generator/grad_norm"]) == pytest.approx(abs(c), rel=1e-5)
        g += r * c
        assert float(states[k + 1].params["critic"]["c"][0]) == pytest.approx(c, rel=1e-5)
        assert float(states[k + 1].params["generator"]["g"][0]) == pytest.approx(g, rel=1e-5)


def test_extra_step_and_averages(history):
    states, _ = history
    average = 2.0
    for k, state in enumerate(states):
        assert int(state.step) == k
        assert int(state.extra["moves"]) == 2 * k
        assert set(state.ema) == {"generator"}
        if k:
            decay = min(0.9, k / (9 + k))
            average = decay * average + (1 - decay) * float(state.params["generator"]["g"][0])
        assert float(state.ema["generator"]["g"][0]) == pytest.approx(average, rel=1e-5)


def test_random_numbers_differ_between_steps_and_updates(history):
    _, metrics = history
    draws = [float(m["critic/draw"]) for m in metrics]
    assert len(set(draws)) == len(draws)


def test_step_key_depends_on_seed_and_step_alone(history):
    states, metrics = history
    experiment = Experiment.from_config(toys.game_config())
    step = jax.jit(make_train_step(experiment.family, build_optimizers(experiment, states[0].params), experiment.ema))
    _, again = step(states[4], {"image": jnp.zeros((8, 4, 4, 1))})
    assert float(again["critic/draw"]) == float(metrics[4]["critic/draw"])


def test_other_roles_are_untouched():
    experiment = Experiment.from_config(toys.game_config())
    critic, shrink, generator = experiment.family.phases()

    class Alone(toys.Game):
        def phases(self):
            return (critic,)

    state = create_state(experiment, experiment.data.spec)
    step = make_train_step(Alone(), build_optimizers(experiment, state.params), experiment.ema)
    after, metrics = step(state, {"image": jnp.zeros((8, 4, 4, 1))})
    assert float(after.params["generator"]["g"][0]) == 2.0
    assert float(after.params["critic"]["c"][0]) != 1.0
    assert {name.split("/")[0] for name in metrics} == {"critic"}


def test_skipped_phases_are_named():
    phases = toys.Game().phases()
    assert [skipped(phases, step) for step in (0, 1, 2, 3)] == [(), ("shrink/",), ("shrink/",), ()]


def test_preprocess_gets_the_batch_and_runs_inside():
    experiment = Experiment.from_config(toys.denoiser_config())
    state = create_state(experiment, experiment.data.spec)
    seen = []

    def preprocess(batch, key):
        seen.append(batch["image"].dtype)
        return {"image": batch["image"].astype(jnp.float32) / 127.5 - 1}

    step = make_train_step(experiment.family, build_optimizers(experiment, state.params), experiment.ema, preprocess)
    raw = jax.ShapeDtypeStruct((8, 4, 4, 1), jnp.uint8)
    after, _ = jax.eval_shape(step, state, {"image": raw})
    assert seen == [jnp.uint8]
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(lambda leaf: leaf.shape, after)
