"""Run folders are taken up or refused, and say what has changed."""

import json
import os
import re

import jax
import pytest

from genjax.config import ConfigError
from genjax.training import run_folder
from genjax.training.experiment import Experiment, load_run
from tests.training import toys
from tests.training.test_experiment import changed


def resolve(config):
    return Experiment.from_config(config).config


def test_run_folder_round_trip(tmp_path):
    experiment = Experiment.from_config(toys.denoiser_config())
    assert run_folder.open_run(tmp_path / "run", experiment.config) is None
    assert run_folder.open_run(tmp_path / "run", experiment.config) is None
    assert load_run(tmp_path / "run") == experiment


def test_another_config_is_refused_with_the_differences(tmp_path):
    first = toys.denoiser_config()
    run_folder.open_run(tmp_path, first)
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    second = changed("optimizers.network.clip", 2.0) | {"seed": 4}
    second["training"] = {**second["training"], "steps": 3}
    del second["ema"]
    with pytest.raises(ConfigError) as caught:
        run_folder.open_run(tmp_path, second)
    assert str(caught.value).splitlines() == [
        f"{tmp_path}: holds a run of another config; choose another folder",
        "  config.seed: 3 -> 4",
        "  config.optimizers.network.clip: 1.0 -> 2.0",
        "  config.ema: {'decay': 0.9} -> (not set)",
        "  config.training.steps: 6 -> 3",
    ]
    assert run_folder.read_config(tmp_path) == first


def test_a_run_may_grow_and_move_to_other_devices(tmp_path):
    run_folder.open_run(tmp_path, toys.denoiser_config())
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    longer = toys.denoiser_config(steps=9) | {"mesh": {"data": 1}}
    note = run_folder.open_run(tmp_path, longer)
    assert "config.training.steps: 6 -> 9" in note
    assert run_folder.read_config(tmp_path) == longer


@pytest.mark.parametrize(
    "path", ["training.keep", "training.save_every", "training.skip_limit", "evaluation.n", "data.data_dir"]
)
def test_what_changes_no_weight_may_change(tmp_path, path):
    run_folder.open_run(tmp_path, toys.denoiser_config())
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    with pytest.raises(ConfigError, match="config.training.log_every: 2 -> 3"):
        run_folder.open_run(tmp_path, changed("training.log_every", 3))
    config = changed(path, 7)
    note = run_folder.open_run(tmp_path, config)
    assert note.startswith(f"{tmp_path}: goes on with config.{path.split('.')[0]}") and "7" in note.split("->")[1]
    assert run_folder.read_config(tmp_path) == config


def test_a_folder_whose_first_start_failed_takes_another_config(tmp_path):
    run_folder.open_run(tmp_path, toys.denoiser_config())
    (tmp_path / "checkpoints" / "4.orbax-checkpoint-tmp").mkdir(parents=True)
    second = changed("seed", 4)
    assert run_folder.open_run(tmp_path, second).endswith("starts anew with config.seed: 3 -> 4")
    assert run_folder.read_config(tmp_path) == second


def test_folders_without_a_run(tmp_path):
    with pytest.raises(ConfigError, match="no run here"):
        load_run(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ConfigError, match="has checkpoints but no config.json"):
        run_folder.open_run(tmp_path, {})
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="damaged"):
        load_run(tmp_path)


def test_each_start_is_recorded(tmp_path):
    run_folder.record_start(tmp_path, 0)
    run_folder.record_start(tmp_path, 5)
    starts = json.loads((tmp_path / "versions.json").read_text())
    assert [start["step"] for start in starts] == [0, 5]
    assert starts[0]["jax"] == jax.__version__


