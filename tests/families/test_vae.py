"""Variational autoencoders: bounds against exact marginals, objectives against their formulas."""

import functools
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from genjax import bijectors
from genjax.families import VAE
from genjax.families.base import Keys
from genjax.families.likelihoods import Bernoulli, DiscretizedLogisticMixture, Gaussian
from genjax.families.objectives import ELBO, IWAE, Capacity, Terms, iwae_bound
from genjax.families.vae import active_units
from genjax.networks import MLPDecoder, MLPEncoder

SHAPE = (2, 3, 1)
SPEC = types.SimpleNamespace(image_shape=SHAPE, num_classes=10)
PIXELS = math.prod(SHAPE)
LATENT = 2
STD = 0.5
STATE = types.SimpleNamespace(step=jnp.int32(0))
LINEAR = dict(image_shape=SHAPE, encoder=MLPEncoder(depth=0), decoder=MLPDecoder(depth=0), latent=LATENT)


def linear_gaussian(posterior_scale=1.0):
    """A model p(x) = N(bias, W W^T + STD^2 I), with its exact posterior, or that with another standard deviation."""
    rng = np.random.default_rng(0)
    weights, bias = rng.normal(size=(PIXELS, LATENT)), rng.normal(size=PIXELS)
    precision = np.eye(LATENT) + weights.T @ weights / STD**2
    # Latent axes turned so that the posterior's covariance is diagonal.
    weights = weights @ np.linalg.eigh(precision)[1]
    precision = np.diag(np.eye(LATENT) + weights.T @ weights / STD**2)
    gain = weights / STD**2 / precision
    log_std = -0.5 * np.log(precision) + math.log(posterior_scale)
    array = functools.partial(jnp.asarray, dtype=jnp.float32)
    encoder = {"kernel": np.hstack([gain, 0 * gain]), "bias": np.concatenate([-bias @ gain, log_std])}
    model = {
        "encoder": {"layers": {"out": jax.tree.map(array, encoder)}},
        "decoder": {"layers": {"out": {"kernel": array(weights.T), "bias": array(bias)}}},
        "likelihood": {},
    }
    marginal = stats.multivariate_normal(bias, weights @ weights.T + STD**2 * np.eye(PIXELS))
    return model, marginal


jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.partial(jit, static_argnums=0)
def evaluate(family, params, batch, key):
    return family.evaluate(params, batch, key)


@functools.partial(jit, static_argnums=0)
def loss(family, model, batch, key):
    return family.phases()[0].loss(model, STATE, batch, Keys.of(key, len(batch["image"])))


def images(marginal, n=2000):
    x = marginal.rvs(n, random_state=1)
    return {"image": jnp.asarray(x.reshape(n, *SHAPE), jnp.float32)}, marginal.logpdf(x)


def chance(gap):
    """Five standard errors of a mean."""
    return 5 * np.asarray(gap, np.float64).std() / math.sqrt(len(gap))


def test_the_exact_posterior_closes_the_gap():
    """Then log p(x, z) - log q(z | x) is log p(x) for every z: so is IWAE, and the ELBO but for the draw of z."""
    model, marginal = linear_gaussian()
    batch, exact = images(marginal)
    family = VAE(**LINEAR, likelihood=Gaussian(STD), iwae_samples=64)
    found = evaluate(family, {"model": model}, batch, jax.random.key(0))
    np.testing.assert_allclose(found["iwae"], exact, rtol=1e-4, atol=1e-3)
    gap = found["elbo"] - exact
    assert abs(float(gap.mean())) < chance(gap) < 0.1


