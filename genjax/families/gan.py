"""Generative adversarial networks: a generator and a discriminator with any loss, penalty and condition."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from genjax.config import component, require
from genjax.families import stateful
from genjax.families.adversarial import (
    GOODFELLOW_2014,
    AdversarialLoss,
    NonSaturating,
    gradient_penalty,
    squared_gradient,
)
from genjax.families.base import Aux, Batch, DataSpec, Extra, Keys, Params, Phase, State, check_data, conditions
from genjax.registry import register
from genjax.sampling import sample_keys

GENERATOR, DISCRIMINATOR = "generator", "discriminator"  # the roles
KEPT = "_state"  # of a role, its variables in `extra`
PRIORS = ("normal", "uniform")


def check_condition(condition: tuple[str, ...], generator: Any, discriminator: Any) -> None:
    """Raises ValueError unless the condition is () or ("label",), and both networks know classes in the latter case."""
    require(condition in ((), ("label",)), f"condition = {condition}: must be () or ('label',)")
    for role, network in ((GENERATOR, generator), (DISCRIMINATOR, discriminator)):
        require(
            bool(condition) == (network.num_classes is not None),
            f"{role}.num_classes = {network.num_classes}, but condition = {condition}",
        )


@register("family", "gan")
@dataclasses.dataclass(frozen=True)
class GAN:
    """Generative adversarial network with any adversarial loss (Goodfellow et al. 2014, algorithm 1).

    The discriminator sees real and generated examples in two batches, so that batch normalization cannot mix them.
    Penalties are for discriminators without batch normalization: each takes the gradient of one logit by its example.

    The discriminator's phase measures the mean logits, `real` and `fake`, and as `accuracy` the share of pairs whose
    real example has the higher one; 0.5 is a discriminator that knows nothing, whatever the loss. With a penalty there
    is `input_grad_norm`, the mean norm of the gradient by the input: at interpolates with `gradient_penalty`, else at
    the real examples (or the generated ones, with `r2` alone).

    Running statistics of the generator's batch normalization are those of the weights that generate. Where these are
    averaged, one more pass through the averaged generator a step measures them: the statistics of the weights in
    training are not the average's.

    With `training.accumulate` batch normalization has the statistics of a part of the batch, as on a batch of its size,
    and each part updates the running ones; the power iteration of spectral normalization takes a step a part.

    Attributes:
        generator: from latents [B, latent] and the condition to images.
        discriminator: from images and the condition to logits [B], or [B, h, w] of patches, whose mean loss counts.
        latent: dimensions of the latent.
        prior: of each: "normal" N(0, 1) or "uniform" on [-1, 1].
        loss: what the two minimize.
        gradient_penalty: weight of `(|grad D| - 1)^2` on interpolates, lambda of Gulrajani et al. 2017, eq. 3.
        r1: gamma of the zero-centred penalty `gamma / 2 |grad D|^2` at real examples (Mescheder et al. 2018).
        r2: gamma of that at generated ones.
        penalty_every: 1 adds the penalties to the discriminator's loss. k has a phase of their own take one update
            every k steps, with their weights times k: lazy regularization (Karras et al. 2020, section 3.1, which also
            changes the optimizer: see `StyleGAN2`).
        critic_steps: updates of the discriminator in a step, each on a batch of its own.
        condition: ("label",) for a class-conditional model.
    """

    generator: Any = component("generator")
    discriminator: Any = component("discriminator")
    latent: int = 100
    prior: str = "normal"
    loss: AdversarialLoss = component("adversarial_loss", NonSaturating())
    gradient_penalty: float = 0.0
    r1: float = 0.0
    r2: float = 0.0
    penalty_every: int = 1
    critic_steps: int = 1
    condition: tuple[str, ...] = ()
    reference: ClassVar[str] = GOODFELLOW_2014

    def __post_init__(self) -> None:
        require(self.latent >= 1, f"latent = {self.latent}: must be at least 1")
        require(self.prior in PRIORS, f"prior = {self.prior!r}: must be 'normal' or 'uniform'")
        for name in ("gradient_penalty", "r1", "r2"):
            require(getattr(self, name) >= 0, f"{name} = {getattr(self, name)}: must be at least 0")
        require(self.penalty_every >= 1, f"penalty_every = {self.penalty_every}: must be at least 1")
        require(self.critic_steps >= 1, f"critic_steps = {self.critic_steps}: must be at least 1")
        require(
            self.penalized or self.penalty_every == 1,
            f"penalty_every = {self.penalty_every}: there is no gradient_penalty, r1 or r2",
        )
        require(
            not self.penalized or getattr(self.discriminator, "norm", None) != "batch",
            "discriminator.norm = 'batch': with gradient_penalty, r1 or r2 a logit must not depend on other examples",
        )
        check_condition(self.condition, self.generator, self.discriminator)
        self.discriminator.check(self.image_shape)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C), the generator's."""
        return self.generator.image_shape

    @property
    def penalized(self) -> bool:
        """Whether there is any gradient penalty."""
        return max(self.gradient_penalty, self.r1, self.r2) > 0

    def check(self, spec: DataSpec) -> None:
        """Raises ValueError where the data do not fit the model; compiles nothing."""
        classes = {GENERATOR: self.generator.num_classes, DISCRIMINATOR: self.discriminator.num_classes}
        check_data(spec, self.image_shape, self.condition, classes)

    def init(self, key: Array, spec: DataSpec) -> tuple[dict[str, Params], Extra]:
        """Returns the parameters of both roles, and their other variables as "generator_state" and so on."""
        key_g, key_d = jax.random.split(key)
        cond = {name: jnp.zeros((1,), jnp.int32) for name in self.condition} or None
        generator, kept_g = stateful.init(self.generator, key_g, jnp.zeros((1, self.latent)), cond)
        discriminator, kept_d = stateful.init(self.discriminator, key_d, jnp.zeros((1, *self.image_shape)), cond)
        return (
            {GENERATOR: generator, DISCRIMINATOR: discriminator},
            {GENERATOR + KEPT: kept_g, DISCRIMINATOR + KEPT: kept_d},
        )

    def phases(self) -> tuple[Phase, ...]:
        """Returns the discriminator's phase, that of lazy penalties where there are any, and the generator's."""
        lazy = (Phase("penalty", DISCRIMINATOR, self._lazy_loss, every=self.penalty_every),)
        return (
            Phase("discriminator", DISCRIMINATOR, self._discriminator_loss, repeat=self.critic_steps),
            *(lazy if self.penalty_every > 1 else ()),
            Phase("generator", GENERATOR, self._generator_loss),
        )

    def latents(self, keys: Array) -> Array:
        """Returns latents [B, latent] from the prior, of one key an example [B]."""
        draw = jax.random.normal if self.prior == "normal" else lambda k, s: jax.random.uniform(k, s, minval=-1.0)
        return jax.vmap(lambda key: draw(key, (self.latent,)))(keys)

    def decode(self, params: dict[str, Params], z: Array, cond: Any = None) -> Array:
        """Returns the images [B, H, W, C] of latents [B, latent], by running statistics; `params` as in `generate`."""
        return stateful.apply(
            self.generator, params[GENERATOR], params[GENERATOR + KEPT], z, conditions(cond, self.condition)
        )

    def generate(self, params: dict[str, Params], key: Array, n: int, cond: Any = None) -> Array:
        """Returns n images [n, H, W, C]."""
        return self.decode(params, self.latents(sample_keys(key, n)), cond)

    def evaluate(self, params: dict[str, Params], batch: Batch, key: Array) -> dict[str, Array]:
        """Returns nothing: the model has no likelihood, and the losses of a game say little of the images."""
        return {}

    def pictures(self, params: dict[str, Params], batch: Batch, key: Array) -> dict[str, Array]:
        """Returns `interpolations` [8, 10, H, W, C] between latents of the prior, a row for each pair.

        Of a normal prior they go along `cos(a) z_0 + sin(a) z_1`, which is normal everywhere on the way.
        """
        rows, columns = 8, 10
        z = self.latents(sample_keys(key, 2 * rows)).reshape(2, rows, 1, self.latent)
        share = jnp.linspace(0.0, 1.0, columns).reshape(1, columns, 1)
        angle = share * jnp.pi / 2
        first, second = (jnp.cos(angle), jnp.sin(angle)) if self.prior == "normal" else (1.0 - share, share)
        path = (first * z[0] + second * z[1]).reshape(rows * columns, self.latent)
        cond = {name: jnp.repeat(jnp.resize(batch[name], (rows,)), columns) for name in self.condition}
        return {"interpolations": self.decode(params, path, cond).reshape(rows, columns, *self.image_shape)}

    def _fake(self, state: State, keys: Keys, cond: Any) -> Array:
        """Generated examples as a discriminator in training sees them."""
        generator, kept = state.params[GENERATOR], state.extra[GENERATOR + KEPT]
        return stateful.train(self.generator, generator, kept, self.latents(keys.each), cond)[0]

    def _critic(self, params: Params, state: State, cond: Any) -> Callable[[Array], tuple[Array, Any]]:
        """From examples to their logits and the discriminator's other variables."""
        kept = state.extra[DISCRIMINATOR + KEPT]
        return lambda x: stateful.train(self.discriminator, params, kept, x, cond)

    def _discriminator_loss(self, params: Params, state: State, batch: Batch, keys: Keys) -> tuple[Array, Aux]:
        keys_fake, keys_penalty = keys.split(2)
        cond = conditions(batch, self.condition)
        fake, critic = self._fake(state, keys_fake, cond), self._critic(params, state, cond)
        (real_logits, kept_real), (fake_logits, kept_fake) = critic(batch["image"]), critic(fake)
        loss = self.loss.discriminator(real_logits, fake_logits).mean()
        metrics = {
            "real": real_logits.mean(),
            "fake": fake_logits.mean(),
            "accuracy": jnp.mean(real_logits > fake_logits, dtype=jnp.float32),
        }
        if self.penalized and self.penalty_every == 1:
            penalties, measured = self._penalties(critic, batch["image"], fake, keys_penalty)
            loss, metrics = loss + penalties.mean(), metrics | measured
        # Of running statistics the mean of both halves; vectors of spectral normalization are the same in both.
        kept = jax.tree.map(lambda a, b: 0.5 * (a + b), kept_real, kept_fake)
        return loss, Aux(metrics, {**state.extra, DISCRIMINATOR + KEPT: kept})

    def _lazy_loss(self, params: Params, state: State, batch: Batch, keys: Keys) -> tuple[Array, Aux]:
        keys_fake, keys_penalty = keys.split(2)
        cond = conditions(batch, self.condition)
        fake, critic = self._fake(state, keys_fake, cond), self._critic(params, state, cond)
        penalties, metrics = self._penalties(critic, batch["image"], fake, keys_penalty)
        return self.penalty_every * penalties.mean(), Aux(metrics)

    def _penalties(
        self, critic: Callable[[Array], tuple[Array, Any]], real: Array, fake: Array, keys: Keys
    ) -> tuple[Array, dict[str, Array]]:
        """The weighted sum of the penalties of each example [B], and their metrics."""
        logits = lambda x: critic(x)[0]  # noqa: E731
        total, metrics, norm = jnp.zeros(len(real)), {}, None
        if self.gradient_penalty:
            penalty, norm = gradient_penalty(logits, real, fake, keys)
            total, metrics["gradient_penalty"] = total + self.gradient_penalty * penalty, penalty.mean()
        for name, x in (("r1", real), ("r2", fake)):
            if gamma := getattr(self, name):
                square = squared_gradient(logits, x)
                total, metrics[name] = total + 0.5 * gamma * square, square.mean()
                norm = jnp.sqrt(square) if norm is None else norm
        assert norm is not None
        return total, metrics | {"input_grad_norm": norm.mean()}

    def _generator_loss(self, params: Params, state: State, batch: Batch, keys: Keys) -> tuple[Array, Aux]:
        cond, z, kept = conditions(batch, self.condition), self.latents(keys.each), state.extra[GENERATOR + KEPT]
        fake, after = stateful.train(self.generator, params, kept, z, cond)
        critic = self._critic(state.params[DISCRIMINATOR], state, cond)
        losses = self.loss.generator(critic(batch["image"])[0], critic(fake)[0])
        if kept and GENERATOR in state.ema:
            _, after = stateful.train(self.generator, state.ema[GENERATOR], kept, z, cond)
        return losses.mean(), Aux({}, {**state.extra, GENERATOR + KEPT: after})
