"""Several devices compute what one does; XLA is told to show eight on this machine."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

_SCRIPT = """
import json, sys, pathlib
import jax
import numpy as np
from tests.training import toys
from genjax.config import ConfigError
from genjax.training.experiment import Experiment
from genjax.training.loop import train

def config(data, fsdp, **training):
    training = {"log_every": 1, "compile_cache": sys.argv[1] + "/programs"} | training
    return toys.denoiser_config(**training) | {"mesh": {"data": data, "fsdp": fsdp}}

def leaves(state):
    return [np.asarray(leaf).tolist() for leaf in jax.tree.leaves((state.params, state.ema))]

folder, result = pathlib.Path(sys.argv[1]), {}
for data, fsdp in ((1, 1), (8, 1), (1, 8), (4, 2)):
    name = f"{data}x{fsdp}"
    state = train(Experiment.from_config(config(data, fsdp)), folder / name)
    kernel = state.params["network"]["dense"]["kernel"]
    result[name] = {
        "state": leaves(state),
        "csv": (folder / name / "metrics.csv").read_text(),
        "piece": kernel.addressable_shards[0].data.shape,
        "devices": len(kernel.sharding.device_set),
    }
train(Experiment.from_config(config(-1, 1, steps=3)), folder / "moved")
result["moved"] = {"state": leaves(train(Experiment.from_config(config(2, 4)), folder / "moved"))}
try:
    train(Experiment.from_config(config(4, 2, batch_size=12)), folder / "refused")
except ConfigError as error:
    result["refused"] = [str(error), (folder / "refused").exists()]
pathlib.Path(sys.argv[2]).write_text(json.dumps(result))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    root = pathlib.Path(__file__).parents[2]
    folder = tmp_path_factory.mktemp("mesh")
    environment = os.environ | {
        "PYTHONPATH": str(root),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    }
    command = [sys.executable, "-c", _SCRIPT, str(folder), str(folder / "result.json")]
    subprocess.run(command, cwd=root, env=environment, check=True, stdout=subprocess.DEVNULL)
    return json.loads((folder / "result.json").read_text())


def assert_close(a, b):
    # Sums over a batch of 8 x 16 terms in another order: a few units in the last place of float32 a step, and Adam
    # divides by the gradient's own size, which keeps relative errors.
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mesh", ["8x1", "1x8", "4x2"])
def test_many_devices_equal_one(results, mesh):
    assert results[mesh]["devices"] == 8
    assert_close(results[mesh]["state"], results["1x1"]["state"])
    table, expected = ([line.split(",") for line in results[m]["csv"].splitlines()] for m in (mesh, "1x1"))
    assert table[0] == expected[0]
    assert_close([[float(v) for v in row] for row in table[1:]], [[float(v) for v in row] for row in expected[1:]])


def test_fsdp_splits_the_longest_axis(results):
    assert [results[mesh]["piece"] for mesh in ("8x1", "1x8", "4x2")] == [[16, 16], [2, 16], [8, 16]]


def test_a_run_moves_to_another_mesh(results):
    assert_close(results["moved"]["state"], results["1x1"]["state"])


def test_a_batch_that_cannot_be_split_is_refused_before_anything_is_written(results):
    message = "config.training.batch_size = 12: 8 devices (data 4 x fsdp 2) cannot split it evenly"
    assert results["refused"] == [message, False]
