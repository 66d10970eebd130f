"""Deterministic autoencoders: plain, sparse, denoising, or all of these at once."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from genjax.config import component
from genjax.families.base import Aux, Batch, DataSpec, Extra, Keys, Params, Phase, State
from genjax.families.coded import COLUMNS, MODEL, Coded, mean_square
from genjax.families.corruption import Clean, Corruption
from genjax.families.sparsity import Dense, Sparsity
from genjax.registry import register
from genjax.sampling import sample_keys

CODES = "codes"  # in `extra`: running moments of the encoder's outputs
DECAY = 0.99


@register("family", "autoencoder")
@dataclasses.dataclass(frozen=True)
class Autoencoder(Coded):
    """A code of each image from which a decoder makes the image again (Hinton & Salakhutdinov 2006).

    The loss is minus the log-likelihood of the image, in nats and summed over pixels, plus the penalty of the code. The
    Gaussian likelihood of std 1 makes it half the square error and a constant.

    An autoencoder is no model of the images. To generate, a normal distribution is fitted to the encoder's outputs, by
    their running mean and covariance over training (in `extra`, decay 0.99 a step); draws of it are activated and
    decoded. Where codes are far from normal, so are the images from real ones.

    Attributes:
        image_shape: (H, W, C).
        encoder: from images to codes.
        decoder: from a code to the parameters of the likelihood.
        latent: units of the code.
        likelihood: of an image given the decoder's output.
        sparsity: activation and penalty of the code.
        corruption: what the encoder sees in training; the loss is of the clean image.
    """

    sparsity: Sparsity = component("sparsity", Dense())
    corruption: Corruption = component("corruption", Clean())
    reference: ClassVar[str] = "hinton2006reducing"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.sparsity.check(self.latent)

    def init(self, key: Array, spec: DataSpec) -> tuple[dict[str, Params], Extra]:
        """Returns the initial parameters of the role "model", and moments of no codes."""
        params, _ = super().init(key, spec)
        size = self.latent
        codes = {"mean": jnp.zeros((size,)), "second": jnp.zeros((size, size)), "weight": jnp.zeros(())}
        return params, {CODES: codes}

    def phases(self) -> tuple[Phase, ...]:
        """Returns the one phase, which trains the role "model"."""
        return (Phase("train", MODEL, self._loss),)

    def code(self, model: Params, x: Array) -> Array:
        """Returns the active codes [B, latent] of images [B, H, W, C]."""
        return self.sparsity.activate(self.encode(model, x))

    def generate(self, params: dict[str, Params], key: Array, n: int, cond: None = None) -> Array:
        """Returns n images [n, H, W, C] of codes from a normal distribution, see the class."""
        moments = params[CODES]
        weight = jnp.maximum(moments["weight"], 1e-12)
        mean = moments["mean"] / weight
        variances, axes = jnp.linalg.eigh(moments["second"] / weight - jnp.outer(mean, mean))
        root = axes * jnp.sqrt(jnp.maximum(variances, 0.0))[None]
        noise = jax.vmap(lambda key: jax.random.normal(key, mean.shape))(sample_keys(key, n))
        codes = self.sparsity.activate(mean[None] + noise @ root.T)
        return self.shown(params[MODEL], codes)

    def evaluate(self, params: dict[str, Params], batch: Batch, key: Array) -> dict[str, Array]:
        """Returns `loss`, minus the log-likelihood without penalty, and `mse`, both of clean images [B]."""
        model, x = params[MODEL], self._observed(batch, Keys.of(key, len(batch["image"])))
        likelihood = self.likelihood.bind(model["likelihood"])
        output = self.decode(model, self.code(model, x))
        return {"loss": -likelihood.log_prob(output, x), "mse": mean_square(likelihood.mean(output) - x)}

    def pictures(self, params: dict[str, Params], batch: Batch, key: Array) -> dict[str, Array]:
        """Returns sheets [rows, columns, H, W, C] in [-1, 1].

        `reconstructions`: images, what the encoder sees of them (where that differs), what the decoder returns.
        `interpolations`: from one image to another on straight lines between codes.
        """
        model = params[MODEL]
        keys = Keys.of(key, len(batch["image"]))
        x = self._observed(batch, keys)[:COLUMNS]
        seen = self.corruption(keys.split(2)[1].each[: len(x)], x)
        rows = [x, self.shown(model, self.code(model, seen))]
        if not isinstance(self.corruption, Clean):
            rows.insert(1, seen)
        lines = self.interpolations(model, self.code(model, x))
        return {"reconstructions": jnp.stack(rows), "interpolations": lines}

    def _observed(self, batch: Batch, keys: Keys) -> Array:
        return self.likelihood.observe(keys.split(2)[0].each, batch["image"])

    def _loss(self, params: Params, state: State, batch: Batch, keys: Keys) -> tuple[Array, Aux]:
        x = self._observed(batch, keys)
        h = self.encode(params, self.corruption(keys.split(2)[1].each, x))
        code = self.sparsity.activate(h)
        output = self.decode(params, code)
        likelihood = self.likelihood.bind(params["likelihood"])
        reconstruction, penalty = -likelihood.log_prob(output, x).mean(), self.sparsity.penalty(code)
        metrics = {
            "reconstruction": reconstruction,
            "mse": mean_square(likelihood.mean(output) - x).mean(),
            "penalty": penalty,
            "active": jnp.mean(jnp.abs(code) > 1e-3),  # share of the units
        }
        codes = _updated(state.extra[CODES], jax.lax.stop_gradient(h))
        return reconstruction + penalty, Aux(metrics, {**state.extra, CODES: codes})


def _updated(moments: dict[str, Array], h: Array) -> dict[str, Array]:
    """The running moments after a batch of the encoder's outputs [B, D]."""
    seen = {"mean": h.mean(0), "second": h.T @ h / len(h), "weight": jnp.ones(())}
    return jax.tree.map(lambda old, new: DECAY * old + (1.0 - DECAY) * new, moments, seen)
