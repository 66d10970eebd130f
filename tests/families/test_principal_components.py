"""Linear models trained through the real step reach the closed forms of principal component analysis, on digits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.config import construct
from genjax.data.digits import load_arrays
from genjax.training.experiment import Experiment
from genjax.training.state import build_optimizers, create_state
from genjax.training.step import make_train_step

pytestmark = pytest.mark.slow
LATENT = 8
LAYER = dict(name="mlp", depth=0)


def experiment(steps, rate, **family):
    return construct(
        Experiment,
        dict(
            seed=0,
            data=dict(name="tfds"),
            family=dict(image_shape=(8, 8, 1), encoder=LAYER, decoder=LAYER, latent=LATENT, **family),
            optimizers=dict(
                model=dict(
                    name="adam",
                    learning_rate=dict(name="cosine_decay", init_value=rate, decay_steps=steps),
                )
            ),
            training=dict(steps=steps, batch_size=1797),
        ),
        "config",
    )


@pytest.fixture(scope="module")
def digits():
    return load_arrays()[0].astype(np.float64) / 127.5 - 1.0


def trained(built, images):
    """The state after training on the whole data in every step."""
    family, steps = built.family, built.training.steps
    state = jax.jit(lambda: create_state(built, built.data.spec))()
    step = make_train_step(family, build_optimizers(built, state.params), built.ema)
    batch = {"image": jnp.asarray(images, jnp.float32)}
    state, _ = jax.jit(lambda state: jax.lax.scan(lambda s, _: (step(s, batch)[0], None), state, length=steps))(state)
    return state, batch


def test_a_linear_vae_reaches_the_maximum_likelihood_of_probabilistic_pca(digits):
    """Tipping & Bishop 1999, eq. 8: the ELBO's maximum is that of the marginal likelihood (Lucas et al. 2019)."""
    x = digits.reshape(len(digits), -1)
    values = np.sort(np.linalg.eigvalsh(np.cov(x.T, bias=True)))[::-1]
    noise, d = values[LATENT:].mean(), x.shape[1]
    best = -0.5 * (d * np.log(2 * np.pi) + np.log(values[:LATENT]).sum() + (d - LATENT) * np.log(noise) + d)

    built = experiment(2000, 0.02, name="vae", likelihood=dict(name="gaussian", std=0.5, learn="scalar"))
    state, batch = trained(built, digits)
    figures = jax.jit(built.family.evaluate)(state.params, batch, jax.random.key(0))
    elbo = float(np.asarray(figures["elbo"], np.float64).mean())
    assert elbo == pytest.approx(best, rel=0.005)
    assert float(np.exp(2 * state.params["model"]["likelihood"]["log_std"])) == pytest.approx(noise, rel=0.02)


def test_a_linear_autoencoder_reaches_the_residual_of_pca(digits):
    """Baldi & Hornik 1989: its only minimum is the projection on the first principal components."""
    x = digits.reshape(len(digits), -1)
    values = np.sort(np.linalg.eigvalsh(np.cov(x.T, bias=True)))[::-1]
    built = experiment(4000, 0.01, name="autoencoder")
    state, batch = trained(built, digits)
    figures = jax.jit(built.family.evaluate)({**state.extra, **state.params}, batch, jax.random.key(0))
    mse = float(np.asarray(figures["mse"], np.float64).mean())
    assert values[LATENT:].sum() / 64 * 0.999 < mse < values[LATENT:].sum() / 64 * 1.005
