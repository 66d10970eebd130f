"""`genjax train`: configs in JSON, overrides, exit statuses."""

import json
import os
import pickle
import sys

import jax
import numpy as np
import pytest

from genjax import cli
from genjax.cli import main, train
from genjax.config import ConfigError
from genjax.interop import load_safetensors, save_safetensors
from genjax.training.checkpoints import restore_params
from genjax.training.errors import DiskFull, NonFiniteStep
from genjax.training.experiment import Experiment
from genjax.training.lock import locked
from tests.training import toys


@pytest.fixture
def trained(monkeypatch):
    """What would be trained, without the training."""
    found = []
    monkeypatch.setattr(train, "train", lambda experiment, *args: found.append(experiment))
    return found


def write(path, config):
    path.write_text(json.dumps(config))
    return f"--config={path}"


@pytest.fixture
def resolved():
    return Experiment.from_config(toys.denoiser_config() | {"eval_data": {"name": "toy_images", "size": 9}}).config


def test_a_resolved_config_is_the_experiment(tmp_path, trained, resolved):
    flag, folder = write(tmp_path / "run.json", resolved), f"--workdir={tmp_path / 'run'}"
    assert main(["train", flag, folder]) == 0
    changes = ["--config.training.steps=9", "--config.ema.decay=0.5", "--config.eval_data=None"]
    assert main(["train", flag, folder, *changes, "--config.optimizers.network.lr_rules=(('bias', 0.1),)"]) == 0
    same, other = trained
    assert same.config == resolved
    assert (other.training.steps, other.ema.decay, other.eval_data) == (9, 0.5, None)
    assert other.config["optimizers"]["network"] == resolved["optimizers"]["network"] | {"lr_rules": [["bias", 0.1]]}


def test_another_component_has_its_own_defaults(tmp_path, trained, resolved):
    flag = write(tmp_path / "run.json", resolved)
    assert main(["train", flag, f"--workdir={tmp_path}", "--config.optimizers.network.name=lion"]) == 0
    (experiment,) = trained
    network = experiment.config["optimizers"]["network"]
    assert (network["learning_rate"], network["clip"]) == (0.01, 1.0)  # given
    assert (network["b1"], network["b2"], network["weight_decay"]) == (0.9, 0.99, 1e-3)  # lion's, not adamw's


def test_a_json_config_executes_nothing(tmp_path, trained, resolved):
    """Names in it are names, whatever they look like; what is beside it stays unread."""
    evil = tmp_path / "evil.py"
    evil.write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    text = f"__import__('os').system('touch {tmp_path / 'executed'}')"
    flag = write(tmp_path / "run.json", resolved | {"seed": text})
    assert main(["train", flag, f"--workdir={tmp_path}"]) == 2
    assert main(["train", flag, f"--workdir={tmp_path}", f"--config.seed={text}"]) == 2
    flag = write(tmp_path / "run.json", resolved | {"data": {"name": f"{evil}:get_config"}})
    assert main(["train", flag, f"--workdir={tmp_path}"]) == 2
    (tmp_path / "run.JSON").write_text(evil.read_text())
    assert main(["train", f"--config={tmp_path / 'run.JSON'}", f"--workdir={tmp_path}"]) == 2
    assert not (tmp_path / "executed").exists() and not trained
    assert main(["train", f"--config={evil}", f"--workdir={tmp_path}"]) == 2
    assert (tmp_path / "executed").exists()  # as a config file in Python is


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "damaged: Expecting"),
        ("[]", "holds a list"),
        ('{"seed": NaN}', "seed = nan"),
        ('{"seed": 1e999}', "config"),
        ('{"seed": 1}', "missing key"),
        ("{}", "missing key"),
        ('{"seed": {}}', "config.seed"),
        ('{"__class__": 1}', "unknown key '__class__'"),
        ('{"seed": 0, "data": "toy_images"}', "a data is given as dict"),
        ('{"seed": 0, "data": {"name": ["toy_images"]}}', "there is no data ['toy_images']"),
        ('{"seed": 0, "data": {"name": {"a": 1}}}', "there is no data {'a': 1}"),
        ('{"optimizers": [1]}', "config.optimizers = (1,): must be a section"),
        ('{"seed": 0, "training": {"log_every": "\\u001b[2J"}}', "training.log_every = '\\x1b[2J'"),
        ('{"\\u001b[2J": {"name": 0}}', "unknown key '\\x1b[2J'"),
        ('{"seed": 0, "data": {"name": "toy_images", "\\u202e": 1}}', "unknown key '\\u202e'"),
        ('{"a":' * 60 + "1" + "}" * 60, "unknown key 'a'"),
        ('{"a":' * 2000 + "1" + "}" * 2000, "deep"),
    ],
    ids=lambda value: value[:20],
)
def test_a_broken_json_config_is_one_line(tmp_path, capsys, text, words):
    path = tmp_path / "run.json"
    path.write_text(text)
    for more in ([], ["--config.training.batch_size=3"]):
        assert main(["train", f"--config={path}", f"--workdir={tmp_path / 'run'}", *more]) == 2
        error = capsys.readouterr().err
        assert error.startswith("genjax train: ") and error.count("\n") == 1 and "\x1b" not in error
        assert words in error
    assert not (tmp_path / "run").exists()


