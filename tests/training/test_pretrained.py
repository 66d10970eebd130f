"""Teachers: a run folder's model in another run, which keeps it."""

import dataclasses
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from genjax import config, processes
from genjax.families.denoising import MODEL
from genjax.families.teacher import begun_from
from genjax.sampling.guidance.trained import on_process
from genjax.training.experiment import Experiment
from genjax.training.loop import train

NETWORK = dict(name="mlp", hidden=8, depth=1)
SPEC = dict(name="diffusion", image_shape=(1, 1, 2), network=NETWORK)


def experiment(family):
    return dict(
        seed=0,
        data=dict(name="density", density="ring", size=64),
        family=family,
        optimizers=dict(model=dict(name="adam", learning_rate=1e-3)),
        training=dict(steps=2, batch_size=8, log_every=2),
    )


def test_a_tree_is_begun_from_what_is_given():
    initial = {"a": {"x": np.zeros(2), "y": np.zeros(3)}, "b": np.zeros(1)}
    begun = begun_from(initial, {"a": {"y": np.ones(3)}, "unasked": 1})
    np.testing.assert_array_equal(begun["a"]["y"], 1)
    assert begun["a"]["x"] is initial["a"]["x"] and begun["b"] is initial["b"] and set(begun) == {"a", "b"}
    # What a loss learnt beside the network is no network's to begin from.
    assert begun_from({"a": {"x": 1.0}}, {"a": {"x": 2.0, "uncertainty": {"w": 3.0}}}) == {"a": {"x": 2.0}}
    with pytest.raises(ValueError, match="a: the model has no z"):
        begun_from(initial, {"a": {"z": np.ones(3)}})
    with pytest.raises(ValueError, match=r"a/y have shape \(4,\), and the model's \(3,\)"):
        begun_from(initial, {"a": {"y": np.ones(4)}})


def test_a_teacher_on_another_process_sees_the_same_image():
    """E[x_0 | x_t] depends on x_t / alpha and sigma / alpha; for N(0, v) it is v alpha x / (alpha^2 v + sigma^2)."""
    v = 0.3

    def exact(process):
        def denoise(x_t, t, cond):
            alpha, sigma = (jnp.reshape(scale, (-1, 1)) for scale in (process.alpha(t), process.sigma(t)))
            return v * alpha * x_t / (alpha**2 * v + sigma**2)

        return denoise

    t, x = jnp.linspace(0.05, 0.9, 5), jnp.linspace(-1.0, 1.0, 10).reshape(5, 2)
    for of, process in [(processes.EDM(), processes.RectifiedFlow()), (processes.LinearVP(), processes.VE())]:
        moved = on_process(exact(of), of, process)
        np.testing.assert_allclose(moved(x, t, None), exact(process)(x, t, None), rtol=2e-4)
    assert np.isfinite(
        on_process(exact(processes.EDM()), processes.EDM(), processes.RectifiedFlow())(x, jnp.ones(5), 0)
    ).all()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder, and the weights that were trained in it."""
    folder = tmp_path_factory.mktemp("teacher") / "run"
    return folder, train(Experiment.from_config(experiment(SPEC)), folder)


def test_a_run_folder_is_a_teacher_whose_config_holds_the_model(run, tmp_path):
    folder, state = run
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    teacher = config.build("teacher", dict(name="run", workdir=str(copy)))
    np.testing.assert_array_equal(teacher.load()[MODEL]["in"]["kernel"], state.ema[MODEL]["in"]["kernel"])
    raw = dataclasses.replace(teacher, ema=False).load()
    np.testing.assert_array_equal(raw[MODEL]["in"]["kernel"], state.params[MODEL]["in"]["kernel"])
    described = config.describe(teacher)
    shutil.rmtree(copy)
    assert config.describe(config.build("teacher", described)) == described
    with pytest.raises(config.ConfigError, match="train that run first"):
        config.build("teacher", dict(name="run", workdir=str(copy)))
