"""Rows of a sweep, written, read, printed and drawn."""

import io

import numpy as np
import pytest
from rich.console import Console

from genjax.evaluation import sweep

SCORES = {
    "frechet": {"value": 1 / 3},
    "floor": {"mean": 0.25},
    "ratio": None,
    "agreement": {"value": 0.9},
}


@pytest.fixture
def rows():
    scores = [SCORES | {"frechet": {"value": value}} for value in (1 / 3, 0.5)]
    return [
        sweep.row(width, residual, 700, 50, score, {"test loss": 2 * width})
        for width, residual, score in zip((0.05, 0.12), (0.0, 0.0123), scores, strict=True)
    ]


def test_rows_survive_a_file_digit_by_digit(rows, tmp_path):
    sweep.write(tmp_path / "sweep.csv", rows)
    assert sweep.read(tmp_path / "sweep.csv") == rows
    assert (tmp_path / "sweep.csv").read_text().splitlines()[1] == f"0.05,0.0,700,50,{1 / 3},0.25,,0.9,0.1"


def test_the_table_has_a_line_a_width(rows):
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(sweep.table(rows))
    lines = [line.split() for line in console.export_text().splitlines()]
    assert "step 700" in " ".join(lines[0]) and "n = 50" in " ".join(lines[0])
    assert lines[-2] == ["0.05", "0.00%", "0.3333", "0.25", "-", "0.9", "0.1"]
    assert lines[-1] == ["0.12", "1.23%", "0.5", "0.25", "-", "0.9", "0.24"]


def test_curves_are_of_what_was_measured(rows):
    curves = sweep.curves(rows)
    assert {name: list(of) for name, of in curves.items()} == {
        "distance": ["distance", "floor"],
        "class agreement": ["class agreement"],
        "test loss": ["test loss"],
    }
    widths, values = curves["distance"]["distance"]
    np.testing.assert_array_equal([widths, values], [[0.05, 0.12], [1 / 3, 0.5]])


def test_without_a_feature_network_the_familys_figures_remain():
    row = sweep.row(0.05, 0.0, 700, 50, None, {"test loss": 1.0})
    assert list(sweep.curves([row])) == ["test loss"]
