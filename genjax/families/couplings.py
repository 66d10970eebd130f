"""Which noise each image of a batch goes to: `(keys, batch) -> (x_0, x_1)`, the two ends of every example's path.

A model of paths learns the same distribution whatever coupling has the right marginals: x_1 must be distributed as if
it had been drawn on its own. Couplings of a minibatch exchange independent draws between its examples, which keeps
that, and makes the paths shorter and cross less. They couple the examples that are computed together: with
`training.accumulate`, those of each part of a batch.
"""

import dataclasses
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import logsumexp
from optax.assignment import hungarian_algorithm

from genjax.citation import bibtex
from genjax.config import ConfigError, nearest, require
from genjax.families.base import Batch, Keys
from genjax.registry import register
from genjax.sampling.keys import normal_like

TONG_2024 = bibtex(
    """
    @article{tong2024improving,
      title = {Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport},
      author = {Tong, Alexander and Fatras, Kilian and Malkin, Nikolay and Huguet, Guillaume and Zhang, Yanlei and
                Rector-Brooks, Jarrid and Wolf, Guy and Bengio, Yoshua},
      journal = {Transactions on Machine Learning Research},
      year = {2024}
    }
    """
)
CUTURI_2013 = bibtex(
    """
    @inproceedings{cuturi2013sinkhorn,
      title = {Sinkhorn Distances: Lightspeed Computation of Optimal Transport},
      author = {Cuturi, Marco},
      booktitle = {Advances in Neural Information Processing Systems},
      year = {2013}
    }
    """
)
LI_2024 = bibtex(
    """
    @inproceedings{li2024immiscible,
      title = {Immiscible Diffusion: Accelerating Diffusion Training with Noise Assignment},
      author = {Li, Yiheng and Jiang, Heyang and Kodaira, Akio and Tomizuka, Masayoshi and Keutzer, Kurt and Xu,
                Chenfeng},
      booktitle = {Advances in Neural Information Processing Systems},
      year = {2024}
    }
    """
)

NOISE = "noise"  # of a batch: the noise that each image belongs to


class Coupling(Protocol):
    """A joint distribution of both ends of a path.

    Attributes:
        needs: names of the batch's entries that it reads beside the image.
    """

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the batch's entries that it reads beside the image."""
        ...

    def __call__(self, keys: Keys, batch: Batch, other: Array | None = None) -> tuple[Array, Array]:
        """Returns the ends of the paths of a batch.

        Args:
            keys: of the batch.
            batch: has "image" [B, ...].
            other: images [B, ...] of a second source to go to, independent of the first; None draws noise.

        Returns:
            x_0, the images, and x_1, the noise or the other images, both [B, ...].
        """
        ...


def _drawn(keys: Keys, x_0: Array, other: Array | None) -> Array:
    return normal_like(keys.each, x_0) if other is None else other


@register("coupling", "independent")
@dataclasses.dataclass(frozen=True)
class Independent:
    """Noise that knows nothing of the image."""

    needs: ClassVar[tuple[str, ...]] = ()
    reference: ClassVar[str] = "lipman2023flow"

    def __call__(self, keys: Keys, batch: Batch, other: Array | None = None) -> tuple[Array, Array]:
        """Returns both ends of the paths; see `Coupling`."""
        x_0 = batch["image"]
        return x_0, _drawn(keys, x_0, other)


@register("coupling", "paired")
@dataclasses.dataclass(frozen=True)
class Paired:
    """The noise that the data have for each image, as the source `pairs` does: reflow (Liu et al. 2023, section 2)."""

    needs: ClassVar[tuple[str, ...]] = (NOISE,)
    reference: ClassVar[str] = "liu2023flow"

    def __call__(self, keys: Keys, batch: Batch, other: Array | None = None) -> tuple[Array, Array]:
        """Returns both ends of the paths; see `Coupling`.

        Raises:
            ConfigError: the batch has no noise.
        """
        if other is None and NOISE not in batch:
            raise ConfigError("coupling 'paired': the data have no noise for each image; take the data source 'pairs'")
        return batch["image"], batch[NOISE] if other is None else other


@dataclasses.dataclass(frozen=True)
class _Exchanged:
    """What the couplings share that exchange the noise between the examples of a batch.

    Attributes:
        within: an entry of the batch, such as "label", between whose equal values alone noise is exchanged. A model
            that is conditioned on it needs this for noise that is normal given the condition too: without, a class
            gets the noise that lies nearest to it, while sampling gives every class all of the noise. The smaller the
            groups, the less is there to exchange.
    """

    within: str | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the batch's entries that it reads beside the image."""
        return () if self.within is None else (self.within,)

    def __call__(self, keys: Keys, batch: Batch, other: Array | None = None) -> tuple[Array, Array]:
        """Returns both ends of the paths; see `Coupling`.

        Raises:
            ConfigError: the batch has no entry `within`.
        """
        x_0 = batch["image"]
        keys_noise, keys_choice = (keys, keys) if other is not None else keys.split(2)
        x_1 = _drawn(keys_noise, x_0, other)
        cost = self._cost(*(x.reshape(len(x), -1) for x in (x_0, x_1)))
        if self.within is not None and self.within not in batch:
            raise ConfigError(f"coupling: within = {self.within!r}, but the data have no such entry")
        group = jnp.zeros(len(x_0)) if self.within is None else batch[self.within]
        return x_0, x_1[self._choose(keys_choice, cost, group[:, None] == group[None])]

    def _cost(self, x_0: Array, x_1: Array) -> Array:
        """The cost of each pair of rows of [B, D], [B, B]."""
        return squared_distances(x_0, x_1)

    def _choose(self, keys: Keys, cost: Array, allowed: Array) -> Array:
        """Which x_1 each x_0 gets [B], by the cost [B, B] of those that are allowed [B, B]."""
        # No saving elsewhere is worth one that is not allowed.
        return assignment(jnp.where(allowed, cost, cost + len(cost) * (cost.max() - cost.min())))


