"""The study of few-step models: what it trains, what it leaves alone, and what its table says."""

import argparse
import pathlib
import subprocess
import types

import numpy as np
import pytest

from experiments.few_step import __main__ as study
from experiments.few_step import measure, methods, results, runs
from experiments.few_step.methods import Method
from genjax.cli import main
from genjax.config import ConfigError
from genjax.evaluation import evaluate
from genjax.evaluation.distances import Floor
from genjax.families import DMD, ProgressiveDistillation

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = """
def get_config(mode="full"):
    model = dict(
        image_shape=(8, 8, 1),
        network=dict(name="mlp", hidden=8, depth=1),
        process=dict(name="edm"),
        parameterization=dict(name="edm"),
    )
    family = dict({family}, **model)
    family["sampler"] = dict(solver=dict(name="ddim"), steps={steps}, final="none")
    return dict(
        seed=0,
        data=dict(name="tfds", dataset="digits", split="train"),
        family=family,
        optimizers=dict(model=dict(name="adam", learning_rate=1e-3)),
        training=dict(steps=2, batch_size=4, count_flops=False, keep=2, save_every=2),
        evaluation=dict(n=6, batch_size=6),
    )
"""


class Pixels:
    """Features are the columns' means."""

    name, hash = "pixels", "0"

    def features(self, images):
        return images.astype(np.float64).mean((1, 3)) / 127.5 - 1.0

    def logits(self, images):
        return self.features(images)


@pytest.fixture
def configs(tmp_path, monkeypatch):
    """Two configs, a teacher and a student of it, and commands that run in this process."""
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "edm.py").write_text(CONFIG.format(family='name="diffusion"', steps=4))
    student = 'name="progressive_distillation", teacher=dict(workdir="runs/edm"), rounds=2, steps_per_round=1'
    (folder / "progressive_distillation.py").write_text(CONFIG.format(family=student, steps=1))
    ran = []

    def command(log, name, *flags):
        ran.append((name, pathlib.Path(flags[-1].split("=", 1)[1]).name))
        assert main([name, *flags]) == 0

    rng = np.random.default_rng(0)
    against = evaluate.reference(Pixels(), *rng.integers(0, 255, (2, 30, 8, 8, 1), np.uint8))
    monkeypatch.setattr(runs, "command", command)
    monkeypatch.setattr(measure, "reference", lambda run: against)
    monkeypatch.setattr(measure, "BUDGETS", ())
    monkeypatch.setattr(measure, "REFERENCE", 2)  # of the teacher, this alone
    return types.SimpleNamespace(folder=folder, ran=ran)


@pytest.mark.slow
def test_a_method_and_its_teacher_from_config_to_table(tmp_path, configs, capsys, monkeypatch):
    flags = [f"--workdir={tmp_path}", f"--configs={configs.folder}", "--solvers=ddim", "--sampling-seeds=2"]
    assert study.main(flags) == 0
    assert configs.ran == [("train", "edm"), ("train", "progressive_distillation")]
    table = (tmp_path / "table.md").read_text()
    assert table in capsys.readouterr().out
    assert table.count("\n| `") == 2 and "| `edm`, `ddim` |" in table and "| `progressive_distillation` |" in table
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 1 + (1 + 2) * 2  # budgets of both, and two seeds
    assert {"table.tex", "distance.png", "samples.png"} <= {path.name for path in tmp_path.iterdir()}
    # At 2 evaluations it is the checkpoint of the first round that is asked, at 1 that of the last.
    held = (tmp_path / "seed0" / "progressive_distillation" / runs.MEASURED).read_text()
    assert '" 1 of step 2, seed 0, 6 samples"' in held and '" 2 of step 1, seed 0, 6 samples"' in held

    # What is done is not done again.
    configs.ran.clear()
    monkeypatch.setattr(measure.Bench, "measure", None)
    those = [runs.Study(configs.folder, tmp_path, "full", 0)]
    again = study.measured(those, measure.Meter(range(2)), {"progressive_distillation": "edm"}, ["ddim"])
    assert configs.ran == [] and len(again[0]) == 6 and again[2] == []