def test_bounds_are_in_order_and_grow_with_the_samples():
    """ELBO <= IWAE-4 <= IWAE-64 <= log p(x), with a posterior that is twice too wide; gaps beyond chance."""
    model, marginal = linear_gaussian(posterior_scale=2.0)
    batch, exact = images(marginal)
    few, many = (
        evaluate(VAE(**LINEAR, likelihood=Gaussian(STD), iwae_samples=k), {"model": model}, batch, jax.random.key(k))
        for k in (4, 64)
    )
    below = [np.asarray(bound, np.float64) for bound in (many["elbo"], few["iwae"], many["iwae"])]
    for lower, upper in zip(below, [*below[1:], exact], strict=True):
        gap = upper - lower
        assert gap.mean() > (chance(gap) if upper is not exact else -chance(gap))
    # The gap of the ELBO is KL(q || exact posterior), for each latent s^2 / 2 - 1/2 - log s.
    gap = exact - below[0]
    assert gap.mean() == pytest.approx(LATENT * (2.0 - 0.5 - math.log(2.0)), abs=chance(gap))
    assert (exact - below[-1]).mean() < 0.05


@pytest.mark.parametrize("layer", [bijectors.Planar(), bijectors.Radial()], ids=["planar", "radial"])
def test_a_flow_as_posterior_bounds_the_same_marginal(layer):
    """Importance sampling with any proposal estimates p(x); with a wrong log-determinant it would not."""
    model, marginal = linear_gaussian()
    batch, exact = images(marginal, 100)
    flow = bijectors.Repeat(layer=layer, times=3)
    family = VAE(**LINEAR, likelihood=Gaussian(STD), flow=flow, iwae_samples=2000)
    rng = np.random.default_rng(2)
    out = model["encoder"]["layers"]["out"]
    extra = family.features - 2 * LATENT
    out["kernel"] = jnp.hstack([out["kernel"], 0.05 * rng.normal(size=(PIXELS, extra)).astype(np.float32)])
    out["bias"] = jnp.concatenate([out["bias"].at[LATENT:].add(0.7), jnp.zeros(extra)])  # wide enough for the weights
    model["flow"] = jax.tree.map(lambda p: p + 0.2, flow.init(jax.random.key(3), (LATENT,)))
    found = evaluate(family, {"model": model}, batch, jax.random.key(0))
    gap = exact - np.asarray(found["iwae"], np.float64)
    assert abs(gap.mean()) < 0.05 and np.median(np.abs(gap)) < 0.1
    assert float(found["elbo"].mean()) < exact.mean() - 0.1  # the flow does bend the posterior


TERMS = Terms(
    log_likelihood=jnp.array([[-3.0, -5.0], [-7.0, -1.0]]),
    kl=jnp.array([[0.1, 2.0, 0.4], [0.3, 4.0, 0.0]]),  # means 0.2, 3.0, 0.2
    log_ratio=jnp.array([[-2.0, -2.5], [-4.0, -5.0]]),
)
NOW = jnp.int32(0)


def test_objectives_are_their_formulas():
    assert float(ELBO()(TERMS, NOW)) == pytest.approx(4.0 + 3.4)
    assert float(ELBO(beta=4.0)(TERMS, NOW)) == pytest.approx(4.0 + 4 * 3.4)
    warm = ELBO(beta=4.0, warmup=100)
    assert [float(warm(TERMS, jnp.int32(s))) for s in (0, 25, 100, 900)] == pytest.approx([4.0, 7.4, 17.6, 17.6])
    assert float(ELBO(free_bits=0.5)(TERMS, NOW)) == pytest.approx(4.0 + 0.5 + 3.0 + 0.5)
    weights = np.exp(np.asarray(TERMS.log_likelihood + TERMS.log_ratio, np.float64))
    assert float(IWAE(samples=2)(TERMS, NOW)) == pytest.approx(-np.log(weights.mean(1)).mean(), rel=1e-5)
    np.testing.assert_allclose(iwae_bound(jnp.array([[-1000.0, -1000.0]])), [-1000.0])


def test_free_bits_cost_nothing_and_push_nothing():
    slope = jax.grad(lambda kl: ELBO(free_bits=0.5)(TERMS._replace(kl=kl), NOW))(TERMS.kl)
    np.testing.assert_allclose(slope, [[0.0, 0.5, 0.0], [0.0, 0.5, 0.0]])  # by the mean over the batch, not by example


