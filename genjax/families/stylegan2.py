"""StyleGAN2: a style-based GAN with lazy regularization and adaptive augmentation."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from genjax.citation import bibtex
from genjax.config import component, require, section
from genjax.families.adversarial import AdversarialLoss, NonSaturating, squared_gradient
from genjax.families.augmentation import Augmentation
from genjax.families.base import Aux, Batch, DataSpec, Extra, Keys, Params, Phase, State, check_data, conditions
from genjax.families.gan import DISCRIMINATOR, GENERATOR, check_condition
from genjax.registry import register
from genjax.sampling import sample_keys
from genjax.sampling.keys import normal_like

KARRAS_2020 = bibtex("""
@inproceedings{karras2020analyzing,
  title = {Analyzing and Improving the Image Quality of {StyleGAN}},
  author = {Karras, Tero and Laine, Samuli and Aittala, Miika and Hellsten, Janne and Lehtinen, Jaakko and Aila, Timo},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2020}
}""")


@register("family", "stylegan2")
@dataclasses.dataclass(frozen=True)
class StyleGAN2:
    """Style-based GAN with lazy regularization and adaptive augmentation (Karras et al. 2020, 2020a).

    Four phases: `discriminator`, `r1` of the discriminator, `generator` and `path_length` of the generator. The two
    regularizers run in every k-th step with k times their weight. With it belongs a change of the optimizer, which is
    the config's: of Adam with learning rate l and betas b, take l c and b^c with c = k / (k + 1) (section 3.1).

    A penalty of weight 0 has no phase. In training every image draws its latents, noise and place of mixing by itself;
    the published code has one place of mixing a batch.

    With `training.accumulate` each part of a batch updates the running means below, and the discriminator measures
    standard deviations within a part.

    `extra` keeps `w_mean`, the running mean of the styles; `path_mean`, that of the path lengths; and `augmentation`,
    its strength, where there is one. The discriminator's phase measures its mean logits as `real` and `fake`, the mean
    sign on real images as `sign`, and the probability of augmentation as `p`; the others `penalty` and `path_length`.

    Attributes:
        generator: with the methods `map` and `synthesize` of `genjax.networks.stylegan2.StyleGAN2Generator`.
        discriminator: from images and the condition to logits [B].
        latent: dimensions of the latent, which is standard normal.
        loss: what the two minimize.
        r1: gamma of the penalty `gamma / 2 |grad D|^2` at real images, which are augmented after the point that it is
            taken at, as in the published code.
        r1_every: steps from one to the next.
        path_weight: of the path length penalty (eq. 4), of images whose noise has variance 1 / (H W) a pixel.
        path_every: steps from one to the next.
        path_shrink: it is taken of the first of this many parts of a batch, to save memory.
        path_momentum: of the mean path length, what stays of it each time.
        mixing: probability that an image has the styles of a second latent from some layer on.
        w_momentum: of the mean style, what stays of it each step.
        truncation: psi; generated styles are `w_mean + psi (w - w_mean)` (Karras et al. 2019, appendix B).
        augmentation: of what the discriminator sees, or None.
        condition: ("label",) for a class-conditional model; generated images then have the labels of the batch.
    """

    generator: Any = component("generator")
    discriminator: Any = component("discriminator")
    latent: int = 512
    loss: AdversarialLoss = component("adversarial_loss", NonSaturating())
    r1: float = 10.0
    r1_every: int = 16
    path_weight: float = 2.0
    path_every: int = 4
    path_shrink: int = 2
    path_momentum: float = 0.99
    mixing: float = 0.9
    w_momentum: float = 0.995
    truncation: float = 1.0
    augmentation: Augmentation | None = section(Augmentation, None)
    condition: tuple[str, ...] = ()
    reference: ClassVar[str] = KARRAS_2020

    def __post_init__(self) -> None:
        for name in ("latent", "r1_every", "path_every", "path_shrink"):
            require(getattr(self, name) >= 1, f"{name} = {getattr(self, name)}: must be at least 1")
        for name in ("r1", "path_weight"):
            require(getattr(self, name) >= 0, f"{name} = {getattr(self, name)}: must be at least 0")
        for name in ("path_momentum", "w_momentum"):
            require(0 <= getattr(self, name) < 1, f"{name} = {getattr(self, name)}: must be in [0, 1)")
        require(0 <= self.mixing <= 1, f"mixing = {self.mixing}: must be in [0, 1]")
        require(
            hasattr(self.generator, "num_styles"), "generator: needs a mapping and a synthesis, such as stylegan2 has"
        )
        norm = getattr(self.discriminator, "norm", None)
        require(
            norm not in ("batch", "spectral"),
            f"discriminator.norm = {norm!r}: keeps variables beside its parameters, as only the family gan can",
        )
        check_condition(self.condition, self.generator, self.discriminator)
        self.discriminator.check(self.image_shape)
        if self.augmentation is not None:
            self.augmentation.check(self.image_shape)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C), the generator's."""
        return self.generator.image_shape

    def check(self, spec: DataSpec) -> None:
        """Raises ValueError where the data do not fit the model; compiles nothing."""
        classes = {GENERATOR: self.generator.num_classes, DISCRIMINATOR: self.discriminator.num_classes}
        check_data(spec, self.image_shape, self.condition, classes)

    def init(self, key: Array, spec: DataSpec) -> tuple[dict[str, Params], Extra]:
        """Returns the parameters of "generator" and "discriminator", and what `extra` keeps."""
        key_g, key_d = jax.random.split(key)
        cond = {name: jnp.zeros((1,), jnp.int32) for name in self.condition} or None
        params = {
            GENERATOR: self.generator.init(key_g, jnp.zeros((1, self.latent)), cond)["params"],
            DISCRIMINATOR: self.discriminator.init(key_d, jnp.zeros((1, *self.image_shape)), cond)["params"],
        }
        extra = {"w_mean": jnp.zeros((self.generator.style,)), "path_mean": jnp.float32(0.0)}
        return params, extra | ({"augmentation": self.augmentation.init()} if self.augmentation else {})

    def phases(self) -> tuple[Phase, ...]:
        """Returns the phases, each regularizer after what it regularizes."""
        r1 = Phase("r1", DISCRIMINATOR, self._r1_loss, every=self.r1_every)
        path_length = Phase("path_length", GENERATOR, self._path_loss, every=self.path_every)
        return (
            Phase("discriminator", DISCRIMINATOR, self._discriminator_loss),
            *((r1,) if self.r1 else ()),
            Phase("generator", GENERATOR, self._generator_loss),
            *((path_length,) if self.path_weight else ()),
        )

    def styles(self, params: dict[str, Params], keys: Array, cond: Any = None) -> Array:
        """Returns truncated styles w [n, d] of latents drawn from one key a sample [n].

        Args:
            params: as in `generate`.
            keys: one key a sample [n].
            cond: as in `generate`.
        """
        w = self._map(params[GENERATOR], keys, conditions(cond, self.condition))
        mean = jnp.broadcast_to(params["w_mean"], w.shape)
        return w if self.truncation == 1.0 else mean + self.truncation * (w - mean)

    def synthesize(self, params: dict[str, Params], styles: Array, keys: Array) -> Array:
        """Returns the images [n, H, W, C] of styles [n, num_styles, d], with noise drawn from one key a sample [n]."""
        return self._synthesize(params[GENERATOR], styles, keys)

    def generate(self, params: dict[str, Params], key: Array, n: int, cond: Any = None) -> Array:
        """Returns n images [n, H, W, C]; of key i come both its latent and its noise."""
        keys = jax.vmap(jax.random.split)(sample_keys(key, n))
        return self.synthesize(params, self._everywhere(self.styles(params, keys[:, 0], cond)), keys[:, 1])

    def evaluate(self, params: dict[str, Params], batch: Batch, key: Array) -> dict[str, Array]:
        """Returns nothing: the model has no likelihood, and the losses of a game say little of the images."""
        return {}

    def pictures(self, params: dict[str, Params], batch: Batch, key: Array) -> dict[str, Array]:
        """Returns sheets of images that share styles, `style_mixing` [8, 10, H, W, C] and `truncation` [8, 10, ...].

        In `style_mixing` the first half of the layers has the style of the row, the others that of the column; the
        noise is that of the row. In `truncation` psi goes from 0 to 1 along a row.
        """
        rows, columns = 8, 10
        keys = sample_keys(key, rows + columns)
        # Classes of the rows alone: a style of another class on top of one would be a picture of neither.
        cond = {name: jnp.resize(batch[name], (rows + columns,)) for name in self.condition} or None
        w = self._map(params[GENERATOR], keys, cond)
        row, column = jnp.repeat(w[:rows], columns, 0), jnp.tile(w[rows:], (rows, 1))
        noise = jnp.repeat(jax.vmap(lambda k: jax.random.fold_in(k, 1))(keys[:rows]), columns)
        psi = jnp.tile(jnp.linspace(0.0, 1.0, columns), rows)[:, None]
        mean = jnp.broadcast_to(params["w_mean"], row.shape)
        half = jnp.full((rows * columns,), self.generator.num_styles // 2)
        sheets = {
            "style_mixing": self.mix(row, column, half),
            "truncation": self._everywhere(mean + psi * (row - mean)),
        }
        shape = (rows, columns, *self.image_shape)
        return {name: self.synthesize(params, styles, noise).reshape(shape) for name, styles in sheets.items()}

    def mix(self, first: Array, second: Array, start: Array) -> Array:
        """Returns styles [n, num_styles, d]: of each the first w [n, d] up to layer `start` [n], then the second."""
        layers = jnp.arange(self.generator.num_styles)
        return jnp.where(layers[None, :, None] < start[:, None, None], first[:, None], second[:, None])

    def _everywhere(self, w: Array) -> Array:
        return jnp.broadcast_to(w[:, None], (len(w), self.generator.num_styles, w.shape[1]))

    def _map(self, params: Params, keys: Array, cond: Any) -> Array:
        z = normal_like(keys, jnp.zeros((len(keys), self.latent)))
        return self.generator.apply({"params": params}, z, cond, method="map")

    def _synthesize(self, params: Params, styles: Array, noise: Array) -> Array:
        return self.generator.apply({"params": params}, styles, noise, method="synthesize")

    def _fake(self, params: Params, keys: list[Keys], cond: Any) -> tuple[Array, Array]:
        """Generated images of training and the first w of each [B, d]; see `_mixed` and `_synthesize`."""
        styles, w = self._mixed(params, keys[0], keys[1], cond)
        return self._synthesize(params, styles, keys[2].each), w

    def _mixed(self, params: Params, latent: Keys, start: Keys, cond: Any) -> tuple[Array, Array]:
        """Styles of training [B, num_styles, d], where some have those of a second latent, and the first w [B, d]."""
        layers = self.generator.num_styles
        if not self.mixing:
            w = self._map(params, latent.each, cond)
            return self._everywhere(w), w

        def first_layer(key: Array) -> Array:
            """Where the second style begins: at any layer but the first, or nowhere."""
            which, where = jax.random.uniform(key, (2,))
            return jnp.where(which < self.mixing, 1 + jnp.floor(where * (layers - 1)), layers)

        z = jax.vmap(lambda key: jax.random.normal(key, (2, self.latent)))(latent.each).reshape(-1, self.latent)
        cond = jax.tree.map(lambda c: jnp.repeat(c, 2), cond)
        w = self.generator.apply({"params": params}, z, cond, method="map").reshape(-1, 2, self.generator.style)
        return self.mix(w[:, 0], w[:, 1], jax.vmap(first_layer)(start.each)), w[:, 0]

    def _critic(self, params: Params, state: State, keys: Keys, cond: Any) -> Callable[[Array], Array]:
        """From images to the logits of these images augmented."""

        def logits(images: Array) -> Array:
            if self.augmentation is not None:
                images = self.augmentation(keys.each, images, state.extra["augmentation"]["p"])
            return self.discriminator.apply({"params": params}, images, cond)

        return logits

    def _discriminator_loss(self, params: Params, state: State, batch: Batch, keys: Keys) -> tuple[Array, Aux]:
        *keys_fake, keys_real_augmented, keys_fake_augmented = keys.split(5)
        cond = conditions(batch, self.condition)
        fake, _ = self._fake(state.params[GENERATOR], keys_fake, cond)
        real_logits = self._critic(params, state, keys_real_augmented, cond)(batch["image"])
        fake_logits = self._critic(params, state, keys_fake_augmented, cond)(fake)
        metrics = {"real": real_logits.mean(), "fake": fake_logits.mean(), "sign": jnp.sign(real_logits).mean()}
        loss = self.loss.discriminator(real_logits, fake_logits).mean()
        if self.augmentation is None:
            return loss, Aux(metrics)
        strength = self.augmentation.adapt(state.extra["augmentation"], jax.lax.stop_gradient(real_logits))
        return loss, Aux(metrics | {"p": strength["p"]}, {**state.extra, "augmentation": strength})

    def _r1_loss(self, params: Params, state: State, batch: Batch, keys: Keys) -> tuple[Array, Aux]:
        critic = self._critic(params, state, keys, conditions(batch, self.condition))
        penalty = squared_gradient(critic, batch["image"]).mean()
        return self.r1_every * 0.5 * self.r1 * penalty, Aux({"penalty": penalty})

    def _generator_loss(self, params: Params, state: State, batch: Batch, keys: Keys) -> tuple[Array, Aux]:
        *keys_fake, keys_augmented = keys.split(4)
        cond = conditions(batch, self.condition)
        fake, w = self._fake(params, keys_fake, cond)
        critic = self._critic(state.params[DISCRIMINATOR], state, keys_augmented, cond)
        logits = critic(fake)
        # Real images are what a relativistic loss compares with; of the others it compiles to nothing.
        loss = self.loss.generator(critic(batch["image"]), logits).mean()
        mean = jax.lax.stop_gradient(w).mean(0)
        w_mean = state.extra["w_mean"] + (1.0 - self.w_momentum) * (mean - state.extra["w_mean"])
        return loss, Aux({}, {**state.extra, "w_mean": w_mean})

    def _path_loss(self, params: Params, state: State, batch: Batch, keys: Keys) -> tuple[Array, Aux]:
        n = max(1, len(batch["image"]) // self.path_shrink)
        latent, start, noise, towards = Keys(keys.shared, keys.each[:n], keys.place[:n]).split(4)
        cond = jax.tree.map(lambda c: c[:n], conditions(batch, self.condition))
        styles, _ = self._mixed(params, latent, start, cond)
        direction = normal_like(towards.each, jnp.zeros((n, *self.image_shape)))
        lengths = path_lengths(lambda styles: self._synthesize(params, styles, noise.each), styles, direction)
        mean = jax.lax.stop_gradient(lengths).mean()
        mean = state.extra["path_mean"] + (1.0 - self.path_momentum) * (mean - state.extra["path_mean"])
        loss = self.path_every * self.path_weight * jnp.square(lengths - mean).mean()
        return loss, Aux({"path_length": lengths.mean()}, {**state.extra, "path_mean": mean})


def path_lengths(synthesize: Callable[[Array], Array], styles: Array, direction: Array) -> Array:
    """Returns `|J^T y|` of each image, with J its Jacobian by the style (Karras et al. 2020, eq. 4 and appendix B).

    Of several styles, one a layer, it is the root of the mean square over the layers, as in the published code.

    Args:
        synthesize: from styles to images, each of its own styles alone.
        styles: [B, layers, d].
        direction: standard normal [B, H, W, C]; y is this over the root of H W.

    Returns:
        [B].
    """
    y = direction / np.sqrt(direction.shape[1] * direction.shape[2])
    gradient = jax.grad(lambda styles: jnp.sum(synthesize(styles) * y))(styles)
    # The root has no derivative at zero.
    return jnp.sqrt(jnp.maximum(jnp.square(gradient).sum(2).mean(1), 1e-12))
