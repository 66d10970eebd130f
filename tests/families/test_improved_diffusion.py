"""Learnt variances: on a Gaussian the reverse chain is known, so are its variances and its bound."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax import parameterizations, processes, solvers
from genjax.families import Diffusion, ImprovedDiffusion, Sampler, time_samplers
from genjax.families.base import Keys
from genjax.families.likelihood_figures import Likelihood
from genjax.networks import MLP
from genjax.sampling import guidance, times

SHAPE, STEPS, SCALE = (1, 1, 2), 10, 0.6
CHAIN = processes.DiscreteVP(timesteps=STEPS, beta_start=0.02, beta_end=0.6)
SPEC = types.SimpleNamespace(image_shape=SHAPE, num_classes=None, levels=None)
BETAS = np.linspace(0.02, 0.6, STEPS)
ALPHA_BAR = np.cumprod(1 - BETAS)


@dataclasses.dataclass(frozen=True)
class Exact:
    """The exact denoiser of N(0, SCALE^2), and a v for each step of the chain, which is learnt."""

    def check(self, image_shape):
        pass

    def init(self, key, x, label, cond):
        return {"params": {"v": jnp.zeros(STEPS)}}

    def apply(self, variables, x, label, cond, dropout=None):
        step = jnp.clip(jnp.round(label * STEPS).astype(jnp.int32) - 1, 0, STEPS - 1)
        alpha, sigma = (f(label)[:, None, None, None] for f in (CHAIN.alpha, CHAIN.sigma))
        v = variables["params"]["v"][step][:, None, None, None]
        x_0 = alpha * SCALE**2 / (alpha**2 * SCALE**2 + sigma**2) * x
        return jnp.concatenate([x_0, jnp.broadcast_to(v, x.shape)], axis=-1)


def family(**choices):
    given = dict(
        network=Exact(),
        image_shape=SHAPE,
        process=CHAIN,
        parameterization=parameterizations.X0(time_scale=1.0),
        timesteps=STEPS,
        time_sampler=time_samplers.LowDiscrepancy(),
        likelihood=Likelihood(eight_bit=False),
        chain_bound=True,
        sampler=Sampler(solver=solvers.DDPM(variance="learned"), times=times.uniform, steps=STEPS),
    )
    return ImprovedDiffusion(**given | choices)


def known_variances():
    """Of x_s given x_t on this Gaussian, and the bounds between which v chooses, all from the betas; [STEPS]."""
    after, before = ALPHA_BAR, np.append(1.0, ALPHA_BAR[:-1])
    marginal_t, marginal_s = after * SCALE**2 + 1 - after, before * SCALE**2 + 1 - before
    exact = marginal_s - (1 - BETAS) * marginal_s**2 / marginal_t
    least = (1 - before) / (1 - after) * BETAS
    least[0] = least[1]
    return exact, least, BETAS


def images(n, key=0):
    return {"image": SCALE * jax.random.normal(jax.random.key(key), (n, *SHAPE))}


def known_v():
    exact, least, most = known_variances()
    return 2.0 * np.log(exact / least) / np.log(most / least) - 1.0


@functools.cache
def scorer():
    return jax.jit(family().evaluate)


@pytest.mark.slow
def test_hybrid_loss_learns_the_variances_of_the_reverse_chain():
    model = family()
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, 1500))
    batch = images(256)

    def step(carry, key):
        params, opt = carry
        grads, _ = jax.grad(model._loss, has_aux=True)(params, None, batch, Keys.of(key, 256))
        updates, opt = optimizer.update(grads, opt)
        return (optax.apply_updates(params, updates), opt), None

    start = {"v": jnp.zeros(STEPS)}
    train = jax.jit(lambda params, keys: jax.lax.scan(step, (params, optimizer.init(params)), keys)[0][0])
    v = train(start, jax.random.split(jax.random.key(1), 1500))["v"]
    _, least, most = known_variances()
    found = np.exp(0.5 * (v + 1) * np.log(most) + 0.5 * (1 - v) * np.log(least))
    np.testing.assert_allclose(found, known_variances()[0], rtol=0.12)  # the data are 256 draws, again and again


def test_bound_with_the_right_variances_is_the_likelihood_and_better_than_with_fixed_ones():
    """With them the chain is the exact reverse process, whose bound is tight in the mean over data."""
    batch = images(20_000, key=3)
    bounds = {}
    for name, v in {"known": known_v(), "least": -1.0, "most": 1.0}.items():
        params = {"model": {"v": jnp.broadcast_to(jnp.asarray(v, jnp.float32), (STEPS,))}}
        bounds[name] = np.asarray(scorer()(params, batch, jax.random.key(2))["elbo"])
    x = np.asarray(batch["image"]).reshape(len(bounds["known"]), -1)
    log_p = np.sum(-0.5 * (x / SCALE) ** 2 - np.log(SCALE) - 0.5 * np.log(2 * np.pi), 1)
    last = ALPHA_BAR[-1]  # the prior is N(0, sigma(1)^2), and the noised data are a little wider or narrower
    ratio = (last * SCALE**2 + 1 - last) / (1 - last)
    gap = 2 * 0.5 * (ratio - 1 - np.log(ratio))
    error = np.std(bounds["known"] - log_p) / np.sqrt(len(x))
    assert np.mean(bounds["known"] - log_p) == pytest.approx(-gap, abs=4 * error)
    assert error < 0.02
    for name in ("least", "most"):
        assert np.mean(bounds["known"] - bounds[name]) > 0.02, name


def test_terms_are_the_divergences_of_the_papers():
    """Of the chain's Gaussians in the form of Ho et al. 2020, eq. 5-8, for any guess and v."""
    x_0, x_t, guess, v = (jax.random.normal(jax.random.key(i), (STEPS - 1, *SHAPE)) for i in range(4))
    v = jnp.tanh(v)
    step = np.arange(1, STEPS)
    found = family()._term(jnp.asarray(step), x_0, x_t, guess, v)
    after, before, beta = ALPHA_BAR[step], ALPHA_BAR[step - 1], BETAS[step]
    least = (1 - before) / (1 - after) * beta
    share = (np.asarray(v).reshape(-1, 2) + 1) / 2
    variance = np.exp(share * np.log(beta)[:, None] + (1 - share) * np.log(least)[:, None])
    coefficient = np.sqrt(before) * beta / (1 - after)
    apart = coefficient[:, None] * np.asarray(x_0 - guess).reshape(-1, 2)
    kl = 0.5 * (np.log(variance / least[:, None]) + (least[:, None] + apart**2) / variance - 1)
    np.testing.assert_allclose(found, kl.sum(1) / (2 * np.log(2)), rtol=2e-4, atol=1e-5)


