"""Vector-quantized autoencoders: a code of an image is a map of entries of a codebook."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from genjax.config import component, require
from genjax.families import codebook
from genjax.families.base import Aux, Batch, DataSpec, Extra, Keys, Params, Phase, State, check_data, check_image_shape
from genjax.families.coded import COLUMNS, MODEL, mean_square
from genjax.registry import register
from genjax.sampling import sample_keys

CODEBOOK = "codebook"  # in `extra`, see `genjax.families.codebook`
FREQUENCIES = "frequencies"  # in `extra`: how often each code stands at each place, [h, w, P, K]


@register("family", "vq_vae")
@dataclasses.dataclass(frozen=True)
class VQVAE:
    """Autoencoder whose latents are entries of a codebook, which follows them (van den Oord et al. 2017).

    The loss is `mse / variance + commitment |z - sg(e)|^2`, both means, with e the code nearest to the encoder's output
    z; gradients go from the decoder's input straight to z (eq. 3, section 3.2). The codebook has no gradient: it is
    `extra["codebook"]`, updated by moving averages in every loss (appendix A.1), over the whole batch however it is
    spread over devices. With `training.accumulate` each part of a batch updates it in turn, and is quantized by what
    the parts before it left. It fits the weights of now, so there should be no average of those: `ema=dict(decay={})`.

    Training measures `mse`, `commitment`, `perplexity` (of the codes' frequencies in the batch, at most their number)
    and `codes_used`, the share of the codes that stand in the batch.

    A model of the codes is a second model's business. `generate` draws each place of the map by itself, from how often
    each code has stood there (a moving average in `extra`): decoded, that is texture without form.

    Attributes:
        image_shape: (H, W, C).
        encoder: from images to maps [B, h, w, features].
        decoder: from maps to images.
        codes: entries of the codebook, K.
        latent: dimensions of a code.
        per_place: codes at a place of the map, of one codebook.
        commitment: weight of the encoder's distance from its codes, beta.
        variance: that of the data's pixels, in units of which the square error counts; 1 leaves it as it is.
        decay: of all moving averages, gamma.
        epsilon: of the smoothing of counts.
        dead_below: a code with a moving count of encoder's outputs a batch below it is replaced by one of those.
    """

    image_shape: tuple[int, int, int]
    encoder: Any = component("spatial_encoder")
    decoder: Any = component("spatial_decoder")
    codes: int = 512
    latent: int = 64
    per_place: int = 1
    commitment: float = 0.25
    variance: float = 1.0
    decay: float = 0.99
    epsilon: float = 1e-5
    dead_below: float = 0.1
    condition: ClassVar[tuple[str, ...]] = ()
    reference: ClassVar[str] = "vandenoord2017neural"

    def __post_init__(self) -> None:
        check_image_shape(self.image_shape)
        for name in ("codes", "latent", "per_place"):
            require(getattr(self, name) >= 1, f"{name} = {getattr(self, name)}: must be at least 1")
        for name in ("commitment", "epsilon"):
            require(getattr(self, name) >= 0, f"{name} = {getattr(self, name)}: must be at least 0")
        require(self.variance > 0, f"variance = {self.variance}: must be positive")
        require(0 <= self.decay < 1, f"decay = {self.decay}: must be in [0, 1)")
        require(0 <= self.dead_below < 1, f"dead_below = {self.dead_below}: must be in [0, 1), as new codes count 1")
        self.encoder.check(self.image_shape)
        self.decoder.check(self.image_shape)

    def check(self, spec: DataSpec) -> None:
        """Raises ValueError where the data do not fit the model; compiles nothing."""
        check_data(spec, self.image_shape)
        params = jax.eval_shape(lambda key: self.init(key, spec)[0][MODEL], jax.random.key(0))
        x = jax.ShapeDtypeStruct((1, *self.image_shape), jnp.float32)
        output = jax.eval_shape(lambda model, x: self._decode(model, self._latents(model, x)), params, x)
        require(
            output.shape == x.shape,
            f"the decoder makes {output.shape[1:]} of what the encoder makes of images {self.image_shape}",
        )

    def init(self, key: Array, spec: DataSpec) -> tuple[dict[str, Params], Extra]:
        """Returns the initial parameters of the role "model", the codebook, and frequencies that are all the same."""
        key_encoder, key_decoder, key_codes = jax.random.split(key, 3)
        x = jnp.zeros((1, *self.image_shape))
        encoder = self._encoder.init(key_encoder, x)["params"]
        shape = jax.eval_shape(lambda: self._latents({"encoder": encoder}, x)).shape[1:]
        maps = jnp.zeros((1, *shape[:2], self._features))
        model = {"encoder": encoder, "decoder": self._decoder.init(key_decoder, maps)["params"]}
        codes = codebook.init(key_codes, self.codes, self.latent)
        return {MODEL: model}, {
            CODEBOOK: codes,
            FREQUENCIES: jnp.full((*shape[:-1], self.codes), 1.0 / self.codes),
        }

    def phases(self) -> tuple[Phase, ...]:
        """Returns the one phase, which trains the role "model"."""
        return (Phase("train", MODEL, self._loss),)

    def encode(self, params: dict[str, Params], x: Array) -> Array:
        """Returns the numbers of the codes of images [B, H, W, C], int32 [B, h, w, P]."""
        return codebook.nearest(params[CODEBOOK]["codes"], self._latents(params[MODEL], x))

    def embed(self, params: dict[str, Params], chosen: Array) -> Array:
        """Returns the codes of numbers [B, h, w, P], as a map [B, h, w, P D]."""
        return params[CODEBOOK]["codes"][chosen].reshape(*chosen.shape[:-1], -1)

    def decode(self, params: dict[str, Params], chosen: Array) -> Array:
        """Returns the images [B, H, W, C] of codes by their numbers [B, h, w, P]."""
        return self._decode(params[MODEL], self.embed(params, chosen))

    def generate(self, params: dict[str, Params], key: Array, n: int, cond: None = None) -> Array:
        """Returns n images [n, H, W, C] of codes that are drawn place by place, see the class."""
        logits = jnp.log(params[FREQUENCIES])
        return self.decode(params, jax.vmap(lambda key: jax.random.categorical(key, logits))(sample_keys(key, n)))

    def evaluate(self, params: dict[str, Params], batch: Batch, key: Array) -> dict[str, Array]:
        """Returns `loss` and `mse` of each example [B]."""
        z = self._latents(params[MODEL], batch["image"])
        codes = params[CODEBOOK]["codes"]
        loss, error, _ = self._losses(params[MODEL], batch["image"], z, codes[codebook.nearest(codes, z)])
        return {"loss": loss, "mse": error}

    def pictures(self, params: dict[str, Params], batch: Batch, key: Array) -> dict[str, Array]:
        """Returns `reconstructions` [2, columns, H, W, C]: images, and what is decoded of their codes."""
        x = batch["image"][:COLUMNS]
        return {"reconstructions": jnp.stack([x, self.decode(params, self.encode(params, x))])}

    @property
    def _features(self) -> int:
        return self.latent * self.per_place

    @property
    def _encoder(self) -> Any:
        return self.encoder.clone(features=self._features)

    @property
    def _decoder(self) -> Any:
        return self.decoder.clone(channels=self.image_shape[-1])

    def _latents(self, model: Params, x: Array) -> Array:
        """The encoder's output [B, h, w, P, D]."""
        z = self._encoder.apply({"params": model["encoder"]}, x)
        return z.reshape(*z.shape[:3], self.per_place, self.latent)

    def _decode(self, model: Params, z: Array) -> Array:
        """The images of maps [B, h, w, P D] or [B, h, w, P, D]."""
        return self._decoder.apply({"params": model["decoder"]}, z.reshape(*z.shape[:3], -1))

    def _losses(self, model: Params, x: Array, z: Array, codes: Array) -> tuple[Array, Array, Array]:
        """The loss, the square error of the pixels and that of the latents from their codes, each [B]."""
        error = mean_square(self._decode(model, straight_through(z, codes)) - x)
        commitment = mean_square(z - jax.lax.stop_gradient(codes))
        return error / self.variance + self.commitment * commitment, error, commitment

    def _loss(self, params: Params, state: State, batch: Batch, keys: Keys) -> tuple[Array, Aux]:
        z, book = self._latents(params, batch["image"]), state.extra[CODEBOOK]
        chosen = codebook.nearest(book["codes"], z)
        loss, error, commitment = self._losses(params, batch["image"], z, book["codes"][chosen])
        book = codebook.update(
            book,
            jax.lax.stop_gradient(z).reshape(-1, self.latent),
            chosen.reshape(-1),
            keys.shared,
            decay=self.decay,
            epsilon=self.epsilon,
            dead_below=self.dead_below,
        )
        here = jax.nn.one_hot(chosen, self.codes).mean(0)
        frequencies = self.decay * state.extra[FREQUENCIES] + (1.0 - self.decay) * here
        perplexity, used = codebook.usage(chosen, self.codes)
        metrics = {
            "mse": error.mean(),
            "commitment": commitment.mean(),
            "perplexity": perplexity,
            "codes_used": used,
        }
        return loss.mean(), Aux(metrics, {**state.extra, CODEBOOK: book, FREQUENCIES: frequencies})


def straight_through(z: Array, codes: Array) -> Array:
    """Returns the codes, with the gradient of z (van den Oord et al. 2017, section 3.2)."""
    return z + jax.lax.stop_gradient(codes - z)
