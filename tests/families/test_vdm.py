"""Variational diffusion models, on a Gaussian whose denoiser, bound and likelihood are known."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax import parameterizations, solvers
from genjax.families import VDM, Sampler
from genjax.families.base import Keys
from genjax.networks import MLP, MonotoneSchedule
from genjax.sampling import times
from tests.families.functions import Function

SHAPE, SCALE, ENDS = (1, 1, 2), 0.5, (9.0, -6.0)
SPEC = types.SimpleNamespace(image_shape=SHAPE, num_classes=None, levels=None)
N = 4096


def network(w, x, label, cond):
    """The exact denoiser of N(0, SCALE^2), as eps."""
    log_snr = (20.0 - 32.0 * label)[:, None, None, None]
    alpha, sigma = jnp.sqrt(jax.nn.sigmoid(log_snr)), jnp.sqrt(jax.nn.sigmoid(-log_snr))
    return sigma / (alpha**2 * SCALE**2 + sigma**2) * x * w


MODEL = VDM(
    network=Function(network),
    image_shape=SHAPE,
    parameterization=parameterizations.Eps(time_scale=1.0),
    noise_schedule=MonotoneSchedule(features=16),
    log_snr_max=ENDS[0],
    log_snr_min=ENDS[1],
    decoder="gaussian",
    sampler=Sampler(solver=solvers.DPMpp2M(), times=times.uniform, steps=100),
)
PARAMS = MODEL.init(jax.random.key(0), SPEC)[0]
BATCH = {"image": SCALE * jax.random.normal(jax.random.key(1), (N, *SHAPE))}


def bent(centre):
    """A schedule far from a straight line: most of it happens around u = centre."""
    steep = 6.0 + jnp.linspace(-1.0, 1.0, 16)
    shape = {
        "l1": {"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)},
        "l2": {"kernel": -steep[None], "bias": -steep * (2.0 * centre - 1.0)},  # the sign means nothing
        "l3": {"kernel": jnp.full((16, 1), 3.0), "bias": jnp.zeros(1)},
    }
    return {**PARAMS["schedule"], "shape": shape}


@functools.cache
def estimator():
    """(schedule, key) -> estimates of the diffusion loss of all of BATCH, at low-discrepancy times [N]."""

    @jax.jit
    def estimate(schedule, key):
        keys_u, keys_eps = Keys.of(key, N).split(2)
        u = MODEL.time_sampler(keys_u, MODEL.process)
        eps = jax.random.normal(keys_eps.shared, BATCH["image"].shape)
        return MODEL._diffusion(PARAMS["model"], *MODEL._at(schedule, u), BATCH["image"], eps, None)

    return estimate


def expected_diffusion(x):
    """1/2 of the integral of SNR E|x - x_hat|^2 over log-SNR, in bits a dimension, of x [n, 2]."""
    log_snr = np.linspace(ENDS[1], ENDS[0], 20_001)
    snr = np.exp(log_snr)
    alpha2, sigma2 = snr / (1 + snr), 1 / (1 + snr)
    k = np.sqrt(alpha2) * SCALE**2 / (alpha2 * SCALE**2 + sigma2)
    square = (1 - k * np.sqrt(alpha2)) ** 2 * np.mean(np.sum(x**2, 1)) + x.shape[1] * k**2 * sigma2
    return np.trapezoid(0.5 * snr * square, log_snr) / (2 * np.log(2))


@pytest.mark.parametrize("schedule", [PARAMS["schedule"], bent(0.2), bent(0.8)], ids=["line", "bent", "bent too"])
def test_diffusion_loss_depends_on_the_ends_alone(schedule):
    u = jnp.linspace(0, 1, 101)
    log_snr = np.asarray(MODEL.log_snr(schedule, u))
    assert np.all(np.diff(log_snr) < 0)
    np.testing.assert_allclose(log_snr[[0, -1]], ENDS, rtol=1e-5)
    off_line = np.abs(log_snr - np.linspace(*ENDS, 101)).max()
    assert off_line < 0.5 if schedule is PARAMS["schedule"] else off_line > 5.0
    found = np.concatenate([estimator()(schedule, jax.random.key(i)) for i in range(8)])
    expected = expected_diffusion(np.asarray(BATCH["image"]).reshape(N, -1))
    assert found.mean() == pytest.approx(expected, abs=5 * found.std() / np.sqrt(len(found)))
    assert found.mean() == pytest.approx(expected, rel=0.05)


def test_bound_is_the_likelihood_where_the_denoiser_is_exact():
    model = dataclasses.replace(MODEL, draws=64)
    params = {**PARAMS, "schedule": bent(0.2)}
    found = np.asarray(jax.jit(model.evaluate)(params, BATCH, jax.random.key(2))["elbo"])
    x = np.asarray(BATCH["image"]).reshape(N, -1)
    log_p = np.sum(-0.5 * (x / SCALE) ** 2 - np.log(SCALE) - 0.5 * np.log(2 * np.pi), 1)
    # The reconstruction from log-SNR 9 has the exact mean, but the variance of data without a prior.
    assert found.mean() == pytest.approx(log_p.mean(), abs=4 * (found - log_p).std() / np.sqrt(N) + 0.005)
    assert (found - log_p).std() / np.sqrt(N) < 0.05


def test_gradients_are_the_bounds_for_the_ends_and_the_squares_for_the_shape():
    """Against each part differentiated by itself, through the network."""
    state = types.SimpleNamespace(params={"model": {"w": jnp.float32(0.8)}})
    schedule, keys, batch = bent(0.2), Keys.of(jax.random.key(5), 64), {"image": BATCH["image"][:64]}

    @jax.jit
    def both(schedule):
        _, keys_u, keys_eps, keys_end = keys.split(4)
        u = MODEL.time_sampler(keys_u, MODEL.process)
        eps, eps_end = (jax.vmap(lambda k: jax.random.normal(k, SHAPE))(k.each) for k in (keys_eps, keys_end))

        def estimates(schedule):
            return MODEL._diffusion(state.params["model"], *MODEL._at(schedule, u), batch["image"], eps, None)

        def total(schedule):
            ends = MODEL._ends(state.params["model"], schedule, batch["image"], eps_end, None)
            return (estimates(schedule) + ends).mean()

        found = jax.value_and_grad(MODEL._schedule_loss, has_aux=True)(schedule, state, batch, keys)
        return found, jax.value_and_grad(total)(schedule), jax.grad(lambda s: (estimates(s) ** 2).mean())(schedule)

    ((loss, aux), grads), (value, by_ends), by_shape = both(schedule)
    assert float(loss) == pytest.approx(float(value), rel=1e-4)
    np.testing.assert_allclose(grads["ends"], by_ends["ends"], rtol=2e-3, atol=1e-5)
    size = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(by_shape["shape"]))
    for found, expected in zip(*map(jax.tree.leaves, (grads["shape"], by_shape["shape"])), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-3 * size)
    assert set(aux.metrics) == {"diffusion", "ends", "variance", "log_snr_max", "log_snr_min"}


@pytest.mark.slow
def test_training_the_schedule_lowers_the_variance_and_not_the_loss():
    """From a schedule that is far from good; the ends are free to move too, towards a better bound."""
    start = bent(0.2)
    optimizer = optax.adam(0.02)
    state, batch = types.SimpleNamespace(params=PARAMS), {"image": BATCH["image"][:256]}

    def step(carry, key):
        schedule, opt = carry
        grads, _ = jax.grad(MODEL._schedule_loss, has_aux=True)(schedule, state, batch, Keys.of(key, 256))
        updates, opt = optimizer.update(grads, opt)
        return (optax.apply_updates(schedule, updates), opt), None

    train = jax.jit(lambda s, keys: jax.lax.scan(step, (s, optimizer.init(s)), keys)[0][0])
    trained = train(start, jax.random.split(jax.random.key(7), 400))
    moved = {**start, "shape": trained["shape"]}
    before, after = (np.asarray(estimator()(schedule, jax.random.key(8))) for schedule in (start, moved))
    assert after.var() < 0.7 * before.var()
    assert after.mean() == pytest.approx(before.mean(), abs=5 * before.std() / np.sqrt(N))
    score = jax.jit(MODEL.evaluate)
    bounds = [np.mean(score({**PARAMS, "schedule": s}, BATCH, jax.random.key(9))["elbo"]) for s in (start, trained)]
    assert bounds[1] > bounds[0] - 0.02


@pytest.mark.slow
def test_samples_follow_the_learnt_times():
    """From one learnt end to the other, and with the right spread."""
    params = {**PARAMS, "schedule": {**bent(0.2), "ends": jnp.array([8.0, -5.0])}}
    run = functools.partial(MODEL.generate, n=N, trace=lambda x_t, x_0, t: jnp.broadcast_to(t, len(x_t)))
    x, seen = jax.jit(run)(params, jax.random.key(0))
    t = (20.0 - np.asarray(MODEL.log_snr(params["schedule"], jnp.linspace(1.0, 0.0, 101)))) / 32.0
    np.testing.assert_allclose(seen[:, 0], t[:-1], atol=1e-5)
    assert float(jnp.std(x)) == pytest.approx(SCALE, rel=0.03)


def test_fourier_features_are_more_channels_of_the_input():
    family = VDM(network=MLP(hidden=8, depth=1, out_channels=1), image_shape=(2, 2, 1), fourier=(7, 8))
    params, _ = family.init(jax.random.key(0), SPEC)
    assert params["model"]["in"]["kernel"].shape == (2 * 2 * 5, 8)
    assert set(params["schedule"]) == {"ends"}
    x = jnp.full((1, 2, 2, 1), 2.0**-8)
    np.testing.assert_allclose(family._featured(x)[0, 0, 0], [2.0**-8, 1.0, 0.0, 0.0, -1.0], atol=1e-4)
    family.check(types.SimpleNamespace(image_shape=(2, 2, 1), num_classes=None, levels=256))


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="must rise, within the -12 to 20"):
        dataclasses.replace(MODEL, log_snr_max=21.0)
    with pytest.raises(ValueError, match="did you mean 'gaussian'"):
        dataclasses.replace(MODEL, decoder="gausian")
    family = VDM(network=MLP(hidden=8, depth=1), image_shape=SHAPE)
    with pytest.raises(ValueError, match="decoder = 'categorical', but the data are real numbers"):
        family.check(SPEC)
