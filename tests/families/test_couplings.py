"""Couplings of noise and images: what they optimise, and that they keep the noise what it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from genjax.config import ConfigError
from genjax.families import couplings
from genjax.families.base import Keys

N = 32
IMAGES = 2.0 * jax.random.normal(jax.random.key(1), (N, 2, 2, 1)) + 0.5
LABELS = jnp.arange(N, dtype=jnp.int32) % 3
BATCH = {"image": IMAGES, "label": LABELS}
KEYS = Keys.of(jax.random.key(0), N)
# One compilation a coupling, for all tests.
OF = {
    "minibatch_ot": couplings.MinibatchOT(),
    "in classes": couplings.MinibatchOT(within="label"),
    "sinkhorn": couplings.Sinkhorn(),
    "sinkhorn in classes": couplings.Sinkhorn(within="label"),
    "immiscible": couplings.Immiscible(),
    "unquantized": couplings.Immiscible(quantized=False),
}
RUN = {name: jax.jit(coupling) for name, coupling in OF.items()}


def rows(x):
    return np.asarray(x, np.float64).reshape(len(x), -1)


def matched(x_0, x_1, metric="sqeuclidean"):
    """The cost of a coupling, the least one, and that of the draws in a random order."""
    cost = cdist(rows(x_0), rows(x_1), metric)
    return np.trace(cost), cost[linear_sum_assignment(cost)].sum(), cost.mean() * len(cost)


@pytest.mark.parametrize("name", OF)
def test_noise_is_a_permutation_of_independent_draws(name):
    x_0, x_1 = RUN[name](KEYS, BATCH)
    np.testing.assert_array_equal(x_0, IMAGES)
    noise, _ = KEYS.split(2)
    _, drawn = couplings.Independent()(noise, BATCH)
    np.testing.assert_array_equal(np.unique(rows(x_1), axis=0), np.unique(rows(drawn), axis=0))
    assert len(np.unique(rows(x_1), axis=0)) == N and not np.array_equal(x_1, drawn)
    if "classes" in name:
        place = cdist(rows(x_1), rows(drawn)).argmin(1)
        np.testing.assert_array_equal(LABELS[place], LABELS)


@pytest.mark.parametrize("name, metric", [("minibatch_ot", "sqeuclidean"), ("unquantized", "euclidean")])
def test_an_exact_assignment_costs_what_scipys_does(name, metric):
    found, least, chance = matched(*RUN[name](KEYS, BATCH), metric)
    assert found == pytest.approx(least, rel=1e-6) and least < 0.9 * chance


def test_within_classes_each_class_is_optimal():
    x_0, x_1 = RUN["in classes"](KEYS, BATCH)
    for label in range(3):
        here = np.asarray(LABELS) == label
        found, least, _ = matched(x_0[here], x_1[here])
        assert found == pytest.approx(least, rel=1e-6)


def test_distances_in_16_bits_cost_nearly_the_same():
    found, least, _ = matched(*RUN["immiscible"](KEYS, BATCH), "euclidean")
    assert least <= found * (1 + 1e-9) and found == pytest.approx(least, rel=1e-3)


def test_sinkhorn_approaches_the_exact_assignment():
    cost = couplings.squared_distances(*(jnp.asarray(rows(x), jnp.float32) for x in RUN["minibatch_ot"](KEYS, BATCH)))
    least, chance = float(jnp.trace(cost)), float(cost.mean() * N)
    costs = []
    for regularization in (0.5, 0.05, 0.005):
        plan = jnp.exp(couplings.log_plan(cost, regularization * cost.mean(), 2000))
        np.testing.assert_allclose(plan.sum(0), 1 / N, rtol=1e-4)
        np.testing.assert_allclose(plan.sum(1), 1 / N, rtol=2e-2)
        costs.append(float((plan * cost).sum() * N))
    assert chance > costs[0] > costs[1] > costs[2] > 0.999 * least and costs[2] < 1.02 * least
    found, least, _ = matched(*RUN["sinkhorn"](KEYS, BATCH))
    assert found < 1.05 * least


def test_sinkhorns_plan_is_the_entropic_optimum():
    """Of all plans with these marginals, the one whose logarithm is -cost / regularization plus f_i + g_j."""
    cost = jax.random.uniform(jax.random.key(2), (6, 6))
    rest = couplings.log_plan(cost, 0.3, 100) + cost / 0.3
    np.testing.assert_allclose(rest - rest[:1] - rest[:, :1] + rest[0, 0], 0.0, atol=1e-5)
    np.testing.assert_allclose(jnp.exp(couplings.log_plan(cost, 0.3, 100)).sum(1), 1 / 6, rtol=1e-5)


@pytest.mark.slow
def test_sampled_sinkhorn_draws_normal_noise():
    """x_0 lies far out, so that a choice of the nearest would show."""
    coupling = couplings.Sinkhorn(choice="sample", iterations=50)
    data = {"image": 3.0 * jax.random.normal(jax.random.key(3), (16, 1, 1, 1))}
    run = jax.jit(jax.vmap(lambda key: coupling(Keys.of(key, 16), data)[1]))
    noise = rows(run(jax.random.split(jax.random.key(4), 2000)).reshape(-1, 1))
    sampled = np.sqrt(2000.0 * 4)  # of 16 draws that depend on each other, count a quarter
    assert abs(noise.mean()) < 4 / sampled and noise.std() == pytest.approx(1.0, abs=4 / sampled)


@pytest.mark.slow
def test_noise_of_a_class_is_normal_only_within_it():
    """Two classes on either side: the optimal noise of a class lies on its side, unless exchanged within it alone."""
    sides = {"label": jnp.arange(64, dtype=jnp.int32) % 2}
    sides["image"] = (4.0 * sides["label"] - 2.0).reshape(-1, 1, 1, 1)

    def mean(coupling):
        draws = jax.jit(jax.vmap(lambda key: coupling(Keys.of(key, 64), sides)[1]))
        return float(draws(jax.random.split(jax.random.key(5), 20))[:, 1::2].mean())

    assert mean(couplings.MinibatchOT()) == pytest.approx(np.sqrt(2 / np.pi), abs=0.1)  # E|z|: the upper half
    assert abs(mean(couplings.MinibatchOT(within="label"))) < 4 / np.sqrt(640)


def test_a_second_source_takes_the_place_of_noise():
    other = jax.random.uniform(jax.random.key(6), IMAGES.shape)
    for name in ("minibatch_ot", "sinkhorn"):
        x_1 = OF[name](KEYS, BATCH, other)[1]
        np.testing.assert_array_equal(np.sort(rows(x_1), axis=0), np.sort(rows(other), axis=0))
    np.testing.assert_array_equal(couplings.Independent()(KEYS, BATCH, other)[1], other)


def test_paired_noise_is_the_datas():
    paired = couplings.Paired()
    np.testing.assert_array_equal(paired(KEYS, {**BATCH, "noise": 2.0 * IMAGES})[1], 2.0 * IMAGES)
    with pytest.raises(ConfigError, match="take the data source 'pairs'"):
        paired(KEYS, BATCH)
    assert paired.needs == ("noise",) and OF["in classes"].needs == ("label",) and OF["sinkhorn"].needs == ()


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(regularization=0.0), "regularization = 0.0"),
        (dict(iterations=0), "iterations = 0"),
        (dict(choice="hart"), "choice = 'hart'; did you mean 'hard'"),
    ],
)
def test_mistakes_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        couplings.Sinkhorn(**options)
    with pytest.raises(ConfigError, match="within = 'class'"):
        couplings.MinibatchOT(within="class")(KEYS, BATCH)
