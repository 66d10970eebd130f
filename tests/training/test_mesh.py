"""Several devices compute what one does; XLA is told to show eight on this machine."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

_START = """
import json, pathlib, shutil, sys
import jax
import numpy as np
from configs.digits.ddpm import get_config
from tests.training import toys
from genjax.config import ConfigError
from genjax.training.experiment import Experiment
from genjax.training.loop import train

folder, result = pathlib.Path(sys.argv[1]), {}

def toy(data, fsdp, steps=6, optimizer=None, **training):
    training = {"steps": steps, "log_every": 1, "compile_cache": f"{folder}/programs"} | training
    changes = {"mesh": {"data": data, "fsdp": fsdp}} | ({"optimizers": {"network": optimizer}} if optimizer else {})
    return toys.denoiser_config(**training) | changes

def unet(data, fsdp, steps=6):
    config = get_config("smoke").copy_and_resolve_references().to_dict()
    config["optimizers"]["model"]["learning_rate"] = 1e-3  # the config's schedule follows the steps
    config["training"] |= {"steps": steps, "log_every": 1, "save_every": 0, "sample_every": 0}
    config["training"] |= {"compile_cache": f"{folder}/programs"}
    return config | {"mesh": {"data": data, "fsdp": fsdp}}

def run(name, config):
    state = train(Experiment.from_config(config), folder / name)
    np.savez(folder / f"{name}.npz", *map(np.asarray, jax.tree.leaves((state.params, state.ema))))
    return state

def bits(state):
    return [np.asarray(leaf if leaf.dtype != state.key.dtype else jax.random.key_data(leaf))
            for leaf in jax.tree.leaves(state)]

def move(name, config, begun, meshes):
    saved = run(f"{name}_begun", config(*begun, steps=3))
    for data, fsdp in meshes:
        moved = f"{name}_to_{data}x{fsdp}"
        shutil.copytree(folder / f"{name}_begun", folder / moved)
        restored = run(moved, config(data, fsdp, steps=3))  # it is done, so nothing but restored
        equal = [a.tobytes() == b.tobytes() for a, b in zip(bits(saved), bits(restored), strict=True)]
        result[moved] = [sorted({len(leaf.sharding.device_set) for leaf in jax.tree.leaves(restored)}), all(equal)]
        run(moved, config(data, fsdp))
"""

_TOYS = """
for data, fsdp in ((1, 1), (8, 1), (1, 8), (4, 2)):
    state = run(f"toy_{data}x{fsdp}", toy(data, fsdp))
    kernel = state.params["network"]["dense"]["kernel"]
    result[f"{data}x{fsdp}"] = [kernel.addressable_shards[0].data.shape, len(kernel.sharding.device_set)]
move("toy", toy, (1, 8), [(1, 1), (2, 2), (8, 1)])
try:
    train(Experiment.from_config(toy(4, 2, batch_size=12)), folder / "refused")
except ConfigError as error:
    result["refused"] = [str(error), (folder / "refused").exists()]
"""

_MORE = """
for data, fsdp in ((1, 1), (8, 1), (1, 8), (4, 2)):
    run(f"unet_{data}x{fsdp}", unet(data, fsdp))
move("unet", unet, (1, 8), [(1, 1), (2, 2)])
for name in ("adafactor", "muon", "lamb"):
    spec = {"name": name, "learning_rate": 0.01} | ({"min_dim_size_to_factor": 4} if name == "adafactor" else {})
    for data, fsdp in ((1, 1), (2, 4)):
        run(f"{name}_{data}x{fsdp}", toy(data, fsdp, optimizer=spec))
