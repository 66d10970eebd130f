"""Hierarchical variational autoencoders: layer upon layer of latents, each drawn given those above it."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from genjax.citation import bibtex
from genjax.config import component, require
from genjax.families import normal
from genjax.families.base import Aux, Batch, DataSpec, Extra, Keys, Params, Phase, State, check_data, check_image_shape
from genjax.families.coded import COLUMNS, MODEL, mean_square, repeated
from genjax.families.likelihoods import Bound, DiscretizedLogisticMixture, Likelihood
from genjax.families.objectives import ELBO, Objective, Terms
from genjax.families.vae import OUTPUTS, figures
from genjax.registry import register
from genjax.sampling.keys import normal_like, sample_keys

SONDERBY_2016 = bibtex("""
@inproceedings{sonderby2016ladder,
  title = {Ladder Variational Autoencoders},
  author = {S{\\o}nderby, Casper Kaae and Raiko, Tapani and Maal{\\o}e, Lars and S{\\o}nderby, S{\\o}ren Kaae
            and Winther, Ole},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2016}
}""")


@register("family", "hierarchical_vae")
@dataclasses.dataclass(frozen=True)
class HierarchicalVAE:
    """Top-down VAE: p(z_1) p(z_2 | z_1) ... p(x | z), posterior in the same order (Sonderby et al. 2016, section 2.2).

    The divergence of a layer is in closed form given draws of the layers above it. What objectives say of a latent they
    say here of a layer: `free_bits` is a layer's. Training measures, as means over the batch: `elbo`, `kl`,
    `reconstruction` (minus the log-likelihood, nats), and the divergence of every layer, as `kl/03_8x8` of the fourth,
    whose latents are 8 x 8.

    Attributes:
        image_shape: (H, W, C).
        hierarchy: the network, bottom up from the image and top down through the latents, see
            `genjax.networks.hierarchical`.
        likelihood: of an image given the network's output.
        objective: what is minimized.
        temperature: factor of the priors' standard deviations in generation; below 1 images are likelier and less
            diverse.
        iwae_samples: draws of all latents an example for the evaluation's `iwae`; 0 leaves it out.
        output: what `generate` returns of the latents: the likelihood's "mean", or a "sample".
    """

    image_shape: tuple[int, int, int]
    hierarchy: Any = component("hierarchy")
    likelihood: Likelihood = component("likelihood", DiscretizedLogisticMixture())
    objective: Objective = component("objective", ELBO())
    temperature: float = 1.0
    iwae_samples: int = 0
    output: str = "sample"
    condition: ClassVar[tuple[str, ...]] = ()
    reference: ClassVar[str] = SONDERBY_2016

    def __post_init__(self) -> None:
        check_image_shape(self.image_shape)
        require(self.temperature >= 0, f"temperature = {self.temperature}: must be at least 0")
        require(self.iwae_samples >= 0, f"iwae_samples = {self.iwae_samples}: must be at least 0")
        require(self.output in OUTPUTS, f"output = {self.output!r}: must be one of {', '.join(OUTPUTS)}")
        self.hierarchy.check(self.image_shape)

    def check(self, spec: DataSpec) -> None:
        """Raises ValueError where the data do not fit the model; compiles nothing."""
        check_data(spec, self.image_shape)

    def init(self, key: Array, spec: DataSpec) -> tuple[dict[str, Params], Extra]:
        """Returns the initial parameters of the role "model"."""
        noise = [jnp.zeros((1, *shape)) for shape in self.hierarchy.latent_shapes()]
        network = self.hierarchy.init(key, jnp.zeros((1, *self.image_shape)), noise, self._channels)["params"]
        return {MODEL: {"network": network, "likelihood": self.likelihood.init()}}, {}

    def phases(self) -> tuple[Phase, ...]:
        """Returns the one phase, which trains the role "model"."""
        return (Phase("train", MODEL, self._loss),)

    def draw(
        self, model: Params, keys: Array, x: Array | None, kept: Array | None = None, temperature: float = 1.0
    ) -> tuple[Array, Any]:
        """Draws all latents.

        Args:
            model: the parameters.
            keys: one key an example [B].
            x: images [B, H, W, C], or None to draw from the prior.
            kept: how many layers, the first ones, are drawn from the posterior, int32 []; the others are drawn from the
                prior. None keeps all.
            temperature: factor of the priors' standard deviations.

        Returns:
            The likelihood's parameters [B, H, W, K], and what was drawn from what, a
            `genjax.networks.hierarchical.Latent` for every resolution.
        """
        shapes = self.hierarchy.latent_shapes()
        keys = jax.vmap(lambda key: jax.random.split(key, len(shapes)))(keys)
        noise = [normal_like(keys[:, i], jnp.zeros((len(keys), *shape))) for i, shape in enumerate(shapes)]
        return self._apply(model, x, noise, kept, temperature)

    def reconstruct(self, model: Params, x: Array) -> Array:
        """Returns the expected images [B, H, W, C] of latents that are, layer by layer, their posteriors' means."""
        noise = [jnp.zeros((len(x), *shape)) for shape in self.hierarchy.latent_shapes()]
        return self._bound(model).mean(self._apply(model, x, noise)[0])

    def terms(self, model: Params, x: Array, keys: Array, samples: int) -> Terms:
        """Returns the terms of the bounds for images [B, H, W, C], `samples` draws of each; `kl` is by layer."""
        keys = jax.vmap(lambda key: jax.random.split(key, samples))(keys).reshape(-1)
        x = repeated(x, samples)
        output, latents = self.draw(model, keys, x)
        per_example = lambda values: values.reshape(-1, samples, *values.shape[1:])  # noqa: E731
        return Terms(
            log_likelihood=per_example(self._bound(model).log_prob(output, x)),
            kl=per_example(divergences(latents)).mean(1),
            log_ratio=per_example(log_ratios(latents)),
        )

    def generate(self, params: dict[str, Params], key: Array, n: int, cond: None = None) -> Array:
        """Returns n images [n, H, W, C] of latents from the prior."""
        keys = jax.vmap(jax.random.split)(sample_keys(key, n))
        output, _ = self.draw(params[MODEL], keys[:, 0], None, temperature=self.temperature)
        likelihood = self._bound(params[MODEL])
        return likelihood.mean(output) if self.output == "mean" else likelihood.sample(keys[:, 1], output)

    def evaluate(self, params: dict[str, Params], batch: Batch, key: Array) -> dict[str, Array]:
        """Returns figures [B]: `elbo`, `loss` (minus it), `kl`, `mse` of `reconstruct`; `iwae`; and bits/dim.

        The bounds are in nats; the ELBO has weight 1 of the divergence, whatever the objective. `elbo_bpd` and
        `iwae_bpd` are there where the likelihood is one of 8-bit values.
        """
        model = params[MODEL]
        keys_observe, keys_draw = Keys.of(key, len(batch["image"])).split(2)
        x = self.likelihood.observe(keys_observe.each, batch["image"])

        def one(i: Array) -> Terms:
            return self.terms(model, x, jax.vmap(jax.random.fold_in, (0, None))(keys_draw.each, i), 1)

        # One draw after another: memory holds one batch of features, however many draws.
        terms = jax.lax.map(one, jnp.arange(max(self.iwae_samples, 1)))
        error = mean_square(self.reconstruct(model, x) - x)
        return figures(terms, x, self.likelihood, self.iwae_samples > 0) | {"mse": error}

    def pictures(self, params: dict[str, Params], batch: Batch, key: Array) -> dict[str, Array]:
        """Returns sheets [rows, columns, H, W, C] in [-1, 1].

        `reconstructions`: images, and what `reconstruct` makes of them. `levels`: images; below them, resolution by
        resolution, images whose latents up to there are those of the image above and the others drawn from the prior
        (Child 2021, fig. 4).
        """
        model, keys = params[MODEL], Keys.of(key, len(batch["image"]))
        keys_observe, keys_draw = (keys.each[:COLUMNS] for keys in keys.split(2))
        x = self.likelihood.observe(keys_observe, batch["image"][:COLUMNS])

        def shown(kept: Array) -> Array:
            return self._bound(model).mean(self.draw(model, keys_draw, x, kept, self.temperature)[0])

        ends = jnp.cumsum(jnp.asarray([shape[0] for shape in self.hierarchy.latent_shapes()]))
        return {
            "reconstructions": jnp.stack([x, self.reconstruct(model, x)]),
            "levels": jnp.concatenate([x[None], jax.lax.map(shown, ends)]),
        }

    @property
    def _channels(self) -> int:
        return self.likelihood.channels(self.image_shape[-1])

    def _bound(self, model: Params) -> Bound:
        return self.likelihood.bind(model["likelihood"])

    def _apply(self, model: Params, x: Array | None, noise: list[Array], *how: Any) -> tuple[Array, Any]:
        return self.hierarchy.apply({"params": model["network"]}, x, noise, self._channels, *how)

    def _loss(self, params: Params, state: State, batch: Batch, keys: Keys) -> tuple[Array, Aux]:
        keys_observe, keys_draw = keys.split(2)
        x = self.likelihood.observe(keys_observe.each, batch["image"])
        terms = self.terms(params, x, keys_draw.each, self.objective.samples)
        log_likelihood, layers = terms.log_likelihood.mean(), terms.kl.mean(0)
        metrics = {"elbo": log_likelihood - layers.sum(), "kl": layers.sum(), "reconstruction": -log_likelihood}
        places = [f"{h}x{w}" for n, h, w, _ in self.hierarchy.latent_shapes() for _ in range(n)]
        metrics |= {f"kl/{i:02d}_{place}": layers[i] for i, place in enumerate(places)}
        return self.objective(terms, state.step), Aux(metrics)


def divergences(latents: Any) -> Array:
    """Returns KL(q(z_i | z_<i, x) || p(z_i | z_<i)) of every layer, [B, layers] nats, in closed form.

    Args:
        latents: one `genjax.networks.hierarchical.Latent` a resolution.
    """

    def layers(latent: Any) -> Array:
        return normal.divergence(*latent.posterior, *latent.prior).sum(axis=(2, 3, 4))

    return jnp.concatenate([layers(latent) for latent in latents], axis=1)


def log_ratios(latents: Any) -> Array:
    """Returns log p(z) - log q(z | x) [B] nats of what was drawn, over all layers."""

    def ratio(latent: Any) -> Array:
        z = latent.value
        return normal.log_density(z, *latent.prior) - normal.log_density(z, *latent.posterior)

    return jnp.stack([ratio(latent).sum(axis=(1, 2, 3, 4)) for latent in latents]).sum(0)
