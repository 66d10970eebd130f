"""Optimizers by name against optax itself, and the rules by parameter path."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax.config import ConfigError, build
from genjax.registry import entries
from genjax.training.optimizers import build_optimizer, parameter_paths

PARAMS = {
    "down_0": {"conv": {"kernel": jnp.linspace(-1, 1, 12).reshape(3, 4), "bias": jnp.linspace(0, 1, 4)}},
    "head": {"kernel": jnp.linspace(1, 2, 8).reshape(4, 2)},
}
GRADS = jax.tree.map(lambda p: jnp.cos(3 * p), PARAMS)


def run(optimizer, steps=4):
    params, state = PARAMS, optimizer.init(PARAMS)
    for step in range(steps):
        updates, state = optimizer.update(GRADS, state, params, jnp.int32(step))
        params = optax.apply_updates(params, updates)
    return params


def run_optax(transform, steps=4):
    params, state = PARAMS, transform.init(PARAMS)
    for _ in range(steps):
        updates, state = transform.update(GRADS, state, params)
        params = optax.apply_updates(params, updates)
    return params


def assert_trees_close(a, b, rtol=1e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-7), a, b)


def test_paths_are_written_with_slashes():
    assert parameter_paths(PARAMS)["down_0"]["conv"]["kernel"] == "down_0/conv/kernel"


@pytest.mark.parametrize("name", sorted(entries("optimizer")))
def test_every_optimizer_equals_optax(name):
    factory = optax.contrib.muon if name == "muon" else getattr(optax, name)
    ours = build_optimizer({"name": name, "learning_rate": 0.01}, PARAMS)
    assert_trees_close(run(ours, 2), run_optax(factory(learning_rate=0.01), 2))


SCHEDULES = [
    (
        dict(name="warmup_cosine_decay", init_value=0.0, peak_value=0.1, warmup_steps=2, decay_steps=6),
        optax.warmup_cosine_decay_schedule(0.0, 0.1, 2, 6),
    ),
    (dict(name="linear", init_value=0.1, end_value=0.0, transition_steps=3), optax.linear_schedule(0.1, 0.0, 3)),
    (dict(name="constant", value=0.05), lambda step: 0.05),
]


@pytest.mark.parametrize(
    ("spec", "schedule"), SCHEDULES, ids=lambda value: value["name"] if isinstance(value, dict) else ""
)
def test_schedules_equal_optax(spec, schedule):
    optimizer = build_optimizer({"name": "adam", "learning_rate": spec}, PARAMS)
    for step in range(8):
        assert float(optimizer.learning_rate(step)) == pytest.approx(float(schedule(step)), rel=1e-6, abs=1e-9)
    assert_trees_close(run(optimizer), run_optax(optax.adam(schedule)))


def test_every_schedule_says_what_is_missing():
    for name in entries("schedule"):
        with pytest.raises(ConfigError, match="schedule: missing key"):
            build("schedule", {"name": name})


def test_learning_rate_follows_the_training_step_not_the_updates():
    spec = dict(name="linear", init_value=1.0, end_value=0.0, transition_steps=10)
    optimizer = build_optimizer({"name": "sgd", "learning_rate": spec}, PARAMS)
    state = optimizer.init(PARAMS)
    for _ in range(3):  # three updates in step 5
        updates, state = optimizer.update(GRADS, state, PARAMS, jnp.int32(5))
        assert_trees_close(updates, jax.tree.map(lambda g: -0.5 * g, GRADS))


def test_clip_scales_to_the_global_norm():
    updates, _ = (o := build_optimizer({"name": "sgd", "learning_rate": 1.0, "clip": 0.1}, PARAMS)).update(
        GRADS, o.init(PARAMS), PARAMS, jnp.int32(0)
    )
    norm = np.sqrt(sum(float(jnp.square(g).sum()) for g in jax.tree.leaves(GRADS)))
    assert_trees_close(updates, jax.tree.map(lambda g: -g * 0.1 / norm, GRADS), rtol=1e-5)


@pytest.mark.parametrize("name", ["adamw", "lion", "muon", "adafactor"])
def test_weight_decay_mask_names_what_decays(name):
    knob = "weight_decay_rate" if name == "adafactor" else "weight_decay"
    base = {"name": name, "learning_rate": 0.01}
    plain, decayed = (
        run(build_optimizer(base | {knob: rate, "weight_decay_mask": ("^down.*kernel$",)}, PARAMS), 1)
        for rate in (0.0, 0.5)
    )
    changed = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), plain, decayed)
    assert changed == {"down_0": {"conv": {"kernel": True, "bias": False}}, "head": {"kernel": False}}


def test_frozen_parameters_stay_and_have_no_state():
    spec = {
        "name": "adamw",
        "learning_rate": 0.01,
        "freeze": ("^head",),
        "clip": 1e-3,
        "weight_decay_mask": ("kernel",),
    }
    optimizer = build_optimizer(spec, PARAMS)
    after = run(optimizer)
    np.testing.assert_array_equal(after["head"]["kernel"], PARAMS["head"]["kernel"])
    assert bool(jnp.all(after["down_0"]["conv"]["kernel"] != PARAMS["down_0"]["conv"]["kernel"]))
    assert all(leaf.shape != (4, 2) for leaf in jax.tree.leaves(optimizer.init(PARAMS)))


def test_frozen_parameters_do_not_count_in_the_clipped_norm():
    spec = {"name": "sgd", "learning_rate": 1.0, "clip": 0.1, "freeze": ("^head",)}
    optimizer = build_optimizer(spec, PARAMS)
    updates, _ = optimizer.update(GRADS, optimizer.init(PARAMS), PARAMS, jnp.int32(0))
    assert float(optax.tree.norm(updates)) == pytest.approx(0.1, rel=1e-5)


def test_weights_are_clipped_after_the_update_but_not_those_that_are_frozen():
    spec = {"name": "sgd", "learning_rate": 0.5, "clip_weights": 0.1, "freeze": ("^head",)}
    after = run(build_optimizer(spec, PARAMS), 1)
    expected = jax.tree.map(lambda p, g: jnp.clip(p - 0.5 * g, -0.1, 0.1), PARAMS, GRADS)
    assert_trees_close(after, expected | {"head": PARAMS["head"]}, rtol=1e-5)
    assert float(jnp.abs(PARAMS["head"]["kernel"]).max()) > 0.1  # frozen, and beyond the limit


def test_weights_are_normalized_after_the_update():
    spec = {"name": "sgd", "learning_rate": 0.5, "normalize_weights": ("kernel",), "freeze": ("^head",)}
    after = run(build_optimizer(spec, PARAMS), 1)
    moved = jax.tree.map(lambda p, g: p - 0.5 * g, PARAMS, GRADS)
    assert_trees_close(after["down_0"]["conv"]["bias"], moved["down_0"]["conv"]["bias"], rtol=1e-5)
    assert_trees_close(after["head"], PARAMS["head"])
    kernel = np.asarray(moved["down_0"]["conv"]["kernel"])
    expected = kernel / np.sqrt((kernel**2).mean(axis=0))
    assert_trees_close(after["down_0"]["conv"]["kernel"], expected, rtol=1e-5)


def test_inverse_square_root_of_the_step():
    schedule = build("schedule", dict(name="inverse_sqrt", peak_value=0.1, reference_steps=100, warmup_steps=10))()
    found = [float(schedule(step)) for step in (0, 5, 10, 100, 400, 10_000)]
    np.testing.assert_allclose(found, [0, 0.05, 0.1, 0.1, 0.05, 0.01], rtol=1e-6)
    at_once = build("schedule", dict(name="inverse_sqrt", peak_value=0.1, reference_steps=100))()
    np.testing.assert_allclose([float(at_once(step)) for step in (0, 400)], [0.1, 0.05], rtol=1e-6)
    with pytest.raises(ValueError, match="reference_steps = 0"):
        build("schedule", dict(name="inverse_sqrt", peak_value=0.1, reference_steps=0))()


def test_a_linear_fall_begins_anew_with_every_period():
    schedule = build("schedule", dict(name="linear_restarts", init_value=0.4, period=4, end_value=0.2))()
    found = [float(schedule(step)) for step in (0, 1, 3, 4, 6)]
    np.testing.assert_allclose(found, [0.4, 0.35, 0.25, 0.4, 0.3], rtol=1e-6)
    with pytest.raises(ValueError, match="period = 0"):
        build("schedule", dict(name="linear_restarts", init_value=0.1, period=0))()


def test_learning_rate_rules_first_match_wins():
    spec = {"name": "sgd", "learning_rate": 1.0, "lr_rules": (("bias", 0.0), ("^down", 0.5))}
    optimizer = build_optimizer(spec, PARAMS)
    updates, _ = optimizer.update(GRADS, optimizer.init(PARAMS), PARAMS, jnp.int32(0))
    factors = {"down_0": {"conv": {"kernel": 0.5, "bias": 0.0}}, "head": {"kernel": 1.0}}
    assert_trees_close(updates, jax.tree.map(lambda g, f: -g * f, GRADS, factors))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "adamv"}, "did you mean 'adam"),
        ({"cilp": 1.0}, "unknown key 'cilp'; did you mean 'clip'"),
        ({"clip": -1.0}, "clip = -1.0: must be positive"),
        ({"clip_weights": 0.0}, "clip_weights = 0.0: must be positive"),
        ({"normalize_weights": ("weight$",)}, r"normalize_weights: 'weight\$' matches no parameter"),
        ({"freeze": ("^heed",)}, r"freeze: '\^heed' matches no parameter; the first are down_0/conv/bias"),
        ({"freeze": "^head"}, "must be a list"),
        ({"freeze": ("(",)}, "no regular expression"),
        ({"lr_rules": (("heed", 1.0),)}, "lr_rules: 'heed' matches no parameter"),
        ({"lr_rules": ("head", 1.0)}, "lr_rules = .*must be a list"),
        ({"name": "adam", "weight_decay_mask": ("kernel",)}, "no decoupled weight decay"),
        ({"learning_rate": -1.0}, "learning_rate = -1.0: must be"),
        ({"learning_rate": None}, "learning_rate = None: must be"),
        ({"learning_rate": {"name": "warmup_cosine"}}, "did you mean 'warmup_cosine_decay'"),
        ({"learning_rate": {"name": "linear", "init_value": 1.0}}, "missing"),
        ({"mask": 3}, "unknown key 'mask'"),
    ],
)
def test_mistakes_are_named_with_their_place(change, message):
    spec = {"name": "adamw", "learning_rate": 0.01} | change
    with pytest.raises(ConfigError, match=message) as caught:
        build_optimizer(spec, PARAMS, "config.optimizers.network")
    assert str(caught.value).startswith("config.optimizers.network")
    assert "\n" not in str(caught.value)


def test_warmup_linear_decay_at_its_corners():
    schedule = build(
        "schedule",
        dict(
            name="warmup_linear_decay", init_value=0.0, peak_value=1.0, warmup_steps=10, decay_steps=50, end_value=0.2
        ),
    )()
    found = [float(schedule(step)) for step in (0, 5, 10, 30, 50, 80)]
    assert found == pytest.approx([0.0, 0.5, 1.0, 0.6, 0.2, 0.2])