"""

_END = """
(folder / "result.json").write_text(json.dumps(result))
"""


def run_on_eight(folder, script):
    root = pathlib.Path(__file__).parents[2]
    environment = os.environ | {
        "PYTHONPATH": str(root),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    }
    command = [sys.executable, "-c", _START + script + _END, str(folder)]
    subprocess.run(command, cwd=root, env=environment, check=True, stdout=subprocess.DEVNULL)
    return folder, json.loads((folder / "result.json").read_text())


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return run_on_eight(tmp_path_factory.mktemp("mesh"), _TOYS)


@pytest.fixture(scope="module")
def more_results(tmp_path_factory):
    return run_on_eight(tmp_path_factory.mktemp("mesh"), _MORE)


def table(folder, name):
    """The names of the metrics, and their values float32 [steps, metrics]."""
    lines = [line.split(",") for line in (folder / name / "metrics.csv").read_text().splitlines()]
    return lines[0], np.array(lines[1:], np.float32)


def state(folder, name):
    with np.load(folder / f"{name}.npz") as arrays:
        return [arrays[key] for key in arrays.files]


def assert_close(folder, a, b, ulps=8, norm=1e-6):
    """Metrics within `ulps` units in the last place of float32; weights and averages within `norm` of their norm.

    Devices add up the same terms in another order, which moves a loss or a gradient by a unit or two, and by four after
    six steps; the test prints by how much. Other noise, another batch or a sum over too few devices would move them by
    thousands. Adam divides by the gradient's own size and so keeps relative errors, but for single weights whose
    gradient is nothing but rounding.
    """
    (names, ours), (expected, theirs) = table(folder, a), table(folder, b)
    assert names == expected and ours.shape == theirs.shape
    spacing = np.spacing(np.maximum(np.abs(ours), np.abs(theirs)))
    worst = (np.abs(ours.astype(np.float64) - theirs) / spacing).max(0)
    x, y = (np.concatenate([array.ravel() for array in state(folder, name)]).astype(np.float64) for name in (a, b))
    distance = np.linalg.norm(x - y) / np.linalg.norm(y)
    print(f"{a} to {b}: weights {distance:.1e}, units in the last place", dict(zip(names, worst.tolist(), strict=True)))
    assert worst.max() <= ulps
    assert distance <= norm


@pytest.mark.parametrize("mesh", ["8x1", "1x8", "4x2"])
def test_many_devices_equal_one(results, mesh):
    folder, about = results
    assert about[mesh][1] == 8
    assert_close(folder, f"toy_{mesh}", "toy_1x1")


def test_fsdp_splits_the_longest_axis(results):
    assert [results[1][mesh][0] for mesh in ("8x1", "1x8", "4x2")] == [[16, 16], [2, 16], [8, 16]]


@pytest.mark.parametrize("mesh", ["1x1", "2x2", "8x1"])
def test_a_checkpoint_moves_to_another_mesh_bit_for_bit(results, mesh):
    folder, about = results
    assert about[f"toy_to_{mesh}"] == [[{"1x1": 1, "2x2": 4, "8x1": 8}[mesh]], True]
    assert_close(folder, f"toy_to_{mesh}", "toy_1x1")


def test_a_batch_that_cannot_be_split_is_refused_before_anything_is_written(results):
    message = "config.training.batch_size = 12: 8 devices (data 4 x fsdp 2) cannot split it evenly"
    assert results[1]["refused"] == [message, False]


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["8x1", "1x8", "4x2"])
def test_a_unet_on_eight_devices_equals_one_on_one(more_results, mesh):
    assert_close(more_results[0], f"unet_{mesh}", "unet_1x1")


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["1x1", "2x2"])
def test_a_checkpoint_of_a_unet_moves_to_fewer_devices_bit_for_bit(more_results, mesh):
    folder, about = more_results
    assert about[f"unet_to_{mesh}"] == [[{"1x1": 1, "2x2": 4}[mesh]], True]
    assert_close(folder, f"unet_to_{mesh}", "unet_1x1")


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adafactor", "muon", "lamb"])
def test_optimizers_whose_state_has_other_shapes_than_the_weights(more_results, optimizer):
    assert_close(more_results[0], f"{optimizer}_2x4", f"{optimizer}_1x1", norm=1e-5)
