"""Likelihoods p(x | output of a decoder): what the families with a decoder share.

Images x are [B, H, W, C] in [-1, 1] (points may leave that range), outputs are [B, H, W, K] with K = `channels(C)`.
Log-densities are in nats, summed over pixels and channels. A likelihood with numbers of its own to learn has them in
`init()`, which the family trains with the rest; `bind(learnt)` is the likelihood at their values, and is what is asked.
"""

import dataclasses
import math
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from genjax.citation import bibtex
from genjax.config import require
from genjax.families import normal
from genjax.registry import register
from genjax.sampling.keys import normal_like

KINGMA_2014 = bibtex(
    """
    @inproceedings{kingma2014auto,
      title = {Auto-Encoding Variational {Bayes}},
      author = {Kingma, Diederik P. and Welling, Max},
      booktitle = {International Conference on Learning Representations},
      year = {2014}
    }
    """
)
SALIMANS_2017 = bibtex(
    """
    @inproceedings{salimans2017pixelcnn,
      title = {{PixelCNN++}: Improving the {PixelCNN} with Discretized Logistic Mixture Likelihood and Other
               Modifications},
      author = {Salimans, Tim and Karpathy, Andrej and Chen, Xi and Kingma, Diederik P.},
      booktitle = {International Conference on Learning Representations},
      year = {2017}
    }
    """
)

MIN_LOG_STD = -6.0
STDS = ("fixed", "scalar", "pixel")
BINARIZATIONS = ("none", "threshold", "stochastic")
HALF_BIN = 1.0 / 255.0  # of 8-bit values in [-1, 1]
LOG_SCALES = (-7.0, 7.0)  # of logistics: far below a bin, far above the range; beyond these, float32 has no gradient


class Bound(Protocol):
    """A likelihood at given values of its own parameters; what a family asks."""

    def log_prob(self, params: Array, x: Array) -> Array:
        """Returns log p(x | params) [B] in nats, for outputs [B, H, W, K] and images [B, H, W, C]."""
        ...

    def mean(self, params: Array) -> Array:
        """Returns E[x | params], [B, H, W, C]."""
        ...

    def sample(self, keys: Array, params: Array) -> Array:
        """Returns draws [B, H, W, C], with one key an example [B]."""
        ...


class Likelihood(Bound, Protocol):
    """The contract of a likelihood.

    Attributes:
        discrete: whether it is one of 8-bit values, so that bits/dim means something.
    """

    @property
    def discrete(self) -> bool:
        """Whether it is a likelihood of 8-bit values."""
        ...

    def channels(self, image_channels: int) -> int:
        """Returns how many channels a decoder's output has for images of so many."""
        ...

    def observe(self, keys: Array, x: Array) -> Array:
        """Returns what the model is a model of, [B, H, W, C], such as binarized images; keys [B]."""
        ...

    def init(self) -> dict[str, Array]:
        """Returns the likelihood's own parameters; {} where it has none."""
        ...

    def bind(self, learnt: dict[str, Array]) -> Bound:
        """Returns the likelihood at the values of its own parameters."""
        ...


def bits_per_dim(log_prob: Array, x: Array) -> Array:
    """Turns log-probabilities of 8-bit images x [B, H, W, C], nats [B], into bits a pixel and channel [B]."""
    return -log_prob / (math.log(2.0) * math.prod(x.shape[1:]))


@dataclasses.dataclass(frozen=True)
class _Plain:
    """What a likelihood without parameters of its own and of images as they are has in common."""

    def observe(self, keys: Array, x: Array) -> Array:
        """Returns x."""
        return x

    def init(self) -> dict[str, Array]:
        """Returns {}."""
        return {}

    def bind(self, learnt: dict[str, Array]) -> Any:
        """Returns itself."""
        return self


