"""Weights as safetensors: bit for bit, whole or not at all, and damage is seen."""

import json
import os
import stat
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from genjax.interop import WeightsError, load_safetensors, save_safetensors

PARAMS = {
    "model": {"dense": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.zeros(3, np.float32)}},
    "critic": {"scale": np.float32(np.nan), "count": np.array([3, 4], np.int32)},
}


def test_what_is_written_is_read_bit_for_bit(tmp_path):
    path = tmp_path / "deep" / "w.safetensors"
    params = PARAMS | {"half": {"w": jnp.arange(5, dtype=jnp.bfloat16), "turned": np.arange(6.0).reshape(2, 3).T}}
    save_safetensors(path, params, {"step": "7", "config": "größe\n"})
    loaded, metadata = load_safetensors(path)
    assert metadata == {"step": "7", "config": "größe\n"}
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    for one, other in zip(jax.tree.leaves(params), jax.tree.leaves(loaded), strict=True):
        one = np.asarray(one)
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    # As another program sees it.
    assert set(safetensors.numpy.load_file(path)) >= {"model/dense/kernel", "model/dense/bias", "critic/scale"}
    assert stat.S_IMODE(path.stat().st_mode) & 0o044 == 0o044 & ~os.umask(os.umask(0))


def test_every_flipped_bit_is_seen(tmp_path):
    path = tmp_path / "w.safetensors"
    save_safetensors(path, {"m": {"w": np.array([1.0, 0.0], np.float32)}}, {"step": "7"})
    good = path.read_bytes()
    seen = set()
    with open(path, "r+b", buffering=0) as file:
        for bit in range(8 * len(good)):
            byte = good[bit // 8] ^ (1 << bit % 8)
            os.pwrite(file.fileno(), bytes([byte]), bit // 8)
            with pytest.raises(WeightsError, match="w.safetensors: damaged") as caught:
                load_safetensors(path)
            seen.add("not what was written" in str(caught.value))
            os.pwrite(file.fileno(), good[bit // 8 : bit // 8 + 1], bit // 8)
    assert seen == {True, False}  # by the checksum, and by safetensors
    assert load_safetensors(path)[1] == {"step": "7"}


def test_truncated_and_foreign_files(tmp_path):
    path = tmp_path / "w.safetensors"
    save_safetensors(path, PARAMS)
    good = path.read_bytes()
    for length in (0, 1, 7, 8, 9, 100, len(good) - 1):
        path.write_bytes(good[:length])
        with pytest.raises(WeightsError, match="damaged"):
            load_safetensors(path)
    path.write_bytes(good + b"\0")
    with pytest.raises(WeightsError, match="damaged"):
        load_safetensors(path)
    path.write_bytes(b"\x80\x04\x95" + good)  # as a pickle begins
    with pytest.raises(WeightsError, match="no safetensors file"):
        load_safetensors(path)
    with pytest.raises(WeightsError, match="no such file"):
        load_safetensors(tmp_path / "nowhere")
    tensors = {"m/w": np.ones(2, np.float32)}
    safetensors.numpy.save_file(tensors, path)
    with pytest.raises(WeightsError, match="of another program: its header has no checksum"):
        load_safetensors(path)
    assert load_safetensors(path, checked=False)[0]["m"]["w"].tolist() == [1, 1]
    for names in (["m", "m/w"], ["m/w", "m/w/x"]):
        safetensors.numpy.save_file({name: np.ones(2, np.float32) for name in names}, path)
        with pytest.raises(WeightsError, match="leads into a weight|a weight and a section"):
            load_safetensors(path, checked=False)


def test_what_no_header_can_hold(tmp_path):
    for params, metadata, words in [
        ({"m": {"a/b": np.ones(1)}}, None, "'a/b': a name is a word without /"),
        ({"m": {3: np.ones(1)}}, None, "m/3: a name"),
        (PARAMS, {"step": 7}, "must be strings"),
        (PARAMS, {"sha256": ""}, "the checksum's key"),
    ]:
        with pytest.raises(ValueError, match=words):
            save_safetensors(tmp_path / "w", params, metadata)
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_the_file_before(tmp_path):
    """A process that may write no file of more than 4 KiB."""
    path = tmp_path / "w.safetensors"
    save_safetensors(path, PARAMS)
    script = """
import resource, signal, sys
import numpy as np
from genjax.interop import save_safetensors
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    save_safetensors(sys.argv[1], {"m": {"w": np.ones(10_000)}})
except OSError as error:
    print(error.strerror)
"""
    done = subprocess.run([sys.executable, "-B", "-c", script, path], capture_output=True, text=True)
    assert done.stdout == "File too large\n", done.stderr
    assert json.dumps(load_safetensors(path)[0]["model"]["dense"]["bias"].tolist()) == "[0.0, 0.0, 0.0]"
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]
