"""Every config in smoke mode, through the command line's own functions: train, break, resume, sample, evaluate."""

import csv
import functools
import importlib.util
import json
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from genjax.cli import main
from genjax.training import checkpoints
from genjax.training.experiment import Experiment
from genjax.training.loop import train

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.py"))


@functools.cache
def module(path):
    spec = importlib.util.spec_from_file_location(path.replace("/", "_"), ROOT / path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def full(path):
    """The full config; where a teacher is the run folder of a config of the same data set, with that model in it."""
    config = module(path).get_config()
    teacher = config.family.get("teacher")
    if teacher is not None and "family" not in teacher:
        of = pathlib.Path(path).with_name(f"{pathlib.Path(teacher.workdir).name}.py")
        assert f"--config={of} --workdir={teacher.workdir}" in module(path).__doc__, "tell how to train the teacher"
        teacher.family = full(str(of)).family
    return config


def smoke(path, cache, **training):
    # Resolved, for a run that breaks off has the schedule of the whole one.
    config = module(path).get_config("smoke").copy_and_resolve_references()
    config.training.compile_cache = str(cache)  # the second run and the resumed one compile nothing
    config.training.count_flops = False
    config.training.update(training)
    return Experiment.from_config(config)


@pytest.fixture(scope="session")
def compile_cache(tmp_path_factory):
    before = jax.config.jax_compilation_cache_dir
    yield tmp_path_factory.mktemp("compiled")
    jax.config.update("jax_compilation_cache_dir", before)


def test_there_are_configs():
    assert set(CONFIGS) > BROKEN_BY_DEFAULT


@pytest.mark.parametrize("path", CONFIGS)
def test_full_config_is_valid_and_documented(path):
    assert Experiment.from_config(full(path)).training.steps > 0
    assert f"--config={path}" in module(path).__doc__
    with pytest.raises(ValueError, match="mode = 'somke'"):
        module(path).get_config("somke")


@pytest.mark.parametrize("mode", ["full", "smoke"])
@pytest.mark.parametrize("path", CONFIGS)
def test_the_resolved_config_is_json_of_the_same_experiment(path, mode):
    experiment = Experiment.from_config(full(path) if mode == "full" else module(path).get_config(mode))
    again = Experiment.from_config(json.loads(json.dumps(experiment.config, allow_nan=False)))
    assert again.config == experiment.config
    assert (again.optimizers, again.training, again.ema) == (experiment.optimizers, experiment.training, experiment.ema)
    if not hasattr(experiment.family, "sampler"):  # functions with options bound, such as time grids, have no equality
        assert again.family == experiment.family


@pytest.mark.parametrize("path", CONFIGS)
def test_the_schedule_follows_the_steps(path):
    config = full(path)
    config.training.steps = 500
    rates = [optimizer.learning_rate for optimizer in config.optimizers.values()]
    schedules = [rate for rate in rates if hasattr(rate, "keys") and "decay_steps" in rate]
    for schedule in schedules:
        assert schedule.decay_steps == 500 and schedule.get("warmup_steps", 50) in range(10, 60)
    for schedule in schedules:
        schedule.decay_steps = 400  # on its own, it leaves the run as long as it is
    assert config.training.steps == 500
    Experiment.from_config(config)


# Between them: convolutions, a codebook beside the weights, two players, points in the place of images. The rest are
# made of the same parts, and slow for what they compile.
BROKEN_BY_DEFAULT = {"configs/digits/vq_vae.py", "configs/grid/gan.py"}


@pytest.mark.parametrize(
    "path", [pytest.param(path, marks=[] if path in BROKEN_BY_DEFAULT else [pytest.mark.slow]) for path in CONFIGS]
)
def test_a_broken_run_ends_as_an_unbroken_one(path, tmp_path, compile_cache, capsys):
    whole = smoke(path, compile_cache)
    steps = whole.training.steps
    straight = train(whole, tmp_path / "straight")
    shutil.copytree(tmp_path / "straight", tmp_path / "broken")
    for checkpoint in (tmp_path / "broken" / "checkpoints").iterdir():  # what a kill after half of the steps leaves
        if int(checkpoint.name) > steps // 2:
            shutil.rmtree(checkpoint)
    resumed = train(whole, tmp_path / "broken")
    assert f"from step {steps // 2} to {steps}" in capsys.readouterr().out
    assert int(straight.step) == int(resumed.step) == steps
    for one, other in zip(jax.tree.leaves(straight), jax.tree.leaves(resumed), strict=True):
        if jax.dtypes.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        np.testing.assert_array_equal(one, other)
    rows = [(tmp_path / run / "metrics.csv").read_bytes() for run in ("straight", "broken")]
    assert rows[0] == rows[1]
    table = list(csv.DictReader(rows[0].decode().splitlines()))
    losses = [float(value) for row in table for name, value in row.items() if name.endswith("/loss") and value]
    assert len(losses) >= len(table) > 0 and np.all(np.isfinite(losses))


def test_from_training_to_report(tmp_path, capsys):
    """The demo's three commands, on a tiny network."""
    run = tmp_path / "run"
    config = f"--config={ROOT}/configs/digits/ddpm.py:smoke"
    assert main(["train", config, f"--workdir={run}", "--config.training.steps=4"]) == 0
    assert checkpoints.restore_params(run / "checkpoints")[1] == 4
    assert main(["sample", f"--workdir={run}", "--n=6", "--classes=3,7", "--solver.name=heun", "--steps=2"]) == 0
    with np.load(run / "samples" / "heun-2steps-seed0.npz", allow_pickle=False) as arrays:
        assert arrays["images"].shape == (6, 8, 8, 1) and arrays["images"].dtype == np.uint8
        assert arrays["labels"].tolist() == [3, 7, 3, 7, 3, 7]
    Image.open(run / "samples" / "heun-2steps-seed0.png").verify()
    about = json.loads((run / "samples" / "heun-2steps-seed0.json").read_text())
    assert (
        about["solver"] == {"name": "heun", "coordinate": "sigma"}
        and about["steps"] == 2
        and about["checkpoint_step"] == 4
    )
    assert main(["evaluate", f"--workdir={run}", "--n=20"]) == 0
    scores = json.loads((run / "evaluation.json").read_text())
    assert scores["frechet"]["value"] > 0 and scores["floor"]["mean"] > 0
    assert scores["manifest"]["solver"]["name"] == "dpmpp_2m"
    page = (run / "report.html").read_text()
    words = re.sub(r"<[^>]*>", "", page)
    assert "genjax train" in words and "genjax evaluate" in words and "data:image/gif" in page
    assert main(["cite", f"--workdir={run}"]) == 0
    assert "@inproceedings{ho2020denoising" in capsys.readouterr().out

    # Mistakes are one line and status 2.
    for arguments, words in [
        (["train", config, f"--workdir={run}", "--config.seed=1"], "config.seed: 0 -> 1"),
        (["train", config, f"--workdir={tmp_path / 'x'}", "--config.training.batch_size=-1"], "batch_size = -1"),
        (["train", f"--workdir={tmp_path / 'nothing'}"], "no run here"),
        (["train", config, f"--workdir={tmp_path / 'x'}", "--config.family.network.chanels=3"], "mean 'channels'?"),
        (["train", config, f"--workdir={tmp_path / 'x'}", "--config.trainig.steps=3"], "mean 'training'?"),
        (["train", config, f"--workdir={tmp_path / 'x'}", "--config.training.kep=3"], "mean 'keep'?"),
        (["train", config, f"--workdir={tmp_path / 'x'}", "--config.mesh.data=a"], "config.mesh.data = 'a'"),
        (["train", config, f"--workdir={tmp_path / 'x'}", "--config.training.steps=-3"], "steps = -3"),
        (["train", config, f"--workdir={tmp_path / 'x'}", "--config.family.image_shape=(9, 9, 1)"], "9x9"),
        (["train", f"{config}y", f"--workdir={tmp_path / 'x'}"], "mode = 'smokey'"),
        (["train", "--config=nowhere.py", f"--workdir={tmp_path / 'x'}"], "nowhere.py"),
        (["sample", f"--workdir={run}", "--solver.name=dddim"], "did you mean 'ddim'?"),
        (["sample", f"--workdir={run}", "--solvr.name=ddim"], "--solvr.name"),
        (["sample", f"--workdir={run}", "--classes=11"], "no class 11"),
        (["sample", f"--workdir={run}", "--steps=0"], "steps = 0"),
        (["sample", f"--workdir={run}", "--guidanc=3"], "mean '--guidance'?"),
        (["sample", f"--workdir={run}", "--guidance.scale=a"], "guidance.scale = 'a': must be a number"),
        (["sample", f"--workdir={run}", "--seed=-1"], "--seed = -1"),
        (["evaluate", f"--workdir={run}", "--checkpoint=9"], "no checkpoint of step 9"),
        (["lst"], "did you mean 'list'?"),
        (["list", "solver"], "did you mean 'solvers'?"),
    ]:
        assert main(arguments) == 2
        assert words in capsys.readouterr().err


def test_lists(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    for kind, word in [
        ("solvers", "dpmpp_2m"),
        ("processes", "rectified_flow"),
        ("families", "flow_matching"),
        ("networks", "unet"),
        ("configs", "configs/digits/ddpm.py"),
    ]:
        assert main(["list", kind]) == 0
        assert word in capsys.readouterr().out
    assert main([]) == 2 and main(["--help"]) == 0 and main(["--version"]) == 0
