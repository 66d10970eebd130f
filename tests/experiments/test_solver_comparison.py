"""The study of a trained run: budgets, pairing, few programs, intervals."""

import csv
import dataclasses
import importlib.util
import math
import pathlib
import types

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.solver_comparison import results
from experiments.solver_comparison.__main__ import main
from experiments.solver_comparison.measure import Bench, compare, evaluations, named_solvers, sweep, within
from genjax import processes, solvers
from genjax.cli.run import Run
from genjax.config import ConfigError, build
from genjax.evaluation import evaluate
from genjax.families.sampler import Sampler
from genjax.sampling import times
from genjax.training.experiment import Experiment
from genjax.training.loop import train

ROOT = pathlib.Path(__file__).parents[2]
VP, VE = processes.LinearVP(), processes.VE(0.01, 50.0)


@dataclasses.dataclass(frozen=True)
class Toy:
    """Pixels of class c are N(c / 10, 0.1^2), and the denoiser is exact; of the null class they are N(0, 0.1^2)."""

    sampler: Sampler
    condition: tuple[str, ...] = ("label",)
    process: processes.Process = VP

    def generate(self, params, key, n, cond):
        def denoise(x_t, t, cond):
            mean = params * jnp.maximum(cond["label"], 0).reshape(-1, 1, 1, 1) / 10.0
            alpha, sigma = self.process.alpha(t), self.process.sigma(t)
            return mean + alpha * 0.01 / (alpha**2 * 0.01 + sigma**2) * (x_t - alpha * mean)

        return self.sampler(key, denoise, self.process, (n, 4, 4, 1), cond)


class Pixels:
    """Features are the columns' means; a logit is how near the image is to its class."""

    name, hash = "pixels", "0"

    def features(self, images):
        return images.astype(np.float64).mean((1, 3)) / 127.5 - 1.0

    def logits(self, images):
        return -np.abs(self.features(images).mean(1)[:, None] - np.arange(3)[None] / 10.0)


@pytest.fixture(scope="module")
def bench():
    guidance = build("guidance", {"name": "classifier_free", "scale": 1.0})
    family = Toy(Sampler(solvers.DPMpp2M(), times.trailing, 4, guidance))
    experiment = types.SimpleNamespace(
        family=family,
        evaluation=types.SimpleNamespace(batch_size=6),
        data=types.SimpleNamespace(spec=types.SimpleNamespace(num_classes=3, levels=256)),
    )
    rng = np.random.default_rng(0)
    real = rng.integers(120, 160, (2, 30, 4, 4, 1), np.uint8)
    return Bench(
        Run(pathlib.Path("."), experiment, jnp.ones(()), step=1, seed=5, ema=True),
        evaluate.reference(Pixels(), *real),
        n=9,
    )


def test_a_budget_is_spent_on_whole_steps_and_counts_every_call():
    def cost(solver, process, budget):
        sampler = within(Sampler(solver, times.trailing), process, budget)
        return sampler and (sampler.steps, evaluations(sampler, process))

    assert cost(solvers.DDIM(), VP, 5) == (5, 5)
    assert cost(solvers.DDIM(), VE, 5) == (4, 5)  # noise is left at the last time, so it is denoised once more
    assert cost(solvers.Heun(), VP, 5) == (2, 4)
    assert cost(solvers.Heun(), VE, 5) == (2, 5)
    assert cost(solvers.Heun(), VP, 1) is None
    # The first of the steps of a two-step method, by the midpoint method: one evaluation more.
    assert cost(solvers.DPMpp2M("singlestep"), VP, 5) == (4, 5)


def test_one_program_a_sampler_whatever_the_seed_and_the_scale(bench):
    before = bench.compiled
    rows = sweep(bench, [0.0, 1.0, 2.5], [5, 6])
    assert bench.compiled - before == 1 and len(rows) == 6
    assert len({row["distance"] for row in rows}) == 6  # so the scale and the seed do reach the samples
    # Without guidance all the pixels are 0, the first of the three classes; with it they are of the class asked for.
    assert [results.agreement(results.pick(rows, guidance=scale)).value for scale in (0.0, 1.0)] == [1 / 3, 1.0]
    more = compare(bench, {"heun": solvers.Heun(), "dpmpp_2m": solvers.DPMpp2M()}, [4], [5])
    assert bench.compiled - before == 2  # that of dpmpp_2m is the sweep's
    assert more[1]["distance"] == results.pick(rows, guidance=1.0, seed=5)[0]["distance"]


