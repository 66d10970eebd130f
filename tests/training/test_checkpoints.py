"""Checkpoints come back bit for bit, are refused where they do not fit, and are never read where they are damaged."""

import json
import math
import os
import pathlib
import socket
import subprocess
import sys
import threading

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
        posthoc={"0.05": jax.tree.map(lambda p: p / 2, params), "0.10": jax.tree.map(lambda p: p / 3, params)}
        if ema
        else {},
    )


def flip_a_bit(folder, name="params/manifest.ocdbt"):
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 8
    (folder / name).write_bytes(content)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


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
    assert names(tmp_path) == ["00000002", "00000003"]
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
    assert names(tmp_path) == ["00000001", "00000002"]


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
    assert (step, bits(params)) == (3, bits({**state.extra, **state.ema}))
    assert bits(restore_params(tmp_path, 3, ema=False)[0]) == bits({**state.extra, **state.params})
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(ConfigError, match="no checkpoint yet"):
        restore_params(tmp_path / "nowhere")


def test_a_damaged_newest_one_is_set_aside_and_the_one_before_restored(tmp_path):
    state, folder = make_state(), tmp_path / "checkpoints"
    saved = Checkpoints(folder)
    for step in (1000, 2000, 3000):
        saved.save(step, state.replace(step=jnp.int32(step)), {"n": step})
    saved.close()
    flip_a_bit(folder / "00002000")
    (folder / "00003000" / "rest" / "_METADATA").unlink()
    again = Checkpoints(folder)
    with pytest.raises(ConfigError, match="00003000 is damaged .rest/_METADATA is missing."):
        again.restore(state)
    assert again.recover() == [
        "checkpoints/00003000 is damaged (rest/_METADATA is missing); set aside as damaged-00003000",
        "checkpoints/00002000 is damaged (params/manifest.ocdbt differs from what was written); "
        "set aside as damaged-00002000; going on from 00001000",
    ]
    assert names(folder) == ["00001000", "damaged-00002000", "damaged-00003000"]
    assert again.recover() == []
    restored, about = again.restore(state)
    assert (int(restored.step), about) == (1000, {"n": 1000})
    assert again.save(2000, state)
    again.close()
    assert names(folder) == ["00001000", "00002000", "damaged-00002000", "damaged-00003000"]


def test_where_all_are_damaged_it_starts_anew(tmp_path):
    state, folder = make_state(), tmp_path / "checkpoints"
    saved = Checkpoints(folder)
    assert saved.recover() == []
    saved.save(1, state)
    saved.close()
    (folder / "00000001" / "MANIFEST.json").write_bytes(b"")
    again = Checkpoints(folder)
    assert again.recover() == [
        "checkpoints/00000001 is damaged (MANIFEST.json differs from what was written); "
        "set aside as damaged-00000001; none is left: starting anew"
    ]
    assert again.latest_step() is None
    again.close()


def test_weights_of_a_damaged_one_are_not_read(tmp_path, capsys):
    state, saved = make_state(), Checkpoints(tmp_path)
    saved.save(1, state)
    saved.save(2, state.replace(ema=jax.tree.map(jnp.zeros_like, state.ema)))
    saved.close()
    flip_a_bit(tmp_path / "00000002", "rest/_METADATA")
    before = {path: path.stat().st_mtime_ns for path in [tmp_path, *tmp_path.rglob("*")]}
    params, step = restore_params(tmp_path)
    assert (step, bits(params)) == (1, bits({**state.extra, **state.ema}))
    assert capsys.readouterr().err == (
        f"{tmp_path}/00000002 is damaged (rest/_METADATA differs from what was written); using that of step 1\n"
    )
    with pytest.raises(ConfigError, match="00000002 is damaged .rest/_METADATA differs"):
        restore_params(tmp_path, 2)
    assert {path: path.stat().st_mtime_ns for path in [tmp_path, *tmp_path.rglob("*")]} == before
    flip_a_bit(tmp_path / "00000001", "MANIFEST.json")
    with pytest.raises(ConfigError, match="00000002 is damaged .*00000001 is damaged .MANIFEST.json differs"):
        restore_params(tmp_path)


def test_the_best_stay(tmp_path):
    state = make_state()
    losses = {1: 3.0, 2: 1.0, 3: 2.0, 4: math.nan, 5: 1.0, 6: 5.0}
    saved = Checkpoints(tmp_path, keep=1, keep_best=2, best_of=("loss", "min"))
    for step, loss in losses.items():
        saved.save(step, state, {}, {"loss": loss, "other": -step})
        if step == 3:
            saved.wait()
            assert names(tmp_path) == ["00000002", "00000003"]
    saved.save(7, state)  # not measured
    saved.close()
    assert names(tmp_path) == ["00000002", "00000005", "00000007"]
    # Another choice, in a run that goes on: 2 and 5 were measured by it too.
    (tmp_path / "00000005" / "MANIFEST.json").unlink()
    again = Checkpoints(tmp_path, keep=1, keep_best=1, best_of=("other", "max"))
    again.save(8, state, {}, {"other": -8.0})
    again.close()
    assert names(tmp_path) == ["00000002", "00000008"]


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"keep": 0}, "keep = 0: must be at least 1"),
        ({"keep_best": -1}, "keep_best = -1: must be at least 0"),
        ({"keep_best": 1}, "best_of must name a metric"),
        ({"keep_best": 1, "best_of": ("loss", "lowest")}, 'must end in "min" or "max"'),
    ],
)
def test_wrong_choices(tmp_path, choices, words):
    with pytest.raises(ValueError, match=words):
        Checkpoints(tmp_path / "new", **choices)
    assert not (tmp_path / "new").exists()


