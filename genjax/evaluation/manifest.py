"""What a figure was measured on: without it two distances do not compare."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from genjax import __version__
from genjax.config import nearest, require


@dataclasses.dataclass(frozen=True, kw_only=True)
class Provenance:
    """How a set of samples came about.

    Attributes:
        dataset: name of the data set that the samples imitate.
        split: the split that they are compared with.
        seed: of the samples.
        checkpoint_step: training step of the weights.
        ema: whether the weights are the averaged ones.
        ema_width: the width (sigma_rel) of an average that was made after the training; None for the training's own.
        resize: how images were brought to the feature network's size; "none" where they were not.
        solver: the solver's config, `dict(name=..., **kwargs)`; None for a family that has none, as a GAN.
        times: the time grid's config.
        steps: solver steps.
        final: what the sampler does at the last time.
        guidance: the guidance's config; None without guidance.
    """

    dataset: str
    split: str
    seed: int
    checkpoint_step: int
    ema: bool
    ema_width: float | None = None
    resize: str = "none"
    solver: Mapping[str, Any] | None = None
    times: Mapping[str, Any] | None = None
    steps: int | None = None
    final: str | None = None
    guidance: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _plain(field.name, getattr(self, field.name)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest(Provenance):
    """Everything that a figure depends on.

    Attributes:
        feature_network: registered name of the feature network; None for points, which need none.
        feature_network_hash: SHA-256 of its weights.
        n: number of samples in the distance.
        n_reference: number of images that they are compared with.
        genjax_version: version of this library.
    """

    feature_network: str | None
    feature_network_hash: str | None
    n: int
    n_reference: int
    genjax_version: str = __version__

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Returns the manifest that `to_dict` gave.

        Raises:
            ValueError: an unknown or a missing key.
        """
        defaults = {field.name: field.default for field in dataclasses.fields(cls)}
        for key in values:
            require(key in defaults, f"manifest: unknown key {key!r}{nearest(key, defaults)}")
        for key, default in defaults.items():
            require(key in values or default is not dataclasses.MISSING, f"manifest: missing key {key!r}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, ready for JSON."""
        return dataclasses.asdict(self)


def _plain(name: str, value: Any) -> Any:
    """Returns a value as JSON would give it back, so that a manifest equals itself after a round trip."""
    if hasattr(value, "items"):
        return {str(key): _plain(name, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(name, item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    require(value is None or isinstance(value, bool | int | float | str), f"{name} = {value!r}: is no plain value")
    return value
