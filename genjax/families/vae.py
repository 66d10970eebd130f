"""Variational autoencoders: one vector of latents, normal or with a flow, and any objective."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from genjax import bijectors
from genjax.config import component, require
from genjax.families import normal
from genjax.families.base import Aux, Batch, DataSpec, Extra, Keys, Params, Phase, State, conditions
from genjax.families.coded import COLUMNS, MODEL, Coded, mean_square, repeated
from genjax.families.likelihoods import KINGMA_2014, Likelihood, bits_per_dim
from genjax.families.objectives import ELBO, Objective, Terms, iwae_bound
from genjax.registry import register
from genjax.sampling import sample_keys

ACTIVE = 0.01  # variance of E[z | x] over x above which Burda et al. 2016, section 5.3, call a latent active
TRAVERSED = 3.0  # how far from 0 traversals go, in standard deviations of the prior
OUTPUTS = ("mean", "sample")


class Posterior(NamedTuple):
    """q(z | x) of a batch.

    Attributes:
        mean: [B, D].
        log_std: [B, D].
        flow: parameters of the flow after it, one set an example, or None.
    """

    mean: Array
    log_std: Array
    flow: Any


class Draw(NamedTuple):
    """Codes z [B, k, D] with log q(z | x) and log p(z) [B, k]."""

    z: Array
    log_q: Array
    log_prior: Array


@register("family", "vae")
@dataclasses.dataclass(frozen=True)
class VAE(Coded):
    """Variational autoencoder with the prior N(0, I) (Kingma & Welling 2014).

    The posterior is N(mean(x), diag(std(x)^2)), or what a flow makes of that. The encoder gives the flow's parameters,
    for each example its own (Rezende & Mohamed 2015, eq. 13).

    Training measures, as means over the batch: `elbo`, `kl`, `reconstruction` (minus the log-likelihood, nats), and
    `active_units`, the latents whose E[z | x] varies over the batch by more than 0.01; see `active_units` for all data.

    Attributes:
        image_shape: (H, W, C).
        encoder: from images to the posterior's parameters.
        decoder: from a code to the parameters of the likelihood.
        latent: dimensions of the code.
        likelihood: of an image given the decoder's output.
        objective: what is minimized.
        flow: a bijector on codes such as dict(name="repeat", layer=dict(name="planar"), times=8); None for none.
        condition: names of the batch's entries that condition both networks: () or ("label",).
        iwae_samples: codes an example for the evaluation's `iwae`, the importance-weighted bound; 0 leaves it out.
        output: what `generate` returns of a code: the likelihood's "mean", or a "sample".
    """

    objective: Objective = component("objective", ELBO())
    flow: Any = component("bijector", None)
    condition: tuple[str, ...] = ()
    iwae_samples: int = 0
    output: str = "mean"
    reference: ClassVar[str] = KINGMA_2014

    def __post_init__(self) -> None:
        super().__post_init__()
        require(set(self.condition) <= {"label"}, f"condition = {self.condition}: must be () or ('label',)")
        require(self.iwae_samples >= 0, f"iwae_samples = {self.iwae_samples}: must be at least 0")
        require(self.output in OUTPUTS, f"output = {self.output!r}: must be one of {', '.join(OUTPUTS)}")
        self.features  # noqa: B018  a flow that does not take such codes is found here

    @property
    def features(self) -> int:
        """Width of the encoder's output: means, log standard deviations and the flow's parameters."""
        return 2 * self.latent + (0 if self.flow is None else bijectors.size(self.flow, (self.latent,)))

    def init(self, key: Array, spec: DataSpec) -> tuple[dict[str, Params], Extra]:
        """Returns the initial parameters of the role "model"."""
        key_networks, key_flow = jax.random.split(key)
        params, extra = super().init(key_networks, spec)
        if self.flow is not None:
            params[MODEL]["flow"] = self.flow.init(key_flow, (self.latent,))
        return params, extra

    def phases(self) -> tuple[Phase, ...]:
        """Returns the one phase, which trains the role "model"."""
        return (Phase("train", MODEL, self._loss),)

    def posterior(self, model: Params, x: Array, cond: Any = None) -> Posterior:
        """Returns q(z | x) of images [B, H, W, C]."""
        cuts = (self.latent, 2 * self.latent)
        mean, log_std, flat = jnp.split(self.encode(model, x, cond), cuts, axis=-1)
        if self.flow is None:
            return Posterior(mean, log_std, None)
        return Posterior(mean, log_std, bijectors.unflatten(self.flow, (self.latent,), flat, model["flow"]))

    def draw(self, posterior: Posterior, keys: Array, samples: int) -> Draw:
        """Draws codes from the posterior, with one key an example [B]."""
        noise = jax.vmap(lambda key: jax.random.normal(key, (samples, self.latent)))(keys)
        z = posterior.mean[:, None] + jnp.exp(posterior.log_std)[:, None] * noise
        log_q = normal.log_density(noise).sum(-1) - posterior.log_std.sum(-1)[:, None]
        if self.flow is not None:
            z, log_det = jax.vmap(
                lambda z: bijectors.forward_each(self.flow, posterior.flow, z), in_axes=1, out_axes=1
            )(z)
            log_q -= log_det
        return Draw(z, log_q, normal.log_density(z).sum(-1))

    def terms(self, model: Params, x: Array, posterior: Posterior, keys: Array, samples: int, cond: Any) -> Terms:
        """Returns the terms of the bounds for images [B, H, W, C], from `samples` codes an example."""
        drawn = self.draw(posterior, keys, samples)
        output = self.decode(model, drawn.z.reshape(len(x) * samples, -1), repeated(cond, samples))
        log_likelihood = self.likelihood.bind(model["likelihood"]).log_prob(output, repeated(x, samples))
        if self.flow is None:
            kl = normal.divergence(posterior.mean, posterior.log_std)
        else:
            kl = (drawn.log_q - drawn.log_prior).mean(-1, keepdims=True)
        return Terms(log_likelihood.reshape(len(x), samples), kl, drawn.log_prior - drawn.log_q)

    def code(self, model: Params, x: Array, cond: Any = None) -> Array:
        """Returns one code an image [B, latent]: E[z | x]; with a flow, what it makes of the normal's mean."""
        posterior = self.posterior(model, x, cond)
        if self.flow is None:
            return posterior.mean
        return bijectors.forward_each(self.flow, posterior.flow, posterior.mean)[0]

    def generate(self, params: dict[str, Params], key: Array, n: int, cond: Any = None) -> Array:
        """Returns n images [n, H, W, C] of codes from the prior."""
        keys = jax.vmap(jax.random.split)(sample_keys(key, n))
        z = jax.vmap(lambda key: jax.random.normal(key, (self.latent,)))(keys[:, 0])
        output = self.decode(params[MODEL], z, conditions(cond, self.condition))
        likelihood = self.likelihood.bind(params[MODEL]["likelihood"])
        return likelihood.mean(output) if self.output == "mean" else likelihood.sample(keys[:, 1], output)

    def evaluate(self, params: dict[str, Params], batch: Batch, key: Array) -> dict[str, Array]:
        """Returns figures [B]: `elbo`, `loss` (minus it), `kl`, `mse`; `iwae`; and bits/dim.

        The bounds are in nats, and of the images that the likelihood observes, such as binarized ones. The ELBO has
        weight 1 of the divergence, whatever the objective. `elbo_bpd` and `iwae_bpd` are there where the likelihood is
        one of 8-bit values; `mse` is of the decoded mean code.
        """
        model, cond = params[MODEL], conditions(batch, self.condition)
        keys_observe, keys_draw = Keys.of(key, len(batch["image"])).split(2)
        x = self.likelihood.observe(keys_observe.each, batch["image"])
        posterior = self.posterior(model, x, cond)

        def one(i: Array) -> Terms:
            keys = jax.vmap(jax.random.fold_in, (0, None))(keys_draw.each, i)
            return self.terms(model, x, posterior, keys, 1, cond)

        # One code after another: in memory there is one batch of decoded images, however many codes.
        terms = jax.lax.map(one, jnp.arange(max(self.iwae_samples, 1)))
        shown = self.shown(model, self.code(model, x, cond), cond)
        return figures(terms, x, self.likelihood, self.iwae_samples > 0) | {"mse": mean_square(shown - x)}

    def pictures(self, params: dict[str, Params], batch: Batch, key: Array) -> dict[str, Array]:
        """Returns sheets [rows, columns, H, W, C] in [-1, 1].

        `reconstructions`: images, and their mean codes decoded. `interpolations`: from one image to another on straight
        lines between mean codes. `traversals`: a latent a row, those with the largest variance of E[z | x] over the
        batch, at most 10; it goes from -3 to 3 while the others stay those of the first image.
        """
        model, cond = params[MODEL], conditions(batch, self.condition)
        x = self.likelihood.observe(Keys.of(key, len(batch["image"])).each, batch["image"])
        codes = self.code(model, x, cond)
        head = jax.tree.map(lambda leaf: leaf[:COLUMNS], cond)
        shown = self.shown(model, codes[:COLUMNS], head)

        latents = jnp.argsort(-codes.var(0))[:10]
        values = jnp.linspace(-TRAVERSED, TRAVERSED, COLUMNS)
        table = jnp.broadcast_to(codes[0], (len(latents), COLUMNS, self.latent))
        table = table.at[jnp.arange(len(latents))[:, None], jnp.arange(COLUMNS)[None], latents[:, None]].set(
            values[None]
        )
        first = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[:1], (len(latents), *leaf.shape[1:])), cond)
        return {
            "reconstructions": jnp.stack([x[:COLUMNS], shown]),
            "interpolations": self.interpolations(model, codes[:COLUMNS], head),
            "traversals": self.sheet(model, table, first),
        }

    def _loss(self, params: Params, state: State, batch: Batch, keys: Keys) -> tuple[Array, Aux]:
        keys_observe, keys_draw = keys.split(2)
        cond = conditions(batch, self.condition)
        x = self.likelihood.observe(keys_observe.each, batch["image"])
        posterior = self.posterior(params, x, cond)
        terms = self.terms(params, x, posterior, keys_draw.each, self.objective.samples, cond)
        log_likelihood, kl = terms.log_likelihood.mean(), terms.kl.sum(-1).mean()
        metrics = {
            "elbo": log_likelihood - kl,
            "kl": kl,
            "reconstruction": -log_likelihood,
            "active_units": active_units(posterior.mean).astype(jnp.float32),
        }
        return self.objective(terms, state.step), Aux(metrics)


