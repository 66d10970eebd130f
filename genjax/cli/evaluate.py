"""`genjax evaluate`."""

import json
import shlex
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from genjax.cli.flags import Parser
from genjax.cli.run import SECTIONS, Run, add_arguments, open_run, snapshots_of
from genjax.config import ConfigError
from genjax.data.base import Source
from genjax.data.transforms import preprocess, to_uint8
from genjax.evaluation import compare, evaluate, figures, points, report, sweep, tables
from genjax.families.base import generates
from genjax.files import write_whole
from genjax.training import checkpoints, run_folder
from genjax.training.posthoc import Snapshots

SWEEP = "ema_sweep.csv"  # within a run folder
_SHOWN = 10  # samples a class in the report
_POINTS = 2000  # of the samples and of the data, where these are points
_PICTURED = 64  # held-out images that a family may draw its own pictures of

Scorer = Callable[[Run, np.ndarray, np.ndarray | None], dict[str, Any]]  # of samples, for the classes asked for


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
    if not generates(run.experiment.family):
        known = run.held_out()
        evaluate.write(run.workdir / "evaluation.json", {"parameters": run.size(), "family": known})
        Console().print(evaluate.details({}, known))
        return 0
    n = run.experiment.evaluation.n if arguments.n is None else arguments.n
    if n < 2:
        raise ConfigError(f"--n = {n}: must be at least 2")
    if run.experiment.evaluation.feature_network is not None and run.experiment.data.spec.num_classes is None:
        raise ConfigError("evaluation.feature_network is trained on labels, and the data have none")
    labels = run.labels(n)
    images, sampling = draw(run, n, labels)
    scorer = make_scorer(run)
    results = None if scorer is None else scorer(run, images, labels)
    facts = {"parameters": run.size(), "training_seconds": training_seconds(run), "sampling": sampling}
    figures_of_family = run.held_out()
    evaluate.write(run.workdir / "evaluation.json", (results or {}) | facts | {"family": figures_of_family})
    write_whole(run.workdir / compare.SAMPLES, compare.pack(images))
    console = Console()
    if results is None:
        print("no distances: the config has no evaluation.feature_network")
    elif "frechet" in results:
        console.print(evaluate.table([results]))
    if results is not None or figures_of_family:
        console.print(evaluate.details(results or {}, figures_of_family))
    if snapshots is not None:
        console.print(sweep.table(sweep_widths(run, snapshots, widths, n, scorer)))
    path = run.workdir / "report.html"
    # The first start's command is what repeats the training; later ones went on with it.
    starts = run_folder.read_starts(run.workdir) or [{}]
    command = "\n".join(filter(None, [starts[0].get("command"), shlex.join(["genjax", "evaluate", *argv])]))
    versions = {key: str(value) for key, value in starts[-1].items() if key != "command"}
    report.write_report(path, describe(run, images, labels, results, figures_of_family, facts, command, versions))
    print(f"report: {path}")
    return 0


