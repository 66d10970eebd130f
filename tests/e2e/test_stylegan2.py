"""What StyleGAN2 must reach on the digits, trained as its config says: minutes."""

import json
import pathlib

import pytest

from genjax.cli import main

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "digits" / "stylegan2.py"


@pytest.mark.slow
def test_distance_and_recall(tmp_path):
    run = tmp_path / "run"
    assert main(["train", f"--config={CONFIG}", f"--workdir={run}"]) == 0
    assert main(["evaluate", f"--workdir={run}"]) == 0
    results = json.loads((run / "evaluation.json").read_text())
    assert results["ratio"] <= 6.0
    assert results["figures"]["recall"]["value"] >= 0.5
