"""Averages against the sum written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.config import ConfigError, construct
from genjax.training.ema import EMA, WIDEST, PostHoc, gamma, label


@pytest.mark.parametrize("warmup", [True, False])
def test_equals_the_weighted_sum(warmup):
    rule = EMA(decay=0.8, warmup=warmup)
    values = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    ema = rule.init({"network": {"w": jnp.asarray(values[0])}})
    weights = np.zeros(60)
    weights[0] = 1
    for n in range(59):
        ema = rule.update(ema, {"network": {"w": jnp.asarray(values[n + 1])}}, jnp.int32(n))
        decay = min(0.8, (1 + n) / (10 + n)) if warmup else 0.8
        weights *= decay
        weights[n + 1] += 1 - decay
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(ema["network"]["w"], weights @ values, rtol=1e-4, atol=1e-6)


def test_averages_are_float32_copies():
    params = {"network": {"w": jnp.ones(2, jnp.bfloat16)}}
    rule = EMA()
    assert rule.init(params)["network"]["w"].dtype == jnp.float32
    assert rule.update(rule.init(params), params, jnp.int32(0))["network"]["w"].dtype == jnp.float32


def test_small_changes_are_not_lost():
    """In bfloat16 a change of 1 in 10,000 would vanish; in float32 the average moves by it."""
    rule = EMA(decay=0.9999, warmup=False)
    params = {"network": {"w": jnp.full(1, 2.0, jnp.bfloat16)}}
    ema = rule.update({"network": {"w": jnp.ones(1)}}, params, jnp.int32(0))
    np.testing.assert_allclose(ema["network"]["w"] - 1, 1e-4, rtol=1e-2)


def test_decay_by_role():
    rule = EMA(decay={"generator": 0.5}, warmup=False)
    params = {"generator": jnp.zeros(1), "critic": jnp.zeros(1)}
    ema = rule.init(params)
    assert set(ema) == {"generator"}
    moved = rule.update(ema, {"generator": jnp.ones(1), "critic": jnp.ones(1)}, jnp.int32(0))
    np.testing.assert_allclose(moved["generator"], 0.5)


@pytest.mark.parametrize("decay", [1.0, -0.1, "much", {"network": 2}])
def test_bad_decays_are_refused(decay):
    with pytest.raises(ValueError, match=r"decay.* must be in \[0, 1\)"):
        EMA(decay=decay)


def test_unknown_role_is_refused():
    with pytest.raises(ValueError, match="did you mean 'network'"):
        EMA(decay={"netwrok": 0.9}).check(("network",))


@pytest.mark.parametrize("width, exponent", [(0.05, 16.97220), (0.10, 6.93720)])
def test_exponents_of_the_paper(width, exponent):
    """Karras et al. 2024 give them, rounded to 16.97 and 6.94, in section 3.1."""
    assert gamma(width) == pytest.approx(exponent, abs=5e-6)


@pytest.mark.parametrize("width", [0.01, 0.1, 0.25, WIDEST])
def test_the_width_is_the_standard_deviation_of_the_profile(width):
    """By quadrature of (g + 1) t^g on [0, 1]."""
    t = (np.arange(200_000) + 0.5) / 200_000
    profile = (gamma(width) + 1) * t ** gamma(width) / 200_000
    mean = (profile * t).sum()
    assert profile.sum() == pytest.approx(1, rel=1e-5)
    assert (profile * (t - mean) ** 2).sum() ** 0.5 == pytest.approx(width, rel=1e-4)


def test_posthoc_averages_are_the_power_function_integrated_over_each_step():
    rule = EMA(posthoc=PostHoc(snapshot_every=1, widths=(0.05, 0.2)))
    values = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    params = [{"network": {"w": value}} for value in jnp.asarray(values)]
    averages = rule.init_posthoc({"network": {"w": jnp.full(3, 1e6)}})  # which must not count
    update = jax.jit(rule.update_posthoc)
    for n, tree in enumerate(params):
        averages = update(averages, tree, jnp.int32(n))
    edges = np.arange(201) / 200
    for width in (0.05, 0.2):
        weights = np.diff(edges ** (gamma(width) + 1))
        np.testing.assert_allclose(averages[label(width)]["network"]["w"], weights @ values, rtol=1e-5, atol=1e-6)


def test_the_share_of_a_late_step_keeps_its_digits():
    """(1 - 1/t)^(gamma + 1) formed in float32 would be off by per cents here."""
    rule = EMA(posthoc=PostHoc(1, (0.1,)))
    averages = rule.update_posthoc({"0.1": {"network": jnp.zeros(1)}}, {"network": jnp.ones(1)}, jnp.int32(2_999_999))
    expected = 1 - (1 - 1 / np.float64(3_000_000)) ** (gamma(0.1) + 1)
    np.testing.assert_allclose(averages["0.1"]["network"], expected, rtol=1e-6)


def test_posthoc_averages_those_roles_that_have_an_average():
    rule = EMA(decay={"generator": 0.5}, posthoc=PostHoc(1))
    params = {"generator": jnp.ones(1, jnp.bfloat16), "critic": jnp.zeros(1)}
    averages = rule.init_posthoc(params)
    assert jax.tree.map(lambda leaf: str(leaf.dtype), averages) == {
        "0.05": {"generator": "float32"},
        "0.1": {"generator": "float32"},
    }
    assert EMA().init_posthoc(params) == {} == EMA().update_posthoc({}, params, jnp.int32(0))
    with pytest.raises(ValueError, match="posthoc: decay names no role"):
        EMA(decay={}, posthoc=PostHoc(1)).check(("generator",))


@pytest.mark.parametrize(
    "values, words",
    [
        ({"snapshot_every": 0}, "config.ema.posthoc: snapshot_every = 0: must be at least 1"),
        ({"snapshot_every": 1, "widths": []}, "must be one width at least"),
        ({"snapshot_every": 1, "widths": [0.1, 0]}, "widths: 0 is no width; must be above 0 and at most 0.2887"),
        ({"snapshot_every": 1, "widths": [0.3]}, "widths: 0.3 is no width"),
        ({"snapshot_every": 1, "widths": [0.1, 0.1]}, "one is given twice"),
        ({"widths": [0.1]}, "missing key 'snapshot_every'"),
    ],
)
def test_bad_posthoc_sections_are_refused(values, words):
    with pytest.raises(ConfigError, match=words):
        construct(EMA, {"posthoc": values}, "config.ema")


def test_snapshots_fall_due_at_intervals_and_at_the_end():
    assert [step for step in range(11) if PostHoc(4).due(step, 10)] == [4, 8, 10]