def test_the_capacity_rises_and_is_what_the_divergence_is_drawn_to():
    objective = Capacity(gamma=10.0, capacity=5.0, steps=100)
    found = [float(objective(TERMS, jnp.int32(step))) for step in (0, 50, 100, 900)]
    assert found == pytest.approx([4.0 + 10 * abs(3.4 - c) for c in (0.0, 2.5, 5.0, 5.0)])
    slopes = [
        np.sign(jax.grad(lambda kl, s=step: objective(TERMS._replace(kl=kl), jnp.int32(s)))(TERMS.kl)).mean()
        for step in (0, 100)
    ]
    assert slopes == [1.0, -1.0]  # above the capacity the divergence falls, below it grows


def test_active_units():
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(1000, 4)) * np.array([1.0, 0.2, 0.05, 0.0]) + 3.0
    assert int(active_units(jnp.asarray(codes))) == 2  # variances 1, 0.04, 0.0025, 0


def test_the_training_loss_is_the_objective_of_what_it_measures():
    model, marginal = linear_gaussian()
    batch, exact = images(marginal)
    value, aux = loss(VAE(**LINEAR, likelihood=Gaussian(STD)), model, batch, jax.random.key(0))
    assert float(value) == pytest.approx(-float(aux.metrics["elbo"]), rel=1e-5)
    assert float(value) == pytest.approx(-exact.mean(), abs=0.3)
    assert float(aux.metrics["reconstruction"] + aux.metrics["kl"]) == pytest.approx(float(value), rel=1e-5)
    assert float(aux.metrics["active_units"]) == LATENT
    # With the exact posterior every weight is p(x).
    value, _ = loss(VAE(**LINEAR, likelihood=Gaussian(STD), objective=IWAE(3)), model, batch, jax.random.key(0))
    assert float(value) == pytest.approx(-exact.mean(), rel=1e-4)


def conditional(**options):
    networks = dict(hidden=8, depth=1, num_classes=10)
    return VAE(SHAPE, MLPEncoder(**networks), MLPDecoder(**networks), latent=LATENT, condition=("label",), **options)


BATCH = {
    "image": jax.random.uniform(jax.random.key(5), (12, *SHAPE), minval=-1.0),
    "label": jnp.arange(12, dtype=jnp.int32) % 10,
}


@functools.cache
def parameters(family):
    return jit(lambda key: family.init(key, SPEC))(jax.random.key(0))[0]


@functools.partial(jit, static_argnums=(0, 3))
def generate(family, params, key, n, cond=None):
    return family.generate(params, key, n, cond)


def test_generation_follows_the_class_and_not_the_batch():
    family = conditional(likelihood=Bernoulli())
    params, label = parameters(family), jnp.array([3, 3, 7], jnp.int32)
    x = generate(family, params, jax.random.key(1), 3, {"label": label})
    assert x.shape == (3, *SHAPE) and np.abs(x).max() < 1.0
    few = generate(family, params, jax.random.key(1), 2, {"label": label[:2]})
    np.testing.assert_allclose(few, x[:2], atol=1e-6)
    other = generate(family, params, jax.random.key(1), 3, {"label": label.at[1].set(4)})
    np.testing.assert_allclose(other[0], x[0], atol=1e-6)
    assert np.abs(other[1] - x[1]).max() > 1e-4
    drawn = generate(
        conditional(likelihood=Bernoulli(), output="sample"), params, jax.random.key(1), 3, {"label": label}
    )
    assert set(np.unique(drawn)) == {-1.0, 1.0}


