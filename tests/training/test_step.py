"""What a step does, followed by hand on the game of two numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.families.base import Aux, Keys, Mean, Phase
from genjax.training.experiment import Experiment
from genjax.training.state import build_optimizers, create_state
from genjax.training.step import batches_per_step, make_train_step
from tests.training import toys


def value(metric):
    return float(metric.total / metric.weight)


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
        assert value(metrics[k]["critic/loss"]) == pytest.approx(np.mean(losses), rel=1e-5)
        if k % 3 == 0:
            assert value(metrics[k]["shrink/loss"]) == pytest.approx(c**2 / 2, rel=1e-5)
            c -= r * c
        else:
            assert metrics[k]["shrink/loss"] == (0.0, 0.0)
        assert value(metrics[k]["generator/loss"]) == pytest.approx(-c * g, rel=1e-5)
        assert value(metrics[k]["generator/grad_norm"]) == pytest.approx(abs(c), rel=1e-5)
        g += r * c
        assert float(states[k + 1].params["critic"]["c"][0]) == pytest.approx(c, rel=1e-5)
        assert float(states[k + 1].params["generator"]["g"][0]) == pytest.approx(g, rel=1e-5)


def test_every_update_of_a_repeated_phase_has_a_batch_of_its_own():
    class Seen(toys.Game):
        """Three critic updates, each of which keeps what it was given and has its mean for a slope."""

        def phases(self):
            def critic(params, state, batch, keys):
                assert batch["image"].shape == (4, 1, 1, 1) and keys.each.shape == (4,)
                slot = state.extra["moves"]
                seen = state.extra["seen"].at[slot].set(batch["image"].reshape(4))
                return (params["c"] * batch["image"].mean()).sum(), Aux({}, {"moves": slot + 1, "seen": seen})

            return Phase("critic", "critic", critic, repeat=3), *super().phases()[2:]

        def init(self, key, spec):
            return super().init(key, spec)[0], {"moves": jnp.int32(0), "seen": jnp.zeros((3, 4))}

    assert batches_per_step(Seen()) == 3 and batches_per_step(toys.Denoiser()) == 1
    experiment = dataclasses.replace(Experiment.from_config(toys.game_config()), family=Seen())
    state = create_state(experiment, experiment.data.spec)
    batch = {"image": jnp.arange(12.0).reshape(12, 1, 1, 1)}
    after, _ = compiled(experiment, state)(state, batch)
    np.testing.assert_array_equal(np.sort(after.extra["seen"].ravel()), np.arange(12))
    np.testing.assert_allclose(after.params["critic"]["c"], [1.0 - toys.Game.rate * np.arange(12).sum() / 4], rtol=1e-6)


def test_a_part_of_extra_cannot_have_the_name_of_a_role():
    class Twice(toys.Game):
        def init(self, key, spec):
            return super().init(key, spec)[0], {"critic": jnp.int32(0)}

    experiment = dataclasses.replace(Experiment.from_config(toys.game_config()), family=Twice())
    with pytest.raises(ValueError, match="a role and a part of `extra` by one name: critic"):
        create_state(experiment, experiment.data.spec)


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
    draws = [value(m["critic/draw"]) for m in metrics]
    assert len(set(draws)) == len(draws)


def test_step_key_depends_on_seed_and_step_alone(history):
    states, metrics = history
    experiment = Experiment.from_config(toys.game_config())
    step = jax.jit(make_train_step(experiment.family, build_optimizers(experiment, states[0].params), experiment.ema))
    _, again = step(states[4], {"image": jnp.zeros((8, 4, 4, 1))})
    assert value(again["critic/draw"]) == value(metrics[4]["critic/draw"])


def test_a_phase_whose_metrics_nobody_could_tell_apart_is_refused():
    with pytest.raises(ValueError, match="name = 'critic/real': must not have a '/'"):
        Phase("critic/real", "critic", lambda *_: None)


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


def test_keys_are_the_same_however_a_batch_is_cut():
    keys = Keys.of(jax.random.key(3), 6)
    halves = [Keys(keys.shared, keys.each[part], keys.place[part]) for part in (slice(0, 6, 2), slice(1, 6, 2))]
    whole = jax.vmap(jax.random.uniform)(keys.split(2)[1].each)
    parts = [jax.vmap(jax.random.uniform)(half.split(2)[1].each) for half in halves]
    np.testing.assert_array_equal(np.stack(parts, 1).ravel(), whole)
    assert len(set(whole.tolist())) == 6
    np.testing.assert_allclose(keys.place, np.arange(6) / 6, rtol=1e-6)
    one, other = keys.split(2)
    assert jax.random.uniform(one.shared) != jax.random.uniform(other.shared)


class Half(toys.Denoiser):
    """The denoiser with a metric over the images of label 0 and a count of its losses' calls."""

    def init(self, key, spec):
        return super().init(key, spec)[0], {"losses": jnp.int32(0)}

    def phases(self):
        return (Phase("denoiser", "network", self.loss),)

    def loss(self, params, state, batch, keys):
        loss, aux = self._loss(params, state, batch, keys)
        chosen = (batch["label"] == 0).astype(jnp.float32)
        of_label = Mean((chosen * batch["image"].mean((1, 2, 3))).sum(), chosen.sum())
        return loss, Aux({"of_label": of_label}, {"losses": state.extra["losses"] + 1})


