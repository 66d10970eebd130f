"""Configs become experiments or one-line errors."""

import json

import ml_collections
import pytest

from genjax.config import ConfigError
from genjax.training import run_folder
from genjax.training.experiment import Experiment
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
