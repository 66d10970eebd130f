"""Points against a mixture whose figures are known."""

import math

import numpy as np
import pytest

from genjax.evaluation import points
from genjax.evaluation.manifest import Provenance

PROVENANCE = Provenance(dataset="square", split="test", seed=0, checkpoint_step=5, ema=True)


class Square:
    """Four Gaussians; beyond 9 there is nothing."""

    centres = 5 * np.array([[-1.0, -1], [-1, 1], [1, -1], [1, 1]])
    sigma = 0.5
    num_classes = 4

    def log_prob(self, x):
        exponents = -((x[:, None] - self.centres[None]) ** 2).sum(-1) / (2 * self.sigma**2)
        inside = np.log(np.maximum(np.exp(exponents).mean(1), 1e-300) / (2 * np.pi * self.sigma**2))
        return np.where(np.abs(x).max(1) < 9, inside, -np.inf)

    def sample(self, n, seed):
        rng = np.random.default_rng(seed)
        return (self.centres[rng.integers(0, 4, n)] + self.sigma * rng.normal(size=(n, 2))).astype(np.float32)


def test_points_of_the_density_itself():
    samples, real = (Square().sample(600, seed).reshape(-1, 1, 1, 2) for seed in (0, 1))
    result = points.score(samples, real, Square(), PROVENANCE)
    found = result["figures"]
    assert found["modes"]["value"] == found["modes"]["real"] == 4 and found["modes"]["label"] == "Modes found of 4"
    assert found["modes"]["total"] == 4
    # Minus the entropy of well separated Gaussians: log(1/4) - log(2 pi e sigma^2).
    expected = -math.log(4) - math.log(2 * math.pi * math.e * 0.25)
    assert found["log_density"]["low"] < expected < found["log_density"]["high"]
    assert found["log_density"]["real"] == pytest.approx(Square().log_prob(real.reshape(-1, 2)).mean())
    assert found["within"]["low"] < 1 - math.exp(-4.5) < found["within"]["high"]
    assert "support" not in found  # all points have a density
    assert found["precision"]["value"] > 0.85 and found["precision"]["real"] > 0.85
    assert found["recall"]["n"] == 300
    assert result["manifest"]["n"] == 600 and result["manifest"]["feature_network"] is None


def test_what_is_missing_shows():
    samples = Square().sample(600, 0)
    samples = samples[samples[:, 0] < 0]  # two modes of four
    samples[:30] = [0, 100]
    found = points.score(samples, Square().sample(600, 1), Square(), PROVENANCE)["figures"]
    n = len(samples)
    assert found["modes"]["value"] == 2 and found["tv"]["value"] == pytest.approx(0.5, abs=0.01)
    assert found["kl"]["value"] == pytest.approx(math.log(2), abs=0.01)
    assert found["support"]["value"] == pytest.approx(1 - 30 / n) and found["support"]["real"] == 1
    assert found["log_density"]["n"] == n - 30
    assert found["recall"]["value"] < 0.6 < found["precision"]["value"]


def test_a_density_along_curves_has_no_modes():
    curve = Square()
    curve.num_classes = 2
    found = points.score(curve.sample(40, 0), curve.sample(40, 1), curve, PROVENANCE)["figures"]
    assert "modes" not in found and "log_density" in found


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_no_sample(value):
    samples = np.full((40, 2), value)
    found = points.score(samples, Square().sample(40, 1), Square(), PROVENANCE)["figures"]
    assert found["modes"]["value"] == 0 and found["support"]["value"] == 0
    assert "log_density" not in found and "precision" not in found
    with pytest.raises(ValueError, match="at least one"):
        points.score(samples[:0], samples, Square(), PROVENANCE)
