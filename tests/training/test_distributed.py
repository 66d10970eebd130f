"""Processes find each other or say why not, train as one process does, and stop together."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from genjax.config import ConfigError
from genjax.training import distributed
from genjax.training.checkpoints import restore_params
from genjax.training.distributed import Launch
from genjax.training.experiment import Experiment
from genjax.training.loop import train
from genjax.training.mesh import Mesh
from tests.training import toys

ROOT = pathlib.Path(__file__).parents[2]
SRUN = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "16", "SLURM_PROCID": "9", "SLURM_LOCALID": "1", "SLURM_STEP_ID": "0"}
SRUN |= {"SLURM_STEP_NODELIST": "node[1-2]", "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NUM_TASKS": "16"}
# What a batch script and the shell of salloc have, and what such a shell has where it is itself a step of one task.
SBATCH = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "16", "SLURM_NNODES": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
SHELL = SBATCH | {"SLURM_STEP_NODELIST": "node1", "SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_NUM_TASKS": "1"}
MPIRUN = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3"}
MPIRUN |= {"OMPI_COMM_WORLD_LOCAL_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}


@pytest.mark.parametrize(
    ("environment", "launch"),
    [
        ({}, None),
        (SBATCH, None),
        (SHELL, None),
        (SRUN, Launch("slurm", 16, 9, 8, 1)),
        (SRUN | {"SLURM_GPUS_PER_TASK": "1"}, Launch("slurm", 16, 9, 8, 1, bound=True)),
        (MPIRUN, Launch("ompi", 4, 3, 2, 1)),
        (SBATCH | MPIRUN, Launch("ompi", 4, 3, 2, 1)),
        (MPIRUN | {"OMPI_COMM_WORLD_SIZE": "1"}, None),
    ],
)
def test_only_what_a_launcher_has_started_is_several_processes(environment, launch):
    assert distributed.launched(environment) == launch


@pytest.mark.parametrize(
    ("processes", "visible", "devices"),
    [
        (1, "0,1,2,3", [None]),  # one process a machine takes all
        (4, "0,1,2,3", [[0], [1], [2], [3]]),
        (2, "4,5,6,7", [[0, 1], [2, 3]]),  # numbers are places in what is visible
        (2, "0", [None, None]),  # each sees its own
        (2, "", [None, None]),  # hidden on purpose
        (2, None, [[0], [1]]),
    ],
)
def test_processes_of_a_machine_share_its_devices(processes, visible, devices):
    launches = [Launch("slurm", 8, 0, processes, local) for local in range(processes)]
    assert [distributed.local_devices(launch, visible) for launch in launches] == devices


def test_processes_that_have_their_own_devices_take_all_of_them():
    assert distributed.local_devices(Launch("slurm", 8, 0, 4, 1, bound=True), "0,1,2,3") is None


@pytest.mark.parametrize(
    ("given", "environment", "message"),
    [
        ({"coordinator": "localhost:1"}, {}, "nobody says --processes=N"),
        ({"coordinator": "localhost:1", "processes": 2}, {}, "nobody says --process=I"),
        ({"processes": 2, "process": 0}, {}, "nobody says --coordinator=HOST:PORT"),
        ({}, MPIRUN, "nobody says --coordinator=HOST:PORT"),
        ({"processes": 2, "process": 2}, {}, "--process = 2, --processes = 2: processes are numbered from 0"),
        ({"processes": 2, "process": 0, "coordinator": "localhost"}, {}, "must be HOST:PORT, such as node1:12345"),
        ({"processes": 2, "process": 0, "coordinator": "nowhere.invalid:1"}, {}, "nowhere.invalid: "),
    ],
)
def test_what_is_missing_or_wrong_is_named(given, environment, message, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        distributed.start(**given)


@pytest.mark.parametrize(
    ("given", "environment"),
    [({}, {}), ({}, SBATCH), ({}, SHELL), ({"processes": 1}, SRUN), ({}, {"JAX_COORDINATOR_ADDRESS": "x:1"})],
)
def test_one_process_starts_nothing(given, environment, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    distributed.start(**given)
    assert not jax.distributed.is_initialized()


def test_one_process_tells_nobody():
    told = jax.jit(distributed.greatest)(distributed.flags(Mesh().build(), 15))
    assert told == ()
    assert distributed.agreed(told, 15) == 15
    with pytest.raises(KeyError, match="as it is"), distributed.together("nothing"):
        raise KeyError("as it is")


def run_python(script, *arguments, devices=1):
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


_ALONE = """
import sys
from genjax.training import distributed
distributed.start(sys.argv[1], 2, int(sys.argv[2]), timeout=1.0)
"""
_COMMAND = """
import sys
from jax._src import xla_bridge
from genjax.cli import main, train
from genjax.training import distributed
assert not xla_bridge.backends_are_initialized(), "importing has touched a device"
join = distributed.start
distributed.start = lambda *given: join(*given, timeout=1.0)
sys.exit(main(["train", "--config=no.py", "--workdir=no", "--processes=2", *sys.argv[1:]]))
"""


def test_a_process_that_waits_in_vain_says_so():
    port = free_port()
    first = run_python(_ALONE, f"localhost:{port}", 0)
    other = run_python(_COMMAND, f"--coordinator=localhost:{port + 1}", "--process=1")
    late = "process 0 of 2: not all processes have come within 1 s; joining at localhost:"
    assert f"ConfigError: {late}{port}\n" in first.communicate(timeout=100)[1]
    assert first.returncode == 1
    none = "process 1 of 2: nobody has answered within 1 s (Connection refused); joining at localhost:"
    assert other.communicate(timeout=100)[1] == f"genjax train: {none}{port + 1}\n"
    assert other.returncode == 2


_TOGETHER = """
import json, pathlib, sys
from genjax.training import distributed
folder, port, index = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
distributed.start(f"localhost:{port}", 2, index, timeout=60.0)

