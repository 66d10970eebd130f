"""Whole runs: resumed ones equal unbroken ones bit for bit."""

import csv
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image

from genjax.config import ConfigError
from genjax.training import loop
from genjax.training.checkpoints import training_seconds
from genjax.training.experiment import Experiment
from genjax.training.loop import train
from tests.training import toys

CONFIGS = {
    "denoiser": toys.denoiser_config(steps=7, log_every=2, save_every=4, sample_every=3, sample_n=5),
    "game": toys.game_config(steps=7, log_every=2, save_every=4),
}


@pytest.fixture(scope="module")
def compile_cache(tmp_path_factory):
    """A run with a compile cache sets it for the whole process; this sets it back."""
    names = [
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
    ]
    before = {name: getattr(jax.config, name) for name in names}
    yield tmp_path_factory.mktemp("programs")
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="module", params=CONFIGS)
def unbroken(request, tmp_path_factory, compile_cache):
    config = CONFIGS[request.param]
    config = {**config, "training": {**config["training"], "compile_cache": str(compile_cache)}}
    experiment = Experiment.from_config(config)
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    return experiment, folder, train(experiment, folder)


def assert_same_bits(a, b):
    def compare(x, y):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()

    jax.tree.map(compare, a, b)


def rows(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_ctrl_c_saves_prints_the_command_and_resumes_exactly(unbroken, tmp_path, monkeypatch, capsys):
    experiment, whole, final = unbroken
    folder = tmp_path / "run"

    def interrupt():
        time.sleep(1.0)  # so that the second start alone is the shorter
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        toys.at_step(patch, 3, interrupt)
        with pytest.raises(SystemExit) as stopped:
            train(experiment, folder, "genjax train --config=here")
    assert stopped.value.code == 130
    assert "SIGINT: saved at step 3; to go on: genjax train --config=here" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert [row["step"] for row in rows(folder)] == ["2"]
    began, before = time.perf_counter(), training_seconds(folder / "checkpoints", 3)
    assert_same_bits(train(experiment, folder), final)
    assert (folder / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    after = training_seconds(folder / "checkpoints", 7)
    assert 0 < before < after < before + time.perf_counter() - began


def test_ctrl_c_before_the_first_step(unbroken, tmp_path, monkeypatch, capsys):
    """Before the step is compiled nothing is saved; while it is, the step is taken and saved."""
    experiment, _, final = unbroken

    def interrupted(function):
        def wrapped(*args):
            signal.raise_signal(signal.SIGINT)
            return function(*args)

        return wrapped

    early, make = interrupted(loop.build_optimizers), loop.make_train_step
    for name, patched, words, steps in [
        ("build_optimizers", early, "stopped before step 1", []),
        ("make_train_step", lambda *args: interrupted(make(*args)), "saved at step 1", [1]),
    ]:
        with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
            patch.setattr(loop, name, patched)
            train(experiment, tmp_path / "run")
        assert stopped.value.code == 130
        assert f"SIGINT: {words}; to go on: genjax train --workdir=" in capsys.readouterr().out
        assert [int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir()] == steps
    assert_same_bits(train(experiment, tmp_path / "run"), final)


def test_a_crash_loses_what_came_after_the_checkpoint_and_no_more(unbroken, tmp_path, monkeypatch):
    experiment, whole, final = unbroken
    folder = tmp_path / "run"

    def crash():
        raise RuntimeError("the machine is gone")

    with monkeypatch.context() as patch:
        toys.at_step(patch, 7, crash)
        with pytest.raises(RuntimeError):
            train(experiment, folder)
    saved = sorted(int(path.name) for path in (folder / "checkpoints").iterdir())
    assert saved == [2, 4, 6] and experiment.training.save_every == 4  # twice as often as what a kill may cost
    shutil.rmtree(folder / "checkpoints" / sorted(path.name for path in (folder / "checkpoints").iterdir())[-1])
    with open(folder / "metrics.csv", "a") as file:
        file.write("6," + "0.5," * (len(rows(folder)[0]) - 2) + "0.5\n7,0.")  # what the killed process had logged
    assert_same_bits(train(experiment, folder), final)
    assert (folder / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()


def test_rows_are_means_over_their_steps(unbroken, tmp_path):
    """A window of two steps is the mean of two windows of one step, and each phase counts where it ran."""
    experiment, whole, _ = unbroken
    config = {**experiment.config, "training": {**experiment.config["training"], "log_every": 1}}
    train(Experiment.from_config(config), tmp_path / "run")
    single = {int(row["step"]): row for row in rows(tmp_path / "run")}
    assert list(single) == [1, 2, 3, 4, 5, 6, 7]
    assert [row["step"] for row in rows(whole)] == ["2", "4", "6", "7"]
    for row, members in zip(rows(whole), ((1, 2), (3, 4), (5, 6), (7,)), strict=True):
        for name in set(row) - {"step"}:
            values = [float(single[step][name]) for step in members if single[step][name]]
            assert (row[name] == "") == (values == [])
            if values:
                assert float(row[name]) == pytest.approx(np.mean(values), rel=1e-12)


def test_a_longer_run_goes_on(unbroken, tmp_path, capsys):
    experiment, _, final = unbroken
    config = {**experiment.config, "training": {**experiment.config["training"], "steps": 5}}
    folder = tmp_path / "run"
    train(Experiment.from_config(config), folder)
    assert_same_bits(train(experiment, folder), final)
    assert "config.training.steps: 5 -> 7" in capsys.readouterr().out
    before = sorted((folder / "checkpoints").rglob("*"))
    assert_same_bits(train(experiment, folder), final)  # done already
    assert sorted((folder / "checkpoints").rglob("*")) == before


def test_run_folder_holds_what_it_should(unbroken, compile_cache):
    _, folder, _ = unbroken
    files = "config.json versions.json lock metrics.csv parameters.txt tensorboard checkpoints samples"
    assert {path.name for path in folder.iterdir()} == set(files.split())
    assert "Total:" in (folder / "parameters.txt").read_text()
    assert any(compile_cache.iterdir())


def test_sample_grids(unbroken):
    experiment, folder, _ = unbroken
    every = experiment.training.sample_every
    names = sorted(path.name for path in folder.glob("samples/*.png"))
    assert names == (["00000003.png", "00000006.png", "00000007.png"] if every else [])
    for name in names:
        with Image.open(folder / "samples" / name) as grid:
            assert grid.width > grid.height  # five images of three classes: two rows, a class a column
            assert len(grid.getcolors(2**16)) > 5


def test_mistakes_come_before_anything_is_written(tmp_path):
    config = toys.denoiser_config()
    config["optimizers"]["network"]["freeze"] = ["^heed"]
    with pytest.raises(ConfigError, match="config.optimizers.network: freeze: .* matches no parameter"):
        train(Experiment.from_config(config), tmp_path / "run")
    with pytest.raises(ConfigError, match="the network cannot divide"):
        train(Experiment.from_config({**config, "family": {"name": "toy_denoiser", "divisor": 3}}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_experiments_folder_is_refused(unbroken, tmp_path):
    experiment, folder, _ = unbroken
    with pytest.raises(ConfigError, match="config.seed: 3 -> 4"):
        train(Experiment.from_config({**experiment.config, "seed": 4}), folder)


_SCRIPT = """
import sys
from tests.training import toys
from genjax.training.experiment import Experiment
from genjax.training.loop import train
train(Experiment.from_config(toys.denoiser_config(steps=10**9, log_every=5, save_every=0)), sys.argv[1])
"""


def test_sigterm_from_outside(tmp_path):
    root = pathlib.Path(__file__).parents[2]
    command = [sys.executable, "-c", _SCRIPT, str(tmp_path / "run")]
    environment = os.environ | {"PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}
    with subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stdout:
                if line.startswith("step 5/"):
                    process.send_signal(signal.SIGTERM)
                    break
            rest = process.stdout.read()
        finally:
            process.kill() if process.poll() is None and not rest else None
    assert process.returncode == 143
    assert f"to go on: genjax train --workdir={tmp_path / 'run'}" in rest
    steps = [int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert steps and f"SIGTERM: saved at step {steps[0]};" in rest


@pytest.mark.parametrize("at, traced", [(0, True), (1, True), (3, False)])
def test_a_profiler_trace_begins_after_the_step_it_is_told(tmp_path, at, traced):
    training = {"steps": 2, "count_flops": False, "profile_at": at, "profile_steps": 1}
    train(Experiment.from_config(toys.denoiser_config(**training)), tmp_path / "run")
    assert bool(list(tmp_path.glob("run/profile/**/*.xplane.pb"))) == traced