def test_samples_are_those_of_the_run_itself(bench):
    images = bench.draw(bench.sampler, 5, 1.0)
    # A traced scale of 1 evaluates both conditions, a known one does not: they agree to rounding.
    assert np.abs(images.astype(int) - bench.run.generate(9, bench.labels)).max() <= 1


def test_samplers_are_paired_by_the_starting_noise(bench):
    # The exact flow scales and shifts the noise, so that residues of two good solvers agree.
    fine = dataclasses.replace(bench.sampler, steps=12)
    finest = dataclasses.replace(bench.sampler, solver=solvers.Heun(), steps=24)
    here, there, other = (
        bench.draw(sampler, seed, 1.0) / 127.5 - 1.0 - bench.labels.reshape(-1, 1, 1, 1) / 10.0
        for sampler, seed in ((fine, 5), (finest, 5), (fine, 6))
    )
    assert np.corrcoef(here.ravel(), there.ravel())[0, 1] > 0.99
    assert abs(np.corrcoef(here.ravel(), other.ravel())[0, 1]) < 0.3


def test_solvers_are_named_with_their_options():
    named = named_solvers("heun,ddim:eta=1.0,unipc:solver_order=2:corrector=False")
    assert list(named.values()) == [solvers.Heun(), solvers.DDIM(1.0), solvers.UniPC(2, corrector=False)]
    for text, words in (
        ("hean", "did you mean 'heun'"),
        ("ddim:etta=1.0", "did you mean 'eta'"),
        ("adaptive", "chooses its own steps"),
    ):
        with pytest.raises(ConfigError, match=words):
            named_solvers(text)


def test_samples_beyond_the_floors_are_refused(bench):
    with pytest.raises(ConfigError, match="from 2 to 30"):
        dataclasses.replace(bench, n=31)


def rows_of(solver, budget, evaluations, distances):
    return [
        {"solver": solver, "budget": budget, "evaluations": evaluations, "seed": seed, "distance": value}
        for seed, value in enumerate(distances)
    ]


def test_intervals_are_students():
    # t with 2 degrees of freedom has its 97.5% point at 4.302653 (any table); the deviation of 1, 2, 3 is 1.
    assert results.estimate([1.0, 2.0, 3.0]) == pytest.approx((2.0, 4.302653 / math.sqrt(3.0)), rel=1e-6)
    assert results.estimate([1.0]).text() == "1.00"


def test_differences_are_within_seeds():
    rows = rows_of("a", 5, 5, [1.0, 4.0, 7.0]) + rows_of("b", 5, 4, [1.5, 4.5, 7.5]) + rows_of("a", 2, 2, [1, 1, 1])
    rows = rows[::-1]  # the order of the rows means nothing
    assert results.difference(results.pick(rows, solver="b"), results.pick(rows, solver="a", budget=5)) == (0.5, 0.0)
    with pytest.raises(ValueError, match="other seeds"):
        results.difference(results.pick(rows, seed=0), results.pick(rows, seed=1))


def test_tables_say_what_was_not_spent_and_what_cannot_be():
    rows = rows_of("a", 2, 2, [3.0]) + rows_of("a", 5, 5, [2.0]) + rows_of("b", 5, 4, [2.25])
    assert results.distances(rows) == (
        ["solver", "2 NFE", "5 NFE"],
        [["`a`", "3.00", "2.00"], ["`b`", "-", "2.25 (4)"]],
    )
    assert results.differences(rows) == (["minus `a`", "2 NFE", "5 NFE"], [["`b`", "-", "0.25 (4)"]])


@pytest.mark.slow
def test_the_study_of_a_run_writes_tables_and_figures(tmp_path):
    spec = importlib.util.spec_from_file_location("digits", ROOT / "configs/digits/ddpm.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    train(Experiment.from_config(module.get_config("smoke")), tmp_path / "run")
    flags = "--solvers=heun,ddim --nfe=1,3 --scales=1,2 --seeds=2 --n=20 --steps=2"
    main([f"--workdir={tmp_path / 'run'}", *flags.split()])
    folder = tmp_path / "run" / "solver_comparison"
    written = {path.name for path in folder.iterdir()}
    tables = {f"{name}.{ending}" for name in ("table", "differences", "scales") for ending in ("md", "tex")}
    figures = {f"{name}.{ending}" for name in ("distance", "scales") for ending in ("png", "pdf")}
    assert written == tables | figures | {"table.csv", "scales.csv"}
    with (folder / "table.csv").open(newline="") as file:
        rows = [(row["solver"], row["budget"], row["evaluations"], row["seed"]) for row in csv.DictReader(file)]
    assert rows == [
        *(("heun", "3", "2", seed) for seed in "01"),
        *(("ddim", budget, budget, seed) for budget in "13" for seed in "01"),
    ]