import jax
import numpy as np
from genjax.config import ConfigError
from genjax.data.loader import batch_at
from genjax.training.experiment import Experiment
from genjax.training import loop
from genjax.training.loop import train
from genjax.training.mesh import Mesh, batch_sharding, make_global
from tests.training import toys
from tests.training.test_distributed import config

result = {"devices": jax.device_count()}

# The rows of each device's part of the global batch, where one process has them.
source = toys.Images()
for fsdp in (1, 2):
    mesh = Mesh(fsdp=fsdp).build()
    whole = batch_at(source, 5, 3, 16)
    part = make_global(batch_at(source, 5, 3, 16, (index, 2)), batch_sharding(mesh))
    for name, array in part.items():
        assert array.shape == whole[name].shape
        for shard in array.addressable_shards:
            np.testing.assert_array_equal(shard.data, whole[name][shard.index])

try:
    with distributed.together("looking"):
        if index == 1:
            raise ValueError("only here")
    result["together"] = "nothing raised"
except (ConfigError, ValueError) as error:
    result["together"] = f"{type(error).__name__}: {error}"

mesh = Mesh().build()
greatest = jax.jit(distributed.greatest)
result["greatest"] = [int(greatest(distributed.flags(mesh, value))) for value in (0, 15 * index, 2 + index)]

for name, fsdp in (("data", 1), ("fsdp", -1), ("from_one", -1)):
    state = train(Experiment.from_config(config(folder, jax.device_count() if fsdp < 0 else 1)), folder / name)
    pieces = state.params["network"]["dense"]["kernel"].addressable_shards
    result[name] = pieces[0].data.shape
train(Experiment.from_config(config(folder, jax.device_count(), steps=3)), folder / "to_one")

steps = []
loop.make_global = lambda batch, sharding: steps.append(None) or make_global(batch, sharding)
try:
    train(Experiment.from_config(config(folder, 1, steps=1000000, log_every=100)), folder / "stopped")
except SystemExit as stop:
    result["steps"] = len(steps)
    (folder / f"result{index}.json").write_text(json.dumps(result))
    raise
