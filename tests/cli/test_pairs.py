"""`genjax pairs`: what it writes are the ends of a run's paths, and another run trains on them."""

import json

import jax
import numpy as np
import pytest

from genjax.cli.pairs import main
from genjax.config import ConfigError
from genjax.data import Pairs
from genjax.training.checkpoints import restore_params
from genjax.training.experiment import Experiment, load_run
from genjax.training.loop import train

FAMILY = dict(
    name="flow_matching",
    image_shape=(1, 1, 2),
    network=dict(name="mlp", hidden=8, depth=1, num_classes=8),
    condition=("label",),
    sampler=dict(solver=dict(name="heun", coordinate="t"), times=dict(name="trailing"), steps=3, final="none"),
)


def config(**family):
    return dict(
        seed=0,
        data=dict(name="density", density="ring", size=64),
        family=FAMILY | family,
        optimizers=dict(model=dict(name="adam", learning_rate=1e-2)),
        training=dict(steps=3, batch_size=8, log_every=3, count_flops=False),
        evaluation=dict(batch_size=4),
    )


@pytest.mark.slow
def test_from_a_run_to_its_pairs_to_a_run_on_them(tmp_path, capsys):
    teacher, folder = tmp_path / "teacher", tmp_path / "pairs"
    train(Experiment.from_config(config()), teacher)
    assert main([f"--workdir={teacher}", f"--output={folder}", "--n=10", "--steps=2", "--seed=5"]) == 0
    assert f"10 pairs: {folder}" in capsys.readouterr().out

    source = Pairs(str(folder))
    assert source.spec.size == 10 and source.spec.num_classes == 8 and source.spec.levels is None
    pairs = source.gather(np.arange(10))
    about = json.loads((folder / "pairs.json").read_text())["about"]
    assert about["seed"] == 5 and about["sampler"]["steps"] == 2 and about["checkpoint_step"] == 3
    np.testing.assert_array_equal(pairs["label"], np.arange(10) % 8)
    # From each noise, at t = 1, the sampler comes to its image.
    family = load_run(teacher).family
    params = restore_params(teacher / "checkpoints")[0]
    from_config = Experiment.from_config(config(sampler=FAMILY["sampler"] | {"steps": 2})).family
    again = from_config.sampler(
        jax.random.key(0),
        family.denoiser(params),
        family.process,
        pairs["noise"].shape,
        {"label": pairs["label"]},
        start=pairs["noise"],
    )
    np.testing.assert_allclose(again, pairs["image"], rtol=1e-4, atol=1e-5)

    student = config(coupling=dict(name="paired"), teacher=dict(workdir=str(teacher)))
    student = Experiment.from_config(student | {"data": dict(name="pairs", path=str(folder))})
    assert int(train(student, tmp_path / "student").step) == 3

    for flags, words in [
        (["--n=0"], "--n = 0"),
        (["--n=4"], "holds pairs already"),
        (["--n=4", "--solver.name=ddpm"], "--solver.name=ddpm: it draws noise"),
    ]:
        with pytest.raises(ConfigError, match=words):
            main([f"--workdir={teacher}", f"--output={folder}", *flags])
