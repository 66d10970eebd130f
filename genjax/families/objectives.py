"""What a variational autoencoder minimizes: bounds on minus log p(x), and bounds bent towards a wanted code length."""

import dataclasses
import math
from typing import ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from genjax.citation import bibtex
from genjax.config import require
from genjax.registry import register

KINGMA_2016 = bibtex(
    """
    @inproceedings{kingma2016improved,
      title = {Improved Variational Inference with Inverse Autoregressive Flow},
      author = {Kingma, Diederik P. and Salimans, Tim and Jozefowicz, Rafal and Chen, Xi and Sutskever, Ilya and
                Welling, Max},
      booktitle = {Advances in Neural Information Processing Systems},
      year = {2016}
    }
    """
)
BURGESS_2018 = bibtex(
    """
    @article{burgess2018understanding,
      title = {Understanding Disentangling in beta-{VAE}},
      author = {Burgess, Christopher P. and Higgins, Irina and Pal, Arka and Matthey, Loic and Watters, Nick and
                Desjardins, Guillaume and Lerchner, Alexander},
      journal = {arXiv preprint arXiv:1804.03599},
      year = {2018}
    }
    """
)
BURDA_2016 = bibtex(
    """
    @inproceedings{burda2016importance,
      title = {Importance Weighted Autoencoders},
      author = {Burda, Yuri and Grosse, Roger and Salakhutdinov, Ruslan},
      booktitle = {International Conference on Learning Representations},
      year = {2016}
    }
    """
)


class Terms(NamedTuple):
    """The terms of the bounds for a batch, in nats.

    Attributes:
        log_likelihood: log p(x | z) of codes drawn from the posterior, k an example [B, k].
        kl: KL(q(z | x) || p(z)) of each latent [B, D]; [B, 1], a Monte Carlo estimate, where it has no closed form.
        log_ratio: log p(z) - log q(z | x) of the same codes [B, k].
    """

    log_likelihood: Array
    kl: Array
    log_ratio: Array


class Objective(Protocol):
    """The contract of an objective.

    Attributes:
        samples: codes that are drawn for an example.
    """

    @property
    def samples(self) -> int:
        """Codes that are drawn for an example."""
        ...

    def __call__(self, terms: Terms, step: Array) -> Array:
        """Returns the loss [] of a batch at a training step []."""
        ...


def iwae_bound(log_weights: Array) -> Array:
    """Returns log(mean of exp(log_weights)) over the last axis (Burda et al. 2016, eq. 8).

    Args:
        log_weights: log p(x, z) - log q(z | x) of independent draws of z, [..., k].

    Returns:
        [...]; in expectation at most log p(x), and the closer the larger k.
    """
    return jax.nn.logsumexp(log_weights, axis=-1) - math.log(log_weights.shape[-1])


@register("objective", "elbo", reference="kingma2014auto")
@dataclasses.dataclass(frozen=True)
class ELBO:
    """Minus the evidence lower bound, with a weight beta of the divergence (Higgins et al. 2017, eq. 4) and free bits.

    Attributes:
        beta: weight of the divergence; 1 is the bound itself, more is beta-VAE.
        warmup: steps over which the weight rises from 0 to beta, linearly.
        free_bits: nats of divergence that each latent has free, on average over the batch: lambda of Kingma et al.
            2016, eq. 15. A latent that needs less has a divergence without gradient.
        samples: codes that are drawn for an example.
    """

    beta: float = 1.0
    warmup: int = 0
    free_bits: float = 0.0
    samples: int = 1

    def __post_init__(self) -> None:
        require(self.beta >= 0, f"beta = {self.beta}: must be at least 0")
        require(self.warmup >= 0, f"warmup = {self.warmup}: must be at least 0")
        require(self.free_bits >= 0, f"free_bits = {self.free_bits}: must be at least 0")
        _check_samples(self.samples)

    def __call__(self, terms: Terms, step: Array) -> Array:
        """Returns the loss []."""
        beta = self.beta * _risen(step, self.warmup)
        kl = terms.kl.mean(0)
        kl = jnp.maximum(kl, self.free_bits) if self.free_bits > 0 else kl
        return beta * kl.sum() - terms.log_likelihood.mean()


@register("objective", "capacity")
@dataclasses.dataclass(frozen=True)
class Capacity:
    """gamma times |KL - C| in place of the divergence, with C rising over training (Burgess et al. 2018, eq. 8).

    The divergence is the mean over the batch, as C is the capacity of the channel and not of one message.

    Attributes:
        gamma: weight of the distance.
        capacity: C at the end of the rise, in nats.
        steps: training steps of the linear rise from 0.
        samples: codes that are drawn for an example.
    """

    gamma: float = 1000.0
    capacity: float = 25.0
    steps: int = 100_000
    samples: int = 1
    reference: ClassVar[str] = BURGESS_2018

    def __post_init__(self) -> None:
        require(self.gamma >= 0, f"gamma = {self.gamma}: must be at least 0")
        require(self.capacity >= 0, f"capacity = {self.capacity}: must be at least 0 nats")
        require(self.steps >= 0, f"steps = {self.steps}: must be at least 0")
        _check_samples(self.samples)

    def __call__(self, terms: Terms, step: Array) -> Array:
        """Returns the loss []."""
        capacity = self.capacity * _risen(step, self.steps)
        return self.gamma * jnp.abs(terms.kl.sum(-1).mean() - capacity) - terms.log_likelihood.mean()


@register("objective", "iwae")
@dataclasses.dataclass(frozen=True)
class IWAE:
    """Minus the importance-weighted bound of k codes, tighter than the ELBO (Burda et al. 2016, eq. 8).

    Attributes:
        samples: k; with 1 it is the ELBO with a divergence that is estimated from that code.
    """

    samples: int = 5
    reference: ClassVar[str] = BURDA_2016

    def __post_init__(self) -> None:
        _check_samples(self.samples)

    def __call__(self, terms: Terms, step: Array) -> Array:
        """Returns the loss []."""
        return -iwae_bound(terms.log_likelihood + terms.log_ratio).mean()


def _check_samples(samples: int) -> None:
    require(samples >= 1, f"samples = {samples}: must be at least 1")


def _risen(step: Array, steps: int) -> Array:
    """The share of a linear rise over so many steps that is done; 1 where there is none."""
    return jnp.minimum(step / steps, 1.0) if steps > 0 else jnp.float32(1.0)
