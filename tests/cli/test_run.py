"""Opening a run: batches of samples, flags that are paths."""

import argparse
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from genjax.cli import run as run_module
from genjax.cli.flags import Parser, assign, literal
from genjax.cli.run import Run, with_sampler
from genjax.config import ConfigError
from genjax.sampling import sample_keys


class Noise:
    """A family whose image i is noise of key i, shifted by its class."""

    condition = ("label",)

    def generate(self, params, key, n, cond=None):
        noise = jax.vmap(lambda k: jax.random.uniform(k, (2, 2, 1)))(sample_keys(key, n))
        return 0.05 * cond["label"].reshape(-1, 1, 1, 1) + 0.1 * noise


def run(batch_size, family=None):
    experiment = types.SimpleNamespace(
        family=family or Noise(),
        evaluation=types.SimpleNamespace(batch_size=batch_size),
        data=types.SimpleNamespace(spec=types.SimpleNamespace(num_classes=10, levels=256)),
    )
    return Run(pathlib.Path("."), experiment, {"model": jnp.ones(())}, step=1, seed=3, ema=True)


def test_an_image_depends_on_its_number_and_class_alone():
    labels = np.arange(7, dtype=np.int32) % 10
    whole = run(100).generate(7, labels)
    assert whole.shape == (7, 2, 2, 1) and whole.dtype == np.uint8
    np.testing.assert_array_equal(run(3).generate(7, labels), whole)
    np.testing.assert_array_equal(run(2).generate(5, labels[:5]), whole[:5])
    assert len({image.tobytes() for image in whole}) == 7


def test_labels_are_those_of_the_model_and_not_of_the_data():
    assert run(4).labels(12).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert run(4).labels(3, [5, 2]).tolist() == [5, 2, 5]
    unconditional = run(4, types.SimpleNamespace(condition=()))
    assert unconditional.labels(3) is None
    with pytest.raises(ConfigError, match="not conditioned on classes"):
        unconditional.labels(3, [1])
    with pytest.raises(ConfigError, match="no class 10; there are 0 to 9"):
        run(4).labels(3, [10])


def test_dotted_flags():
    parser = Parser(prog="x")
    parser.add_argument("--n", type=int)
    arguments, sections = parser.parse_dotted(
        ["--n=3", "--solver.name=ddim", "--solver.eta=0.5", "--times.flag=True", "--times.inner.deep=2"],
        ("solver", "times"),
    )
    assert arguments.n == 3
    assert sections == {"solver": {"name": "ddim", "eta": 0.5}, "times": {"flag": True, "inner": {"deep": 2}}}
    for flags, words in [
        (["--sover.name=x"], "unknown flag"),
        (["--solver.name", "x"], "write --solver.name=VALUE"),
        (["--solver.a=1", "--solver.a.b=2"], "--solver.a.b=2: leads into 1, which is no section"),
        (["--n=three"], "invalid int value"),
        (["--m=3"], "did you mean '--n'?"),
    ]:
        with pytest.raises(ConfigError, match=words.replace("?", r"\?")):
            parser.parse_dotted(flags, ("solver", "times"))


def test_overrides_go_into_the_config_and_its_references():
    config = ConfigDict({"a": {"b": 1, "word": "x"}, "list": (1, 2)})
    for path, text in [("a.b", "3"), ("a.word", "7"), ("a.new.deep", "1e-3"), ("list", "(4, 5)")]:
        assign(config, path.split("."), literal(text), text)
    assert config.to_dict() == {"a": {"b": 3, "word": "7", "new": {"deep": 1e-3}}, "list": (4, 5)}
    with pytest.raises(ConfigError, match="config.a.b = 'x': the config holds 3"):
        assign(config, ["a", "b"], "x", "x")
    with pytest.raises(ConfigError, match="config.a.b = 3: is no section"):
        assign(config, ["a", "b", "c"], 1, "1")


def test_another_solver_starts_from_its_own_defaults():
    config = {"family": {"sampler": {"solver": {"name": "ddim", "eta": 1.0}, "steps": 9}}}
    changed = with_sampler(config, {"solver": {"name": "heun"}}, steps=4, guidance=2.0)["family"]["sampler"]
    assert changed["solver"] == {"name": "heun"} and changed["steps"] == 4
    assert changed["guidance"] == {"name": "classifier_free", "scale": 2.0}
    kept = with_sampler(config, {"solver": {"eta": 0.5}})["family"]["sampler"]
    assert kept["solver"] == {"name": "ddim", "eta": 0.5} and kept["steps"] == 9
    assert config["family"]["sampler"]["solver"]["eta"] == 1.0


def test_a_network_that_is_told_the_scale_gets_it():
    config = {"family": {"guidance_range": (1.0, 3.0), "guidance": 2.0, "sampler": {"steps": 2}}}
    assert with_sampler(config, {}, guidance=1.5)["family"]["guidance"] == 1.5
    assert "guidance" not in with_sampler(config, {}, guidance=1.5)["family"]["sampler"]


def test_a_family_without_a_sampler_has_no_choices_of_one(monkeypatch):
    plain = types.SimpleNamespace(family=object(), config={"family": {"name": "gan"}})
    monkeypatch.setattr(run_module, "load_run", lambda workdir: plain)
    arguments = argparse.Namespace(workdir=".", steps=3, guidance=None)
    with pytest.raises(ConfigError, match="^--steps, --solver: gan has no sampler$"):
        run_module.open_run(arguments, {"solver": {"name": "ddim"}})


def test_a_component_within_another_keeps_its_other_choices_too():
    inner = {"name": "apg", "eta": 0.5}
    config = {"family": {"sampler": {"guidance": {"name": "interval", "t_min": 0.1, "guidance": inner}}}}

    def guidance(choices):
        return with_sampler(config, {"guidance": choices})["family"]["sampler"]["guidance"]

    assert guidance({"guidance": {"scale": 3.0}})["guidance"] == {"name": "apg", "eta": 0.5, "scale": 3.0}
    assert guidance({"guidance": {"name": "cfg_pp"}}) == {
        "name": "interval",
        "t_min": 0.1,
        "guidance": {"name": "cfg_pp"},
    }
    assert guidance({"name": "rescaled", "guidance": {"scale": 3.0}})["guidance"] == {"scale": 3.0}
