"""What makes the code of an autoencoder sparse: an activation of the code, and a penalty of the active code."""

import dataclasses
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from genjax.citation import bibtex
from genjax.config import require
from genjax.registry import register

CUNNINGHAM_2024 = bibtex(
    """
    @inproceedings{cunningham2024sparse,
      title = {Sparse Autoencoders Find Highly Interpretable Features in Language Models},
      author = {Cunningham, Hoagy and Ewart, Aidan and Riggs, Logan and Huben, Robert and Sharkey, Lee},
      booktitle = {International Conference on Learning Representations},
      year = {2024}
    }
    """
)
MAKHZANI_2014 = bibtex(
    """
    @inproceedings{makhzani2014k,
      title = {k-Sparse Autoencoders},
      author = {Makhzani, Alireza and Frey, Brendan},
      booktitle = {International Conference on Learning Representations},
      year = {2014}
    }
    """
)
NG_2011 = bibtex(
    """
    @misc{ng2011sparse,
      title = {Sparse autoencoder},
      author = {Ng, Andrew},
      howpublished = {CS294A lecture notes, Stanford University},
      year = {2011}
    }
    """
)


class Sparsity(Protocol):
    """The contract: `activate` the encoder's output, then `penalty` of what came out."""

    def check(self, latent: int) -> None:
        """Raises ValueError unless it suits codes of so many units."""
        ...

    def activate(self, h: Array) -> Array:
        """Returns the code [B, D] of the encoder's output [B, D]."""
        ...

    def penalty(self, code: Array) -> Array:
        """Returns what is added to the loss [], for codes [B, D]."""
        ...


@register("sparsity", "none")
@dataclasses.dataclass(frozen=True)
class Dense:
    """The encoder's output is the code, and nothing is penalized."""

    def check(self, latent: int) -> None:
        """Takes any."""

    def activate(self, h: Array) -> Array:
        """Returns h."""
        return h

    def penalty(self, code: Array) -> Array:
        """Returns 0."""
        return jnp.float32(0.0)


@register("sparsity", "l1")
@dataclasses.dataclass(frozen=True)
class L1:
    """ReLU units, and weight times the sum of the code (Cunningham et al. 2024, section 2).

    A code can be made small without being sparse, by a decoder with large weights: decay those, or read the share of
    active units beside the penalty.

    Attributes:
        weight: of the penalty, beside a log-likelihood that is summed over pixels.
    """

    weight: float = 0.1
    reference: ClassVar[str] = CUNNINGHAM_2024

    def __post_init__(self) -> None:
        require(self.weight >= 0, f"weight = {self.weight}: must be at least 0")

    def check(self, latent: int) -> None:
        """Takes any."""

    def activate(self, h: Array) -> Array:
        """Returns max(h, 0)."""
        return jax.nn.relu(h)

    def penalty(self, code: Array) -> Array:
        """Returns the weighted sum of the code's absolute values, averaged over examples."""
        return self.weight * jnp.abs(code).sum(-1).mean()


@register("sparsity", "k_sparse")
@dataclasses.dataclass(frozen=True)
class KSparse:
    """Linear units of which the k largest stay and the others are 0 (Makhzani & Frey 2014, algorithm 1).

    Attributes:
        k: units that stay.
    """

    k: int = 8
    reference: ClassVar[str] = MAKHZANI_2014

    def __post_init__(self) -> None:
        require(self.k >= 1, f"k = {self.k}: must be at least 1")

    def check(self, latent: int) -> None:
        """Raises ValueError where there are fewer than k units."""
        require(self.k <= latent, f"sparsity.k = {self.k}: must be at most latent = {latent}")

    def activate(self, h: Array) -> Array:
        """Returns h with all but its k largest entries set to 0; of equal ones, the first stay."""
        _, largest = jax.lax.top_k(h, self.k)
        return h * jax.nn.one_hot(largest, h.shape[-1], dtype=h.dtype).sum(-2)

    def penalty(self, code: Array) -> Array:
        """Returns 0."""
        return jnp.float32(0.0)


@register("sparsity", "kl")
@dataclasses.dataclass(frozen=True)
class KL:
    """Sigmoid units whose mean activation over a batch is drawn to a small target (Ng 2011, section 3).

    The penalty is weight times the sum over units of KL(target || mean activation), of Bernoulli variables. The mean is
    over a batch, so a batch that is computed in parts is penalized by the means of the parts.

    Attributes:
        weight: of the penalty, beside a log-likelihood that is summed over pixels.
        target: the mean activation wanted, in (0, 1).
    """

    weight: float = 3.0
    target: float = 0.05
    reference: ClassVar[str] = NG_2011

    def __post_init__(self) -> None:
        require(self.weight >= 0, f"weight = {self.weight}: must be at least 0")
        require(0 < self.target < 1, f"target = {self.target}: must be in (0, 1)")

    def check(self, latent: int) -> None:
        """Takes any."""

    def activate(self, h: Array) -> Array:
        """Returns sigmoid(h)."""
        return jax.nn.sigmoid(h)

    def penalty(self, code: Array) -> Array:
        """Returns the weighted divergence, summed over units."""
        mean = jnp.clip(code.mean(0), 1e-6, 1.0 - 1e-6)  # a sigmoid reaches 0 and 1 in float32
        on, off = self.target, 1.0 - self.target
        return self.weight * (on * jnp.log(on / mean) + off * jnp.log(off / (1.0 - mean))).sum()
