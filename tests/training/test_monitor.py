"""Held-out figures on the way."""

import csv
import dataclasses
import re
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.config import ConfigError
from genjax.data.transforms import preprocess
from genjax.families.base import Phase
from genjax.training.experiment import Experiment
from genjax.training.loop import train
from genjax.training.monitor import make_evaluator
from genjax.training.state import create_state, sampling_params
from tests.training import toys


def config(**training):
    how = {"steps": 7, "log_every": 2, "save_every": 4, "eval_every": 2, "count_flops": False} | training
    return toys.denoiser_config(**how) | {"eval_data": {"name": "toy_images", "size": 21}}


def test_every_example_counts_once():
    experiment = Experiment.from_config(config())
    mesh, spec = experiment.check()
    params = sampling_params(create_state(experiment, spec))

    class Bare(toys.Denoiser):
        """Its figure is the mean of each image, so that the whole has a mean that anybody can compute."""

        def evaluate(self, params, batch, key):
            return {"mean": batch["image"].mean((1, 2, 3))}

    data = experiment.eval_data.gather(np.arange(21))
    images = preprocess(data, jax.random.key(0), flip=False)["image"]
    for n in (None, 5, 8, 100):
        score = make_evaluator(Bare(), experiment.eval_data, 8, mesh, jax.random.key(0), n)
        assert score(params)["mean"] == pytest.approx(float(images[: n or 21].mean()), rel=1e-4, abs=1e-6)


def test_rows_have_held_out_figures_and_a_resumed_run_the_same(tmp_path, monkeypatch):
    whole = Experiment.from_config(config())
    train(whole, tmp_path / "whole")
    with open(tmp_path / "whole" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["2", "4", "6", "7"]
    losses = [float(row["eval/loss"]) for row in rows]
    assert losses == sorted(losses, reverse=True)  # the same images and noise every time, and the model learns
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        toys.at_step(patch, 3, lambda: signal.raise_signal(signal.SIGINT))
        train(whole, tmp_path / "broken")
    train(whole, tmp_path / "broken")
    assert (tmp_path / "broken" / "metrics.csv").read_bytes() == (tmp_path / "whole" / "metrics.csv").read_bytes()


def test_held_out_figures_need_held_out_data(tmp_path):
    with pytest.raises(ConfigError, match="eval_every: there are no eval_data"):
        train(Experiment.from_config(toys.denoiser_config(eval_every=2)), tmp_path / "run")
    with pytest.raises(ConfigError, match="keep_best = 1: set eval_every"):
        Experiment.from_config(toys.denoiser_config(keep_best=1))


def test_the_best_are_by_a_figure_that_there_is(tmp_path):
    with pytest.raises(ConfigError, match="config.training.best = 'los'; did you mean 'loss'"):
        train(Experiment.from_config(config(keep_best=1, best="los")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Slow(toys.Denoiser):
    """A step takes a good part of a second on the device."""

    def phases(self):
        def loss(params, state, batch, keys):
            waste = jax.lax.fori_loop(0, 100, lambda i, x: jnp.sin(x), keys.place[0] + jnp.ones(100_000))
            value, aux = self._loss(params, state, batch, keys)
            return value + 1e-9 * waste.mean(), aux

        return (Phase("denoiser", "network", loss),)


def test_what_happens_between_steps_takes_none_of_their_time(tmp_path, capsys):
    plain = {"eval_every": 0}, {"decay": 0.9}
    evaluated = {"eval_every": 1}, {"decay": 0.9}
    snapshots = {"eval_every": 0}, {"decay": 0.9, "posthoc": {"snapshot_every": 1}}
    least = []
    for number, (training, ema) in enumerate((plain, evaluated, snapshots)):
        values = config(steps=8, save_every=0, **training) | {"ema": ema}
        train(dataclasses.replace(Experiment.from_config(values), family=Slow()), tmp_path / str(number))
        least.append(min(float(each) for each in re.findall(r"([\d.]+) ms/step", capsys.readouterr().out)))
    assert min(least) > least[0] / 5