def test_a_folder_of_a_version_without_the_defaults_goes_on(tmp_path):
    given, resolved = toys.denoiser_config(), resolve(toys.denoiser_config())
    run_folder.open_run(tmp_path, given)
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    assert run_folder.open_run(tmp_path, resolved, resolve) is None
    assert run_folder.read_config(tmp_path) == resolved
    # A default that has changed since is a difference, as is an option that is gone.
    for path, value in [("optimizers.network.b2", 0.95), ("training.gone", 1)]:
        *sections, key = path.split(".")
        older = json.loads(json.dumps(resolved))
        section = older
        for name in sections:
            section = section[name]
        section[key] = value
        (tmp_path / "config.json").write_text(json.dumps(older))
        with pytest.raises(ConfigError, match=rf"config.{path}: {value} -> (0.999|\(not set\))$"):
            run_folder.open_run(tmp_path, resolved, resolve)


def test_a_folder_whose_checkpoints_are_all_damaged_is_still_of_its_config(tmp_path):
    run_folder.open_run(tmp_path, toys.denoiser_config())
    (tmp_path / "checkpoints" / "damaged-00000004").mkdir(parents=True)
    with pytest.raises(ConfigError, match="config.seed: 3 -> 4"):
        run_folder.open_run(tmp_path, changed("seed", 4))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "damaged: Expecting value"),
        ('{"seed": 1', "damaged: Expecting"),
        ('{"seed": 1, "seed": 2}', "damaged: the key 'seed' is there twice"),
        ("{" + "".join(f'"{i}": 0, ' for i in range(200_000)) + '"0": 1}', "the key '0' is there twice"),  # in no time
        ('{"a": {"seed": NaN}}', "config.a.seed = nan: must be a number"),
        ("[1, 2]", "damaged: holds a list, and not an object"),
        ("null", "damaged: holds a NoneType"),
        ('{"a":' * 100 + "1" + "}" * 100, "more than 64 deep"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "damaged: sections within sections, too deep"),
        ("[" * 100_000, "damaged: sections within sections, too deep"),
        ('{"a": ' + "9" * 5000 + "}", "damaged: Exceeds the limit"),
        ('{"a": "' + "x" * 2**24 + '"}', "damaged: larger than 16777216 bytes"),
        (b"\xff\xfe", "damaged: 'utf-8' codec"),
        (None, "No such file"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_json_that_is_no_config_is_one_line(tmp_path, text, words):
    path = tmp_path / "config.json"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        run_folder.read_json_config(path)
    assert words in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_a_pipe_in_the_place_of_a_config_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(ConfigError, match="no regular file"):
        run_folder.read_json_config(tmp_path / "config.json")


def test_other_code_and_devices_are_a_line_and_no_reason_to_refuse(tmp_path):
    assert run_folder.code_difference(tmp_path) is None
    run_folder.record_start(tmp_path, 0)
    assert run_folder.code_difference(tmp_path) is None
    path = tmp_path / "versions.json"
    (start,) = json.loads(path.read_text())
    other = {"jax": "0.0.1", "git": "abc1234" + "0" * 33, "devices": "8 x \x1b[2JTPU"}
    path.write_text(json.dumps([start | other]))
    line = run_folder.code_difference(tmp_path)
    git = run_folder.git_revision()
    assert re.fullmatch(
        rf"code differs from the last start: git abc1234 -> {git[:7] if git else None}\+?, jax 0.0.1 -> "
        rf"{re.escape(jax.__version__)}; devices differ from the last start: devices 8 x \\x1b\[2JTPU -> "
        rf"{jax.device_count()} x \w+; results are equal to rounding at best, not bit for bit",
        line,
    )
    run_folder.record_start(tmp_path, 5)
    assert run_folder.code_difference(tmp_path) is None and len(run_folder.read_starts(tmp_path)) == 2
    for damaged in ("", "[", "3", "[3]"):
        path.write_text(damaged)
        assert run_folder.code_difference(tmp_path) is None
    run_folder.record_start(tmp_path, 7)
    assert [start["step"] for start in run_folder.read_starts(tmp_path)] == [7]