def test_while_one_is_being_written_the_one_before_is_there(tmp_path):
    state, saved = make_state(), Checkpoints(tmp_path, keep=1)
    saved.save(1, state)
    saved.wait()
    hold = threading.Event()
    saved._store._pool.submit(hold.wait)  # keeps the thread that commits busy
    saved.save(2, state.replace(step=jnp.int32(8)))
    assert saved.latest_step() == 1 and "00000001" in names(tmp_path)
    assert int(saved.restore(state)[0].step) == 7
    assert restore_params(tmp_path)[1] == 1
    hold.set()
    saved.close()
    assert names(tmp_path) == ["00000002"]


_MOVED = """
import json, sys
import jax
from genjax.training.checkpoints import Checkpoints
from genjax.training.mesh import state_sharding
from tests.training.test_checkpoints import bits, make_state

state = make_state()
whole = bits(state)

def placed(data, fsdp):
    mesh = jax.make_mesh((data, fsdp), ("data", "fsdp"), devices=jax.devices()[: data * fsdp])
    return jax.device_put(state, state_sharding(mesh, state))

saved, result = Checkpoints(sys.argv[1]), {}
saved.save(1, placed(2, 4))
saved.wait()
for data, fsdp in ((1, 1), (1, 4), (8, 1)):
    template = placed(data, fsdp)
    restored, _ = saved.restore(template)
    kernel = restored.params["network"]["kernel"]
    where = kernel.sharding == template.params["network"]["kernel"].sharding
    result[f"{data}x{fsdp}"] = [bits(restored) == whole, where, len(kernel.sharding.device_set)]
saved.close()
print(json.dumps(result))
"""


def run(script, *arguments, devices):
    root = pathlib.Path(__file__).parents[2]
    environment = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)} | environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_eight_devices_save_and_any_number_restores(tmp_path):
    output = run(_MOVED, tmp_path, devices=8).communicate()[0]
    expected = {"1x1": [True, True, 1], "1x4": [True, True, 4], "8x1": [True, True, 8]}
    assert json.loads(output.splitlines()[-1]) == expected


_TWO = """
import resource, sys
import jax, jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

rank, folder = int(sys.argv[1]), sys.argv[2]
jax.distributed.initialize(f"localhost:{sys.argv[3]}", 2, rank)
from genjax.training.checkpoints import Checkpoints
from genjax.training.errors import TrainingStopped
from genjax.training.state import TrainState

mesh = jax.make_mesh((4,), ("fsdp",))
split = NamedSharding(mesh, PartitionSpec("fsdp"))
weights = jax.jit(lambda: jax.random.normal(jax.random.key(1), (4096, 16)), out_shardings=split)()
step, key = jax.jit(lambda: (jnp.int32(1), jax.random.key(0)), out_shardings=NamedSharding(mesh, PartitionSpec()))()
state = TrainState(step=step, key=key, params={"network": {"kernel": weights}}, opt={}, ema={}, extra={})

saved = Checkpoints(folder, keep=2)
for step in (1, 2, 3):
    saved.save(step, state, {"step": step})
saved.wait()
print("latest", saved.latest_step())
if rank == 0:
    with open(f"{folder}/00000003/MANIFEST.json", "a") as file:
        file.write(" ")
print("lines", len(saved.recover()), "then", saved.latest_step())
restored, about = saved.restore(state)
pairs = zip(restored.params["network"]["kernel"].addressable_shards, weights.addressable_shards, strict=True)
print("equal", all(np.array_equal(a.data, b.data) for a, b in pairs), about)
if rank == 1:
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
saved.save(4, state)
try:
    saved.wait()
except TrainingStopped as error:
    print(type(error).__name__, error.exit_code, str(error).splitlines()[0].removeprefix(folder))
print("end", flush=True)
"""


@pytest.mark.slow
def test_two_processes_write_one_checkpoint_and_stop_together(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    both = [run(_TWO, rank, tmp_path / "steps", port, devices=2) for rank in range(2)]
    lines = []
    for process in both:
        with process:
            said: list[str] = []
            for line in process.stdout:
                said.append(line.strip())
                if said[-1] == "end":
                    break
            lines.append([line for line in said if not line.startswith("[Gloo]")])
            process.kill()  # orbax's own threads would wait five minutes for the process that failed
    started = ["latest 3", "lines {} then 2", "equal True {{'step': 2}}"]
    stopped = "TrainingStopped 4 /00000004 was not saved: process 1 could not write"
    assert lines[0] == [*(line.format(1) for line in started), stopped, "end"]
    assert lines[1][:3] == [line.format(0) for line in started]
    assert lines[1][3] == "DiskFull 4 /00000004 was not saved: File too large; the checkpoint of step 2 is intact"
    assert names(tmp_path / "steps") == ["00000002", "damaged-00000003"]
