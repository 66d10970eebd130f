"""Coupling layers: one part of an example moves another, which a network that need not be invertible tells how."""

import abc
import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from genjax.bijectors.base import Bijector, Condition, Params, Shape, sum_example
from genjax.bijectors.spline import rational_quadratic
from genjax.citation import bibtex
from genjax.config import component, nearest, require
from genjax.registry import register

DINH_2015 = bibtex("""
@inproceedings{dinh2015nice,
  title = {{NICE}: Non-linear Independent Components Estimation},
  author = {Dinh, Laurent and Krueger, David and Bengio, Yoshua},
  booktitle = {International Conference on Learning Representations, Workshop Track},
  year = {2015}
}""")
DINH_2017 = bibtex("""
@inproceedings{dinh2017density,
  title = {Density Estimation Using Real {NVP}},
  author = {Dinh, Laurent and Sohl-Dickstein, Jascha and Bengio, Samy},
  booktitle = {International Conference on Learning Representations},
  year = {2017}
}""")
DURKAN = bibtex("""
@inproceedings{durkan2019neural,
  title = {Neural Spline Flows},
  author = {Durkan, Conor and Bekasov, Artur and Murray, Iain and Papamakarios, George},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2019}
}""")

MASKS = ("alternate", "halves", "channel", "checkerboard")
SCALES = ("tanh", "sigmoid")


@dataclasses.dataclass(frozen=True)
class Coupling(Bijector):
    """What coupling layers share: the parts, and the network that is asked.

    Attributes:
        conditioner: maps the part that stays, [B, ..., C], and the condition to [B, ..., features], with a call
            `apply({"params": params}, x, cond, features)`.
        mask: the parts. Of the flattened example every second number ("alternate") or the later half ("halves") moves;
            of an image the later half of the channels ("channel") or the white squares ("checkerboard"). The
            conditioner of a checkerboard sees the whole image with zeros for what moves.
        swap: whether the other part moves.
    """

    conditioner: Any = component("conditioner")
    mask: str = "alternate"
    swap: bool = False

    def __post_init__(self) -> None:
        require(self.mask in MASKS, f"mask = {self.mask!r}{nearest(self.mask, MASKS)}")

    @property
    @abc.abstractmethod
    def numbers(self) -> int:
        """How many numbers the conditioner gives for each that moves."""

    @abc.abstractmethod
    def move(self, x: Array, h: Array) -> tuple[Array, Array]:
        """Moves numbers.

        Args:
            x: [..., C].
            h: what the conditioner says, [..., numbers, C].

        Returns:
            The moved numbers [..., C], and the logarithms of the derivatives [..., C].
        """

    @abc.abstractmethod
    def move_back(self, z: Array, h: Array) -> tuple[Array, Array]:
        """The inverse of `move`, with the logarithms of its own derivatives."""

    def init(self, key: Array, shape: Shape, cond: Condition = None) -> Params:
        """Returns the conditioner's parameters.

        Raises:
            ValueError: the mask does not split this shape.
        """
        images = self.mask in ("channel", "checkerboard")
        require(len(shape) == 3 or not images, f"mask = {self.mask!r}: splits images, not examples of shape {shape}")
        among = {"channel": shape[-1], "checkerboard": int(np.prod(shape[:2]))}
        count = among[self.mask] if images else int(np.prod(shape))
        require(count >= 2, f"mask = {self.mask!r}: examples of shape {shape} have no two parts")
        stays, moves = self._parts(jnp.zeros((1, *shape)))
        return self.conditioner.init(key, stays, cond, self.numbers * moves.shape[-1])["params"]

    def forward(self, params: Params, x: Array, cond: Condition = None) -> tuple[Array, Array]:
        """Maps data [B, ...] to the same, with log|det dz/dx| [B]."""
        return self._couple(self.move, params, x, cond)

    def inverse(self, params: Params, z: Array, cond: Condition = None) -> tuple[Array, Array]:
        """Maps [B, ...] to data, with log|det dx/dz| [B]."""
        return self._couple(self.move_back, params, z, cond)

    def _couple(self, move: Any, params: Params, x: Array, cond: Condition) -> tuple[Array, Array]:
        stays, moves = self._parts(x)
        h = self.conditioner.apply({"params": params}, stays, cond, self.numbers * moves.shape[-1])
        moved, log_det = move(moves, h.reshape(*h.shape[:-1], self.numbers, moves.shape[-1]))
        if self.mask == "checkerboard":
            white = self._white(x.shape)
            return jnp.where(white, moved, x), sum_example(jnp.where(white, log_det, 0.0))
        return self._join(stays, moved).reshape(x.shape), sum_example(log_det)

    def _parts(self, x: Array) -> tuple[Array, Array]:
        """Returns what stays, as the conditioner sees it, and what moves. Of a checkerboard, all of it is moved."""
        if self.mask == "checkerboard":
            return jnp.where(self._white(x.shape), 0.0, x), x
        x = x if self.mask == "channel" else x.reshape(len(x), -1)
        if self.mask == "alternate":
            first, second = x[:, 0::2], x[:, 1::2]
        else:
            half = x.shape[-1] // 2
            first, second = x[..., :half], x[..., half:]
        return (second, first) if self.swap else (first, second)

    def _join(self, stays: Array, moved: Array) -> Array:
        first, second = (moved, stays) if self.swap else (stays, moved)
        if self.mask != "alternate":
            return jnp.concatenate([first, second], axis=-1)
        # Interleaved: each is spread by a zero after every number, one of them shifted, and the two added.
        even = first.shape[1] == second.shape[1]
        spread = jax.lax.pad(first, jnp.zeros((), first.dtype), [(0, 0, 0), (0, int(even), 1)])
        return spread + jax.lax.pad(second, jnp.zeros((), second.dtype), [(0, 0, 0), (1, int(not even), 1)])

    def _white(self, shape: Shape) -> Array:
        """Which pixels move, [B, H, W, C]."""
        row, column = np.indices(shape[1:3])
        return jnp.broadcast_to(jnp.asarray((row + column) % 2 == int(not self.swap))[None, :, :, None], shape)


