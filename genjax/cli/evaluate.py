"""`genjax evaluate`."""

import json
import shlex
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from genjax.cli.flags import Parser
from genjax.cli.run import SECTIONS, Run, add_arguments, open_run, snapshots_of
from genjax.config import ConfigError
from genjax.data.base import Source
from genjax.data.transforms import to_uint8
from genjax.evaluation import evaluate, figures, report, sweep
from genjax.training import run_folder
from genjax.training.posthoc import Snapshots

SWEEP = "ema_sweep.csv"  # within a run folder
_SHOWN = 10  # samples a class in the report


def main(argv: Sequence[str]) -> int:
    """Scores a run against its held-out data, and writes `evaluation.json` and `report.html`."""
    parser = Parser(prog="genjax evaluate", description="Score a trained run; writes evaluation.json and report.html.")
    add_arguments(parser)
    parser.add_argument("--n", type=int, help="number of samples")
    parser.add_argument(
        "--ema-widths",
        metavar="WIDTH,WIDTH",
        help="score averages of these widths too, made afterwards as for --ema-width; writes ema_sweep.csv and .json",
    )
    arguments, sections = parser.parse_dotted(argv, SECTIONS)
    widths = _widths(arguments.ema_widths)
    snapshots = snapshots_of(arguments) if widths else None
    if snapshots is not None:
        for width in widths:
            snapshots.check(width)
    run = open_run(arguments, sections)
    n = run.experiment.evaluation.n if arguments.n is None else arguments.n
    if n < 2:
        raise ConfigError(f"--n = {n}: must be at least 2")
    if run.experiment.evaluation.feature_network is not None and run.experiment.data.spec.num_classes is None:
        raise ConfigError("evaluation.feature_network is trained on labels, and the data have none")
    labels = run.labels(n)
    started = time.perf_counter()
    images = run.generate(n, labels)
    seconds = time.perf_counter() - started
    against = reference(run)
    results = None if against is None else evaluate.score(images, labels, against, run.provenance())
    figures_of_family = run.held_out()
    evaluate.write(run.workdir / "evaluation.json", (results or {}) | {"family": figures_of_family})
    if results is None:
        print("no distances: the config has no evaluation.feature_network")
    else:
        Console().print(evaluate.table([results]))
    if snapshots is not None:
        Console().print(sweep.table(sweep_widths(run, snapshots, widths, n, against)))
    path = run.workdir / "report.html"
    # The first start's command is what repeats the training; later ones went on with it.
    starts = run_folder.read_starts(run.workdir) or [{}]
    command = "\n".join(filter(None, [starts[0].get("command"), shlex.join(["genjax", "evaluate", *argv])]))
    facts = {"Sampling": f"{n} samples in {seconds:.1f} s, compilation included"}
    versions = {key: str(value) for key, value in starts[-1].items() if key != "command"}
    report.write_report(path, describe(run, images, labels, results, figures_of_family, facts, command, versions))
    print(f"report: {path}")
    return 0


def _widths(text: str | None) -> list[float]:
    try:
        return sorted({float(word) for word in text.split(",")}) if text else []
    except ValueError:
        raise ConfigError(f"--ema-widths = {text!r}: must be numbers, as in 0.05,0.1,0.15") from None


def sweep_widths(
    run: Run, snapshots: Snapshots, widths: Sequence[float], n: int, against: evaluate.Reference | None
) -> list[sweep.Row]:
    """Scores averages of several widths, by samples of the same noise; writes `ema_sweep.csv` and `ema_sweep.json`.

    Args:
        run: whose sampler and seed are used.
        snapshots: what the averages are made of.
        widths: rising.
        n: samples of each.
        against: what they are scored against; None to take the family's own figures alone.

    Returns:
        A row for each width.
    """
    labels = run.labels(n)
    rows, results = [], []
    for width in widths:
        one, residual = run.averaged(snapshots, width)
        scores = None if against is None else evaluate.score(one.generate(n, labels), labels, against, one.provenance())
        family = one.held_out()
        rows.append(sweep.row(width, residual, one.step, n, scores, family))
        results.append({"ema_width": width, "residual": residual, **(scores or {}), "family": family})
    sweep.write(run.workdir / SWEEP, rows)
    evaluate.write(run.workdir / "ema_sweep.json", {"results": results})
    return rows


def reference(run: Run) -> evaluate.Reference | None:
    """Prepares what the run's samples are scored against; None where its config has no feature network."""
    experiment = run.experiment
    network = experiment.evaluation.feature_network
    if network is None:
        return None
    train = _everything(experiment.data)
    test = _everything(experiment.eval_data) if experiment.eval_data is not None else train
    prepared = network(train["image"], train["label"])
    return evaluate.reference(prepared, train["image"], test["image"], test.get("label"))


def describe(
    run: Run,
    images: np.ndarray,
    labels: np.ndarray | None,
    results: dict[str, Any] | None,
    figures_of_family: dict[str, float],
    facts: dict[str, str],
    command: str,
    versions: dict[str, str],
) -> report.Report:
    """Collects what the report shows."""
    experiment = run.experiment
    spec = experiment.data.spec
    shown = slice(0, _SHOWN * (spec.num_classes or _SHOWN))
    metrics, swept = run.workdir / "metrics.csv", run.workdir / SWEEP
    return report.Report(
        title=f"{experiment.config['family']['name']} on {run.provenance().dataset}",
        command=command,
        summary={"Parameters": f"{run.size():,}", "Training steps": f"{run.step:,}", **facts},
        evaluations=[results] if results is not None else [],
        other_figures=figures_of_family,
        metrics=figures.read_metrics(metrics) if metrics.exists() else {},
        samples=images[shown],
        labels=None if labels is None else labels[shown],
        class_names=spec.class_names,
        trajectory=trajectory(run),
        schedule=schedule(run),
        ema_sweep=sweep.read(swept) if swept.exists() else [],
        config=json.dumps(dict(experiment.config), indent=2),
        versions=versions,
    )


def trajectory(run: Run) -> np.ndarray | None:
    """One batch on its way from noise to images, uint8 [T, B, H, W, C]; None for a family without steps."""
    if not run.sampler():
        return None
    family: Any = run.experiment.family  # one with a sampler takes a trace, which the contract of all does not promise
    labels = run.labels(10)
    cond = None if labels is None else {"label": jnp.asarray(labels)}

    @jax.jit
    def generate(params: Any, key: jax.Array) -> Any:
        return family.generate(params, key, 10, cond, trace=lambda x_t, x_0, t: to_uint8(x_t))

    end, states = generate(run.params, jax.random.key(run.seed))
    return np.concatenate([np.asarray(states), np.asarray(to_uint8(end))[None]])


def schedule(run: Run) -> report.Schedule | None:
    """The noise schedule; None for a family without a process."""
    process = getattr(run.experiment.family, "process", None)
    if process is None:
        return None
    t = np.linspace(0.0, 1.0, 201)
    return report.Schedule(t=t, alpha=process.alpha(t), sigma=process.sigma(t), log_snr=process.log_snr(t))


def _everything(source: Source) -> dict[str, np.ndarray]:
    return source.gather(np.arange(source.spec.size))
