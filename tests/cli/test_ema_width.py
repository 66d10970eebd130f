"""Averages made afterwards, by the commands, of a toy's run."""

import csv
import dataclasses
import json
import re

import numpy as np
import pytest

from genjax.cli import main
from genjax.registry import register
from genjax.training.experiment import Experiment
from genjax.training.loop import train
from tests.training import toys


@register("data", "toy_files")
@dataclasses.dataclass(frozen=True)
class Files(toys.Images):
    """The toy's images, from a place that a manifest can name."""

    path: str = "toy"


@register("feature_network", "toy_columns")
@dataclasses.dataclass(frozen=True)
class Columns:
    """Prepared for any images: the means of their columns."""

    name = hash = "toy_columns"

    def __call__(self, images, labels):
        return self

    def features(self, images):
        return images.astype(np.float64).mean((1, 3))

    def logits(self, images):
        return self.features(images)[:, :3]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with 8 snapshots, and a toy without steps to sample by."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    config = toys.denoiser_config(steps=16, save_every=0) | {
        "data": {"name": "toy_files"},
        "ema": {"decay": 0.9, "posthoc": {"snapshot_every": 2}},
        "evaluation": {"n": 10, "feature_network": {"name": "toy_columns"}},
    }
    train(Experiment.from_config(config), folder, "genjax train")
    return folder


def test_a_sweep_scores_each_width(run, capsys):
    assert main(["evaluate", f"--workdir={run}", "--ema-widths=0.12,0.05"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"\n *0\.05 +0\.00% +[0-9.]+", printed) and re.search(r"\n *0\.12 +1\.\d\d% +[0-9.]+", printed)
    with open(run / "ema_sweep.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["ema_width"], row["step"], row["n"]) for row in rows] == [("0.05", "16", "10"), ("0.12", "16", "10")]
    assert rows[0]["residual"] == "0.0"
    results = json.loads((run / "ema_sweep.json").read_text())["results"]
    for row, result in zip(rows, results, strict=True):
        assert float(row["distance"]) == result["frechet"]["value"] > 0
        assert float(row["train loss"]) == result["family"]["train loss"]
        assert (float(row["ema_width"]), True) == (result["manifest"]["ema_width"], result["manifest"]["ema"])
    assert rows[0]["distance"] != rows[1]["distance"] and rows[0]["train loss"] != rows[1]["train loss"]
    assert json.loads((run / "evaluation.json").read_text())["manifest"]["ema_width"] is None

    # What the sweep found for a width is what evaluating that width alone finds, and the report keeps the curves.
    assert main(["evaluate", f"--workdir={run}", "--ema-width=0.12"]) == 0
    alone = json.loads((run / "evaluation.json").read_text())
    about_the_run = ("parameters", "training_seconds", "sampling")
    assert {key: value for key, value in alone.items() if key not in about_the_run} == {
        key: value for key, value in results[1].items() if key not in ("ema_width", "residual")
    }
    assert alone["parameters"] > 0 and alone["sampling"]["n"] == 10 and alone["training_seconds"] > 0
    page = (run / "report.html").read_text()
    assert "Widths of the average" in page and "curve of distance" in page and "curve of train loss" in page


def test_samples_of_a_width_say_so(run):
    assert main(["sample", f"--workdir={run}", "--n=10"]) == 0
    assert main(["sample", f"--workdir={run}", "--n=10", "--ema-width=0.12"]) == 0
    assert main(["sample", f"--workdir={run}", "--n=10", "--ema-width=0.05", "--checkpoint=14"]) == 0
    abouts = [json.loads((run / "samples" / f"{name}seed0.json").read_text()) for name in ("", "ema0.12-", "ema0.05-")]
    assert [(about["ema_width"], about["checkpoint_step"]) for about in abouts] == [(None, 16), (0.12, 16), (0.05, 14)]
    images = [np.load(run / "samples" / f"{name}seed0.npz")["images"] for name in ("", "ema0.12-", "ema0.05-")]
    assert (images[0] != images[1]).any() and (images[1] != images[2]).any()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["sample", "--ema-width=0.01"], "width 0.01: 8 snapshots up to step 16 give its profile to within 52% only"),
        (["sample", "--ema-width=0.1", "--no-ema"], "--no-ema: not allowed with argument --ema-width"),
        (["sample", "--ema-width=0.1", "--checkpoint=15"], "no snapshot of step 15; there are 2, 4"),
        (["sample", "--ema-width=0.5"], "width: 0.5 is no width; must be above 0 and at most 0.2887"),
        (["sample", "--ema-width=wide"], "--ema-width: invalid float value: 'wide'"),
        (["evaluate", "--ema-widths=0.1,0.01"], "the nearest width that they give is 0.037"),
        (["evaluate", "--ema-widths=0.1,wide"], "--ema-widths = '0.1,wide': must be numbers, as in 0.05,0.1"),
    ],
)
def test_mistakes_are_one_line(run, capsys, arguments, words):
    assert main([arguments[0], f"--workdir={run}", *arguments[1:]]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