@pytest.fixture(scope="module")
def denoiser():
    """The experiment, its first state and a batch."""
    experiment = Experiment.from_config(toys.denoiser_config())
    experiment = dataclasses.replace(experiment, family=Half())
    batch = experiment.data.gather(np.arange(12))
    batch["image"] = batch["image"].astype(np.float32) / 127.5 - 1
    return experiment, create_state(experiment, experiment.data.spec), batch


def compiled(experiment, state, **how):
    optimizers = build_optimizers(experiment, state.params)
    return jax.jit(make_train_step(experiment.family, optimizers, experiment.ema, **how))


@pytest.mark.parametrize("parts", [2, 3, 6])
def test_an_accumulated_gradient_is_that_of_the_whole_batch(denoiser, parts):
    experiment, state, batch = denoiser
    whole, expected = compiled(*denoiser[:2])(state, batch)
    cut, measured = compiled(*denoiser[:2], accumulate=parts)(state, batch)
    for name in expected:
        assert value(measured[name]) == pytest.approx(value(expected[name]), rel=2e-6), name
    # Adam's first update is the gradient over its own size, so the first moment shows the gradient.
    for one, other in zip(jax.tree.leaves(cut.opt), jax.tree.leaves(whole.opt), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-8)
    assert (int(whole.extra["losses"]), int(cut.extra["losses"])) == (1, parts)


def test_a_step_that_is_not_finite_is_undone(denoiser):
    experiment, state, batch = denoiser
    step = compiled(experiment, state)
    state, _ = step(state, batch)
    broken = batch | {"image": np.where(np.arange(12)[:, None, None, None] == 7, np.nan, batch["image"])}
    after, measured = step(state, broken)
    assert np.isnan(value(measured["denoiser/loss"])) and np.isnan(value(measured["denoiser/grad_norm"]))
    assert int(after.step) == int(state.step) + 1
    for part in ("params", "opt", "ema", "extra"):
        for one, other in zip(
            jax.tree.leaves(getattr(after, part)), jax.tree.leaves(getattr(state, part)), strict=True
        ):
            np.testing.assert_array_equal(one, other)
    after, _ = step(after, batch)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.params))
    assert (np.asarray(after.params["network"]["dense"]["kernel"]) != state.params["network"]["dense"]["kernel"]).any()


def test_a_later_phase_that_is_not_finite_undoes_the_earlier_ones():
    class Broken(toys.Game):
        def phases(self):
            critic, shrink, generator = super().phases()

            def loss(params, state, batch, keys):
                return -generator.loss(params, state, batch, keys)[0] / 0.0, Aux({})

            return critic, shrink, Phase("generator", "generator", loss)

    experiment = dataclasses.replace(Experiment.from_config(toys.game_config()), family=Broken())
    state = create_state(experiment, experiment.data.spec)
    after, measured = compiled(experiment, state)(state, {"image": jnp.zeros((8, 4, 4, 1))})
    assert np.isfinite(value(measured["critic/loss"])) and not np.isfinite(value(measured["generator/loss"]))
    assert float(after.params["critic"]["c"][0]) == 1.0 and int(after.extra["moves"]) == 0
