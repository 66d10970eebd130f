"""What a model family is to the training loop: its phases, how it generates, how it is scored.

A family is a frozen dataclass. It never sees an optimizer or a loop; the loop never sees its name.
"""

import dataclasses
import types
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from genjax.config import require

Params = Any  # a pytree of float32 arrays
Extra = dict[str, Any]  # trees that a family carries from step to step beside its weights, by names that no role has
# "image" [B, H, W, C], in [-1, 1] where pixels have levels; "label" [B] int32 where there are labels; anything else.
Batch = Mapping[str, Array]


class Keys(NamedTuple):
    """The random keys of one phase in one step.

    What is drawn for an example comes from its own key, so that an example meets the same numbers whether the batch is
    computed whole or part by part.

    Attributes:
        shared: one key [], the same in every part of a batch.
        each: one key an example [B].
        place: where each example stands in the whole batch, its number over the batch's size [B], float32 in [0, 1).
    """

    shared: Array
    each: Array
    place: Array

    @classmethod
    def of(cls, key: Array, n: int) -> "Keys":
        """Returns the keys of a whole batch of n examples: `fold_in(key, i)` for example i."""
        index = jnp.arange(n)
        return cls(key, jax.vmap(jax.random.fold_in, (None, 0))(key, index), index.astype(jnp.float32) / n)

    def split(self, n: int) -> "list[Keys]":
        """Returns n independent sets of keys."""
        shared, each = jax.random.split(self.shared, n), jax.vmap(lambda key: jax.random.split(key, n))(self.each)
        return [Keys(shared[i], each[:, i], self.place) for i in range(n)]


class Mean(NamedTuple):
    """A metric that is a mean over what need not be in every batch, such as the examples of one noise level.

    Attributes:
        total: the sum, float32 [].
        weight: of how many, float32 []; 0 where there was nothing to measure.
    """

    total: Array
    weight: Array


class Aux(NamedTuple):
    """What a loss returns beside its value: metrics, and a new `state.extra` where it changes that.

    A metric is a mean over the batch, [], or a `Mean` where it is one over something else.
    """

    metrics: Mapping[str, Array | Mean]
    extra: Extra | None = None


class State(Protocol):
    """What a loss may read of the training state."""

    step: Array
    params: dict[str, Params]
    ema: dict[str, Params]
    extra: Extra


@dataclasses.dataclass(frozen=True)
class Phase:
    """One gradient of one training step.

    Attributes:
        name: prefix of its metrics.
        trains: the role, a key of `state.params`, that gets the gradient.
        loss: `loss(params, state, batch, keys) -> (scalar, Aux)`, a mean over the batch's examples; `params` is the
            trained role's tree, by which the loss is differentiated. The trees of other roles are read from
            `state.params`.
        repeat: updates in one step, each with a key and a batch of its own (critic steps of a GAN). A step reads as
            many batches as its most repeated phase has updates; the i-th update of every phase gets the i-th of them.
        every: the phase runs in the steps that this divides (lazy regularization).
    """

    name: str
    trains: str
    loss: Callable[[Params, State, Batch, Keys], tuple[Array, Aux]]
    repeat: int = 1
    every: int = 1

    def __post_init__(self) -> None:
        require("/" not in self.name, f"name = {self.name!r}: must not have a '/', which ends it in names of metrics")
        require(self.repeat >= 1, f"repeat = {self.repeat}: must be at least 1")
        require(self.every >= 1, f"every = {self.every}: must be at least 1")


class DataSpec(Protocol):
    """What a family may know of the data before it sees any."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        ...

    @property
    def num_classes(self) -> int | None:
        """How many classes the labels have; None where the data have no labels."""
        ...

    @property
    def levels(self) -> int | None:
        """How many values a pixel can have; None for data that are real numbers."""
        ...

    @property
    def second(self) -> "DataSpec | None":
        """The description of `image_b`, where a batch has images of two sources that are not paired; else None."""
        ...


def check_image_shape(image_shape: tuple[int, ...]) -> None:
    """Raises ValueError unless a model's `image_shape` is (height, width, channels), each at least 1."""
    require(
        len(image_shape) == 3 and min(image_shape) >= 1,
        f"image_shape = {image_shape}: must be (height, width, channels)",
    )


def check_data(
    spec: DataSpec,
    image_shape: tuple[int, ...],
    condition: Collection[str] = (),
    classes: Mapping[str, int | None] = types.MappingProxyType({}),
) -> None:
    """Raises ValueError unless the data are what a model is made for.

    Args:
        spec: the data.
        image_shape: the model's.
        condition: names of the batch's entries that condition it.
        classes: how many classes each of its networks knows, by the name of its field.
    """
    require(
        tuple(spec.image_shape) == tuple(image_shape),
        f"image_shape = {tuple(image_shape)}, but the data have {tuple(spec.image_shape)}",
    )
    if "label" not in condition:
        return
    require(spec.num_classes is not None, "condition = ('label',), but the data have no labels")
    for name, declared in classes.items():
        require(
            declared == spec.num_classes,
            f"{name}.num_classes = {declared}, but the data have {spec.num_classes} classes",
        )


def conditions(batch: Mapping[str, Any] | None, names: Collection[str]) -> Any:
    """Returns the entries of a batch that condition a model, by name; None where there are none, or no batch.

    What else there is, such as a label that the model ignores, stays out.
    """
    return None if batch is None else {name: batch[name] for name in names} or None


def generates(family: "Family") -> bool:
    """Whether a family makes images, as all do but those that say `generates = False`, such as classifiers."""
    return bool(getattr(family, "generates", True))


class Family(Protocol):
    """The contract of a model family."""

    @property
    def condition(self) -> tuple[str, ...]:
        """Names of the batch's entries that `generate` takes as conditions; empty for an unconditional model."""
        ...

    def check(self, spec: DataSpec) -> None:
        """Raises ValueError where the data do not fit the model; compiles nothing."""
        ...

    def init(self, key: Array, spec: DataSpec) -> tuple[dict[str, Params], Extra]:
        """Returns the initial parameters by role, and the initial `extra`."""
        ...

    def phases(self) -> tuple[Phase, ...]:
        """Returns the gradients of one step, in the order in which they are taken."""
        ...

    def generate(self, params: dict[str, Params], key: Array, n: int, cond: Any = None) -> Array:
        """Returns n images [n, H, W, C], in [-1, 1] but for what a model overshoots.

        Image i depends on (key, i) and its condition alone; `key` may be one key a sample [n], see
        `genjax.sampling.sample_keys`. `params` has the averages in the place of the weights, where a role has them, and
        beside the roles all that `extra` has.
        """
        ...

    def evaluate(self, params: dict[str, Params], batch: Batch, key: Array) -> dict[str, Array]:
        """Returns figures per example [B] by name; `params` is as in `generate`.

        What is called `loss`, `mse` or `cycle` is the smaller the better. `nll`, `elbo` and `iwae` are a log-likelihood
        with its sign turned or not, and bounds of it from below, in nats an example; `nll_bpd`, `elbo_bpd` and
        `iwae_bpd` are what 8-bit images cost in bits a dimension, the latter two bounds of it from above.
        """
        ...
