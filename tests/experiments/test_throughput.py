"""The study of training speed: that it runs, what its rows say, and what happens where memory ends."""

import csv
import dataclasses
import sys

import pytest

from experiments.throughput import __main__ as study
from experiments.throughput import worker
from experiments.throughput.presets import PRESETS, Case
from genjax.networks import UNet, count
from genjax.training.experiment import Experiment

TINY = Case("dit_s_2", "float32", 2, quick=True)


@pytest.mark.slow
def test_a_quick_run_writes_its_tables(tmp_path, capsys):
    study.main(["--quick", "--presets=dit_s_2", f"--workdir={tmp_path}"])
    with (tmp_path / "table.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["program"], row["preset"], row["dtype"], row["batch"]) == ("genjax", "dit_s_2", "float32", "2")
    seconds, images = float(row["seconds"]), float(row["images_per_second"])
    assert images == pytest.approx(2 / seconds)
    assert float(row["flops_per_second"]) == pytest.approx(images * float(row["flops_per_image"]))
    network = Experiment.from_config(TINY.config()).family.network
    assert int(row["parameters"]) == count(network, (32, 32, 4))
    # Weights, their average and Adam's two moments in float32, and the batch.
    assert int(row["program_bytes"]) > 4 * 4 * int(row["parameters"]) + 2 * 32 * 32 * 4
    assert int(row["rss_bytes"]) > int(row["program_bytes"])
    out = capsys.readouterr().out
    assert (tmp_path / "table.md").read_text() in out and "| `dit_s_2` | float32 | 2 |" in out
    assert (tmp_path / "table.tex").read_text().count(r"\toprule") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.slow
def test_running_out_of_memory_is_a_row(tmp_path, monkeypatch):
    limited = tmp_path / "python"  # enough to start JAX, not for 65,536 images at once
    limited.write_text(f'#!/bin/sh\nulimit -v 12000000\nexec "{sys.executable}" "$@"\n')
    limited.chmod(0o755)
    monkeypatch.setattr(worker.sys, "executable", str(limited))
    (row,) = study.measure([dataclasses.replace(TINY, batch=65_536)], tmp_path, rounds=1, steps=1)
    assert row["note"] == worker.OUT_OF_MEMORY and row["seconds"] is None
    assert "Out of memory allocating" in (tmp_path / f"{TINY.preset}-float32-65536-genjax.log").read_text()
    (cells,) = study.summary([row])[1]
    assert cells[:5] == ["`dit_s_2`", "float32", "65536", "-", "out of memory"] and len(cells) == 11


def test_what_fails_otherwise_says_why(tmp_path):
    with (
        pytest.raises(worker.Failed, match="no preset|KeyError"),
        worker.Worker(dataclasses.replace(TINY, preset="dit_m_2"), tmp_path, shared=False),
    ):
        pass


def test_unknown_names_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        study.main(["--presets=dit_m_2", f"--workdir={tmp_path}"])
    assert "no preset 'dit_m_2'; there are digits_unet" in capsys.readouterr().err


def test_utilization_is_of_the_devices_peak():
    row = study.about(dataclasses.replace(TINY, batch=100))
    row |= {"seconds": 0.5, "slowest": 0.6, "flops_per_image": 1e12, "device": "NVIDIA H100 80GB HBM3"}
    assert study.derived(row)["mfu"] == pytest.approx(100 / 0.5 * 1e12 / 494.5e12)
    assert study.derived(row | {"device": "cpu"})["mfu"] is None


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid_configs(preset, quick):
    experiment = Experiment.from_config(Case(preset, "float16", 3, quick=quick).config())
    assert experiment.family.network.dtype == "float16" and experiment.training.batch_size == 3


@pytest.mark.parametrize("preset", sorted(PRESETS.keys() - {"dit_l_2", "dit_xl_2"}))
def test_diffusers_networks_have_as_many_parameters(preset):
    pytest.importorskip("diffusers")
    from experiments.throughput import theirs

    family = Experiment.from_config(Case(preset, "float32", 2).config()).family
    network = family.network
    nearest = theirs.build(network, family.image_shape)
    difference = count(network, family.image_shape) - sum(p.numel() for p in nearest.parameters())
    if isinstance(network, UNet):
        # A row for the null class; a noise label in `channels` channels, where diffusers has those of the first level.
        width = 4 * network.channels
        assert difference == width * bool(network.num_classes) - width * (network.widths[0] - network.channels)
    else:
        assert difference == 0


@pytest.mark.slow
def test_pytorch_stands_beside_it(tmp_path):
    pytest.importorskip("diffusers")
    study.main(["--quick", "--torch", "--parts", "--presets=ddpm_cifar10", f"--workdir={tmp_path}"])
    with (tmp_path / "table.csv").open() as file:
        ours, eager, compiled = csv.DictReader(file)
    assert [row["program"] for row in (ours, eager, compiled)] == ["genjax", "torch", "torch.compile"]
    assert ours["parameters"] == eager["parameters"] == compiled["parameters"]
    assert all(float(row[part]) > 0 for row in (ours, eager, compiled) for part in ("forward", "optimizer", "average"))
    assert "| times faster |" in (tmp_path / "table.md").read_text()
