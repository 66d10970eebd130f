"""Configs become experiments or one-line errors; run folders are taken up or refused."""

import json

import ml_collections
import pytest

from genjax.config import ConfigError
from genjax.training import run_folder
from genjax.training.experiment import Experiment, load_run
from tests.training import toys


def changed(path, value):
    config = toys.denoiser_config()
    *sections, key = path.split(".")
    section = config
    for name in sections:
        section = section.setdefault(name, {})
    section[key] = value
    return config


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("training.steps", -5, "config.training: steps = -5: must be a whole number of at least 1"),
        ("training.steps", 2.5, "config.training"),
        ("training.batch_size", 0, "config.training: batch_size = 0: must be"),
        ("training.log_every", 0, "config.training: log_every = 0: must be"),
        ("training.compile_cache", 5, "config.training"),
        ("training.step", 5, "config.training: unknown key 'step'; did you mean 'steps'"),
        ("trainin", {}, "config: unknown key 'trainin'; did you mean 'training'"),
        ("config", {}, "config: unknown key 'config'"),
        ("training", 5, "config.training = 5: must be"),
        ("seed", -1, "config: seed = -1: must be a whole number of at least 0"),
        ("seed", 2**32, "config: seed = 4294967296: must be below 2^32"),
        ("seed", "one", "config"),
        (
            "family.name",
            "toy_denoizer",
            "config.family: there is no family 'toy_denoizer'; did you mean 'toy_denoiser'",
        ),
        ("family.width", 4, "config.family: unknown key 'width'"),
        ("optimizers", {}, "config: optimizers: missing key 'network', which the family trains"),
        ("optimizers.netwrok", {}, "config: optimizers: the family trains no 'netwrok'; did you mean 'network'"),
        ("ema.decay", 1.5, "config.ema: decay = 1.5: must be in"),
        ("ema.decay", {"netwrok": 0.5}, "config: decay: the family trains no 'netwrok'; did you mean 'network'"),
        ("mesh.fsdp", 0, "config.mesh: fsdp = 0: must be at least 1"),
        ("evaluation.n", 0, "config.evaluation: n = 0: must be a whole number of at least 1"),
        ("evaluation.n", 1.5, "config.evaluation"),
        ("evaluation.seed", -1, "config.evaluation: seed = -1: must be a whole number of at least 0"),
        ("evaluation.seed", 2**32, "config.evaluation: seed = 4294967296: must be below 2^32"),
        ("data.size", object(), "config.data.size = <object"),
    ],
)
def test_mistakes_are_one_line_with_their_place(path, value, message):
    with pytest.raises(ConfigError) as caught:
        Experiment.from_config(changed(path, value))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_missing_sections_are_named():
    config = toys.denoiser_config()
    del config["training"]
    with pytest.raises(ConfigError, match="config: missing key 'training'"):
        Experiment.from_config(config)


def test_config_dict_and_mapping_are_one():
    config = toys.denoiser_config()
    config["optimizers"]["network"]["lr_rules"] = (("bias", 0.1),)
    a, b = Experiment.from_config(config), Experiment.from_config(ml_collections.ConfigDict(config))
    assert a == b
    assert a.config == b.config == json.loads(json.dumps(a.config))
    assert run_folder.differences(json.loads(json.dumps(config)), a.config).keys() >= {"mesh", "ema.warmup"}


def test_the_config_has_every_default_and_means_the_same():
    experiment = Experiment.from_config(toys.denoiser_config())
    added = run_folder.differences(toys.denoiser_config(), experiment.config)
    assert {old for old, _ in added.values()} == {"(not set)"}  # what was given is as it was
    assert experiment.config["training"]["keep"] == 3 and experiment.config["family"]["divisor"] == 2
    assert experiment.config["optimizers"]["network"]["b2"] == 0.999  # of adamw, by Loshchilov and Hutter
    assert Experiment.from_config(experiment.config) == experiment
    assert Experiment.from_config(experiment.config).config == experiment.config


def test_check_refuses_what_does_not_fit():
    with pytest.raises(ConfigError, match="config.family: the network cannot divide 4 pixels by 3"):
        Experiment.from_config(changed("family.divisor", 3)).check()
    with pytest.raises(ConfigError, match="config.mesh: data = 64, fsdp = 1 does not fit"):
        Experiment.from_config(changed("mesh.data", 64)).check()
    for change, message in [({"side": 8}, r"image_shape = \(8, 8, 1\)"), ({"classes": 5}, "num_classes = 5")]:
        held_out = {"name": "toy_images", "size": 10}
        Experiment.from_config(changed("eval_data", held_out)).check()
        with pytest.raises(ConfigError, match=f"config.eval_data: {message}, but the training data have"):
            Experiment.from_config(changed("eval_data", held_out | change)).check()
    mesh, spec = Experiment.from_config(toys.denoiser_config()).check()
    assert mesh.axis_names == ("data", "fsdp")
    assert spec.image_shape == (4, 4, 1)


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


@pytest.mark.parametrize("path", ["training.keep", "training.save_every", "evaluation.n", "data.data_dir"])
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
    import jax

    assert starts[0]["jax"] == jax.__version__
