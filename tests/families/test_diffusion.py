"""What diffusion families may have beside their loss: uncertainty weighting, and figures of likelihood."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax import parameterizations, processes
from genjax.analytic import GaussianMixture
from genjax.families import Diffusion, time_samplers, weightings
from genjax.families.base import Keys
from genjax.families.likelihood_figures import Likelihood
from genjax.networks import MLP, FourierUncertainty
from tests.families.functions import Function

SHAPE = (1, 1, 2)
VP = processes.LinearVP()
SPEC = types.SimpleNamespace(image_shape=SHAPE, num_classes=None, levels=None)
MIXTURE = GaussianMixture(np.array([0.3, 0.7]), np.array([[1.0, 0.5], [-1.0, 0.0]]), np.array([0.3, 0.5]))


@pytest.mark.slow
def test_learnt_uncertainty_is_the_expected_loss_of_each_noise_level():
    """Of a network that says 0 the error of eps is 1 on average, so the expected loss is the weight itself."""
    zero = Function(lambda w, x, label, cond: 0.0 * w * x)
    weighting = weightings.P2()
    family = Diffusion(
        network=zero,
        image_shape=SHAPE,
        process=VP,
        weighting=weighting,
        time_sampler=time_samplers.LowDiscrepancy(),
        uncertainty=FourierUncertainty(features=32),
    )
    start = family.init(jax.random.key(0), SPEC)[0]["model"]
    batch = {"image": jnp.zeros((256, *SHAPE))}
    optimizer = optax.adam(optax.cosine_decay_schedule(0.02, 2000))

    def step(carry, key):
        params, opt = carry
        grads, _ = jax.grad(family._loss, has_aux=True)(params, None, batch, Keys.of(key, 256))
        updates, opt = optimizer.update(grads, opt)
        return (optax.apply_updates(params, updates), opt), None

    train = jax.jit(lambda params, keys: jax.lax.scan(step, (params, optimizer.init(params)), keys)[0][0])
    trained = train(start, jax.random.split(jax.random.key(1), 2000))
    t = jnp.linspace(0.02, 0.98, 25)
    found = jnp.exp(family.uncertainty.apply({"params": trained["uncertainty"]}, VP.log_snr(t) / -8.0))
    np.testing.assert_allclose(found, weighting(t, VP, parameterizations.Eps()), rtol=0.1)
    # What evaluation calls the loss is not weighted by it.
    given = {"model": trained}, batch, jax.random.key(2)
    plain = dataclasses.replace(family, uncertainty=None)
    np.testing.assert_array_equal(family.evaluate(*given)["loss"], plain.evaluate(*given)["loss"])


def test_figures_of_likelihood_are_those_of_the_exact_model():
    """With the exact denoiser both are -log p, here in nats; labels choose a component."""
    label_is_time = parameterizations.X0(time_scale=1.0)

    def network(w, x, label, cond):
        return MIXTURE.denoise(VP, x.reshape(len(x), 2), label, cond).reshape(x.shape)

    family = Diffusion(
        network=Function(network),
        image_shape=SHAPE,
        process=VP,
        parameterization=label_is_time,
        condition=("label",),
        likelihood=Likelihood(
            flow_steps=64, bound_nodes=64, probes="exact", draws=64, eight_bit=False, decoder="dequantization"
        ),
    )
    x, label = MIXTURE.sample(jax.random.key(0), 8)
    params = family.init(jax.random.key(0), SPEC)[0]
    batch = {"image": x.reshape(8, *SHAPE), "label": label}
    found = jax.jit(family.evaluate)(params, batch, jax.random.key(1))
    scale, mean = MIXTURE.scales[label][:, None], MIXTURE.means[label]
    log_p = np.sum(-0.5 * ((x - mean) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi), 1)
    np.testing.assert_allclose(found["nll"], -log_p, atol=0.05)  # of 64 steps, from t = 0.001
    np.testing.assert_allclose(found["elbo"], log_p, atol=0.5)
    assert float(jnp.mean(found["elbo"])) == pytest.approx(float(np.mean(log_p)), abs=0.15)


def test_figures_of_likelihood_are_refused_for_other_data():
    family = Diffusion(network=MLP(hidden=8, depth=1), image_shape=SHAPE, likelihood=Likelihood(bound_nodes=4))
    with pytest.raises(ValueError, match="real numbers"):
        family.check(SPEC)
