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
    """The family, its weights and the held-out images of both domains."""
    spec = importlib.util.spec_from_file_location("digits_cycle_gan", CONFIG)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    experiment = Experiment.from_config(module.get_config())
    state = train(experiment, tmp_path_factory.mktemp("cycle_gan") / "run")
    held_out = experiment.eval_data.gather(np.arange(experiment.eval_data.spec.size))
    return experiment.family, sampling_params(state), preprocess(held_out, jax.random.key(0), flip=False)


@pytest.fixture(scope="module")
def read():
    """Reads images in [-1, 1]: the classifier of plain digits that distances are measured with."""
    data = TFDS()
    arrays = data.gather(np.arange(data.spec.size))
    network = build("feature_network", {"name": "digits_classifier"})(arrays["image"], arrays["label"])
    return lambda images: network.logits(np.asarray(to_uint8(images))).argmax(axis=1)


def test_cycle_error(trained):
    family, params, batch = trained
    figures = family.evaluate(params, batch, jax.random.key(0))
    assert np.mean(figures["cycle"]) / 2 < 0.05  # of the range of a pixel, which is 2


def test_digits_are_read_after_a_cycle_and_after_a_translation(trained, read):
    family, params, batch = trained
    generators = params["generators"]
    back = family.translate(generators, family.translate(generators, batch["image"], "ab"), "ba")
    assert np.mean(read(back) == batch["label"]) >= 0.85
    # A cycle alone could hide the digit in a drawing of another one.
    of_drawings = family.translate(generators, batch["image_b"], "ba")
    assert np.mean(read(of_drawings) == batch["label_b"]) >= 0.85