@register("likelihood", "gaussian")
@dataclasses.dataclass(frozen=True)
class Gaussian(_Plain):
    """Independent normal pixels, of a fixed or a learnt standard deviation (Kingma & Welling 2014, appendix C.2).

    Attributes:
        std: standard deviation in units of images in [-1, 1]; where it is learnt, its first value.
        learn: "fixed"; "scalar", one number for all pixels, a parameter of the model; "pixel", an output of the decoder
            beside each mean, as log std, softly kept above exp(-6).
    """

    std: float = 1.0
    learn: str = "fixed"
    discrete: ClassVar[bool] = False
    reference: ClassVar[str] = KINGMA_2014

    def __post_init__(self) -> None:
        require(self.std > 0, f"std = {self.std}: must be positive")
        require(self.learn in STDS, f"learn = {self.learn!r}: must be one of {', '.join(STDS)}")

    def channels(self, image_channels: int) -> int:
        """Returns the channels of the means, and of the log standard deviations where the decoder gives them."""
        return image_channels * (2 if self.learn == "pixel" else 1)

    def init(self) -> dict[str, Array]:
        """Returns `log_std` [] where one number is learnt."""
        return {"log_std": jnp.float32(math.log(self.std))} if self.learn == "scalar" else {}

    def bind(self, learnt: dict[str, Array]) -> Bound:
        """Returns the likelihood with the learnt standard deviation."""
        return _Normal(learnt["log_std"]) if self.learn == "scalar" else self

    def log_prob(self, params: Array, x: Array) -> Array:
        """Returns log p(x | params) [B] in nats."""
        return _sum(normal.log_density(x, *self._split(params)))

    def mean(self, params: Array) -> Array:
        """Returns the means [B, H, W, C]."""
        return self._split(params)[0]

    def sample(self, keys: Array, params: Array) -> Array:
        """Returns draws [B, H, W, C]."""
        mean, log_std = self._split(params)
        return mean + jnp.exp(log_std) * normal_like(keys, mean)

    def _split(self, params: Array) -> tuple[Array, Array]:
        """Means and log standard deviations, [B, H, W, C] each."""
        require(self.learn != "scalar", "a learnt scalar std is the model's: ask likelihood.bind(learnt)")
        if self.learn == "fixed":
            return params, jnp.full_like(params, math.log(self.std))
        mean, raw = jnp.split(params, 2, axis=-1)
        return mean, MIN_LOG_STD + jax.nn.softplus(raw + math.log(self.std) - MIN_LOG_STD)


@dataclasses.dataclass(frozen=True)
class _Normal:
    """Normal pixels with one log standard deviation []."""

    log_std: Array

    def log_prob(self, params: Array, x: Array) -> Array:
        return _sum(normal.log_density(x, params, self.log_std))

    def mean(self, params: Array) -> Array:
        return params

    def sample(self, keys: Array, params: Array) -> Array:
        return params + jnp.exp(self.log_std) * normal_like(keys, params)


@register("likelihood", "bernoulli")
@dataclasses.dataclass(frozen=True)
class Bernoulli(_Plain):
    """Independent binary pixels; the output is the logit of white (Kingma & Welling 2014, appendix C.1).

    A grey pixel x in [-1, 1] counts as a soft label (x + 1) / 2: the log-likelihood is then a cross-entropy, no
    log-density, and comparable with that of other models of the same kind alone. Binarized, it is a log-probability of
    the binary image.

    Attributes:
        binarize: "none" takes soft labels; "threshold" sets pixels above 0 to 1 and others to -1; "stochastic" draws
            each pixel anew, white with probability (x + 1) / 2 (Burda et al. 2016, section 5).
    """

    binarize: str = "none"
    discrete: ClassVar[bool] = False
    reference: ClassVar[str] = KINGMA_2014

    def __post_init__(self) -> None:
        known = ", ".join(BINARIZATIONS)
        require(self.binarize in BINARIZATIONS, f"binarize = {self.binarize!r}: must be one of {known}")

    def channels(self, image_channels: int) -> int:
        """Returns as many as the images have."""
        return image_channels

    def observe(self, keys: Array, x: Array) -> Array:
        """Returns the images, in {-1, 1} where they are binarized."""
        if self.binarize == "threshold":
            return jnp.where(x > 0, 1.0, -1.0)
        if self.binarize == "stochastic":
            return _draw_binary(keys, (x + 1.0) / 2.0)
        return x

    def log_prob(self, params: Array, x: Array) -> Array:
        """Returns log p(x | params) [B] in nats; of soft labels, minus their cross-entropy."""
        # w log sigmoid(a) + (1 - w) log sigmoid(-a), with one exponential instead of two.
        return _sum((x + 1.0) / 2.0 * params - jax.nn.softplus(params))

    def mean(self, params: Array) -> Array:
        """Returns the means [B, H, W, C] in [-1, 1]."""
        return 2.0 * jax.nn.sigmoid(params) - 1.0

    def sample(self, keys: Array, params: Array) -> Array:
        """Returns draws [B, H, W, C] in {-1, 1}."""
        return _draw_binary(keys, jax.nn.sigmoid(params))


def _draw_binary(keys: Array, white: Array) -> Array:
    """Pixels in {-1, 1} that are 1 with the given probabilities [B, H, W, C]."""
    uniform = jax.vmap(lambda key: jax.random.uniform(key, white.shape[1:]))(keys)
    return jnp.where(uniform < white, 1.0, -1.0)


