"""What the families with an encoder and a decoder share: checks, parameters, decoding, pictures of codes."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from genjax.config import component, require
from genjax.families.base import DataSpec, Extra, Params, check_data, check_image_shape
from genjax.families.likelihoods import Gaussian, Likelihood

MODEL = "model"  # the one role: {"encoder": ..., "decoder": ..., "likelihood": ...}
COLUMNS = 10  # examples in a sheet of pictures


@dataclasses.dataclass(frozen=True)
class Coded:
    """An encoder, a decoder and a likelihood around a vector of latents.

    Attributes:
        image_shape: (H, W, C).
        encoder: from images to what is known of their code.
        decoder: from a code to the parameters of the likelihood.
        latent: dimensions of the code.
        likelihood: of an image given the decoder's output.
    """

    image_shape: tuple[int, int, int]
    encoder: Any = component("encoder")
    decoder: Any = component("decoder")
    latent: int = 16
    likelihood: Likelihood = component("likelihood", Gaussian())

    def __post_init__(self) -> None:
        check_image_shape(self.image_shape)
        require(self.latent >= 1, f"latent = {self.latent}: must be at least 1")
        self.encoder.check(self.image_shape)
        self.decoder.check(self.image_shape)

    def check(self, spec: DataSpec) -> None:
        """Raises ValueError where the data do not fit the model; compiles nothing."""
        classes = {"encoder": self.encoder.num_classes, "decoder": self.decoder.num_classes}
        check_data(spec, self.image_shape, self.condition, classes)

    @property
    def condition(self) -> tuple[str, ...]:
        """None; a family that can have conditions has a field of this name."""
        return ()

    @property
    def features(self) -> int:
        """Width of what the encoder returns."""
        return self.latent

    def init(self, key: Array, spec: DataSpec) -> tuple[dict[str, Params], Extra]:
        """Returns the initial parameters of the role "model"."""
        key_encoder, key_decoder = jax.random.split(key)
        cond = {"label": jnp.zeros((1,), jnp.int32)} if self.condition else None
        model = {
            "encoder": self._encoder().init(key_encoder, jnp.zeros((1, *self.image_shape)), cond)["params"],
            "decoder": self._decoder().init(key_decoder, jnp.zeros((1, self.latent)), cond)["params"],
            "likelihood": self.likelihood.init(),
        }
        return {MODEL: model}, {}

    def encode(self, model: Params, x: Array, cond: Any = None) -> Array:
        """Returns the encoder's output [B, features]."""
        return self._encoder().apply({"params": model["encoder"]}, x, cond)

    def decode(self, model: Params, z: Array, cond: Any = None) -> Array:
        """Returns the parameters of the likelihood, [B, H, W, K], for codes [B, latent]."""
        return self._decoder().apply({"params": model["decoder"]}, z, cond)

    def shown(self, model: Params, z: Array, cond: Any = None) -> Array:
        """Returns the expected images [B, H, W, C] of codes [B, latent]."""
        return self.likelihood.bind(model["likelihood"]).mean(self.decode(model, z, cond))

    def _encoder(self) -> Any:
        return self.encoder.clone(features=self.features)

    def _decoder(self) -> Any:
        height, width, channels = self.image_shape
        return self.decoder.clone(shape=(height, width, self.likelihood.channels(channels)))

    def sheet(self, model: Params, codes: Array, cond: Any = None) -> Array:
        """Returns the expected images of a table of codes.

        Args:
            model: the parameters.
            codes: [rows, columns, latent].
            cond: one condition a row [rows], or None.

        Returns:
            [rows, columns, H, W, C].
        """
        rows, columns, _ = codes.shape
        cond = jax.tree.map(lambda leaf: jnp.repeat(leaf, columns, axis=0), cond)
        images = self.shown(model, codes.reshape(rows * columns, -1), cond)
        return images.reshape(rows, columns, *self.image_shape)

    def interpolations(self, model: Params, codes: Array, cond: Any = None) -> Array:
        """Returns images on the straight lines from code 2i to code 2i + 1, [pairs, `COLUMNS`, H, W, C].

        The classes of a conditional model are those of the lines' starts.
        """
        pairs = len(codes) // 2
        starts, ends = codes[: 2 * pairs : 2, None], codes[1 : 2 * pairs : 2, None]
        way = jnp.linspace(0.0, 1.0, COLUMNS)[None, :, None]
        cond = jax.tree.map(lambda leaf: leaf[: 2 * pairs : 2], cond)
        return self.sheet(model, starts + way * (ends - starts), cond)


def repeated(x: Any, times: int) -> Any:
    """Repeats each example of a batch, or of a tree of batches: [B, ...] becomes [B times, ...]."""
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, times, axis=0), x)


def mean_square(x: Array) -> Array:
    """The mean square over all axes but the first, [B]."""
    return jnp.mean(x.reshape(len(x), -1) ** 2, axis=-1)