def figures(terms: Terms, x: Array, likelihood: Likelihood, iwae: bool) -> dict[str, Array]:
    """Returns the bounds of a VAE by name, [B] each: `loss`, `elbo`, `kl`, `iwae`, and bits/dim where these mean some.

    Args:
        terms: of codes that were drawn one after another, each array with a leading axis [codes, B, ...].
        x: the images [B, H, W, C], as the likelihood observes them.
        likelihood: of the model.
        iwae: whether the importance-weighted bound is wanted.
    """
    kl = terms.kl.sum(-1).mean(0)
    elbo = terms.log_likelihood[..., 0].mean(0) - kl
    bounds = {"elbo": elbo}
    if iwae:
        bounds["iwae"] = iwae_bound((terms.log_likelihood + terms.log_ratio)[..., 0].T)
    bits = {f"{name}_bpd": bits_per_dim(value, x) for name, value in bounds.items()} if likelihood.discrete else {}
    return {"loss": -elbo, "kl": kl, **bounds, **bits}


def active_units(codes: Array) -> Array:
    """Returns how many latents are active: Cov_x(E[z | x]) > 0.01 (Burda et al. 2016, section 5.3).

    Args:
        codes: E[z | x] of many images [N, D], such as `VAE.code` gives.

    Returns:
        [] int32.
    """
    return (codes.var(0) > ACTIVE).sum()
