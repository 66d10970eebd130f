"""Steps that are not finite: stopped or left out, and recorded; here the loop's part, in test_step.py the step's."""

import csv
import json
import signal

import jax
import numpy as np
import pytest

from genjax.cli import main
from genjax.data.loader import batch_indices
from genjax.training import non_finite
from genjax.training.errors import NonFiniteStep
from genjax.training.experiment import Experiment
from genjax.training.loop import train
from genjax.training.non_finite import Guard
from tests.training import toys

GOOD, BAD = {"a/loss": 1.0, "a/grad_norm": 2.0}, {"a/loss": 1.0, "a/grad_norm": float("inf"), "a/other": float("nan")}


def experiment(**training):
    config = toys.denoiser_config(**{"steps": 9, "log_every": 3, "save_every": 4, "count_flops": False} | training)
    return Experiment.from_config(config | {"family": {"name": "toy_denoiser", "breaks_at": [4, 5, 8]}})


def records(folder):
    return [json.loads(line) for line in (folder / non_finite.FILE).read_text().splitlines()]


def test_stop_names_the_step_and_records_its_batch(tmp_path, capsys):
    folder = tmp_path / "run"
    with pytest.raises(
        NonFiniteStep, match="step 4: denoiser/loss is nan, denoiser/grad_norm is nan; .*=skip"
    ) as error:
        train(experiment(), folder)
    assert error.value.exit_code == 3
    (record,) = records(folder)
    assert (record["step"], record["phase"]) == (4, "denoiser")
    assert record["batch"] == batch_indices(3, 3, 8, 50).tolist()
    assert [int(path.name) for path in (folder / "checkpoints").iterdir()] == [2]  # the broken step is not saved
    # The command says the same in one line, and goes on where told to.
    assert main(["train", f"--workdir={folder}"]) == 3
    assert capsys.readouterr().err.startswith("genjax train: step 4: denoiser/loss is nan")
    assert len(records(folder)) == 1  # what is recorded anew is not there twice
    assert main(["train", f"--workdir={folder}", "--config.training.non_finite=skip"]) == 0
    assert [record["step"] for record in records(folder)] == [4, 5, 8]


def test_skip_leaves_steps_out(tmp_path, monkeypatch):
    final = train(experiment(non_finite="skip", skip_limit=3), tmp_path / "whole")
    assert int(final.step) == 9 and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(final.params))
    with open(tmp_path / "whole" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["skipped_steps"] for row in rows] == ["", "2.0", "1.0"]
    assert all(np.isfinite(float(row["denoiser/loss"])) for row in rows)
    # Broken off in the midst of the row of steps: the count goes on, and so do the metrics.
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        toys.at_step(patch, 4, lambda: signal.raise_signal(signal.SIGINT))
        train(experiment(non_finite="skip", skip_limit=3), tmp_path / "broken")
    train(experiment(non_finite="skip", skip_limit=3), tmp_path / "broken")
    name = "metrics.csv"
    assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert records(tmp_path / "broken") == records(tmp_path / "whole")


def test_too_many_in_a_row(tmp_path):
    with pytest.raises(NonFiniteStep, match=r"step 5: .* 2 steps in a row .*skip_limit = 2"):
        train(experiment(non_finite="skip", skip_limit=2), tmp_path / "run")
    train(experiment(non_finite="skip", skip_limit=2, steps=4), tmp_path / "broken")
    with pytest.raises(NonFiniteStep, match=r"step 5: .* 2 steps in a row"):
        train(experiment(non_finite="skip", skip_limit=2), tmp_path / "broken")


def test_only_losses_and_gradients_count(tmp_path):
    guard = Guard("skip", 2, None, range, 0)
    for name in ("a/other", "a/part/loss"):  # what a phase measures beside them
        assert guard(1, GOOD | {name: float("nan")}) and guard.in_a_row == 0
    assert not guard(2, BAD) and guard.in_a_row == 1
    assert guard(3, GOOD) and guard.in_a_row == 0
    assert not list(tmp_path.iterdir())


def test_the_record_is_cut_where_a_run_goes_on(tmp_path):
    guard = Guard("skip", 9, tmp_path, range, 0)
    for step in (2, 4):
        guard(step, BAD)
    with (tmp_path / non_finite.FILE).open("a") as file:
        file.write('{"step": 5, ')  # killed while writing
    Guard("skip", 9, tmp_path, range, 3)
    assert [record["step"] for record in records(tmp_path)] == [2]
    assert records(tmp_path)[0]["values"] == {"a/grad_norm": "inf"}


def test_a_damaged_record_is_left_out_and_no_reason_not_to_start(tmp_path):
    guard = Guard("skip", 9, tmp_path, range, 0)
    guard(2, {"train/loss": float("nan")})
    whole = (tmp_path / non_finite.FILE).read_bytes()
    (tmp_path / non_finite.FILE).write_bytes(b"\0\0\0\n[]\n{\n\xff\n" + whole + whole[:20])
    Guard("skip", 9, tmp_path, range, 3)
    assert (tmp_path / non_finite.FILE).read_bytes() == whole
