"""The codebook of VQ-VAE: nearest codes, moving averages, dead codes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.families import codebook

OPTIONS = dict(decay=0.9, epsilon=1e-5, dead_below=0.0)
update = jax.jit(codebook.update, static_argnames=("decay", "epsilon", "dead_below"))
nearest = jax.jit(codebook.nearest)


def test_nearest_is_the_smallest_distance():
    rng = np.random.default_rng(0)
    codes, vectors = rng.normal(size=(7, 3)), rng.normal(size=(4, 5, 3))
    expected = ((vectors[:, :, None] - codes[None, None]) ** 2).sum(-1).argmin(-1)
    found = nearest(jnp.asarray(codes, jnp.float32), jnp.asarray(vectors, jnp.float32))
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, expected)


def test_update_is_online_k_means(key):
    """van den Oord et al. 2017, eq. 6 to 8, code by code in float64, with a smoothing that shows."""
    rng = np.random.default_rng(1)
    start = {
        "codes": rng.normal(size=(4, 2)),
        "counts": np.array([1.0, 2.0, 0.5, 3.0]),
    }
    start["sums"] = start["codes"] * start["counts"][:, None]
    vectors, chosen = rng.normal(size=(6, 2)), np.array([0, 0, 1, 3, 3, 3])
    found = update(
        {name: jnp.asarray(value, jnp.float32) for name, value in start.items()},
        jnp.asarray(vectors, jnp.float32),
        jnp.asarray(chosen),
        key,
        **{**OPTIONS, "epsilon": 0.05},
    )
    counts = np.array([0.9 * start["counts"][i] + 0.1 * (chosen == i).sum() for i in range(4)])
    sums = np.array([0.9 * start["sums"][i] + 0.1 * vectors[chosen == i].sum(0) for i in range(4)])
    smoothed = (counts + 0.05) / (counts.sum() + 4 * 0.05) * counts.sum()
    np.testing.assert_allclose(found["counts"], counts, rtol=1e-6)
    np.testing.assert_allclose(found["sums"], sums, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found["codes"], sums / smoothed[:, None], rtol=1e-5, atol=1e-7)


def test_dead_codes_become_vectors_of_the_batch_and_only_these(key):
    rng = np.random.default_rng(2)
    codes = jnp.asarray(rng.normal(size=(5, 2)), jnp.float32)
    counts = jnp.array([4.0, 0.01, 4.0, 0.02, 0.2])
    book = {"codes": codes, "counts": counts, "sums": codes * counts[:, None]}
    vectors = jnp.asarray(rng.normal(size=(8, 2)), jnp.float32)
    chosen = jnp.array([0, 0, 2, 2, 0, 2, 0, 2])
    kept, found = (update(book, vectors, chosen, key, **{**OPTIONS, "dead_below": at}) for at in (0.0, 0.1))
    dead, alive = np.array([1, 3]), np.array([0, 2, 4])
    for name in book:
        np.testing.assert_array_equal(found[name][alive], kept[name][alive])
    np.testing.assert_array_equal(found["counts"][dead], 1.0)
    np.testing.assert_array_equal(found["sums"][dead], found["codes"][dead])
    taken = [np.flatnonzero((np.asarray(vectors) == row).all(1)).tolist() for row in np.asarray(found["codes"][dead])]
    assert [len(which) for which in taken] == [1, 1] and taken[0] != taken[1]
    other = update(book, vectors, chosen, jax.random.key(9), **{**OPTIONS, "dead_below": 0.1})
    assert np.any(other["codes"][dead] != found["codes"][dead])


def test_more_codes_than_vectors_are_reset_too(key):
    book = codebook.init(key, 6, 2)
    vectors = jnp.ones((3, 2))
    found = update(book, vectors, jnp.zeros((3,), jnp.int32), key, decay=0.0, epsilon=0.0, dead_below=0.5)
    np.testing.assert_array_equal(found["codes"], 1.0)


def test_all_codes_of_a_mixture_are_used_once_dead_ones_are_replaced(key):
    """Twelve clusters, twelve codes that start in a heap at 0."""
    centres = 4.0 * jnp.asarray(np.stack(np.meshgrid([-1.5, -0.5, 0.5, 1.5], [-1, 0, 1]), -1).reshape(12, 2))

    def train(dead_below):
        def step(book, key):
            key_cluster, key_noise, key_update = jax.random.split(key, 3)
            which = jax.random.randint(key_cluster, (120,), 0, 12)
            vectors = centres[which] + 0.1 * jax.random.normal(key_noise, (120, 2))
            chosen = codebook.nearest(book["codes"], vectors)
            book = codebook.update(book, vectors, chosen, key_update, decay=0.9, epsilon=1e-5, dead_below=dead_below)
            distance = ((vectors - book["codes"][codebook.nearest(book["codes"], vectors)]) ** 2).sum(-1).mean()
            return book, (*codebook.usage(chosen, 12), distance)

        _, measured = jax.lax.scan(step, codebook.init(key, 12, 2), jax.random.split(key, 600))
        return [values[-1] for values in measured]

    run = functools.partial(jax.jit, static_argnums=0)(train)
    perplexity, used, distance = run(0.5)
    perplexity_without, used_without, distance_without = run(0.0)
    assert used == 1.0 and used_without < 1.0
    assert perplexity > perplexity_without and distance < distance_without


def test_usage():
    perplexity, used = codebook.usage(jnp.array([[0, 0], [2, 2]]), 8)
    assert (float(perplexity), float(used)) == (pytest.approx(2.0), pytest.approx(0.25))
