"""From generated points to figures, where the density that they imitate is known."""

from typing import Any, Protocol

import numpy as np

from genjax.config import require
from genjax.evaluation import evaluate
from genjax.evaluation.intervals import student, wilson
from genjax.evaluation.manifest import Provenance
from genjax.evaluation.modes import count_modes
from genjax.evaluation.neighbours import neighbours


class Density(Protocol):
    """A density of points; where it has as many `centres` [K, D] as classes, these are modes, with a width `sigma`."""

    @property
    def num_classes(self) -> int | None:
        """Number of classes of the points, or None."""
        ...

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """Returns the log-density in nats [N] at points [N, D]."""
        ...


def score(points: np.ndarray, real: np.ndarray, truth: Density, provenance: Provenance) -> dict[str, Any]:
    """Scores points against a known density, beside points that were drawn from it.

    Args:
        points: of the model, [N, D] or images of one pixel [N, 1, 1, D].
        real: points of the density, of the same shape but for their number.
        truth: the density.
        provenance: how the model's points came about.

    Returns:
        `figures` as `evaluate.figures` has them, and the `manifest`. The figures are: `log_density`, the mean of the
        true log-density in nats over the points that have one; `support`, the share that has, where not all of them do;
        `modes` found, of a `total`; `within` (the share of points within 3 sigma of a mode), `kl` and `tv`, see
        `modes.Modes`; and `precision`, `recall`, `density` and `coverage` of the points themselves.

    Raises:
        ValueError: no points.
    """
    require(len(points) > 0 and len(real) > 0, f"{len(points)} and {len(real)} points: there must be at least one")
    points, real = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (points, real))
    points = np.where(np.isfinite(points), points, np.nan)  # of what is infinite a density makes warnings
    n = min(len(points), len(real))
    found = _likelihood(points[:n], real[:n], truth) | _modes(points[:n], real[:n], truth)
    m = min(n // 2, evaluate.MOST_NEIGHBOURS)  # half of the real points stand in the place of the model's
    if m > evaluate.K_DENSITY and np.isfinite(points[:m]).all():
        ours, theirs = (
            neighbours(real[:m], x[:m], evaluate.K, evaluate.K_DENSITY, provenance.seed) for x in (points, real[m:])
        )
        found |= evaluate.describe_neighbours(ours, [theirs], m)
    return {"figures": found, "manifest": evaluate.manifest(provenance, n, n).to_dict()}


def _likelihood(points: np.ndarray, real: np.ndarray, truth: Density) -> dict[str, dict[str, Any]]:
    ours, theirs = truth.log_prob(points), truth.log_prob(real)
    has = np.isfinite(ours)
    found = {}
    if has.any():
        real_value = float(theirs[np.isfinite(theirs)].mean())
        found["log_density"] = {
            "label": "True log-density, nats",
            **student(ours[has])._asdict(),
            "n": int(has.sum()),
            "real": real_value,
        }
    if not has.all():
        share = wilson(int(has.sum()), len(has))
        real_share = float(np.isfinite(theirs).mean())
        found["support"] = {"label": "In the support", **share._asdict(), "real": real_share, "share": True}
    return found


def _modes(points: np.ndarray, real: np.ndarray, truth: Any) -> dict[str, dict[str, Any]]:
    centres = getattr(truth, "centres", None)
    if centres is None or len(centres) != truth.num_classes:  # the centres along a curve are no modes
        return {}
    ours, theirs = (count_modes(x, centres, truth.sigma) for x in (points, real))

    def figure(label: str, name: str) -> dict[str, Any]:
        value, other = float(getattr(ours, name)), float(getattr(theirs, name))
        return {"label": label, "value": value, "n": len(points), "real": other}

    label = "of the modes from uniform"

    return {
        "modes": figure(f"Modes found of {ours.total}", "found") | {"total": ours.total},
        "within": {
            "label": "Within 3 sigma of a mode",
            **ours.within._asdict(),
            "real": theirs.within.value,
            "share": True,
        },
        "kl": figure(f"KL {label}, nats", "kl"),
        "tv": figure(f"Total variation {label}", "tv"),
    }
