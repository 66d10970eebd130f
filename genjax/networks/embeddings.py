"""How a network hears of the noise label and of the class."""

import math
from statistics import NormalDist

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from genjax.citation import bibtex
from genjax.config import require
from genjax.networks.base import Condition, labels

TANCIK = bibtex("""
@inproceedings{tancik2020fourier,
  title = {Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains},
  author = {Tancik, Matthew and Srinivasan, Pratul P. and Mildenhall, Ben and Fridovich-Keil, Sara and Raghavan,
            Nithin and Singhal, Utkarsh and Ramamoorthi, Ravi and Barron, Jonathan T. and Ng, Ren},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2020}
}""")

KINDS = ("sinusoidal", "sinusoidal_endpoint", "fourier")


def sinusoidal(label: Array, features: int, *, max_period: float = 10_000.0, endpoint: bool = False) -> Array:
    """Returns cosines and sines of the label at geometric frequencies from 1 down to 1/max_period.

    Args:
        label: [B] float32, of the order of 1 to 1000 (or log(sigma)/4, as Karras et al. 2022 use it).
        features: an even number.
        max_period: the inverse of the lowest frequency.
        endpoint: whether the last frequency is 1/max_period itself, as Ho et al. 2020 have it, or one step short of
            it, as Dhariwal & Nichol 2021 and Peebles & Xie 2023 have it.

    Returns:
        [B, features] float32: the cosines, then the sines.
    """
    half = features // 2
    steps = max(half - 1, 1) if endpoint else half
    frequencies = np.exp(-math.log(max_period) * np.arange(half) / steps).astype(np.float32)
    return _waves(label, frequencies)


def fourier(label: Array, features: int, *, scale: float = 16.0) -> Array:
    """Returns cosines and sines of the label at normally distributed frequencies (Tancik et al. 2020, section 4).

    The frequencies are the quantiles of N(0, scale^2) at (i + 1/2)/n instead of draws from it: the same density, and
    nothing to store beside the parameters.

    Args:
        label: [B] float32, of the order of 1, such as log(sigma)/4.
        features: an even number.
        scale: standard deviation of the frequencies, in periods per unit of the label; 16 in Song et al. 2021b.

    Returns:
        [B, features] float32: the cosines, then the sines.
    """
    half = features // 2
    normal = NormalDist(sigma=scale)
    periods = [normal.inv_cdf((i + 0.5) / half) for i in range(half)]
    return _waves(label, (2 * np.pi * np.asarray(periods)).astype(np.float32))


def mp_fourier(label: Array, features: int, *, bandwidth: float = 1.0) -> Array:
    """Returns cosines of the label of unit magnitude, at normal frequencies and uniform phases (Karras et al. 2024).

    As in `fourier` the frequencies are the quantiles of their distribution. The phases are the multiples of the golden
    ratio, which are uniform whatever range of frequencies one looks at (eq. 75).

    Args:
        label: [B] float32, of the order of 1, such as log(sigma)/4.
        features: any number.
        bandwidth: standard deviation of the frequencies, in periods per unit of the label.

    Returns:
        [B, features] float32, of root mean square 1.
    """
    normal = NormalDist(sigma=bandwidth)
    periods = np.asarray([normal.inv_cdf((i + 0.5) / features) for i in range(features)])
    phases = np.arange(features) * (math.sqrt(5) - 1) / 2 % 1
    angles = label.astype(jnp.float32)[:, None] * (2 * np.pi * periods).astype(np.float32)[None, :]
    return math.sqrt(2) * jnp.cos(angles + (2 * np.pi * phases).astype(np.float32)[None, :])


def scalars_of(cond: Condition, names: tuple[str, ...]) -> list[Array]:
    """Returns the entries [B] of a condition.

    Raises:
        ValueError: it lacks one of them.
    """
    given = cond or {}
    for name in names:
        require(name in given, f"the network is conditioned on {name!r}, which is not given")
    return [given[name] for name in names]


def _waves(label: Array, frequencies: np.ndarray) -> Array:
    angles = label.astype(jnp.float32)[:, None] * frequencies[None, :]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class NoiseEmbedding(nn.Module):
    """The noise label through an embedding and a network of two layers, in float32: labels of 1000 need its digits.

    Attributes:
        features: channels of the result.
        frequencies: channels of the sinusoidal or Fourier embedding, an even number.
        kind: one of `KINDS`.
        kernel_init: initializer of the two layers.
    """

    features: int
    frequencies: int
    kind: str = "sinusoidal"
    kernel_init: nn.initializers.Initializer = nn.initializers.xavier_uniform()

    @nn.compact
    def __call__(self, noise_label: Array) -> Array:
        """Maps [B] to [B, features] float32."""
        if self.kind == "fourier":
            waves = fourier(noise_label, self.frequencies)
        else:
            waves = sinusoidal(noise_label, self.frequencies, endpoint=self.kind == "sinusoidal_endpoint")
        hidden = nn.silu(nn.Dense(self.features, kernel_init=self.kernel_init, name="in")(waves))
        return nn.Dense(self.features, kernel_init=self.kernel_init, name="out")(hidden)


class ClassEmbedding(nn.Module):
    """A learned vector a class, and one for no class.

    Attributes:
        num_classes: number of classes; the table has one row more, the last, for the null condition.
        features: channels of the result.
        stddev: standard deviation of the initial vectors.
    """

    num_classes: int
    features: int
    stddev: float = 1.0

    @nn.compact
    def __call__(self, cond: Condition, batch: int) -> Array:
        """Maps `cond["label"]` [B], -1 for null, to [B, features] float32; all null where `cond` is None."""
        label = labels(cond, batch)
        table = nn.Embed(
            self.num_classes + 1, self.features, embedding_init=nn.initializers.normal(self.stddev), name="table"
        )
        return table(jnp.where(label == -1, self.num_classes, label))


class ScalarEmbeddings(nn.Module):
    """Numbers of the condition, such as the length of a step, each embedded as the noise label is, in one vector.

    The last layer begins at zero: a network with scalars begins as the one without them, whose weights it may take.

    Attributes:
        names: which entries of the condition.
        features, frequencies, kind: see `NoiseEmbedding`.
    """

    names: tuple[str, ...]
    features: int
    frequencies: int
    kind: str

    @nn.compact
    def __call__(self, cond: Condition) -> Array:
        """Maps entries [B] float32, of the noise label's size, to [B, features] float32.

        Raises:
            ValueError: the condition lacks one of them.
        """
        given = zip(self.names, scalars_of(cond, self.names), strict=True)
        embedded = [
            NoiseEmbedding(self.features, self.frequencies, self.kind, name=name)(value) for name, value in given
        ]
        out = nn.Dense(self.features, kernel_init=nn.initializers.zeros, name="out")
        return out(nn.silu(jnp.concatenate(embedded, axis=-1)))