@register("likelihood", "discretized_logistic_mixture")
@dataclasses.dataclass(frozen=True)
class DiscretizedLogisticMixture(_Plain):
    """Mixtures of logistics, integrated over the bins of 8-bit values (Salimans et al. 2017, eq. 2 and section 2.2).

    The components are shared by a pixel's channels, and in a component the mean of a channel is linear in the values of
    the channels before it (eq. 3). The outermost bins reach to infinity, so that the 256 values have all the mass.
    Images are 8-bit values in [-1, 1], 2 i / 255 - 1.

    Attributes:
        components: logistics in a mixture.
    """

    components: int = 10
    discrete: ClassVar[bool] = True
    reference: ClassVar[str] = SALIMANS_2017

    def __post_init__(self) -> None:
        require(self.components >= 1, f"components = {self.components}: must be at least 1")

    def channels(self, image_channels: int) -> int:
        """Returns, of each component: a logit, a mean and a scale a channel, a coefficient a pair of channels."""
        return self.components * (1 + 2 * image_channels + image_channels * (image_channels - 1) // 2)

    def log_prob(self, params: Array, x: Array) -> Array:
        """Returns log P(x | params) [B] in nats."""
        logits, means, log_scales, coefficients = self._split(params, x.shape[-1])
        seen = x[..., None, :]
        means = jnp.stack([means[..., c] + _shift(coefficients, seen, c) for c in range(x.shape[-1])], axis=-1)
        inverse_scales = jnp.exp(-log_scales)
        above = (seen - means + HALF_BIN) * inverse_scales  # the upper end of the bin, in units of the logistic
        below = (seen - means - HALF_BIN) * inverse_scales
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)), where nothing cancels.
        inner = jax.nn.log_sigmoid(above) + jax.nn.log_sigmoid(-below)
        inner += jnp.log(-jnp.expm1(-2.0 * HALF_BIN * inverse_scales))
        edge = 1.0 - HALF_BIN
        bins = jnp.where(
            seen < -edge, jax.nn.log_sigmoid(above), jnp.where(seen > edge, jax.nn.log_sigmoid(-below), inner)
        )
        return _sum(jax.nn.logsumexp(jax.nn.log_softmax(logits) + bins.sum(-1), axis=-1))

    def mean(self, params: Array) -> Array:
        """Returns the means [B, H, W, C] of the mixtures before they are cut into bins, clipped to [-1, 1]."""
        channels = self._image_channels(params.shape[-1])
        logits, means, _, coefficients = self._split(params, channels)
        expected = jnp.zeros_like(means)
        for c in range(channels):
            expected = expected.at[..., c].set(means[..., c] + _shift(coefficients, expected, c))
        return jnp.clip((jax.nn.softmax(logits)[..., None] * expected).sum(-2), -1.0, 1.0)

    def sample(self, keys: Array, params: Array) -> Array:
        """Returns draws [B, H, W, C], 8-bit values in [-1, 1]."""
        channels = self._image_channels(params.shape[-1])
        logits, *rest = self._split(params, channels)

        def one(key: Array, logits: Array, means: Array, log_scales: Array, coefficients: Array) -> Array:
            key_component, key_logistic = jax.random.split(key)
            which = jax.random.categorical(key_component, logits)  # [H, W]
            take = lambda of: jnp.take_along_axis(of, jnp.expand_dims(which, range(2, of.ndim)), axis=2)[:, :, 0]  # noqa: E731
            means, log_scales, coefficients = take(means), take(log_scales), take(coefficients)
            noise = jnp.exp(log_scales) * jax.random.logistic(key_logistic, means.shape)
            x = jnp.zeros_like(means)
            for c in range(channels):
                drawn = means[..., c] + _shift(coefficients, x, c) + noise[..., c]
                level = jnp.round((jnp.clip(drawn, -1.0, 1.0) + 1.0) / (2.0 * HALF_BIN))
                x = x.at[..., c].set(level * 2.0 * HALF_BIN - 1.0)
            return x

        return jax.vmap(one)(keys, logits, *rest)

    def _split(self, params: Array, channels: int) -> tuple[Array, Array, Array, Array]:
        """Logits [B, H, W, M], means and log scales [B, H, W, M, C], coefficients [B, H, W, M, C (C - 1) / 2]."""
        expected = self.channels(channels)
        require(params.shape[-1] == expected, f"the output has {params.shape[-1]} channels: must have {expected}")
        params = params.reshape(*params.shape[:-1], self.components, -1)
        logits, means, log_scales, raw = jnp.split(params, (1, 1 + channels, 1 + 2 * channels), axis=-1)
        return logits[..., 0], means, jnp.clip(log_scales, *LOG_SCALES), jnp.tanh(raw)

    def _image_channels(self, channels: int) -> int:
        """The channels of the images whose outputs have so many."""
        found = [c for c in range(1, channels + 1) if self.channels(c) == channels]
        require(
            bool(found),
            f"the output has {channels} channels: no images need so many with components = {self.components}",
        )
        return found[0]


def _shift(coefficients: Array, x: Array, c: int) -> Array | float:
    """What the values x [..., C] of the channels before channel c add to its mean, [...]."""
    first = c * (c - 1) // 2
    return sum((coefficients[..., first + d] * x[..., d] for d in range(c)), start=0.0)


def _sum(values: Array) -> Array:
    """The sum over all axes but the first."""
    return values.reshape(len(values), -1).sum(-1)
