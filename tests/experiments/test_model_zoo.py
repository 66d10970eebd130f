"""The study of all families: what it runs, what it leaves alone, and what it does about a failure."""

import json
import pathlib
import subprocess

import pytest

from experiments.model_zoo import __main__ as study
from genjax.config import ConfigError
from genjax.training.experiment import Experiment

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = ROOT / "configs" / "digits"


@pytest.fixture
def commands(monkeypatch):
    """Takes the place of the commands: makes the files that they would leave."""
    ran = []

    def command(log, name, *flags):
        options = dict(flag.lstrip("-").split("=", 1) for flag in flags)
        folder = pathlib.Path(options["workdir"])
        ran.append((name, folder.name))
        if folder.name == "dit" and name == "train":
            raise subprocess.CalledProcessError(3, ["genjax", name])
        if name == "train":
            path, mode = options["config"].split(":")
            config = Experiment.from_config(study.load(pathlib.Path(path), mode)).config
            (folder / "checkpoints" / f"{config['training']['steps']:08d}").mkdir(parents=True)
            (folder / "config.json").write_text(json.dumps(config))
        else:
            manifest = {"checkpoint_step": 8, "dataset": "digits", "n": 20}
            distance = {"label": "Frechet distance", "value": 2.5, "low": 2.0, "high": 3.0}
            results = {"frechet": distance, "manifest": manifest, "family": {}, "parameters": 9}
            (folder / "evaluation.json").write_text(json.dumps(results))

    monkeypatch.setattr(study, "command", command)
    return ran


def zoo(tmp_path, *flags):
    return study.main([f"--workdir={tmp_path}", f"--configs={CONFIGS}", "--smoke", *flags])


def test_what_is_done_is_not_done_again(tmp_path, commands, capsys):
    assert zoo(tmp_path, "--only=ddpm,edm") == 0
    assert commands == [("train", "ddpm"), ("evaluate", "ddpm"), ("train", "edm"), ("evaluate", "edm")]
    out = capsys.readouterr().out
    assert "| `ddpm` | 2.50 ±0.50 | 9 |" in out and "2 of 2 runs compared" in out
    folder = tmp_path / "smoke"
    assert {"table.csv", "table.md", "table.tex", "ddpm", "edm"} <= {path.name for path in folder.iterdir()}
    commands.clear()
    (folder / "edm" / "evaluation.json").unlink()
    assert zoo(tmp_path, "--only=ddpm,edm") == 0
    assert commands == [("evaluate", "edm")]
    commands.clear()
    (folder / "ddpm" / "checkpoints" / "00000008").rename(folder / "ddpm" / "checkpoints" / "00000004")  # broken off
    assert zoo(tmp_path, "--only=ddpm") == 0
    assert commands == [("train", "ddpm"), ("evaluate", "ddpm")]


def test_another_config_is_left_to_genjax_train(tmp_path, commands):
    zoo(tmp_path, "--only=ddpm")
    path = tmp_path / "smoke" / "ddpm" / "config.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    experiment = Experiment.from_config(study.load(CONFIGS / "ddpm.py", "smoke"))
    assert not study.is_trained(experiment, path.parent)


def test_options_that_are_newer_than_a_run_have_their_defaults_in_it(tmp_path, commands):
    zoo(tmp_path, "--only=ddpm")
    path, experiment = tmp_path / "smoke" / "ddpm" / "config.json", study.load(CONFIGS / "ddpm.py", "smoke")
    held = json.loads(path.read_text())
    del held["family"]["coupling"]
    path.write_text(json.dumps(held))
    assert study.is_trained(Experiment.from_config(experiment), path.parent)


def test_a_failure_is_told_and_the_others_go_on(tmp_path, commands, capsys):
    assert zoo(tmp_path, "--only=dit,edm") == 1
    assert commands == [("train", "dit"), ("train", "edm"), ("evaluate", "edm")]
    captured = capsys.readouterr()
    assert "dit: Command" in captured.err and "1 of 2 runs compared" in captured.out


def test_every_config_of_the_folder_is_a_run():
    names = set(study.chosen(CONFIGS, ""))
    assert {path.stem for path in CONFIGS.glob("*.py")} == names and {"ddpm", "flow_matching"} <= names
    with pytest.raises(ConfigError, match="did you mean 'ddpm'"):
        study.chosen(CONFIGS, "edm,ddpn")
    with pytest.raises(ConfigError, match="no configs"):
        study.chosen(ROOT / "docs", "")


@pytest.mark.slow
def test_a_family_from_config_to_table(tmp_path, capsys):
    assert zoo(tmp_path, "--only=flow_matching") == 0
    assert "| `flow_matching` |" in capsys.readouterr().out
    assert (tmp_path / "smoke" / "samples.png").exists()
    assert "done at step" in (tmp_path / "smoke" / "flow_matching.log").read_text()
