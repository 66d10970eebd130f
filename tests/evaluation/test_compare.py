"""Run folders side by side, made up of a config and figures."""

import csv
import io
import json

import numpy as np
import pytest
from rich.console import Console

from genjax.cli import main
from genjax.evaluation import compare

MANIFEST = {
    "dataset": "digits",
    "split": "test",
    "n": 1000,
    "n_reference": 360,
    "feature_network": "digits_classifier",
    "feature_network_hash": "ab" * 32,
    "checkpoint_step": 500,
}


def results(distance, network="ab" * 32, **family):
    share = {
        "label": "Precision (k = 3)",
        "value": 0.875,
        "low": 0.8,
        "high": 0.9,
        "n": 360,
        "real": 0.9,
        "share": True,
    }
    kernel = {"label": "Kernel distance", "value": 0.0123, "low": 0.01, "high": 0.015, "n": 1000, "real": 0.0}
    return {
        "frechet": {"label": "Frechet distance", "value": distance, "low": distance - 0.25, "high": distance + 0.25},
        "floor": {"mean": 0.5, "std": 0.1, "n": 1000, "repeats": 10},
        "ratio": distance / 0.5,
        "figures": {"kernel_distance": kernel, "precision": share},
        "manifest": MANIFEST | {"feature_network_hash": network},
        "parameters": 1_234_567,
        "training_seconds": 151.0,
        "sampling": {"seconds": 0.205, "n": 500, "batch_size": 250, "device": "cpu"},
        "family": family,
    }


def make(folder, family="vae", evaluation=None, samples=None):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"family": {"name": family}}))
    if evaluation is not None:
        (folder / "evaluation.json").write_text(json.dumps(evaluation))
    if samples is not None:
        (folder / compare.SAMPLES).write_bytes(compare.pack(samples))
    return folder


@pytest.fixture
def runs(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 1), np.uint8)
    make(tmp_path / "vae", "vae", results(2.0, **{"test elbo_bpd": 3.456, "test iwae_bpd": 3.25}), images)
    make(tmp_path / "glow", "flow", results(1.0, **{"test nll_bpd": 3.0}), images)
    make(tmp_path / "dcgan", "gan", results(1.5), images)
    return tmp_path


