"""What `genjax evaluate` asks of a run: samples and their time, scores for images and for points, a family's sheets."""

import dataclasses
import pathlib
import types

import jax.numpy as jnp
import numpy as np
import pytest

from genjax.cli import evaluate
from genjax.cli.run import Run
from genjax.config import build
from genjax.data.densities import Density
from genjax.families.base import Phase
from genjax.training import checkpoints


@dataclasses.dataclass(frozen=True)
class Toy:
    """A family whose samples are its one weight, and whose pictures are the batch and its negative."""

    condition: tuple[str, ...] = ()
    shape: tuple[int, ...] = (4, 4, 1)

    def init(self, key, spec):
        return {"model": jnp.zeros((3,))}, {"kept": jnp.zeros((5,))}

    def phases(self):
        return (Phase("train", "model", lambda params, state, batch, keys: None),)

    def generate(self, params, key, n, cond=None):
        return jnp.broadcast_to(params["model"][0], (n, *self.shape))

    def evaluate(self, params, batch, key):
        return {}

    def pictures(self, params, batch, key):
        images = batch["image"][:6].reshape(2, 3, *self.shape)
        return {"reconstructions": images, "negatives": -images * (1 + params["kept"][0])}


class Grey:
    """Images of one grey after another."""

    spec = types.SimpleNamespace(image_shape=(4, 4, 1), num_classes=None, size=40, levels=256)
    flip = True

    def gather(self, indices):
        return {"image": np.broadcast_to(indices.astype(np.uint8)[:, None, None, None], (len(indices), 4, 4, 1))}


def run(data, family=None, batch_size=4):
    experiment = types.SimpleNamespace(
        family=family or Toy(),
        evaluation=types.SimpleNamespace(batch_size=batch_size, feature_network=None),
        data=data,
        eval_data=None,
    )
    params = {"model": jnp.full((3,), 0.5), "kept": jnp.zeros((5,))}
    return Run(pathlib.Path("."), experiment, params, step=1, seed=3, ema=True)


def test_the_time_of_sampling_has_no_compilation_in_it(monkeypatch):
    traced, clock = [], iter([10.0, 12.5])

    class Traced(Toy):
        def generate(self, params, key, n, cond=None):
            traced.append(n)
            return super().generate(params, key, n)

    def now():
        assert traced == [4]  # one program, and it was there before the clock was read
        return next(clock)

    monkeypatch.setattr(evaluate.time, "perf_counter", now)
    images, sampling = evaluate.draw(run(Grey(), Traced()), 10, None)
    assert images.shape == (10, 4, 4, 1) and traced == [4]
    assert (sampling["seconds"], sampling["n"], sampling["batch_size"]) == (2.5, 10, 4)


def test_a_familys_sheets_are_of_held_out_images_as_they_are():
    sheets = evaluate.pictures(run(Grey()))
    assert sheets["reconstructions"].shape == (2, 3, 4, 4, 1) and sheets["reconstructions"].dtype == np.uint8
    assert sheets["reconstructions"][:, :, 0, 0, 0].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert sheets["negatives"][0, 1, 0, 0, 0] == 254
    assert evaluate.pictures(run(Grey(), types.SimpleNamespace())) == {}


def test_points_are_scored_against_their_density():
    one = run(Density(density="ring", size=300), Toy(shape=(1, 1, 2)), 50)
    scorer = evaluate.make_scorer(one)
    result = scorer(one, one.generate(100, None), None)
    assert result["figures"]["modes"]["value"] == 0 and result["figures"]["modes"]["real"] == 8
    assert result["manifest"]["dataset"] == "ring" and result["manifest"]["n"] == 100


def test_without_a_feature_network_images_have_no_scores():
    assert evaluate.make_scorer(run(Grey())) is None


@pytest.mark.parametrize("error", [KeyError("seconds"), evaluate.ConfigError("no checkpoint")])
def test_a_checkpoint_that_does_not_know_its_time(monkeypatch, error):
    def training_seconds(directory, step):
        raise error

    monkeypatch.setattr(checkpoints, "training_seconds", training_seconds)
    assert evaluate.training_seconds(run(Grey())) is None


def test_data_are_called_by_what_they_hold():
    digits = dict(name="tfds", dataset="digits", split="train")
    for spec, name in (
        (digits, "digits"),
        (dict(name="density", density="moons"), "moons"),
        (dict(name="unpaired", first=digits, second=dict(name="edges", source=digits)), "digits and edges of digits"),
    ):
        assert run(build("data", spec)).provenance().dataset == name