def draw(run: Run, n: int, labels: np.ndarray | None) -> tuple[np.ndarray, dict[str, Any]]:
    """Draws n samples, and says how long that took once the sampler was compiled.

    Returns:
        The samples, and: `seconds` from the first batch to the arrays on the host, `n`, `batch_size` and `device`.
    """
    size = -(-n // -(-n // run.experiment.evaluation.batch_size))  # of the batches that `generate` will draw
    run.generate(size, None if labels is None else labels[:size])
    started = time.perf_counter()
    images = run.generate(n, labels)
    seconds = time.perf_counter() - started
    return images, {"seconds": seconds, "n": n, "batch_size": size, "device": jax.devices()[0].device_kind}


def training_seconds(run: Run) -> float | None:
    """Returns how long the run had trained when its weights were saved; None where the checkpoint does not say."""
    try:
        return checkpoints.training_seconds(run.workdir / checkpoints.DIRECTORY, run.step)
    except (ConfigError, KeyError):  # weights of a snapshot between checkpoints, or an earlier version's
        return None


def _widths(text: str | None) -> list[float]:
    try:
        return sorted({float(word) for word in text.split(",")}) if text else []
    except ValueError:
        raise ConfigError(f"--ema-widths = {text!r}: must be numbers, as in 0.05,0.1,0.15") from None


def sweep_widths(
    run: Run, snapshots: Snapshots, widths: Sequence[float], n: int, scorer: Scorer | None
) -> list[sweep.Row]:
    """Scores averages of several widths, by samples of the same noise; writes `ema_sweep.csv` and `ema_sweep.json`.

    Args:
        run: whose sampler and seed are used.
        snapshots: what the averages are made of.
        widths: rising.
        n: samples of each.
        scorer: what `make_scorer` gave; None to take the family's own figures alone.

    Returns:
        A row for each width.
    """
    labels = run.labels(n)
    rows, results = [], []
    for width in widths:
        one, residual = run.averaged(snapshots, width)
        scores = None if scorer is None else scorer(one, one.generate(n, labels), labels)
        family = one.held_out()
        rows.append(sweep.row(width, residual, one.step, n, scores, family))
        results.append({"ema_width": width, "residual": residual, **(scores or {}), "family": family})
    sweep.write(run.workdir / SWEEP, rows)
    evaluate.write(run.workdir / "ema_sweep.json", {"results": results})
    return rows


def make_scorer(run: Run) -> Scorer | None:
    """Returns what scores samples of a run: against its density where that is known, else against its images.

    None where there is neither a known density nor a feature network.
    """
    source = run.experiment.eval_data or run.experiment.data
    truth = getattr(source, "truth", None)
    if truth is not None:

        def score_points(run: Run, samples: np.ndarray, labels: np.ndarray | None) -> dict[str, Any]:
            real = source.gather(np.arange(min(len(samples), source.spec.size)))["image"]
            return points.score(samples, real, truth, run.provenance())

        return score_points
    against = reference(run)
    if against is None:
        return None
    return lambda run, samples, labels: evaluate.score(samples, labels, against, run.provenance())


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
    facts: dict[str, Any],
    command: str,
    versions: dict[str, str],
) -> report.Report:
    """Collects what the report shows."""
    experiment = run.experiment
    spec = experiment.data.spec
    shown = slice(0, _SHOWN * (spec.num_classes or _SHOWN))
    metrics, swept = run.workdir / "metrics.csv", run.workdir / SWEEP
    sampling, seconds = facts["sampling"], facts["training_seconds"]
    where = f"{sampling['device']}, batches of {sampling['batch_size']}"
    thousand = 1000 * sampling["seconds"] / sampling["n"]
    summary = {
        "Parameters": f"{facts['parameters']:,}",
        "Training steps": f"{run.step:,}",
        **({} if seconds is None else {"Training time": tables.duration(seconds)}),
        "Time for 1000 samples": f"{tables.duration(thousand)} ({where})",
    }
    shared: dict[str, Any] = {}
    if spec.levels is None:
        source = experiment.eval_data or experiment.data
        real = source.gather(np.arange(min(_POINTS, source.spec.size)))["image"]
        shared["points"] = {
            "data": real.reshape(len(real), -1),
            "samples": images[:_POINTS].reshape(-1, images.shape[-1]),
        }
    else:
        shared = {
            "samples": images[shown],
            "labels": None if labels is None else labels[shown],
            "pictures": pictures(run),
            "trajectory": trajectory(run),
        }
    return report.Report(
        title=f"{experiment.config['family']['name']} on {run.provenance().dataset}",
        command=command,
        summary=summary,
        evaluations=[results] if results is not None else [],
        other_figures=figures_of_family,
        metrics=figures.read_metrics(metrics) if metrics.exists() else {},
        class_names=spec.class_names,
        schedule=schedule(run),
        ema_sweep=sweep.read(swept) if swept.exists() else [],
        config=json.dumps(dict(experiment.config), indent=2),
        versions=versions,
        **shared,
    )


def pictures(run: Run) -> dict[str, np.ndarray]:
    """The family's own sheets of held-out images, uint8 [rows, columns, H, W, C] by name; none where it has none."""
    family: Any = run.experiment.family
    if not hasattr(family, "pictures"):
        return {}
    source = run.experiment.eval_data or run.experiment.data
    batch = source.gather(np.arange(min(_PICTURED, source.spec.size)))

    @jax.jit
    def sheets(params: Any, batch: Any, key: jax.Array) -> Any:
        made = family.pictures(params, preprocess(batch, key, flip=False), key)
        return {name: to_uint8(sheet) for name, sheet in made.items()}

    return {name: np.asarray(sheet) for name, sheet in sheets(run.params, batch, jax.random.key(run.seed)).items()}


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
