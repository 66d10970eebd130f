"""What a network is to the rest of the library, and what the networks share: presets, checks, the parameter count."""

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from genjax.config import nearest, require

ImageShape = tuple[int, int, int]  # height, width, channels
# {"label": [B] int32}, -1 for the null class; None is null for all. Beside it there may be `PERTURBED_ATTENTION`.
Condition = Mapping[str, Any] | None
# {layer: [B] bool}: the samples for which a self-attention layer has the identity in the place of its attention map.
PERTURBED_ATTENTION = "perturbed_attention"

DTYPES = ("float32", "bfloat16", "float16")


class Network(Protocol):
    """The contract of a network. Linen modules, hashable, with parameters in float32.

    `init(key, x, noise_label, cond)["params"]` gives the parameters, and
    `apply({"params": params}, x, noise_label, cond, dropout=None)` the output [B, H, W, C] float32.
    `x` is [B, H, W, C] float32; `noise_label` [B] float32 is what the parameterization gives; `cond` is
    `{"label": [B] int32}` or None, with an entry [B] float32 for each of the network's `scalars`; where its entry
    "perturbed_attention" names a layer that the network has not, it raises ValueError. `dropout` is one key an example
    [B], so that an example meets the same dropout in any batch; None is for no dropout.
    """

    def check(self, image_shape: ImageShape) -> None:
        """Raises ValueError, in one line and before anything is compiled, unless the network takes such images."""
        ...

    def init(self, rngs: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns `{"params": ...}`."""
        ...

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns the output [B, H, W, C] float32."""
        ...


def labels(cond: Condition, n: int) -> Array:
    """Returns the classes of n examples, int32 [n]; -1, the null class, where the condition has none."""
    return jnp.full((n,), -1, jnp.int32) if cond is None or "label" not in cond else cond["label"]


def given_by_family(default: Any) -> Any:
    """A field that no config can set."""
    return dataclasses.field(default=default, metadata={"internal": True})


def from_preset() -> Any:
    """A field that the preset's row fills unless the config gives it."""
    return dataclasses.field(default=None)


def fill_from_preset(network: Any, presets: Mapping[str, Mapping[str, Any]], name: str) -> None:
    """Fills the fields that are None from one row of a table of presets. For a module's `__post_init__`.

    Raises:
        ValueError: there is no such preset.
    """
    require(name in presets, f"there is no preset {name!r}{nearest(str(name), presets)}")
    for key, value in presets[name].items():
        if getattr(network, key) is None:
            setattr(network, key, value)


def require_one_of(field: str, value: str, among: Collection[str]) -> None:
    """Raises ValueError, with the nearest valid spelling, unless the value of a field is one of the names."""
    require(value in among, f"{field} = {value!r}{nearest(str(value), among)}")


def split_perturbed(cond: Condition, layers: Collection[str]) -> tuple[Condition, Mapping[str, Array]]:
    """Splits a condition into that which conditions and the layers whose self-attention is perturbed.

    Args:
        cond: the condition.
        layers: names of the network's self-attention layers.

    Returns:
        The condition without the request, None where nothing is left; and `{layer: [B] bool}`.

    Raises:
        ValueError: the request names a layer that the network has not.
    """
    if cond is None or PERTURBED_ATTENTION not in cond:
        return cond, {}
    for layer in cond[PERTURBED_ATTENTION]:
        require(
            layer in layers,
            f"perturbed attention: this network has no self-attention layer {layer!r}{nearest(layer, layers)}",
        )
    return {key: value for key, value in cond.items() if key != PERTURBED_ATTENTION} or None, cond[PERTURBED_ATTENTION]


def check_common(dtype: str, dropout: float, num_classes: int | None, out_channels: int | None) -> None:
    """Checks the fields that every network has.

    Raises:
        ValueError: one of them is out of range.
    """
    require_one_of("dtype", dtype, DTYPES)
    require(0 <= dropout < 1, f"dropout = {dropout}: must be in [0, 1)")
    require(num_classes is None or num_classes >= 1, f"num_classes = {num_classes}: must be None or at least 1")
    require(out_channels is None or out_channels >= 1, f"out_channels = {out_channels}: must be None or at least 1")


def check_image_shape(image_shape: ImageShape) -> None:
    """Raises ValueError unless the shape is (height, width, channels), each at least 1."""
    shape = tuple(image_shape)
    require(len(shape) == 3 and min(shape) >= 1, f"image shape {shape}: must be (height, width, channels)")


def param_shapes(network: Network, image_shape: ImageShape) -> Any:
    """Returns the tree of parameters as `jax.ShapeDtypeStruct`; nothing is computed or compiled.

    Raises:
        ValueError: the network does not take images of this shape.
    """
    network.check(image_shape)
    x = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    noise_label = jax.ShapeDtypeStruct((1,), jnp.float32)
    cond = {name: noise_label for name in getattr(network, "scalars", ())} or None
    variables = jax.eval_shape(network.init, jax.random.key(0), x, noise_label, cond)
    return variables["params"]


def count(network: Network, image_shape: ImageShape) -> int:
    """Returns the number of parameters, by shape evaluation alone.

    Raises:
        ValueError: the network does not take images of this shape.
    """
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(param_shapes(network, image_shape)))
