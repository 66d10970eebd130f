"""Checkpoints come back bit for bit, and are refused where they do not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax.config import ConfigError
from genjax.training.checkpoints import Checkpoints, restore_params
from genjax.training.state import TrainState


def make_state(ema=True):
    # Every kind of float that could get lost on the way: subnormals, both zeros, infinities, NaN, all mantissa bits.
    odd = np.array([1e-45, -0.0, 0.0, np.inf, -np.inf, np.nan, np.pi, 3.4e38], np.float32)
    params = {"network": {"odd": jnp.asarray(odd), "kernel": jax.random.normal(jax.random.key(1), (64, 64))}}
    opt = optax.adam(1e-3)
    return TrainState(
        step=jnp.int32(7),
        key=jax.random.key(5),
        params=params,
        opt={"network": opt.init(params["network"])},
        ema=jax.tree.map(lambda p: p * 2, params) if ema else {},
        extra={"key": jax.random.key(9, impl="rbg"), "count": jnp.int32(3), "half": jnp.ones(3, jnp.bfloat16)},
    )


def bits(tree):
    def leaf(x):
        data = jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        return str(x.dtype), np.asarray(data).tobytes()

    return jax.tree.map(leaf, tree)


@pytest.mark.parametrize("ema", [True, False])
def test_restores_every_bit_and_random_keys(tmp_path, ema):
    state = make_state(ema)
    saved = Checkpoints(tmp_path)
    assert saved.latest_step() is None
    assert saved.save(7, state, {"window": {"loss": [0.1, 3]}})
    saved.wait()
    saved.close()
    again = Checkpoints(tmp_path)
    restored, about = again.restore(state)
    again.close()
    assert bits(restored) == bits(state)
    assert about == {"window": {"loss": [0.1, 3]}}
    assert jax.random.key_impl(restored.extra["key"]) == jax.random.key_impl(state.extra["key"])
    np.testing.assert_array_equal(jax.random.normal(restored.key, (4,)), jax.random.normal(state.key, (4,)))


def test_a_donated_state_is_saved_as_it_was(tmp_path):
    """The next steps overwrite the buffers while the checkpoint is still being written."""
    state = make_state()
    advance = jax.jit(
        lambda s: s.replace(step=s.step + 1, params=jax.tree.map(lambda p: p + 1, s.params)), donate_argnums=0
    )
    expected, saved = {}, Checkpoints(tmp_path, keep=4)
    for step in range(4):
        expected[step] = np.array(state.params["network"]["kernel"])
        saved.save(step, state)
        for _ in range(3):
            state = advance(state)
    saved.wait()
    for step, kernel in expected.items():
        np.testing.assert_array_equal(saved.restore(state, step)[0].params["network"]["kernel"], kernel)
    saved.close()


def test_keeps_the_last_few_and_saves_a_step_once(tmp_path):
    state, saved = make_state(), Checkpoints(tmp_path, keep=2)
    assert [saved.save(step, state) for step in (1, 2, 3, 3)] == [True, True, True, False]
    saved.wait()
    assert saved.latest_step() == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000002", "00000003"]
    with pytest.raises(ConfigError, match="no checkpoint of step 1; there are 2, 3"):
        saved.restore(state, 1)
    saved.close()


def test_a_half_written_checkpoint_is_not_seen(tmp_path):
    state, saved = make_state(), Checkpoints(tmp_path)
    saved.save(1, state)
    saved.close()
    # What orbax leaves when it is killed while writing: a folder under its temporary name.
    (tmp_path / "00000002.writing.orbax-checkpoint-tmp" / "params").mkdir(parents=True)
    again = Checkpoints(tmp_path)
    assert again.latest_step() == 1
    again.save(2, state)
    again.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000001", "00000002"]


def test_another_structure_is_named(tmp_path):
    state, saved = make_state(), Checkpoints(tmp_path)
    saved.save(1, state)
    saved.wait()
    smaller = {"network": {**state.params["network"], "kernel": jnp.zeros((3, 64))}}
    with pytest.raises(ConfigError, match=r"params/network/kernel is float32 \[64, 64\], and float32 \[3, 64\] here"):
        saved.restore(state.replace(params=smaller))
    with pytest.raises(ConfigError, match="rest/opt/network.* not expected here"):
        saved.restore(state.replace(opt={"network": optax.sgd(1.0).init(state.params["network"])}))
    saved.close()


def test_weights_alone(tmp_path):
    state, saved = make_state(), Checkpoints(tmp_path)
    with pytest.raises(ConfigError, match="no checkpoint yet"):
        restore_params(tmp_path)
    saved.save(3, state)
    saved.close()
    before = sorted(tmp_path.rglob("*"))
    params, step = restore_params(tmp_path)
    assert (step, bits(params)) == (3, bits(state.ema))
    assert bits(restore_params(tmp_path, 3, ema=False)[0]) == bits(state.params)
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(ConfigError, match="no checkpoint yet"):
        restore_params(tmp_path / "nowhere")