@register("coupling", "minibatch_ot")
@dataclasses.dataclass(frozen=True)
class MinibatchOT(_Exchanged):
    """Optimal transport within a minibatch, by exact assignment on squared distances (Tong et al. 2024, section 3.4).

    Every x_1 goes to one x_0: a permutation of independent draws. The time grows with the cube of the batch, about 6 ms
    for 128 examples on a CPU core. A paper's batch is that of one device; here it is the whole one, or with
    `training.accumulate` a part of it.
    """

    reference: ClassVar[str] = TONG_2024


@register("coupling", "sinkhorn")
@dataclasses.dataclass(frozen=True)
class Sinkhorn(_Exchanged):
    """Entropic optimal transport within a minibatch, by Sinkhorn's iterations on logarithms (Cuturi 2013).

    Attributes beside `within`:
        regularization: of the entropy, in units of the mean squared distance; towards 0 the plan becomes
            `minibatch_ot`'s, and takes more iterations.
        iterations: how many.
        choice: "hard" makes the plan a permutation, its largest entries first. "sample" draws an x_1 for each x_0 from
            its row of the plan (Tong et al. 2024, algorithm 3): each is normal by itself, but some are drawn twice.
    """

    regularization: float = 0.05
    iterations: int = 100
    choice: str = "hard"
    reference: ClassVar[str] = CUTURI_2013

    def __post_init__(self) -> None:
        require(self.regularization > 0, f"regularization = {self.regularization}: must be positive")
        require(self.iterations >= 1, f"iterations = {self.iterations}: must be at least 1")
        choices = ("hard", "sample")
        require(self.choice in choices, f"choice = {self.choice!r}{nearest(self.choice, choices)}")

    def _choose(self, keys: Keys, cost: Array, allowed: Array) -> Array:
        plan = log_plan(jnp.where(allowed, cost, jnp.inf), self.regularization * cost.mean(), self.iterations)
        return greedy(plan) if self.choice == "hard" else jax.vmap(jax.random.categorical)(keys.each, plan)


@register("coupling", "immiscible")
@dataclasses.dataclass(frozen=True)
class Immiscible(_Exchanged):
    """Immiscible diffusion: assignment on distances in few bits (Li et al. 2024, algorithm 1).

    It differs from `minibatch_ot` in that the distances are not squared.

    Attributes beside `within`:
        quantized: whether distances have 16 bits, as in the paper, which makes its assignment on a CPU faster. Here it
            only makes equal what is nearly so.
    """

    quantized: bool = True
    reference: ClassVar[str] = LI_2024

    def _cost(self, x_0: Array, x_1: Array) -> Array:
        cost = jnp.sqrt(jnp.maximum(squared_distances(x_0, x_1), 0.0))
        return cost.astype(jnp.float16).astype(cost.dtype) if self.quantized else cost


def squared_distances(x: Array, y: Array) -> Array:
    """Returns the squared Euclidean distance [A, B] of each of the rows x [A, D] from each of y [B, D]."""
    products = jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
    return (x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2.0 * products


def assignment(cost: Array) -> Array:
    """Returns the permutation p, int32 [B], of the least sum of cost[i, p[i]]; cost is [B, B]."""
    rows, columns = hungarian_algorithm(cost)
    return jnp.zeros_like(columns).at[rows].set(columns)


def log_plan(cost: Array, regularization: Any, iterations: int) -> Array:
    """Returns the logarithm of the entropic transport plan between uniform weights, [B, B].

    Its columns add up to 1 / B, its rows nearly so, the nearer the more iterations.

    Args:
        cost: [B, B]; infinite for what is not allowed.
        regularization: weight of the entropy, in units of the cost.
        iterations: how many times rows and columns are scaled.
    """
    log_kernel, log_weight = -cost / regularization, -jnp.log(float(len(cost)))

    def scale(carry: tuple[Array, Array], step: None) -> tuple[tuple[Array, Array], None]:
        g = carry[1]
        f = log_weight - logsumexp(log_kernel + g[None], axis=1)
        return (f, log_weight - logsumexp(log_kernel + f[:, None], axis=0)), None

    zeros = jnp.zeros(len(cost), cost.dtype)
    (f, g), _ = jax.lax.scan(scale, (zeros, zeros), None, iterations)
    return f[:, None] + log_kernel + g[None]


def greedy(gain: Array) -> Array:
    """Returns a permutation, int32 [B], that takes the largest entries of gain [B, B] first."""
    n = len(gain)

    def take(i: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        left, chosen = carry
        row, column = jnp.divmod(left.argmax(), n)
        left = left.at[row].set(-jnp.inf).at[:, column].set(-jnp.inf)
        return left, chosen.at[row].set(column.astype(jnp.int32))

    return jax.lax.fori_loop(0, n, take, (gain, jnp.zeros(n, jnp.int32)))[1]