def test_pictures():
    family = conditional(likelihood=Bernoulli(binarize="threshold"))
    params = parameters(family)
    found = jit(family.pictures)(params, BATCH, jax.random.key(2))
    assert {name: sheet.shape for name, sheet in found.items()} == {
        "reconstructions": (2, 10, *SHAPE),
        "interpolations": (5, 10, *SHAPE),
        "traversals": (LATENT, 10, *SHAPE),
    }
    model, cond = params["model"], {"label": BATCH["label"]}
    x = jnp.where(BATCH["image"] > 0, 1.0, -1.0)
    np.testing.assert_array_equal(found["reconstructions"][0], x[:10])
    codes = family.posterior(model, x, cond).mean
    shown = family.shown(model, codes, cond)
    np.testing.assert_allclose(found["reconstructions"][1], shown[:10], atol=1e-5)
    np.testing.assert_allclose(found["interpolations"][1, 0], shown[2], atol=1e-5)  # the second line starts at image 2
    latent = int(jnp.argmax(codes.var(0)))
    moved = jnp.tile(codes[:1], (10, 1)).at[:, latent].set(jnp.linspace(-3.0, 3.0, 10))
    expected = family.shown(model, moved, {"label": jnp.full((10,), BATCH["label"][0])})
    np.testing.assert_allclose(found["traversals"][0], expected, atol=1e-5)


def test_bits_per_dim_are_told_where_they_mean_something():
    family = conditional(likelihood=DiscretizedLogisticMixture(components=2), iwae_samples=3)
    levels = jnp.round((BATCH["image"] + 1.0) * 127.5) / 127.5 - 1.0
    found = evaluate(family, parameters(family), {**BATCH, "image": levels}, jax.random.key(0))
    assert set(found) == {"loss", "elbo", "kl", "mse", "iwae", "elbo_bpd", "iwae_bpd"}
    assert {value.shape for value in found.values()} == {(12,)}
    np.testing.assert_allclose(found["iwae_bpd"], -found["iwae"] / math.log(2) / PIXELS, rtol=1e-5)
    assert set(jax.eval_shape(conditional().evaluate, parameters(conditional()), BATCH, jax.random.key(0))) == {
        "loss", "elbo", "kl", "mse"
    }  # fmt: skip


def test_draws_belong_to_the_examples():
    family = conditional(likelihood=Bernoulli(binarize="stochastic"))
    keys = Keys.of(jax.random.key(0), 12)
    model = parameters(family)["model"]
    whole = loss(family, model, BATCH, jax.random.key(0))[0]
    parts = []
    for part in (slice(0, 12, 2), slice(1, 12, 2)):
        batch = jax.tree.map(lambda leaf, part=part: leaf[part], BATCH)
        own = Keys(keys.shared, keys.each[part], keys.place[part])
        parts.append(jit(lambda b, k: family._loss(model, STATE, b, k)[0])(batch, own))
    assert float(whole) == pytest.approx(float(sum(parts) / 2), rel=1e-5)


def test_mistakes_are_named():
    networks = (MLPEncoder(), MLPDecoder())
    for build, words in [
        (lambda: VAE((8, 8), *networks), r"must be \(height, width, channels\)"),
        (lambda: VAE(SHAPE, *networks, latent=0), "latent = 0"),
        (lambda: VAE(SHAPE, *networks, condition=("text",)), "must be \\(\\) or \\('label',\\)"),
        (lambda: VAE(SHAPE, *networks, output="mode"), "output = 'mode': must be one of mean, sample"),
        (lambda: VAE(SHAPE, *networks, iwae_samples=-1), "iwae_samples = -1"),
        (lambda: VAE(SHAPE, *networks, condition=("label",)).check(SPEC), "encoder.num_classes = None, but the data"),
        (lambda: VAE((2, 2, 1), *networks).check(SPEC), r"\(2, 2, 1\), but the data have \(2, 3, 1\)"),
        (lambda: ELBO(beta=-1.0), "beta = -1.0"),
        (lambda: ELBO(free_bits=-1.0), "free_bits = -1.0"),
        (lambda: Capacity(capacity=-1.0), "capacity = -1.0"),
        (lambda: IWAE(samples=0), "samples = 0"),
    ]:
        with pytest.raises(ValueError, match=words):
            build()