def test_a_failure_is_told_and_the_others_go_on(monkeypatch, capsys):
    def train(study, name):
        if name == "dmd":
            raise subprocess.CalledProcessError(3, ["genjax"])

    monkeypatch.setattr(runs, "train", train)
    meter = types.SimpleNamespace(
        method=lambda folder, name: [dict(method=name)], teacher=lambda folder, name, solvers: []
    )
    those = [runs.Study(pathlib.Path("c"), pathlib.Path("f"), "full", seed) for seed in (0, 1)]
    rows, trained, failed = study.measured(those, meter, {"dmd": "edm", "ect": "edm"}, ["ddim"])
    assert [(r["method"], r["training_seed"]) for r in rows] == [("ect", 0), ("ect", 1)]
    assert set(trained) == {"edm", "ect"} and len(failed) == 2 and "dmd, seed 1" in capsys.readouterr().err


def row(method, solver, budget, seed, distance):
    return dict(method=method, solver=solver, budget=budget, seed=seed, training_seed=0, distance=distance)


ROWS = [
    *(row("edm", "ddim", budget, 0, distance) for budget, distance in ((1, 90.0), (2, 60.0), (20, 2.5))),
    *(row("edm", "heun", budget, 0, distance) for budget, distance in ((2, 80.0), (20, 2.0))),
    *(row("good", "", 2, seed, distance) for seed, distance in enumerate((2.0, 3.0, 4.0))),
    row("bad", "", 2, 0, 25.0),
    row("unmeasured", "", 4, 0, 1.0),
]


def test_the_bars_are_to_the_teachers_best():
    """The teacher's least distance is 2 at 20 evaluations, and 60 at 2."""
    good, bad = results.bars(ROWS, "good", "edm"), results.bars(ROWS, "bad", "edm")
    assert good == (3.0 / 2.0, 60.0 / 3.0) and good.hold
    assert bad == (12.5, 60.0 / 25.0) and not bad.hold
    assert not results.Bars(1.51, 9.0).hold and not results.Bars(1.0, 2.99).hold and results.Bars(1.5, 3.0).hold
    assert np.isnan(results.bars(ROWS, "unmeasured", "edm").close)


def test_the_table():
    costs = {"good": runs.Cost(90.0, 500, 1.2e6), "edm": runs.Cost(60.0, 100, None)}
    body = results.table(ROWS, {"good": "edm", "bad": "edm", "unmeasured": "edm"}, costs)
    assert body == [
        ["`edm`, `ddim`", "90.00", "60.00", "-", "-", "2.50", "-", "-", "-", "60 s", "100", "-"],
        ["`edm`, `heun`", "-", "80.00", "-", "-", "2.00", "-", "-", "-", "60 s", "100", "-"],
        ["`good`", "-", "3.00 ± 1.00", "-", "-", "-", "1.50", "20.00", "yes", "90 s", "500", "1.2M"],
        ["`bad`", "-", "25.00", "-", "-", "-", "12.50", "2.40", "no", "-", "-", "-"],
        ["`unmeasured`", "-", "-", "1.00", "-", "-", "-", "-", "-", "-", "-", "-"],
    ]
    assert all(len(line) == len(results.HEADER) for line in body)


def test_the_figure(tmp_path):
    results.plot(tmp_path / "distance.png", ROWS, Floor(mean=1.0, std=0.1, n=9, repeats=3), "pixels")
    assert (tmp_path / "distance.png").stat().st_size > 0


def test_what_is_compared(tmp_path, monkeypatch):
    assert set(study.chosen(ROOT / "configs" / "digits", "")) <= set(methods.METHODS)
    assert {"progressive_distillation", "dmd"} <= set(study.chosen(ROOT / "configs" / "digits", ""))
    with pytest.raises(ConfigError, match="did you mean 'dmd'"):
        study.chosen(ROOT / "configs" / "digits", "dmdd")
    with pytest.raises(ConfigError, match="there is no"):
        study.chosen(tmp_path, "dmd")
    here = runs.Study(ROOT / "configs" / "digits", tmp_path, "full", 0)
    assert runs.teacher_of(here, "dmd") == "edm"  # by the run folder in its config
    monkeypatch.setitem(methods.METHODS, "ddpm", Method("flow_matching"))
    assert runs.teacher_of(here, "ddpm") == "flow_matching"  # which names none


def test_the_checkpoint_of_a_number_of_steps():
    family = argparse.Namespace(rounds=4, steps_per_round=500, sampler=argparse.Namespace(steps=1))
    family.steps_of_round = lambda index: ProgressiveDistillation.steps_of_round(family, index)
    assert [runs.checkpoint_for(family, n) for n in (8, 4, 2, 1)] == [500, 1000, 1500, None]
    with pytest.raises(ValueError, match="16 steps"):
        runs.checkpoint_for(family, 16)
    assert runs.checkpoint_for(DMD, 7) is None
