"""Averages against the sum written out."""

import jax.numpy as jnp
import numpy as np
import pytest

from genjax.training.ema import EMA


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
