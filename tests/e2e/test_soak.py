"""Runs killed by SIGKILL, in the midst of saves too, end as one that was not: bit for bit.

Each start is a process of its own. Half of the kills come at a random moment, half while a checkpoint is being written.
"""

import csv
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SAVE_EVERY = 6

# Arguments: which experiment, the folder of the run, the folder of compiled programs, seconds that a save takes longer.
# At its end it prints a hash of every bit of the state.
_SCRIPT = """
import hashlib, importlib.util, sys, time
import jax, numpy as np
from genjax.training import loop, store
from genjax.training.experiment import Experiment

kind, folder, programs, slower = sys.argv[1:]
how = dict(steps=60, log_every=1, save_every=6, count_flops=False, compile_cache=programs)
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

real, verify = loop.make_global, store.Store._commit
def slow_step(*arguments):
    time.sleep(0.02)  # so that there is a run to be killed in the midst of
    return real(*arguments)
def slow_save(*arguments):
    time.sleep(float(slower))
    return verify(*arguments)
loop.make_global, store.Store._commit = slow_step, slow_save

state = loop.train(Experiment.from_config(config), folder)
digest = hashlib.sha256()
for path, leaf in jax.tree_util.tree_leaves_with_path(state):
    data = jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
    digest.update(jax.tree_util.keystr(path).encode() + np.asarray(data).tobytes())
print("digest", digest.hexdigest())
"""


class Starts:
    """The processes that one run takes."""

    def __init__(self, kind, folder, programs, slower=0.0):
        self.folder = folder
        self._command = [sys.executable, "-c", _SCRIPT, kind, str(folder), str(programs), str(slower)]
        self._environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
        self.resumed, self.reached = [], []  # by start: the step that it went on from, and the last that it logged

    def start(self, kill=None):
        """Starts once; `kill(self, process)` waits and kills, and None lets it end. Returns what it printed last."""
        before = list((self.folder / "checkpoints").glob("*"))
        how = dict(cwd=ROOT, env=self._environment, stdout=subprocess.PIPE, text=True)
        with subprocess.Popen(self._command, **how) as process:
            for line in process.stdout:
                if ": from step " in line:
                    self.resumed.append(int(line.split(": from step ")[1].split()[0]))
                    break
            else:
                pytest.fail(f"it did not start from {before}")
            if kill is not None:
                kill(self, process)
                process.kill()
            rest = process.stdout.read()
        assert process.returncode in (0, -signal.SIGKILL), rest
        with open(self.folder / "metrics.csv", newline="") as file:
            lines = [line for line in file if line.endswith("\n")]
        steps = [int(row["step"]) for row in csv.DictReader(lines)]
        self.reached.append(max(steps, default=self.resumed[-1]))
        return rest


def at_random(generator, longest):
    return lambda starts, process: time.sleep(generator.uniform(0.0, longest))


def while_saving(generator, longest):
    def kill(starts, process):
        old = set((starts.folder / "checkpoints").glob("*"))
        while process.poll() is None and not set((starts.folder / "checkpoints").glob("*.writing*")) - old:
            time.sleep(0.001)
        time.sleep(generator.uniform(0.0, 0.05))

    return kill


def soak(kind, tmp_path, kills, longest, slower=0.0):
    """Runs to the end without a break and with kills, and compares."""
    programs = tmp_path / "programs"
    whole = Starts(kind, tmp_path / "whole", programs)
    expected = whole.start()
    assert "digest" in expected
    generator = random.Random(0)
    broken = Starts(kind, tmp_path / "broken", programs, slower)
    for number in range(kills):
        kill = (while_saving if number % 2 else at_random)(generator, longest)
        rest = broken.start(kill)
        if "digest" in rest:
            break
    final = broken.start()
    assert final.splitlines()[-1] == expected.splitlines()[-1]
    assert (broken.folder / "metrics.csv").read_bytes() == (whole.folder / "metrics.csv").read_bytes()
    assert broken.resumed == sorted(broken.resumed)
    for reached, resumed in zip(broken.reached, broken.resumed[1:], strict=False):
        assert reached - resumed <= SAVE_EVERY, (broken.reached, broken.resumed)
    damaged = [path.name for path in (broken.folder / "checkpoints").iterdir() if path.name.startswith("damaged")]
    assert not damaged  # a kill leaves nothing that looks like a checkpoint and is none
    return broken, whole


def test_killed_runs_end_as_unbroken_ones(tmp_path):
    broken, whole = soak("toy", tmp_path, kills=4, longest=0.4)
    assert broken.resumed[-1] > 0 and len(broken.resumed) == 5
    snapshots = [sorted(path.name for path in (run.folder / "snapshots").iterdir()) for run in (broken, whole)]
    assert snapshots[0] == snapshots[1] and len(snapshots[0]) == 9
    manifests = [
        [json.loads((run.folder / "snapshots" / name / "MANIFEST.json").read_text()) for name in snapshots[0]]
        for run in (broken, whole)
    ]
    assert manifests[0] and len(manifests[0]) == len(manifests[1])


@pytest.mark.slow
def test_killed_twenty_times(tmp_path):
    broken, _ = soak("digits", tmp_path, kills=20, longest=0.3)
    assert len(broken.resumed) == 21


@pytest.mark.slow
def test_saves_that_are_slower_than_the_steps_between_them(tmp_path):
    broken, _ = soak("toy", tmp_path, kills=8, longest=1.5, slower=0.4)
    assert broken.resumed[-1] > 0
