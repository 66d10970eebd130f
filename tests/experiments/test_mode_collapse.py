"""The study of mode collapse, and what GANs must come to."""

import json
import pathlib

import numpy as np
import pytest

from experiments.mode_collapse import __main__ as study
from experiments.mode_collapse import measure
from experiments.mode_collapse.methods import DENSITIES, METHODS, config
from genjax.cli import main
from genjax.config import ConfigError
from genjax.data.densities import DENSITIES as TRUTHS
from genjax.evaluation.modes import count_modes
from genjax.training.experiment import Experiment

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_a_valid_config(method, density):
    experiment = Experiment.from_config(config(method, density, steps=7))
    assert experiment.training.steps == 7 and experiment.data.density == density
    experiment.family.check(experiment.data.spec)


def test_methods_differ_where_they_say():
    families = {method: Experiment.from_config(config(method, "grid")).family for method in METHODS}
    assert {method for method, family in families.items() if family.penalized} == {
        "wgan_gp",
        "non_saturating_r1",
        "r3gan",
    }
    assert {method for method, family in families.items() if family.critic_steps == 5} == {"wgan", "wgan_gp"}
    assert families["hinge_spectral"].discriminator.norm == "spectral"


def test_tables_and_figure(tmp_path):
    rng = np.random.default_rng(0)
    found = {}
    for density in DENSITIES:
        truth = TRUTHS[density]()
        samples = truth.centres[rng.integers(0, 2, 200)]  # two modes, exactly
        modes = count_modes(samples, truth.centres, truth.sigma, least=2)
        found[density, "r3gan"] = measure.Found(modes, 2, (1.0, 0.25), 90.0, samples)
    study.write(tmp_path, found)
    table = (tmp_path / "table.md").read_text()
    assert "| `r3gan` on the grid | 2 / 25 | 2 / 25 | 100.0% |" in table and "1.00 ± 0.25 | 90 s |" in table
    assert (tmp_path / "table.csv").read_text().splitlines()[2].startswith("ring,r3gan,2,2,8,1.0,")
    assert (tmp_path / "samples.png").stat().st_size > 0 and (tmp_path / "table.tex").exists()


def test_a_method_that_is_not_there():
    with pytest.raises(ConfigError, match="there is no 'r4gan'; did you mean 'r3gan'"):
        study.main(["--methods=r4gan"])


@pytest.mark.slow
def test_the_study_runs(tmp_path):
    study.main([f"--workdir={tmp_path}", "--smoke", "--methods=wgan,r3gan", "--densities=ring"])
    assert (tmp_path / "table.md").exists()


@pytest.mark.slow
def test_wgan_gp_finds_all_modes_with_a_gradient_near_one(tmp_path):
    found = measure.measure("wgan_gp", "grid", tmp_path)
    assert found.modes.found == found.modes.total == 25
    assert found.gradient[0] == pytest.approx(1.0, abs=0.1) and found.gradient[1] < 0.3


@pytest.mark.slow
def test_the_best_loss_finds_all_modes_and_little_between_them(tmp_path):
    found = measure.measure("r3gan", "grid", tmp_path)
    assert found.modes.found == found.modes.total == 25
    assert found.modes.within.value >= 0.9


@pytest.mark.slow
def test_dcgan_on_digits_is_near_the_data_and_covers_them(tmp_path):
    main(["train", f"--config={ROOT}/configs/digits/dcgan.py", f"--workdir={tmp_path}"])
    main(["evaluate", f"--workdir={tmp_path}"])
    results = json.loads((tmp_path / "evaluation.json").read_bytes())
    assert results["ratio"] <= 6.0
    assert results["figures"]["recall"]["value"] >= 0.5
