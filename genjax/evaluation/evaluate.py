"""From samples to figures: what `genjax evaluate` prints and writes."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from genjax.config import require
from genjax.evaluation import distances
from genjax.evaluation.features import FeatureNetwork
from genjax.evaluation.manifest import Manifest, Provenance
from genjax.files import write_whole


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """What samples are scored against, worked out once for any number of scores; `reference` makes it.

    Attributes:
        network: where the features come from.
        train: features of the training split [M, D].
        test: features of the test split [K, D].
        moments: mean and covariance of the latter.
        real: share of the test split that the network gives its own class; None where its classes are not known.
    """

    network: FeatureNetwork
    train: np.ndarray
    test: np.ndarray
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
    features = network.features(test)
    real = None if test_labels is None else distances.agreement(network.logits(test), test_labels).value
    return Reference(network, network.features(train), features, distances.moments(features), real)


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
        repeats: draws from the training split for the floor.

    Returns:
        Plain values: `frechet` (label, value, n), `floor` (mean, std, n, repeats), `ratio` (distance / floor),
        `agreement` (label, value, low, high, n, confidence, and `real`, the share of the test split; None without
        labels) and the `manifest`.

    Raises:
        ValueError: images of a wrong type or shape, fewer than two of them, or features that are not finite.
    """
    network = against.network
    n = min(len(samples), len(against.train))
    distance = against.distance(samples[:n])
    floor = against.floor(n, provenance.seed, repeats)
    manifest = Manifest(
        **{field.name: getattr(provenance, field.name) for field in dataclasses.fields(Provenance)},
        feature_network=network.name,
        feature_network_hash=network.hash,
        n=n,
        n_reference=len(against.test),
    )
    agreement = None
    if labels is not None:
        label = f"Agreement with the requested class ({_spoken(network.name)})"
        agreement = {"label": label, **against.agreement(samples, labels)._asdict(), "real": against.real}
    return {
        "frechet": {"label": f"Frechet distance ({_spoken(network.name)} features)", "value": distance, "n": n},
        "floor": floor._asdict(),
        # Splits of one set of images can lie at distance 0, where a ratio means nothing.
        "ratio": distance / floor.mean if floor.mean > 0 else None,
        "agreement": agreement,
        "manifest": manifest.to_dict(),
    }


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

    Raises:
        ValueError: no results, or results in the features of different networks, which do not compare.
    """
    require(len(results) > 0, "results: there are none")
    hashes = {result["manifest"]["feature_network_hash"] for result in results}
    require(len(hashes) == 1, "results: their feature networks differ, so that their distances do not compare")
    title = f"{results[0]['frechet']['label']}; floor: training images at the same n"
    # As narrow as can be: a console that is no terminal has 80 columns.
    view = Table(
        title=title, title_justify="left", title_style="", box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0)
    )
    for heading in ("solver", "steps", "n", "distance", "floor", "ratio", "class agreement"):
        view.add_column(heading, justify="left" if heading == "solver" else "right")
    for result in results:
        manifest = result["manifest"]
        view.add_row(
            manifest["solver"]["name"] if manifest["solver"] else "-",
            str(manifest["steps"] or "-"),
            str(manifest["n"]),
            f"{result['frechet']['value']:.3f}",
            spread(result["floor"]),
            "-" if result["ratio"] is None else f"{result['ratio']:.2f}",
            interval(result["agreement"]) if result["agreement"] else "-",
        )
    return view


def spread(floor: Mapping[str, Any]) -> str:
    """Returns a floor as text: mean and standard deviation."""
    return f"{floor['mean']:.3f} ± {floor['std']:.3f}"


def interval(share: Mapping[str, Any]) -> str:
    """Returns a proportion as text: per cent with the ends of its interval."""
    return f"{share['value']:.1%} [{100 * share['low']:.1f}, {100 * share['high']:.1f}]"


def _spoken(name: str) -> str:
    return name.replace("_", " ")
