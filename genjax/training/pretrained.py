"""Teachers: trained models by their run folders, and untrained ones to try out what needs a teacher."""

import dataclasses
import pathlib
from typing import Any

import jax

from genjax.config import ConfigError, build, component, require
from genjax.data.base import DataSpec
from genjax.families.base import Params
from genjax.registry import register
from genjax.training import run_folder
from genjax.training.checkpoints import DIRECTORY, restore_params


@register("teacher", "run")
@dataclasses.dataclass(frozen=True)
class PretrainedRun:
    """The model of a run folder.

    Attributes:
        workdir: the folder.
        checkpoint: training step of the weights; None for the newest.
        ema: whether the averages are taken where there are any.
        family: the model. It is read from the folder and kept in the config that this is part of, so that the folder
            is needed only when training begins.
    """

    workdir: str
    checkpoint: int | None = None
    ema: bool = True
    family: Any = component("family", None)

    def __post_init__(self) -> None:
        if self.family is None:
            try:
                config = run_folder.read_config(self.workdir)
            except ConfigError as error:
                raise ValueError(f"{error}; train that run first, or name another by `workdir`") from error
            object.__setattr__(self, "family", build("family", config["family"], f"{self.workdir}: config.family"))

    def load(self) -> dict[str, Params]:
        """Reads the weights by role and all of `extra` beside them.

        Raises:
            ConfigError: there is no such checkpoint, or it is damaged.
        """
        return restore_params(pathlib.Path(self.workdir) / DIRECTORY, self.checkpoint, ema=self.ema)[0]


@register("teacher", "untrained")
@dataclasses.dataclass(frozen=True)
class Untrained:
    """A model that knows nothing, with random weights: to try out in seconds what takes a trained one.

    Attributes:
        family: the model.
        seed: of the weights.
    """

    family: Any = component("family")
    seed: int = 0

    def __post_init__(self) -> None:
        require(hasattr(self.family, "image_shape"), "family: must be one with an image_shape")

    def load(self) -> dict[str, Params]:
        """Draws the weights."""
        params, extra = self.family.init(jax.random.key(self.seed), DataSpec(self.family.image_shape, None, 1))
        return {**extra, **params}
