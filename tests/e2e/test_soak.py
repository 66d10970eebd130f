"""Runs killed by SIGKILL, in the midst of saves too, end as one that was not: bit for bit.

Each start is a process of its own. Kills come at random moments, a third of them while a checkpoint is being written.
"""

import contextlib
import csv
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from genjax.training.store import Store

ROOT = pathlib.Path(__file__).parents[2]
SAVE_EVERY = 6

# Arguments: which experiment, the folders of the run and of compiled programs, steps, seconds that a save takes longer.
# At its end it prints a hash of every bit of the state.
_SCRIPT = """
import hashlib, importlib.util, sys, time
import jax, numpy as np
from genjax.training import loop, store
from genjax.training.experiment import Experiment

kind, folder, programs, steps, slower = sys.argv[1:]
how = dict(steps=int(steps), log_every=1, save_every=6, count_flops=False, compile_cache=programs)
if kind == "toy":
    from tests.training import toys
    config = toys.denoiser_config(**how)
    config["ema"] = {"decay": 0.9, "posthoc": {"snapshot_every": 7}}
else:
    spec = importlib.util.spec_from_file_location("config", "configs/digits/ddpm.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config("smoke").copy_and_resolve_references()
    config.training.update(sample_every=0, **how)

real, manifest = loop.make_global, store.write_manifest
def slow_step(*arguments):
    time.sleep(0.02)  # so that there is a run to be killed in the midst of
    return real(*arguments)
def slow_save(*arguments):
    time.sleep(float(slower))
    return manifest(*arguments)
loop.make_global, store.write_manifest = slow_step, slow_save

state = loop.train(Experiment.from_config(config), folder)
digest = hashlib.sha256()
for path, leaf in jax.tree_util.tree_leaves_with_path(state):
    data = jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
    digest.update(jax.tree_util.keystr(path).encode() + np.asarray(data).tobytes())
print("digest", digest.hexdigest())
"""


class Starts:
    """The processes that one run takes."""

    def __init__(self, kind, folder, programs, steps, slower=0.0):
        self.folder = folder
        self._command = [sys.executable, "-c", _SCRIPT, kind, str(folder), str(programs), str(steps), str(slower)]
        self._environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
        self.resumed, self.reached = [], []  # by start: the step that it went on from, and the last that it logged

    def start(self, wait=None):
        """Starts once, and kills when `wait` returns; None lets it end. Returns what it printed last."""
        how = dict(cwd=ROOT, env=self._environment, stdout=subprocess.PIPE, text=True)
        with subprocess.Popen(self._command, **how) as process:
            for line in process.stdout:
                if ": from step " in line:
                    self.resumed.append(int(line.split(": from step ")[1].split()[0]))
                    break
            else:
                pytest.fail("it did not start")
            if wait is not None:
                wait()
                process.kill()
            rest = process.stdout.read()
        assert process.returncode in (0, -signal.SIGKILL), rest
        with open(self.folder / "metrics.csv", newline="") as file:
            lines = [line for line in file if line.endswith("\n")]
        steps = [int(row["step"]) for row in csv.DictReader(lines)]
        self.reached.append(max(steps, default=self.resumed[-1]))
        return rest


def early(starts, generator):
    """At a random moment, perhaps before anything is saved."""
    time.sleep(generator.uniform(0.0, 0.5))


def between(starts, generator):
    """At a random moment after a new checkpoint."""
    wait_for(starts, lambda names: any(name.isdigit() and int(name) > starts.resumed[-1] for name in names))
    time.sleep(generator.uniform(0.0, 0.3))


def while_saving(starts, generator):
    """While a checkpoint is being written, after a new one."""
    wait_for(starts, lambda names: any(name.isdigit() and int(name) > starts.resumed[-1] for name in names))
    wait_for(starts, lambda names: any("writing" in name for name in names))
    time.sleep(generator.uniform(0.0, 0.02))


def wait_for(starts, condition):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            if condition(os.listdir(starts.folder / "checkpoints")):
                return
        time.sleep(0.001)
    pytest.fail("nothing was saved")


def snapshots(folder):
    """Every bit of every snapshot of a run; none of a run that has none."""
    store = Store(folder / "snapshots", read_only=True)
    assert all(store.verify(step) is None for step in store.steps())
    trees = {step: store.load(step, store.shapes(step)) for step in store.steps()}
    return jax.tree.map(lambda leaf: np.asarray(leaf).tobytes(), trees)


def soak(kind, tmp_path, kills, steps, slower=0.0):
    """Runs to the end without a break and with kills, and compares."""
    programs = tmp_path / "programs"
    whole = Starts(kind, tmp_path / "whole", programs, steps)
    expected = whole.start()
    assert "digest" in expected
    generator = random.Random(0)
    broken = Starts(kind, tmp_path / "broken", programs, steps, slower)
    for number in range(kills):
        rest = broken.start(lambda: (between, while_saving, early)[number % 3](broken, generator))  # noqa: B023
        assert "digest" not in rest
    final = broken.start()
    assert final.splitlines()[-1] == expected.splitlines()[-1]
    assert (broken.folder / "metrics.csv").read_bytes() == (whole.folder / "metrics.csv").read_bytes()
    assert broken.resumed == sorted(broken.resumed) and broken.resumed[-1] > 0
    for reached, resumed in zip(broken.reached, broken.resumed[1:], strict=False):
        assert reached - resumed <= SAVE_EVERY, (broken.reached, broken.resumed)
    assert snapshots(broken.folder) == snapshots(whole.folder)
    # A kill leaves nothing that looks like a checkpoint and is none.
    assert all(path.name.isdigit() for path in (broken.folder / "checkpoints").iterdir())
    return broken, whole


def test_killed_runs_end_as_unbroken_ones(tmp_path):
    runs = soak("toy", tmp_path, kills=3, steps=60)
    broken, whole = (sorted(path.name for path in (run.folder / "snapshots").iterdir()) for run in runs)
    assert broken == whole and len(whole) == 9


@pytest.mark.slow
def test_killed_twenty_times(tmp_path):
    soak("digits", tmp_path, kills=20, steps=300)


@pytest.mark.slow
def test_saves_that_are_slower_than_the_steps_between_them(tmp_path):
    soak("toy", tmp_path, kills=8, steps=120, slower=0.4)