def test_the_best_comes_first_and_bounds_are_marked(runs, capsys):
    assert main(["compare", *(str(runs / name) for name in ("vae", "glow", "dcgan"))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "digits, n = 1000 against 360 of test; features of digits_classifier abababab"
    assert lines[1].split() == "run distance ratio kernel prec. bpd size train 1000 in".split()
    end = ["0.0123", "0.88"], ["1.23M", "2.5", "min", "0.41", "s"]
    assert [line.split() for line in lines[3:6]] == [
        ["glow", "1.00", "±0.25", "2.0", *end[0], "≤3.00", *end[1]],
        ["dcgan", "1.50", "±0.25", "3.0", *end[0], "-", *end[1]],
        ["vae", "2.00", "±0.25", "4.0", *end[0], "≤3.25", *end[1]],  # the tighter of the two bounds
    ]
    assert all(len(line) <= 80 for line in lines)


def test_other_feature_networks_stand_apart(runs, capsys):
    make(runs / "far", "gan", results(9.0, network="cd" * 32))
    make(runs / "plain", "gan", {"family": {}, "parameters": 10, "training_seconds": None, "sampling": None})
    assert main(["compare", *(str(runs / name) for name in ("far", "glow", "plain"))]) == 0
    out = capsys.readouterr().out
    assert "features of digits_classifier cdcdcdcd" in out and "no distances" in out
    assert "Distances compare within a table only" in out
    entries = [compare.read(runs / name) for name in ("far", "glow", "plain", "vae")]
    assert sorted([e.name for e in group] for _, group in compare.grouped(entries)) == [
        ["far"],
        ["glow", "vae"],
        ["plain"],
    ]
    other = results(1.0) | {"manifest": MANIFEST | {"n": 500}}  # the bias of a distance depends on n
    make(runs / "few", "gan", other)
    assert len(compare.grouped([compare.read(runs / name) for name in ("few", "glow")])) == 2


def test_runs_without_an_evaluation_say_what_to_do(runs, capsys):
    make(runs / "new run")
    make(runs / "damaged").joinpath("evaluation.json").write_text("{")
    make(runs / "strange", evaluation=[1])
    make(runs / "partial", evaluation={"family": {}, "figures": {"kernel_distance": {"low": 1.0}}})
    (runs / "empty").mkdir()
    (runs / "file").touch()
    names = ("new run", "damaged", "strange", "partial", "empty", "file", "glow")
    assert main(["compare", *(str(runs / name) for name in names)]) == 0
    captured = capsys.readouterr()
    assert "glow" in captured.out and "damaged" not in captured.out
    errors = captured.err.splitlines()
    assert errors[0] == f"{runs}/new run: no evaluation yet; run genjax evaluate --workdir='{runs}/new run'"
    for error in errors[1:4]:
        assert "evaluation.json is damaged or of another version; run genjax evaluate" in error
    assert errors[4:] == [f"{runs}/empty: no run here", f"{runs}/file: no run here"]
    assert main(["compare", str(runs / "empty")]) == 2
    assert "no evaluated run" in capsys.readouterr().err


def test_runs_of_one_name_are_told_apart_and_one_run_is_one_row(runs, capsys):
    for folder in ("a", "b", "b/c"):
        (runs / folder).mkdir()
    one, again, deeper = (
        make(runs / f, "vae", results(d)) for f, d in (("a/vae", 2.0), ("b/vae", 3.0), ("b/c/vae", 4.0))
    )
    odd = make(runs / "lr[bold]", "vae", results(5.0))  # rich would take it for a style
    assert main(["compare", *map(str, (one, again, deeper, odd, runs / "glow")), f"{one}/", f"{runs}/b/../a/vae"]) == 0
    lines = capsys.readouterr().out.splitlines()[3:]
    names = [line.split()[0] for line in lines[: lines.index("")]]
    assert names == ["glow", "a/vae", "b/vae", "c/vae", "lr[bold]"]


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 broken off", None])
def test_damaged_samples_leave_the_figures(runs, content):
    whole = (runs / "vae" / compare.SAMPLES).read_bytes()
    (runs / "vae" / compare.SAMPLES).write_bytes(whole[:300] + bytes(50) + whole[350:] if content is None else content)
    assert compare.sheet([compare.read(runs / "vae")]) is None
    assert main(["compare", str(runs / "vae"), f"--out={runs / 'out'}"]) == 0


def test_tables_and_a_sheet_are_written(runs, capsys):
    out = runs / "out"
    assert main(["compare", str(runs / "vae"), str(runs / "glow"), f"--out={out}"]) == 0
    assert {path.name for path in out.iterdir()} == {"table.csv", "table.md", "table.tex", "samples.png"}
    with (out / "table.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["run"], first["family"], first["dataset"]) == ("vae", "vae", "digits")
    assert float(first["distance"]) == 2.0 and float(first["distance_low"]) == 1.75
    assert float(first["kernel_distance"]) == 0.0123 and float(first["precision_real"]) == 0.9
    assert (first["bits_per_dim_at_most"], second["bits_per_dim_at_most"]) == ("3.25", "3.0")
    assert float(first["sampling_seconds_per_1000"]) == 0.41 and first["test elbo_bpd"] == "3.456"
    tex = (out / "table.tex").read_text()
    assert r"\toprule" in tex and r"\texttt{vae} & 2.00 $\pm$0.25" in tex and r"$\le$3.25" in tex and "≤" not in tex
    assert "| `glow` | 1.00 ±0.25 |" in (out / "table.md").read_text()


def test_sheet_has_a_row_a_run(runs):
    rng = np.random.default_rng(1)
    make(runs / "ring", "gan", {"family": {}}, rng.normal(size=(3000, 1, 1, 2)).astype(np.float32))
    make(runs / "bare", "gan", results(7.0))
    entries = [compare.read(runs / name) for name in ("vae", "glow", "ring", "bare")]
    sheet = compare.sheet(entries)
    # Two rows of 8x8 digits six times as large, and a square of points; white around and between.
    assert sheet.height == 3 * 16 + (2 * 48 + 3) + 192
    assert sheet.getpixel((0, 0)) == (255, 255, 255)
    assert compare.sheet([entries[3]]) is None
    with np.load(runs / "ring" / compare.SAMPLES) as arrays:
        assert arrays["samples"].shape == (2000, 1, 1, 2)


def test_a_mixture_has_its_modes_in_the_table(tmp_path):
    figures = {
        "modes": {"label": "Modes found of 25", "value": 23.0, "n": 1000, "real": 25.0, "total": 25},
        "within": {"label": "Within 3 sigma", "value": 0.912, "low": 0.9, "high": 0.93, "real": 0.98, "share": True},
    }
    make(tmp_path / "grid", "gan", {"figures": figures, "manifest": MANIFEST | {"dataset": "grid"}, "family": {}})
    ((heading, view),) = compare.views([compare.read(tmp_path / "grid")])
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(view)
    lines = console.export_text().splitlines()
    assert heading.startswith("grid, n = 1000") and lines[0].split() == ["run", "modes", "in", "3σ"]
    assert lines[2].split() == ["grid", "23/25", "91.2%"]