def test_gradient_of_the_bound_is_that_of_v_alone():
    @dataclasses.dataclass(frozen=True)
    class Two(Exact):
        def apply(self, variables, x, label, cond, dropout=None):
            w = variables["params"]
            return jnp.concatenate([w["mean"] * x, w["v"] * x], axis=-1)

    params, batch = {"mean": jnp.float32(0.3), "v": jnp.float32(0.2)}, images(32)
    models = {weight: family(network=Two(), vlb_weight=weight) for weight in (0.0, 0.001)}
    keys = Keys.of(jax.random.key(0), 32)
    losses = {w: functools.partial(model._loss, state=None, batch=batch, keys=keys) for w, model in models.items()}
    gradients = jax.jit(lambda params: {w: jax.grad(loss, has_aux=True)(params)[0] for w, loss in losses.items()})
    grads = gradients(params)
    assert grads[0.0]["mean"] == grads[0.001]["mean"]
    assert grads[0.0]["v"] == 0.0 and grads[0.001]["v"] != 0.0


@pytest.mark.slow
def test_few_steps_with_the_right_variances_give_the_exact_spread():
    """The chain's own steps, and half of them; the fixed variances miss it."""
    params, n = {"model": {"v": jnp.asarray(known_v(), jnp.float32)}}, 20_000
    spread = {}
    for name in ("learned", "small", "large"):
        model = family(
            sampler=Sampler(solver=solvers.DDPM(variance=name), times=times.uniform, steps=STEPS, final="none")
        )
        x = jax.jit(model.generate, static_argnums=2)(params, jax.random.key(0), n)
        assert x.shape == (n, *SHAPE)
        spread[name] = float(jnp.std(x))
    # The last step adds no noise where the chain ends, as published: what it lacks is that of the decoder.
    exact, _, _ = known_variances()
    assert spread["learned"] ** 2 == pytest.approx(SCALE**2 - exact[0], rel=0.03)
    assert spread["small"] < 0.97 * spread["learned"] and spread["large"] > 1.03 * spread["learned"]


def test_guidance_leaves_the_variances_to_the_condition():
    """The null prediction has another v, which guidance would move far away."""

    @dataclasses.dataclass(frozen=True)
    class Labelled(Exact):
        def apply(self, variables, x, label, cond, dropout=None):
            null = (cond["label"] == -1)[:, None, None, None]
            return jnp.concatenate([0.0 * x, jnp.where(null, 1.0, -1.0) + 0.0 * x], axis=-1)

    rules = {"none": guidance.conditional, "cfg": functools.partial(guidance.classifier_free, scale=3.0)}
    drawn = {}
    for name, rule in rules.items():
        sampler = Sampler(
            solver=solvers.DDPM(variance="learned"), times=times.uniform, steps=STEPS, guidance=rule, final="none"
        )
        model = family(network=Labelled(), condition=("label",), sampler=sampler)
        cond = {"label": jnp.zeros(8, jnp.int32)}
        run = functools.partial(model.generate, {"model": {}}, n=8, cond=cond, trace=lambda x_t, x_0, t: x_t)
        x, path = jax.jit(run)(jax.random.key(0))
        drawn[name] = (x, path)
        assert path.shape == (STEPS, 8, *SHAPE)
    np.testing.assert_allclose(drawn["none"][1], drawn["cfg"][1], rtol=1e-5, atol=1e-6)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="out_channels = 4"):
        family(network=MLP(hidden=8, depth=1)).check(SPEC)
    family(network=MLP(hidden=8, depth=1, out_channels=4)).check(SPEC)
    with pytest.raises(ValueError, match="take uniform or low_discrepancy"):
        family(time_sampler=time_samplers.LogNormal())
    with pytest.raises(ValueError, match="both on"):
        family(likelihood=Likelihood(bound_nodes=8, eight_bit=False))
    with pytest.raises(ValueError, match="must have no noise at t = 0"):
        family(process=processes.EDM())
    with pytest.raises(ValueError, match="but the data are real numbers"):
        family(network=MLP(hidden=8, depth=1, out_channels=4), likelihood=Likelihood()).check(SPEC)
    with pytest.raises(ValueError, match="gives no variances"):
        Diffusion(network=Exact(), image_shape=SHAPE, sampler=Sampler(solver=solvers.DDPM(variance="learned")))
    with pytest.raises(ValueError, match="gives no variances"):
        solvers.DDPM(variance="learned").plan(CHAIN, np.linspace(1.0, 0.0, 5))