def test_values_of_every_wrong_type_are_one_line(tmp_path, capsys, resolved):
    """Each value of a resolved config in turn is replaced by values of other types."""

    def places(config, path=()):
        for key, value in config.items():
            yield (*path, key)
            if isinstance(value, dict):
                yield from places(value, (*path, key))

    for path in places(resolved):
        for value in ({"a": {}}, [[{}]], [None], -1, 0.5, True, "word", None, 10**30, float("inf")):
            config = json.loads(json.dumps(resolved))
            section = config
            for key in path[:-1]:
                section = section[key]
            section[path[-1]] = value
            try:
                Experiment.from_config(config)
            except ConfigError as error:
                assert "\n" not in str(error), (path, value, error)
            except Exception as error:
                pytest.fail(f"{'.'.join(path)} = {value!r}: {type(error).__name__}: {error}")


def test_flags(tmp_path, capsys, resolved):
    flag = write(tmp_path / "run.json", resolved)
    for arguments, words in [
        ([flag], "--workdir is missing"),
        ([f"{flag}:smoke", f"--workdir={tmp_path}"], "no modes"),
        ([f"--config={tmp_path / 'no.json'}", f"--workdir={tmp_path}"], "no.json: No such file"),
        ([f"--config={tmp_path}/.json", f"--workdir={tmp_path}"], "No such file"),
        ([flag, f"--workdir={tmp_path}", "word"], "what is 'word'?"),
        ([flag, f"--workdir={tmp_path}", "--confg=x"], "confg"),
        ([flag, f"--workdir={tmp_path}", "--config.training"], "write --config.training=VALUE"),
        ([flag, f"--workdir={tmp_path}", "--config.training=3"], "config.training = 3: must be"),
        ([flag, f"--workdir={tmp_path}", "--config.seed.deep=3"], "is no section"),
        ([flag, f"--workdir={tmp_path}", "--config.training.step=3"], "did you mean 'steps'?"),
    ]:
        assert main(["train", *arguments]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "status"),
    [(NonFiniteStep("step 3"), 3), (DiskFull("free 3 GB"), 4), (ConfigError("a\x1b"), 2), (OSError("gone"), 2)],
)
def test_exit_statuses(monkeypatch, capsys, error, status):
    def stop(*args):
        raise error

    monkeypatch.setattr(cli, "_command", lambda name: stop)
    assert main(["train", "x"]) == status
    assert capsys.readouterr().err == f"genjax train: {error}\n".replace("\x1b", r"\x1b")
    assert f"\n{status:5}  " in train.USAGE


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a file on a full disk, as Linux has it")
def test_a_full_disk_has_its_status_whatever_was_written(monkeypatch, capsys):
    def write(*args):
        with open("/dev/full", "w") as file:
            file.write("x")

    monkeypatch.setattr(cli, "_command", lambda name: write)
    assert main(["train", "x"]) == 4
    assert "No space left on device" in capsys.readouterr().err


@pytest.fixture
def unpickled():
    """What is looked up to be unpickled, by Python's own audit events: also in the libraries underneath."""
    found, watching = [], [True]

    def hook(event, arguments):  # which Python has no way to take off again
        if watching and event == "pickle.find_class":
            found.append(arguments)

    sys.addaudithook(hook)
    yield found
    watching.clear()


def test_the_watch_sees_an_unpickling(unpickled):
    pickle.loads(pickle.dumps(ConfigError("x")))
    assert unpickled == [("genjax.config", "ConfigError")]


def test_a_run_goes_on_from_its_own_config_and_unpickles_nothing(tmp_path, capsys, unpickled):
    flag = write(tmp_path / "run.json", toys.denoiser_config(steps=2, count_flops=False))
    folder = f"--workdir={tmp_path / 'run'}"
    assert main(["train", flag, folder]) == 0
    assert main(["train", folder, "--config.training.steps=3"]) == 0
    assert "config.training.steps: 2 -> 3" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "config.json").read_text())["training"]["steps"] == 3
    params, step = restore_params(tmp_path / "run" / "checkpoints")
    save_safetensors(tmp_path / "w.safetensors", params, {"step": str(step)})
    loaded, metadata = load_safetensors(tmp_path / "w.safetensors")
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    assert metadata == {"step": "3"}
    assert unpickled == []
    with locked(tmp_path / "run"):
        assert main(["train", folder]) == 2
    assert f"process {os.getpid()} on" in capsys.readouterr().err
