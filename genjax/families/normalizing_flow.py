"""Normalizing flows: an invertible network from data to standard normal noise, trained by its exact likelihood."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from genjax.bijectors import Bijector, merge_fixed, split_fixed
from genjax.bijectors.base import output_shape, sum_example
from genjax.bijectors.planar import REZENDE
from genjax.config import component, require
from genjax.families import normal
from genjax.families.base import (
    Aux,
    Batch,
    DataSpec,
    Extra,
    Keys,
    Params,
    Phase,
    State,
    check_data,
    check_image_shape,
    conditions,
)
from genjax.registry import register
from genjax.sampling.keys import normal_like, sample_keys

MODEL = "model"  # the one role
FIXED = "fixed"  # in `extra`: what the bijector keeps of the first batch, and what nothing trains
READY = "ready"  # in `extra`: whether there was a first batch, bool []
_LEVELS = 256


@register("family", "normalizing_flow")
@dataclasses.dataclass(frozen=True)
class NormalizingFlow:
    """Normalizing flow: log p(x) = log N(f(x); 0, I) + log|det df/dx|, exactly (Rezende & Mohamed 2015, eq. 6).

    The figures are `nll_bpd` of 8-bit images, by uniform dequantization, which is a bound from above on the bits a
    dimension (Theis et al. 2016, section 3.1), and `nll` of real data, exact and in nats. `loss` is the one or the
    other.

    Layers that a first batch initializes (`ActNorm`) see the first batch of the first step, before its gradient. What
    they take from it is no weight but part of `extra`, so that it is neither trained, averaged nor decayed; a batch
    that is computed in parts gives its first part.

    Attributes:
        image_shape: (H, W, C).
        bijector: from data in [-1, 1] to noise.
        dequantize: whether the data are 8-bit images, to which noise within a level is added, or real numbers.
        bits: to how many bits an 8-bit pixel is cut before that, as Glow does for CelebA. Within the levels of those
            bits the 8-bit values are equally likely, so `nll_bpd` is of 8-bit images all the same: 8 - bits more than
            of the images that were cut.
        condition: names of the batch's entries that the conditioners see, such as ("label",).
        temperature: standard deviation of the noise that it generates from.
    """

    image_shape: tuple[int, int, int]
    bijector: Bijector = component("bijector")
    dequantize: bool = True
    bits: int = 8
    condition: tuple[str, ...] = ()
    temperature: float = 1.0
    reference: ClassVar[str] = REZENDE

    def __post_init__(self) -> None:
        check_image_shape(self.image_shape)
        require(1 <= self.bits <= 8, f"bits = {self.bits}: must be from 1 to 8")
        require(
            self.bits == 8 or self.dequantize, f"bits = {self.bits}, but dequantize = False: real numbers have none"
        )
        require(self.temperature >= 0, f"temperature = {self.temperature}: must be at least 0")

    def check(self, spec: DataSpec) -> None:
        """Raises ValueError where the data do not fit the model; compiles nothing."""
        declared = {c.num_classes for c in _parts(self.bijector) if getattr(c, "num_classes", None) is not None}
        for number in declared or {None}:
            check_data(spec, self.image_shape, self.condition, {"conditioner": number})
        require(
            self.dequantize == (spec.levels is not None),
            f"dequantize = {self.dequantize}, but the data are "
            + ("real numbers" if spec.levels is None else f"pixels of {spec.levels} levels"),
        )
        shapes = jax.eval_shape(lambda key: self._init(key), jax.random.key(0))
        example = jax.ShapeDtypeStruct((2, *self.image_shape), jnp.float32)
        jax.eval_shape(lambda params, x: self.bijector.forward(params, x, self._example(2)), shapes, example)

    def _example(self, n: int) -> Any:
        return {name: jnp.zeros((n,), jnp.int32) for name in self.condition} or None

    def _init(self, key: Array) -> Params:
        return self.bijector.init(key, self.image_shape, self._example(1))

    def init(self, key: Array, spec: DataSpec) -> tuple[dict[str, Params], Extra]:
        """Returns the initial parameters of the role "model", and what is kept beside them."""
        trained, fixed = split_fixed(self._init(key))
        return {MODEL: trained}, {FIXED: fixed, READY: jnp.zeros((), bool)} if fixed else {}

    def phases(self) -> tuple[Phase, ...]:
        """Returns the one phase, which trains the role "model"."""
        return (Phase("train", MODEL, self._loss),)

    def log_prob(self, params: dict[str, Params], x: Array, cond: Any = None) -> Array:
        """Returns the exact log-density of real numbers [B, H, W, C], in nats [B].

        Args:
            params: as in `generate`.
            x: the data. Of images, what `to_reals` makes of them.
            cond: the conditions by name, or None.
        """
        z, log_det = self.bijector.forward(_whole(params), x, cond)
        return sum_example(normal.log_density(z)) + log_det

    def to_reals(self, images: Array, keys: Array) -> Array:
        """Returns 8-bit images [B, H, W, C], given in [-1, 1], as real numbers: cut to `bits`, plus uniform noise.

        The intervals of the levels, each 2^(1 - bits) long, fill [-1, 1].

        Args:
            images: x / 127.5 - 1 of pixels x from 0 to 255.
            keys: one key an example [B].
        """
        noise = jax.vmap(lambda key: jax.random.uniform(key, images.shape[1:]))(keys)
        level = jnp.floor((jnp.round((images + 1.0) * 127.5) + 0.5) * (self._levels / _LEVELS))
        return (level + noise) * (2.0 / self._levels) - 1.0

    def to_images(self, x: Array) -> Array:
        """Returns real numbers [B, H, W, C] as images in [-1, 1]: their levels, from black to white. Points stay."""
        level = jnp.floor((x + 1.0) * (self._levels / 2))
        return level * (2.0 / (self._levels - 1)) - 1.0 if self.dequantize else x

    def generate(self, params: dict[str, Params], key: Array, n: int, cond: Any = None) -> Array:
        """Returns n images [n, H, W, C] in [-1, 1], but for what the flow overshoots; or points."""
        shape = output_shape(self.bijector, _whole(params), self.image_shape, self._example(1))
        z = self.temperature * normal_like(sample_keys(key, n), jnp.zeros((n, *shape)))
        return self.decode(params, z, conditions(cond, self.condition))

    def decode(self, params: dict[str, Params], z: Array, cond: Any = None) -> Array:
        """Returns the images, or points, [B, H, W, C] of noise [B, ...] in the shape that the bijector makes."""
        return self.to_images(self.bijector.inverse(_whole(params), z, cond)[0])

    def evaluate(self, params: dict[str, Params], batch: Batch, key: Array) -> dict[str, Array]:
        """Returns `loss` and `nll_bpd`, or `nll` where the data are real numbers, of each example [B]."""
        keys = Keys.of(key, len(batch["image"])).each
        cost = self._cost(_whole(params), self._data(batch, keys), conditions(batch, self.condition))
        return {"loss": cost, "nll_bpd" if self.dequantize else "nll": cost}

    def pictures(self, params: dict[str, Params], batch: Batch, key: Array) -> dict[str, Array]:
        """Returns "interpolations" between pairs of held-out images through the noise, [rows, 8, H, W, C].

        Along great circles, so that all between has the length of noise; each row has the conditions of its first.
        """
        rows = len(batch["image"]) // 2
        if not self.dequantize or rows == 0:
            return {}
        whole, cond = _whole(params), {name: batch[name][:rows] for name in self.condition} or None
        x = self._data(batch, Keys.of(key, len(batch["image"])).each)
        first, last = (self.bijector.forward(whole, x[i * rows : (i + 1) * rows], cond)[0] for i in range(2))

        def between(share: Array) -> Array:
            return self.decode(params, _great_circle(first, last, share), cond)

        return {"interpolations": jax.lax.map(between, jnp.linspace(0.0, 1.0, 8)).swapaxes(0, 1)}

    @property
    def _levels(self) -> int:
        return 2**self.bits

    def _data(self, batch: Batch, keys: Array) -> Array:
        return self.to_reals(batch["image"], keys) if self.dequantize else batch["image"]

    def _cost(self, params: Params, x: Array, cond: Any) -> Array:
        """Nats an example [B] of real data; bits a dimension, as 8-bit images, of those that were dequantized."""
        z, log_det = self.bijector.forward(params, x, cond)
        nats = -sum_example(normal.log_density(z)) - log_det
        if not self.dequantize:
            return nats
        # An 8-bit value has 2 / 256 of the interval, whatever the bits that it was cut to.
        return nats / (math.log(2.0) * math.prod(self.image_shape)) + math.log2(_LEVELS / 2)

    def _loss(self, params: Params, state: State, batch: Batch, keys: Keys) -> tuple[Array, Aux]:
        x, cond, extra = self._data(batch, keys.each), conditions(batch, self.condition), state.extra
        if not extra:
            return self._cost(params, x, cond).mean(), Aux({})

        def from_data() -> Params:
            start = jax.lax.stop_gradient(merge_fixed(params, extra[FIXED]))
            return split_fixed(self.bijector.from_data(start, x, cond)[0])[1]

        fixed = jax.lax.cond(extra[READY], lambda: extra[FIXED], from_data)
        cost = self._cost(merge_fixed(params, fixed), x, cond).mean()
        return cost, Aux({}, {**extra, FIXED: fixed, READY: jnp.ones((), bool)})


def _parts(built: Any) -> Iterator[Any]:
    """Yields a component and all the components in its fields."""
    yield built
    for field in dataclasses.fields(built):
        value = getattr(built, field.name, None)
        for part in value if isinstance(value, tuple) else (value,):
            if "kind" in field.metadata and part is not None:
                yield from _parts(part)


def _whole(params: dict[str, Params]) -> Params:
    """The bijector's parameters, from those that are trained and what `extra` holds."""
    return merge_fixed(params[MODEL], params.get(FIXED, {}))


def _great_circle(first: Array, last: Array, share: Array) -> Array:
    """Returns what lies between two batches [B, ...] at a share [] of the way, along great circles (Shoemake 1985)."""
    one, other = first.reshape(len(first), -1), last.reshape(len(last), -1)
    cosine = (one * other).sum(1) / (jnp.linalg.norm(one, axis=1) * jnp.linalg.norm(other, axis=1))
    angle = jnp.arccos(jnp.clip(cosine, -0.9999, 0.9999))[:, None]
    mixed = (jnp.sin((1.0 - share) * angle) * one + jnp.sin(share * angle) * other) / jnp.sin(angle)
    return mixed.reshape(first.shape)