@register("bijector", "additive_coupling")
@dataclasses.dataclass(frozen=True)
class AdditiveCoupling(Coupling):
    """NICE's coupling z_b = x_b + t(x_a), which keeps volumes (Dinh et al. 2015, eq. 8)."""

    reference: ClassVar[str] = DINH_2015

    @property
    def numbers(self) -> int:
        """A shift."""
        return 1

    def move(self, x: Array, h: Array) -> tuple[Array, Array]:
        """Adds the shift."""
        return x + h[..., 0, :], jnp.zeros_like(x)

    def move_back(self, z: Array, h: Array) -> tuple[Array, Array]:
        """Subtracts the shift."""
        return z - h[..., 0, :], jnp.zeros_like(z)


@register("bijector", "affine_coupling")
@dataclasses.dataclass(frozen=True)
class AffineCoupling(Coupling):
    """RealNVP's coupling z_b = x_b exp(s(x_a)) + t(x_a) (Dinh et al. 2017, eq. 7 and 8).

    Attributes:
        scale: what keeps s from running away: "tanh", s = bound tanh(h / bound), as RealNVP; or "sigmoid",
            exp(s) = sigmoid(h + 2), as the published code of Glow, where every layer starts by shrinking.
        bound: the largest |s| of "tanh".
    """

    scale: str = "tanh"
    bound: float = 2.0
    reference: ClassVar[str] = DINH_2017

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.scale in SCALES, f"scale = {self.scale!r}{nearest(self.scale, SCALES)}")
        require(self.bound > 0, f"bound = {self.bound}: must be above 0")

    @property
    def numbers(self) -> int:
        """A logarithm of a scale, and a shift."""
        return 2

    def _log_scale(self, h: Array) -> Array:
        if self.scale == "sigmoid":
            return jax.nn.log_sigmoid(h + 2.0)
        return self.bound * jnp.tanh(h / self.bound)

    def move(self, x: Array, h: Array) -> tuple[Array, Array]:
        """Scales and shifts."""
        log_scale = self._log_scale(h[..., 0, :])
        return x * jnp.exp(log_scale) + h[..., 1, :], log_scale

    def move_back(self, z: Array, h: Array) -> tuple[Array, Array]:
        """Undoes the shift, then the scale."""
        log_scale = self._log_scale(h[..., 0, :])
        return (z - h[..., 1, :]) * jnp.exp(-log_scale), -log_scale


@register("bijector", "spline_coupling")
@dataclasses.dataclass(frozen=True)
class SplineCoupling(Coupling):
    """Coupling by monotone rational-quadratic splines with linear tails (Durkan et al. 2019, section 3).

    Attributes:
        bins: pieces of each spline.
        bound: the splines are on [-bound, bound]; beyond that a number stays what it is.
    """

    bins: int = 8
    bound: float = 3.0
    reference: ClassVar[str] = DURKAN

    def __post_init__(self) -> None:
        super().__post_init__()
        require(2 <= self.bins <= 500, f"bins = {self.bins}: must be from 2 to 500")
        require(self.bound > 0, f"bound = {self.bound}: must be above 0")

    @property
    def numbers(self) -> int:
        """Widths and heights of the bins, and the derivatives between them."""
        return 3 * self.bins - 1

    def move(self, x: Array, h: Array) -> tuple[Array, Array]:
        """Applies the splines."""
        return rational_quadratic(x, h, self.bound)

    def move_back(self, z: Array, h: Array) -> tuple[Array, Array]:
        """Applies the inverse splines."""
        return rational_quadratic(z, h, self.bound, inverse=True)
