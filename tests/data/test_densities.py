"""2-D densities: each log-density is a density, and that of the points that are drawn."""

import numpy as np
import pytest

from genjax.config import ConfigError, build
from genjax.data import Density
from genjax.data.densities import DENSITIES, Mixture, Pinwheel, grid, ring

NAMES = sorted(DENSITIES)
POINTS = 20_000


def midpoints(limit, count):
    """Returns the middles of count x count cells over [-limit, limit]^2, [count^2, 2], and a cell's area."""
    line = (np.arange(count) + 0.5) * 2 * limit / count - limit
    return np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2), (2 * limit / count) ** 2


@pytest.mark.parametrize("name", NAMES)
def test_density_integrates_to_one(name):
    density = DENSITIES[name]()
    x, area = midpoints(1.5, 252)  # the squares of the checkerboard end where cells do
    if name == "ring":  # its modes are narrower than a cell: the cells go around one of the 8
        x, area = midpoints(0.08, 100)
        assert 8 * area * np.exp(density.log_prob(x + density.centres[3])).sum() == pytest.approx(1, abs=1e-3)
    else:
        assert area * np.exp(density.log_prob(x)).sum() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_points_are_of_the_density(name):
    density = DENSITIES[name]()
    x = density.sample(1, POINTS)
    assert np.mean(np.all(np.abs(x) <= 1, axis=-1)) > 0.99
    logp = density.log_prob(x)
    assert -logp.mean() == pytest.approx(density.entropy(), abs=4 * logp.std() / POINTS**0.5 + 1e-9)
    # Shares of 30 x 30 cells, each integrated on 8 x 8 points: chi-squared of those that expect at least 5.
    at, area = midpoints(1.2, 240)
    share = (np.exp(density.log_prob(at)) * area).reshape(30, 8, 30, 8).sum(axis=(1, 3))
    found = np.histogram2d(x[:, 0], x[:, 1], bins=np.linspace(-1.2, 1.2, 31))[0]
    if name != "ring":  # for which the points within a cell are too coarse
        kept = share * POINTS >= 5
        chi2 = np.sum((found - POINTS * share)[kept] ** 2 / (POINTS * share[kept]))
        assert kept.sum() > 20
        assert chi2 < kept.sum() + 5 * (2 * kept.sum()) ** 0.5


@pytest.mark.parametrize("make, modes", [(ring, 8), (grid, 25)])
def test_modes(make, modes):
    density = make()
    assert density.centres.shape == (modes, 2) and density.num_classes == modes
    x, label = density.draw(0, POINTS)
    distance = np.linalg.norm(x - density.centres[label], axis=-1) / density.sigma
    # The squared distance of a 2-D Gaussian is exponential.
    assert np.mean(distance < 3) == pytest.approx(1 - np.exp(-4.5), abs=0.003)
    np.testing.assert_array_less(np.abs(np.bincount(label) / POINTS - 1 / modes), 0.01)
    # Such modes hardly overlap, so the entropy is that of the choice and that of one Gaussian.
    exact = np.log(modes) + 1 + np.log(2 * np.pi * density.sigma**2)
    assert density.entropy() == pytest.approx(exact, abs=1e-5)


def test_modes_are_where_they_are_known_to_be():
    np.testing.assert_allclose(np.linalg.norm(ring().centres, axis=-1), 0.8)
    np.testing.assert_allclose(ring().centres[[0, 2]], [[0.8, 0], [0, 0.8]], atol=1e-15)
    steps = np.array([-0.8, -0.4, 0.0, 0.4, 0.8])
    np.testing.assert_allclose(grid().centres, [(a, b) for a in steps for b in steps], atol=1e-15)


def test_log_density_of_one_gaussian():
    one = Mixture(np.zeros((1, 2)), 0.5, np.zeros(1, np.int32))
    expected = [-np.log(2 * np.pi * 0.25), -0.5 * (0.3**2 + 0.4**2) / 0.25 - np.log(2 * np.pi * 0.25)]
    np.testing.assert_allclose(one.log_prob(np.array([[0, 0], [0.3, -0.4]])), expected)


def test_entropy_of_the_pinwheel_is_that_of_blades_not_turned():
    straight = Pinwheel(rate=0.0)
    assert Pinwheel().entropy() == pytest.approx(straight.entropy(), abs=1e-6)


def test_checkerboard():
    density = DENSITIES["checkerboard"]()
    inside, outside = [[-0.9, -0.9], [0.1, 0.1], [0.6, 0.9]], [[-0.9, -0.4], [1.1, 0.1], [0.1, -1.1], [0.9, 0.1]]
    np.testing.assert_allclose(density.log_prob(np.array(inside)), -np.log(2))
    assert np.all(density.log_prob(np.array(outside)) == -np.inf)
    assert np.all(density.log_prob(density.sample(3, 1000)) == density.log_prob(np.array([[0.1, 0.1]])))


@pytest.mark.parametrize("name", NAMES)
def test_source(name):
    source = build("data", {"name": "density", "density": name, "size": 64})
    batch = source.gather(np.arange(64))
    assert batch["image"].shape == (64, 1, 1, 2) and batch["image"].dtype == np.float32
    assert source.spec.image_shape == (1, 1, 2) and source.spec.levels is None and not source.flip
    if name == "checkerboard":
        assert "label" not in batch and source.spec.num_classes is None
    else:
        assert batch["label"].dtype == np.int32 and 0 <= batch["label"].min()
        assert batch["label"].max() < source.spec.num_classes
    points, _ = source.truth.draw(0, 64)
    np.testing.assert_array_equal(batch["image"][:, 0, 0], points.astype(np.float32))


def test_points_are_a_function_of_seed_split_and_index():
    whole = Density(size=32).gather(np.arange(32))
    few = Density(size=8).gather(np.array([7, 2]))
    np.testing.assert_array_equal(few["image"], whole["image"][[7, 2]])
    np.testing.assert_array_equal(few["label"], whole["label"][[7, 2]])
    for other in (Density(size=32, split="test"), Density(size=32, seed=1)):
        assert not np.any(other.gather(np.arange(32))["image"] == whole["image"])


def test_width_may_be_given():
    source = Density("ring", size=5000, sigma=0.1)
    away = source.gather(np.arange(5000))
    spread = away["image"][:, 0, 0] - source.truth.centres[away["label"]]
    assert spread.std() == pytest.approx(0.1, rel=0.03)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"density": "rings"}, "did you mean 'ring'"),
        ({"size": 0}, "size = 0"),
        ({"split": "valid"}, "split = 'valid'"),
        ({"seed": -1}, "seed = -1"),
        ({"sigma": 0.0}, "sigma = 0.0"),
        ({"density": "pinwheel", "sigma": 0.1}, "sigma: pinwheel has none"),
    ],
)
def test_wrong_values(options, message):
    with pytest.raises(ConfigError, match=message):
        build("data", {"name": "density", **options})
