"""What CycleGAN must reach on the digits, trained as its config says: minutes."""

import importlib.util
import pathlib

import jax
import numpy as np
import pytest

from genjax.config import build
from genjax.data import TFDS
from genjax.data.transforms import preprocess, to_uint8
from genjax.training.experiment import Experiment
from genjax.training.loop import train
from genjax.training.state import sampling_params

pytestmark = pytest.mark.slow
CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "digits" / "cycle_gan.py"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The family, its weights, and all images of both domains, those of training and the held-out ones."""
    spec = importlib.util.spec_from_file_location("digits_cycle_gan", CONFIG)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    experiment = Experiment.from_config(module.get_config())
    state = train(experiment, tmp_path_factory.mktemp("cycle_gan") / "run")
    batches = [data.gather(np.arange(data.spec.size)) for data in (experiment.data, experiment.eval_data)]
    prepared = [preprocess(batch, jax.random.key(0), flip=False) for batch in batches]
    return experiment.family, sampling_params(state), *prepared


@pytest.fixture(scope="module")
def read():
    """Reads images in [-1, 1]: the classifier of plain digits that distances are measured with."""
    data = TFDS()
    arrays = data.gather(np.arange(data.spec.size))
    network = build("feature_network", {"name": "digits_classifier"})(arrays["image"], arrays["label"])
    return lambda images: network.logits(np.asarray(to_uint8(images))).argmax(axis=1)


def test_cycle_error(trained):
    """Of the images of training below 0.05 in units of [-1, 1], of held-out ones below 0.05 of a pixel's range."""
    family, params, seen, held_out = trained
    figures = [family.evaluate(params, batch, jax.random.key(0)) for batch in (seen, held_out)]
    assert np.mean(figures[0]["cycle"]) < 0.05
    assert np.mean(figures[1]["cycle"]) / 2 < 0.05


def test_digits_are_read_after_a_cycle_and_after_a_translation(trained, read):
    family, params, _, batch = trained
    generators = params["generators"]
    back = family.translate(generators, family.translate(generators, batch["image"], "ab"), "ba")
    assert np.mean(read(back) == batch["label"]) >= 0.85
    # A cycle alone could hide the digit in a drawing of another one.
    of_drawings = family.translate(generators, batch["image_b"], "ba")
    assert np.mean(read(of_drawings) == batch["label_b"]) >= 0.85