"""


def config(folder, fsdp=1, **training):
    training = {"log_every": 1, "batch_size": 16, "save_every": 0, "compile_cache": f"{folder}/programs"} | training
    return toys.denoiser_config(**training) | {"mesh": {"fsdp": fsdp}}


@pytest.fixture(scope="module", params=[1, pytest.param(2, marks=pytest.mark.slow)], ids=["1_device", "2_devices"])
def runs(request, tmp_path_factory):
    """Two processes with so many devices each, and one process, in one folder."""
    folder = tmp_path_factory.mktemp("processes")
    state = {"one": train(Experiment.from_config(config(folder)), folder / "one")}
    train(Experiment.from_config(config(folder, steps=3)), folder / "from_one")
    port = free_port()
    pair = [run_python(_TOGETHER, folder, port, index, devices=request.param) for index in (0, 1)]
    rows = folder / "stopped" / "metrics.csv"
    try:
        deadline = time.monotonic() + 300
        while not (rows.exists() and "\n100," in rows.read_text()):
            if time.monotonic() > deadline or any(process.poll() is not None for process in pair):
                for process in pair:
                    process.kill()
                pytest.fail("\n".join(process.communicate()[1][-3000:] for process in pair))
            time.sleep(0.05)
        pair[1].send_signal(signal.SIGTERM)
        outputs = [process.communicate(timeout=60) for process in pair]
    finally:
        for process in pair:
            process.kill()
    found = {
        "devices": 2 * request.param,
        "codes": [process.returncode for process in pair],
        "outputs": outputs,
        "results": [json.loads((folder / f"result{index}.json").read_text()) for index in (0, 1)],
    }
    for name in ("data", "fsdp", "from_one", "to_one"):  # finished, but for the last: restored onto one device
        state[name] = train(Experiment.from_config(config(folder)), folder / name)
    return found | {"folder": folder, "state": state}


def table(folder):
    rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    return rows[0], np.array(rows[1:], np.float32)


def test_the_processes_were_two(runs):
    for result in runs["results"]:
        assert result["devices"] == runs["devices"]
        assert result["data"] == [16, 16] and result["fsdp"] == [16 // runs["devices"], 16]


@pytest.mark.parametrize("run", ["data", "fsdp", "from_one", "to_one"])
def test_two_processes_train_as_one_does(runs, run):
    # Sums over a batch in another order: a unit in the last place or two a step, see test_mesh.
    names, rows = table(runs["folder"] / "one")
    assert table(runs["folder"] / run)[0] == names
    np.testing.assert_array_max_ulp(table(runs["folder"] / run)[1], rows, 16)
    for ours, theirs in zip(
        jax.tree.leaves((runs["state"][run].params, runs["state"][run].ema)),
        jax.tree.leaves((runs["state"]["one"].params, runs["state"]["one"].ema)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_failure_of_one_is_a_failure_of_all(runs):
    assert [result["together"] for result in runs["results"]] == [
        "ConfigError: looking: process 1 failed, and says why",
        "ValueError: only here",
    ]


def test_all_processes_know_the_greatest_number(runs):
    assert [result["greatest"] for result in runs["results"]] == [[0, 15, 3]] * 2


def test_a_signal_to_one_stops_all_after_the_same_step(runs):
    assert runs["codes"] == [143, 143]
    steps = [int(path.name) for path in (runs["folder"] / "stopped" / "checkpoints").iterdir() if path.name.isdigit()]
    assert [[result["steps"]] for result in runs["results"]] == [steps] * 2
    assert f"SIGTERM: saved at step {steps[0]}; to go on: " in runs["outputs"][0][0]
    assert "saved" not in runs["outputs"][1][0]
    params, step = restore_params(runs["folder"] / "stopped" / "checkpoints")
    assert step == steps[0] and np.isfinite(params["network"]["dense"]["kernel"]).all()


_STOPS = """
import sys
from genjax.cli import main
from tests.training import toys  # noqa: F401, whose family no config file could name
folder, port, index = sys.argv[1], sys.argv[2], sys.argv[3]
sys.exit(main(["train", f"--config={folder}/config.json", f"--workdir={folder}/run", f"--coordinator=localhost:{port}",
               "--processes=2", f"--process={index}"]))
"""


@pytest.mark.slow
def test_processes_that_stop_for_one_reason_end_at_once_with_its_status(tmp_path):
    broken = config(tmp_path, steps=9, save_every=2) | {"family": {"name": "toy_denoiser", "breaks_at": [5]}}
    (tmp_path / "config.json").write_text(json.dumps(broken))
    port = free_port()
    pair = [run_python(_STOPS, tmp_path, port, index) for index in (0, 1)]
    try:
        errors = [process.communicate(timeout=60)[1] for process in pair]
    finally:
        for process in pair:
            process.kill()
    assert [process.returncode for process in pair] == [3, 3], errors
    assert all("step 5: denoiser/loss is nan" in error for error in errors)
