"""Averages made of snapshots, against the recursion run with the width itself."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.config import ConfigError
from genjax.training.ema import EMA, PostHoc, gamma
from genjax.training.experiment import Experiment
from genjax.training.loop import train
from genjax.training.posthoc import MAX_RESIDUAL, Snapshots, SnapshotWriter, open_snapshots
from genjax.training.state import TrainState
from genjax.training.store import Store
from tests.training import toys

STEPS = 512
# Weights as training moves them, fast at first, with noise: what 64 numbers are in each of the steps.
PATH = np.cumsum(np.random.default_rng(0).normal(size=(STEPS, 64)) / np.sqrt(1 + np.arange(STEPS))[:, None], 0)
CRITIC = jnp.arange(3.0)
CODES = jnp.arange(3.0)


def recursion(width, steps=STEPS):
    """The average by its definition, in float64."""
    average = np.zeros(64)
    for t in range(1, steps + 1):
        beta = (1 - 1 / t) ** (gamma(width) + 1)
        average = beta * average + (1 - beta) * PATH[t - 1]
    return average


def states(rule):
    """The states of a run whose weights are the path."""
    update = jax.jit(rule.update_posthoc)
    state = TrainState(step=jnp.int32(0), key=jax.random.key(0), params={}, opt={}, ema={}, extra={"codes": CODES})
    state = state.replace(posthoc=rule.init_posthoc({"network": {"w": jnp.zeros(64)}}))
    for n, values in enumerate(jnp.asarray(PATH, jnp.float32)):
        params = {"network": {"w": values}, "critic": CRITIC}
        state = state.replace(params=params, posthoc=update(state.posthoc, params, jnp.int32(n)))
        yield n + 1, state


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with 16 snapshots, and the last state."""
    folder = tmp_path_factory.mktemp("run")
    rule = EMA(decay={"network": 0.9}, posthoc=PostHoc(snapshot_every=STEPS // 16))
    writer = SnapshotWriter(folder, rule.posthoc, 0, STEPS)
    for step, state in states(rule):
        writer.after(step, state)
    writer.close()
    return folder, state


def subset(snapshots, count):
    """The same run with fewer snapshots, evenly spaced."""
    return Snapshots(snapshots.store, snapshots.steps[16 // count - 1 :: 16 // count], snapshots.widths)


def test_a_tracked_width_is_exact(run):
    folder, state = run
    for width in (0.05, 0.1):
        made = open_snapshots(folder).reconstruct(width)
        np.testing.assert_array_equal(made.params["network"]["w"], state.posthoc[f"{width:g}"]["network"]["w"])
        np.testing.assert_allclose(made.params["network"]["w"], recursion(width), rtol=1e-4, atol=1e-5)
        assert (made.step, made.residual) == (STEPS, 0)
        np.testing.assert_array_equal(made.params["critic"], CRITIC)  # it has no average
        np.testing.assert_array_equal(made.params["codes"], CODES)


def test_other_widths_are_the_recursion_to_within_the_residual(run):
    """The error is a share of how far the average lies from the last weights, which is what averaging is for."""
    snapshots = open_snapshots(run[0])
    for width, residual in [(0.03, 0.05), (0.07, 0.005), (0.12, 0.005), (0.15, 0.01), (0.2, 0.03)]:
        made = snapshots.reconstruct(width)
        expected = recursion(width)
        error = np.linalg.norm(made.params["network"]["w"] - expected) / np.linalg.norm(expected - PATH[-1])
        assert error < made.residual < residual
        assert made.params["network"]["w"].dtype == jnp.float32


def test_it_gets_better_with_more_snapshots(run):
    snapshots, expected = open_snapshots(run[0]), recursion(0.12)
    few = [subset(snapshots, count) for count in (4, 8, 16)]
    errors = [np.linalg.norm(some.reconstruct(0.12).params["network"]["w"] - expected) for some in few]
    residuals = [some.residual(0.12) for some in few]
    for values in (errors, residuals):
        assert values[0] > 2 * values[1] > 4 * values[2] > 0


def test_averages_of_an_earlier_step(run):
    made = open_snapshots(run[0], STEPS // 2).reconstruct(0.12)
    expected = recursion(0.12, STEPS // 2)
    error = np.linalg.norm(made.params["network"]["w"] - expected) / np.linalg.norm(expected - PATH[STEPS // 2 - 1])
    assert made.step == STEPS // 2 and error < made.residual < MAX_RESIDUAL


def test_the_weights_are_the_least_squares_of_the_profiles(run):
    """The same problem by numpy's solver, on profiles tabulated over time, with the sum held at 1 by elimination."""
    snapshots = subset(open_snapshots(run[0]), 4)
    weights, residuals = snapshots._solve([0.12])
    t = (np.arange(100_000) + 0.5) / 100_000

    def profile(end, width):
        return np.where(t <= end, (gamma(width) + 1) * t ** gamma(width) / end ** (gamma(width) + 1), 0)

    columns = np.stack([profile(step / STEPS, width) for step in snapshots.steps for width in (0.05, 0.1)], 1)
    goal = profile(1, 0.12)
    free = np.linalg.lstsq(columns[:, 1:] - columns[:, :1], goal - columns[:, 0], rcond=None)[0]
    found = np.concatenate([[1 - free.sum()], free])
    np.testing.assert_allclose(weights.ravel(), found, rtol=1e-3, atol=1e-4)
    assert residuals[0] == pytest.approx(np.linalg.norm(columns @ found - goal) / np.linalg.norm(goal), rel=1e-3)


def test_a_width_out_of_reach_is_refused_with_the_nearest_in_reach(run):
    few = subset(open_snapshots(run[0]), 8)
    with pytest.raises(
        ConfigError, match=r"width 0.01: 8 snapshots up to step 512 give its .* within 5\d% only"
    ) as error:
        few.reconstruct(0.01)
    nearest = float(str(error.value).split()[-1])
    assert few.residual(nearest) <= MAX_RESIDUAL < few.residual(nearest - 0.002)
    few.reconstruct(nearest)
    with pytest.raises(ConfigError, match="width: 0.4 is no width"):
        few.reconstruct(0.4)


def test_what_is_not_there_is_named(run, tmp_path):
    with pytest.raises(ConfigError, match="no snapshot of step 100; there are 32, 64"):
        open_snapshots(run[0], 100)
    with pytest.raises(ConfigError, match="has no snapshots; .* ema.posthoc"):
        open_snapshots(tmp_path)
    assert list(tmp_path.iterdir()) == []


def flip_a_bit(folder):
    path = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def test_damaged_snapshots_are_left_out_and_written_anew(tmp_path):
    rule = EMA(posthoc=PostHoc(snapshot_every=128))
    history = list(states(rule))

    def go_on(start):
        writer = SnapshotWriter(tmp_path, rule.posthoc, start, STEPS)
        for step, state in history[max(start - 1, 0) :]:
            writer.after(step, state)
        writer.close()
        return {
            int(path.name): path.stat().st_mtime_ns
            for path in (tmp_path / "snapshots").iterdir()
            if path.name.isdigit()
        }

    first = go_on(0)
    expected = open_snapshots(tmp_path).reconstruct(0.08)
    second = go_on(256)  # a resumed run writes those after its checkpoint, and leaves the others
    assert [first[step] == second[step] for step in (128, 256, 384, 512)] == [True, True, False, False]

    flip_a_bit(tmp_path / "snapshots" / "00000256")
    lines = []
    rest = open_snapshots(tmp_path, say=lines.append)
    assert rest.steps == (128, 384, 512) and len(lines) == 1 and "step 256 is damaged and left out" in lines[0]
    assert rest.reconstruct(0.08).residual > expected.residual
    with pytest.raises(ConfigError, match="step 256 is damaged: "):
        open_snapshots(tmp_path, 256)
    go_on(256)
    again = open_snapshots(tmp_path).reconstruct(0.08)
    np.testing.assert_array_equal(again.params["network"]["w"], expected.params["network"]["w"])


def test_what_a_run_starts_anew_with_is_not_of_another_config(tmp_path):
    rule = EMA(posthoc=PostHoc(snapshot_every=1))
    state = next(states(rule))[1]
    for anew in (rule.posthoc, None):
        writer = SnapshotWriter(tmp_path, rule.posthoc, 0, STEPS)
        writer.after(1, state)
        writer.close()
        SnapshotWriter(tmp_path, anew, 0, STEPS).close()
        assert list((tmp_path / "snapshots").iterdir()) == []


def test_a_checkpoint_finds_the_snapshots_before_it_committed(tmp_path):
    rule = EMA(posthoc=PostHoc(snapshot_every=2))
    history = dict(zip(range(4), states(rule), strict=False))
    writer = SnapshotWriter(tmp_path, rule.posthoc, 0, STEPS)
    for step, state in history.values():
        writer.settle(step)
        writer.after(step, state)
        assert set(range(2, step, 2)) <= {int(path.name[:8]) for path in (tmp_path / "snapshots").glob("*[0-9]")}
    writer.close()
    assert sorted(path.name for path in (tmp_path / "snapshots").iterdir()) == ["00000002", "00000004"]


def test_a_run_without_posthoc_has_no_snapshots(tmp_path):
    writer = SnapshotWriter(tmp_path, None, 0, 1)
    writer.after(1, None)
    writer.settle(1)
    writer.close()
    assert list(tmp_path.iterdir()) == []


def contents(folder):
    """Every bit of every snapshot."""
    store = Store(folder / "snapshots", read_only=True)
    assert all(store.verify(step) is None for step in store.steps())
    trees = {step: store.load(step, store.shapes(step)) for step in store.steps()}
    return jax.tree.map(lambda leaf: np.asarray(leaf).tobytes(), trees)


def test_a_broken_run_has_the_snapshots_of_an_unbroken_one(tmp_path, monkeypatch):
    config = toys.denoiser_config(steps=12, save_every=4) | {"ema": {"decay": 0.9, "posthoc": {"snapshot_every": 3}}}
    experiment = Experiment.from_config(config)
    train(experiment, tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    assert list(expected) == [3, 6, 9, 12]

    broken = tmp_path / "broken"
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        toys.at_step(patch, 6, lambda: os.kill(os.getpid(), signal.SIGTERM))
        train(experiment, broken)
    # What a kill leaves between the two saves of a step: a checkpoint of it, and half a snapshot.
    assert "00000006" in os.listdir(broken / "checkpoints")
    (broken / "snapshots" / "00000006").rename(broken / "snapshots" / "00000006.writing")
    train(experiment, broken)
    assert contents(broken) == expected


def test_a_step_that_is_no_number_leaves_the_averages(tmp_path):
    config = toys.denoiser_config(steps=4, non_finite="skip") | {
        "ema": {"decay": 0.9, "posthoc": {"snapshot_every": 1}}
    }
    train(Experiment.from_config(config | {"family": {"name": "toy_denoiser", "breaks_at": [3]}}), tmp_path)
    averages = {step: parts["posthoc"] for step, parts in contents(tmp_path).items()}
    assert averages[3] == averages[2] != averages[4]
