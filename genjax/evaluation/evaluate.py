"""From samples to figures: what `genjax evaluate` prints and writes."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from genjax.config import require
from genjax.evaluation import distances, tables
from genjax.evaluation.features import FeatureNetwork
from genjax.evaluation.manifest import Manifest, Provenance
from genjax.evaluation.neighbours import Neighbours, neighbours
from genjax.files import write_whole

K, K_DENSITY = 3, 5  # nearest neighbours of precision and recall, of density and coverage: those of the papers
MOST_NEIGHBOURS = 5000  # images on each side of them; time grows with the square


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """What samples are scored against, worked out once for any number of scores; `reference` makes it.

    Attributes:
        network: where the features come from.
        train: features of the training split [M, D].
        test: features of the test split [K, D].
        logits: of the test split [K, classes].
        moments: mean and covariance of the test split's features.
        real: share of the test split that the network gives its own class; None where its classes are not known.
    """

    network: FeatureNetwork
    train: np.ndarray
    test: np.ndarray
    logits: np.ndarray
    moments: tuple[np.ndarray, np.ndarray]
    real: float | None

    def distance(self, samples: np.ndarray) -> float:
        """Returns the Frechet distance of samples, uint8 [N, H, W, C], to the test split."""
        return distances.frechet(*distances.moments(self.network.features(samples)), *self.moments)

    def floor(self, n: int, seed: int = 0, repeats: int = 10) -> distances.Floor:
        """Returns the distance of n training images to the test split, see `distances.floor`."""
        return distances.floor(self.train, self.test, n, seed, repeats)

    def agreement(self, samples: np.ndarray, labels: np.ndarray) -> distances.Proportion:
        """Returns the share of samples, uint8 [N, H, W, C], that are of the classes requested [N]."""
        return distances.agreement(self.network.logits(samples), labels)


def reference(
    network: FeatureNetwork, train: np.ndarray, test: np.ndarray, test_labels: np.ndarray | None = None
) -> Reference:
    """Prepares what samples are scored against.

    Args:
        network: where the features come from.
        train: the training split, uint8 [M, H, W, C].
        test: the test split, uint8 [K, H, W, C].
        test_labels: the classes of the test split [K]; with them, the agreement that real images reach stands beside
            that of the samples.

    Raises:
        ValueError: images of a wrong type or shape, fewer than two of the test split, or features that are not finite.
    """
    features, logits = network.features(test), network.logits(test)
    real = None if test_labels is None else distances.agreement(logits, test_labels).value
    return Reference(network, network.features(train), features, logits, distances.moments(features), real)


def score(
    samples: np.ndarray, labels: np.ndarray | None, against: Reference, provenance: Provenance, *, repeats: int = 10
) -> dict[str, Any]:
    """Scores samples against the test split, beside what training images themselves would score.

    Distance and floor are taken at the same number of images against the same test split. That number is the number of
    samples, or the size of the training split where there are more samples: then the first of them are used.

    Args:
        samples: generated images, uint8 [N, H, W, C].
        labels: the classes requested [N], or None for samples without class.
        against: the splits, prepared by `reference`.
        provenance: how the samples came about.
        repeats: draws from the training split for what real images score.

    Returns:
        Plain values: `frechet` (label, value, low, high, confidence, n), `floor` (mean, std, n, repeats), `ratio`
        (distance / floor), `figures` (see `figures`), `agreement` (label, value, low, high, n, confidence, and `real`,
        the share of the test split; None without labels) and the `manifest`.

    Raises:
        ValueError: images of a wrong type or shape, fewer than two of them, or features that are not finite.
    """
    network = against.network
    n = min(len(samples), len(against.train))
    features, logits = network.features(samples[:n]), network.logits(samples)
    distance = distances.frechet_estimate(features, against.moments)
    floor = against.floor(n, provenance.seed, repeats)
    agreement = None
    if labels is not None:
        label = f"Agreement with the requested class ({_spoken(network.name)})"
        agreement = {"label": label, **distances.agreement(logits, labels)._asdict(), "real": against.real}
    return {
        "frechet": {"label": f"Frechet distance ({_spoken(network.name)} features)", **distance._asdict(), "n": n},
        "floor": floor._asdict(),
        # Splits of one set of images can lie at distance 0, where a ratio means nothing.
        "ratio": distance.value / floor.mean if floor.mean > 0 else None,
        "figures": figures(features, logits, against, provenance.seed, repeats),
        "agreement": agreement,
        "manifest": manifest(provenance, n, len(against.test), network.name, network.hash).to_dict(),
    }


def figures(
    features: np.ndarray, logits: np.ndarray, against: Reference, seed: int, repeats: int
) -> dict[str, dict[str, Any]]:
    """Returns what is measured beside the Frechet distance, each figure with its interval and that of real images.

    Args:
        features: of the samples [n, D], n being at most the size of the training split.
        logits: of all the samples [N, classes].
        against: the splits.
        seed: of what is drawn.
        repeats: draws from the training split for what real images score, of which the mean is given.

    Returns:
        By name, `label`, `value`, `low`, `high`, `confidence`, `n`, `real`, and `share` for what is one:
        `kernel_distance`; `precision`, `recall`, `density` and `coverage` of equal numbers of samples and of images
        of the test split, which are left out where there are too few; `class_score`, whose `real` is the test split's.
    """
    rng = np.random.default_rng(seed)
    n, spoken = len(features), _spoken(against.network.name)
    drawn = [against.train[rng.choice(len(against.train), n, replace=False)] for _ in range(repeats)]
    kernel, *kernels = (distances.kernel_distance(x, against.test, seed) for x in (features, *drawn))
    found = {
        "kernel_distance": {
            "label": f"Kernel distance ({spoken} features)",
            **kernel._asdict(),
            "n": n,
            "real": float(np.mean([estimate.value for estimate in kernels])),
        }
    }
    m = min(n, len(against.test), MOST_NEIGHBOURS)
    if m > K_DENSITY:
        test = against.test[rng.permutation(len(against.test))[:m]]
        ours, *theirs = (neighbours(test, x[:m], K, K_DENSITY, seed) for x in (features, *drawn))
        found |= describe_neighbours(ours, theirs, m)
    return found | {
        "class_score": {
            "label": f"Class score ({spoken})",
            **distances.class_score(logits)._asdict(),
            "n": len(logits),
            "real": distances.class_score(against.logits).value,
        }
    }


def describe_neighbours(ours: Neighbours, real: Sequence[Neighbours], n: int) -> dict[str, dict[str, Any]]:
    """Returns precision, recall, density and coverage as `figures` does.

    Args:
        ours: of samples.
        real: of real images in the place of the samples, of which the mean is given.
        n: points in each set.
    """
    return {
        name: {
            "label": f"{name.capitalize()} (k = {K if name in ('precision', 'recall') else K_DENSITY})",
            **getattr(ours, name)._asdict(),
            "n": n,
            "real": float(np.mean([getattr(one, name).value for one in real])),
            "share": name != "density",
        }
        for name in Neighbours._fields
    }


def manifest(
    provenance: Provenance, n: int, n_reference: int, network: str | None = None, network_hash: str | None = None
) -> Manifest:
    """Returns the provenance with what the figures were measured on; see `Manifest` for the arguments."""
    about = {field.name: getattr(provenance, field.name) for field in dataclasses.fields(Provenance)}
    return Manifest(**about, feature_network=network, feature_network_hash=network_hash, n=n, n_reference=n_reference)


def write(path: str | Path, results: Mapping[str, Any]) -> None:
    """Writes what `score` returned as JSON; NaN and infinity, which JSON does not know, become null."""

    def known(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: known(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [known(inner) for inner in value]
        return None if isinstance(value, float) and not np.isfinite(value) else value

    write_whole(path, json.dumps(known(results), indent=2, allow_nan=False) + "\n")


def table(results: Sequence[Mapping[str, Any]]) -> Table:
    """Returns a table with one row for each result of `score`, for a rich console or, piped, for a text file.

    The floor is what training images get, as many as there are samples.

    Raises:
        ValueError: no results, or results in the features of different networks, which do not compare.
    """
    require(len(results) > 0, "results: there are none")
    hashes = {result["manifest"]["feature_network_hash"] for result in results}
    require(len(hashes) == 1, "results: their feature networks differ, so that their distances do not compare")
    view = _view(results[0]["frechet"]["label"], ["solver", "steps", "n", "distance [95%]", "floor", "ratio"])
    for result in results:
        about = result["manifest"]
        view.add_row(
            about["solver"]["name"] if about["solver"] else "-",
            str(about["steps"] or "-"),
            str(about["n"]),
            bracket(result["frechet"]),
            spread(result),
            "-" if result["ratio"] is None else f"{result['ratio']:.2f}",
        )
    return view


def details(result: Mapping[str, Any], others: Mapping[str, float] | None = None) -> Table:
    """Returns a table of all the figures but the Frechet distance, a row each, beside those of real data.

    Args:
        result: of `score`, or of `points.score`.
        others: further figures by name, such as the family's own.
    """
    view = _view(None, ["", "samples [95%]", "real data"])
    for figure in (*result.get("figures", {}).values(), result.get("agreement")):
        if figure:
            view.add_row(short(figure), bracket(figure), plain(figure, figure["real"]))
    for name, value in (others or {}).items():
        view.add_row(name, f"{value:.4g}", "")
    return view


def _view(title: str | None, headings: Sequence[str]) -> Table:
    """A table as narrow as can be: a console that is no terminal has 80 columns."""
    view = Table(
        title=title,
        title_justify="left",
        title_style="",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    for i, heading in enumerate(headings):
        view.add_column(heading, justify="right" if i else "left")
    return view


def short(figure: Mapping[str, Any]) -> str:
    """Returns the label of a figure without the network that is named in parentheses."""
    return re.sub(r" \((?!k = ).*\)$", "", figure["label"])


def plain(figure: Mapping[str, Any], value: float | None) -> str:
    """Returns a value as text in the way of a figure: a share is in per cent; "-" where there is none."""
    if value is None or not np.isfinite(value):
        return "-"
    return f"{value:.1%}" if _is_share(figure) else f"{value:{tables.supported(figure)}}"


def bracket(figure: Mapping[str, Any]) -> str:
    """Returns a figure as text, with the ends of its interval where it has one."""
    if _is_share(figure):
        return interval(figure)
    value, low, high = (plain(figure, figure.get(name)) for name in ("value", "low", "high"))
    return value if "-" in (low, high) else f"{value} [{low}, {high}]"


def _is_share(figure: Mapping[str, Any]) -> bool:
    return figure.get("share", figure["label"].startswith("Agreement"))


def spread(result: Mapping[str, Any]) -> str:
    """Returns the floor of a result as text: mean and standard deviation, in the digits of the distance."""
    mean, std = (plain(result["frechet"], result["floor"][name]) for name in ("mean", "std"))
    return f"{mean} ± {std}"


def interval(share: Mapping[str, Any]) -> str:
    """Returns a proportion as text: per cent with the ends of its interval."""
    return f"{share['value']:.1%} [{100 * share['low']:.1f}, {100 * share['high']:.1f}]"


def _spoken(name: str) -> str:
    return name.replace("_", " ")
