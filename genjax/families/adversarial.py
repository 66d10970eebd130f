"""What the two players of a GAN minimize: losses of logits by name, and penalties on the critic's input gradient.

A loss is a frozen dataclass with `discriminator(real, fake)` and `generator(real, fake)`, each from the critic's
outputs on real and on generated examples to a loss of each. The outputs may have any shape, such as one logit an
example [B] or one a patch [B, h, w]; the losses have the same. Only a relativistic generator reads `real`.
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from genjax.citation import bibtex
from genjax.families.base import Keys
from genjax.registry import register

GOODFELLOW_2014 = bibtex("""
@inproceedings{goodfellow2014generative,
  title = {Generative Adversarial Nets},
  author = {Goodfellow, Ian and Pouget-Abadie, Jean and Mirza, Mehdi and Xu, Bing and Warde-Farley, David and
            Ozair, Sherjil and Courville, Aaron and Bengio, Yoshua},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2014}
}""")
ARJOVSKY_2017 = bibtex("""
@inproceedings{arjovsky2017wasserstein,
  title = {Wasserstein Generative Adversarial Networks},
  author = {Arjovsky, Martin and Chintala, Soumith and Bottou, L{\\'e}on},
  booktitle = {International Conference on Machine Learning},
  year = {2017}
}""")
LIM_2017 = bibtex("""
@article{lim2017geometric,
  title = {Geometric {GAN}},
  author = {Lim, Jae Hyun and Ye, Jong Chul},
  journal = {arXiv preprint arXiv:1705.02894},
  year = {2017}
}""")
MAO_2017 = bibtex("""
@inproceedings{mao2017least,
  title = {Least Squares Generative Adversarial Networks},
  author = {Mao, Xudong and Li, Qing and Xie, Haoran and Lau, Raymond Y. K. and Wang, Zhen and Smolley, Stephen Paul},
  booktitle = {IEEE International Conference on Computer Vision},
  year = {2017}
}""")
JOLICOEUR_2019 = bibtex("""
@inproceedings{jolicoeur2019relativistic,
  title = {The Relativistic Discriminator: A Key Element Missing from Standard {GAN}},
  author = {Jolicoeur-Martineau, Alexia},
  booktitle = {International Conference on Learning Representations},
  year = {2019}
}""")


class AdversarialLoss(Protocol):
    """The contract of a loss; `real` and `fake` are the critic's outputs before any sigmoid."""

    def discriminator(self, real: Array, fake: Array) -> Array:
        """Returns what the discriminator minimizes, of the shape of `real` and `fake`."""
        ...

    def generator(self, real: Array, fake: Array) -> Array:
        """Returns what the generator minimizes, of the shape of `real` and `fake`."""
        ...


def _cross_entropy(real: Array, fake: Array) -> Array:
    """`-log D(x) - log(1 - D(G(z)))`, with D the sigmoid of the logit."""
    return jax.nn.softplus(-real) + jax.nn.softplus(fake)


@register("adversarial_loss", "non_saturating")
@dataclasses.dataclass(frozen=True)
class NonSaturating:
    """Cross-entropy; the generator minimizes -log D(G(z)) (Goodfellow et al. 2014, end of section 3)."""

    reference: ClassVar[str] = GOODFELLOW_2014

    def discriminator(self, real: Array, fake: Array) -> Array:
        """Returns `-log D(x) - log(1 - D(G(z)))`."""
        return _cross_entropy(real, fake)

    def generator(self, real: Array, fake: Array) -> Array:
        """Returns `-log D(G(z))`."""
        return jax.nn.softplus(-fake)


@register("adversarial_loss", "minimax")
@dataclasses.dataclass(frozen=True)
class Minimax:
    """Cross-entropy; the generator minimizes log(1 - D(G(z))) (Goodfellow et al. 2014, eq. 1)."""

    reference: ClassVar[str] = GOODFELLOW_2014

    def discriminator(self, real: Array, fake: Array) -> Array:
        """Returns `-log D(x) - log(1 - D(G(z)))`."""
        return _cross_entropy(real, fake)

    def generator(self, real: Array, fake: Array) -> Array:
        """Returns `log(1 - D(G(z)))`."""
        return -jax.nn.softplus(fake)


@register("adversarial_loss", "wasserstein")
@dataclasses.dataclass(frozen=True)
class Wasserstein:
    """The dual of the Wasserstein-1 distance, of a critic that is kept Lipschitz (Arjovsky et al. 2017, eq. 2)."""

    reference: ClassVar[str] = ARJOVSKY_2017

    def discriminator(self, real: Array, fake: Array) -> Array:
        """Returns `f(G(z)) - f(x)`, the negative of the estimated distance."""
        return fake - real

    def generator(self, real: Array, fake: Array) -> Array:
        """Returns `-f(G(z))`."""
        return -fake


@register("adversarial_loss", "hinge")
@dataclasses.dataclass(frozen=True)
class Hinge:
    """Hinge loss of the discriminator, linear loss of the generator (Lim & Ye 2017; Miyato et al. 2018, eq. 16-17)."""

    reference: ClassVar[str] = LIM_2017

    def discriminator(self, real: Array, fake: Array) -> Array:
        """Returns `max(0, 1 - D(x)) + max(0, 1 + D(G(z)))`."""
        return jax.nn.relu(1.0 - real) + jax.nn.relu(1.0 + fake)

    def generator(self, real: Array, fake: Array) -> Array:
        """Returns `-D(G(z))`."""
        return -fake


@register("adversarial_loss", "least_squares")
@dataclasses.dataclass(frozen=True)
class LeastSquares:
    """Square distances of the outputs from labels (Mao et al. 2017, eq. 2; the default is the paper's 0-1 coding).

    With `b - c = 1` and `b - a = 2`, such as a = -1, b = 1, c = 0, the generator's loss is Pearson's chi-square
    divergence where the discriminator is optimal (section 3.2).

    Attributes:
        a: the discriminator's label of generated examples.
        b: its label of real ones.
        c: what the generator wants the discriminator to say of generated examples.
    """

    a: float = 0.0
    b: float = 1.0
    c: float = 1.0
    reference: ClassVar[str] = MAO_2017

    def discriminator(self, real: Array, fake: Array) -> Array:
        """Returns `(D(x) - b)^2 / 2 + (D(G(z)) - a)^2 / 2`."""
        return 0.5 * jnp.square(real - self.b) + 0.5 * jnp.square(fake - self.a)

    def generator(self, real: Array, fake: Array) -> Array:
        """Returns `(D(G(z)) - c)^2 / 2`."""
        return 0.5 * jnp.square(fake - self.c)


@register("adversarial_loss", "relativistic")
@dataclasses.dataclass(frozen=True)
class Relativistic:
    """Relativistic: which of a pair, real and generated, is the real one (Jolicoeur-Martineau 2019, RSGAN).

    Real example i is paired with generated example i. The loss of R3GAN (Huang et al. 2024), which adds both
    zero-centred gradient penalties.
    """

    reference: ClassVar[str] = JOLICOEUR_2019

    def discriminator(self, real: Array, fake: Array) -> Array:
        """Returns `-log sigmoid(C(x) - C(G(z)))`."""
        return jax.nn.softplus(fake - real)

    def generator(self, real: Array, fake: Array) -> Array:
        """Returns `-log sigmoid(C(G(z)) - C(x))`."""
        return jax.nn.softplus(real - fake)


# The penalties differentiate the sum of the outputs, so an output must depend on its own example alone: a critic with
# batch normalization has none of these (Gulrajani et al. 2017, section 4).


def squared_gradient(critic: Callable[[Array], Array], x: Array) -> Array:
    """Returns the square norm of the critic's gradient with respect to each example.

    The zero-centred penalty R1 at real examples, R2 at generated ones (Mescheder et al. 2018, section 4.1), there both
    with a factor gamma / 2.

    Args:
        critic: from examples [B, ...] to outputs [B] or [B, ...], each of one example alone.
        x: [B, ...].

    Returns:
        [B].
    """
    gradient = jax.grad(lambda x: critic(x).sum())(x)
    return jnp.square(gradient).sum(tuple(range(1, x.ndim)))


def interpolate(keys: Array, real: Array, fake: Array) -> Array:
    """Returns a point on the line between each pair, uniform at random, from one key a pair [B]."""
    share = jax.vmap(jax.random.uniform)(keys).reshape(-1, *[1] * (real.ndim - 1))
    return share * real + (1.0 - share) * fake


def gradient_penalty(
    critic: Callable[[Array], Array], real: Array, fake: Array, keys: Keys, centre: float = 1.0
) -> tuple[Array, Array]:
    """Returns the two-sided gradient penalty `(|grad f(x)| - centre)^2` on interpolates and the norm in it, each [B].

    Gulrajani et al. 2017, eq. 3, where the factor is lambda = 10 and the centre 1.

    Args:
        critic: see `squared_gradient`.
        real: real examples [B, ...].
        fake: generated ones [B, ...].
        keys: each pair draws its place from its own.
        centre: the norm without penalty.
    """
    square = squared_gradient(critic, interpolate(keys.each, real, fake))
    # The root has no derivative at zero: a critic that is flat somewhere would make the weights nan.
    norm = jnp.sqrt(jnp.maximum(square, 1e-12))
    return jnp.square(norm - centre), norm
